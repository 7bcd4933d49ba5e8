"""Making a Plan: settings, presets, cost, the probe, and the choice of settings for a byte budget."""

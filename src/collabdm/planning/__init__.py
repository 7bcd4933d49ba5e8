"""Making a Plan: settings, presets, cost, probe, and the settings for a byte budget."""

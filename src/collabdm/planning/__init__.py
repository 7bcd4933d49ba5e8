"""Make plans: combine settings and presets, fit a byte budget, estimate costs, add the probe."""

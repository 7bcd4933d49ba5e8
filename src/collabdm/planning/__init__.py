"""Make a Plan from settings and presets, estimate its cost, and add its probe."""

"""TODO matching."""

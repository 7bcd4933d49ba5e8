"""TODO flower."""

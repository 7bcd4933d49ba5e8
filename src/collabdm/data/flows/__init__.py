"""TODO data/flows."""

"""TODO lab/reproduce."""

"""Experiments: simulated rounds, their scores, and grids that reproduce published tables."""

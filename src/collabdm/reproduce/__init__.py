"""Published tables and figures, made again: grids of simulated rounds, run, resumed, merged and set beside the paper.

grid (TOML) -> cells -> one record each (JSON lines) -> findings: ours, the paper's, the difference
"""

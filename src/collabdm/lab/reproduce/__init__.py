"""Reproduce published tables and figures, cell by cell.

A cell is one simulated round; a grid contains all cells of one table or figure.

- `grid_files` reads grids from TOML files; `grids` defines a Grid and lists its cells.
- `running` runs the missing cells in order, and `cell_runner` runs one cell.
- `records` stores the result of each cell as a line of JSON; `grid_results` computes the means.
- `shipped` finds grids by name, and the records that ship with them; `selection` selects cells.
- `reuse` copies contributions between cells; `timing` measures and estimates the time of cells.
"""

"""Reproduce published tables and figures, cell by cell.

    TOML file -> `grid_files` -> `grids`: Grid, cells
    cells     -> `running`: the missing ones, in order -> `cell_runner`: one simulation each
              -> `records`: a line of JSON for each -> `grid_results`: means over seeds

`reuse` copies contributions between cells, `timing` measures and estimates their time.
"""

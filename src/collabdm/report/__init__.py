"""Write reports: one self-contained HTML page, and a folder with its plots as SVG and PNG.

    folders of rounds        -> `rounds` -> `round_plots` -> `round_page`
    folder of `reproduce`    -> `grid_summary` -> `grid_plots` -> `grid_page`

`figures` draws with matplotlib, `html` fills the templates. Nothing is recomputed: the pages
show the contents of documents and results.
"""

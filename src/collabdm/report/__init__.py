"""Reports: one HTML page with everything inside, and its plots as SVG and PNG beside it.

    folders of rounds        -> `rounds` -> `round_plots` -> `round_page`
    folder of `reproduce`    -> `grid_summary` -> `grid_plots` -> `grid_page`

`figures` draws with matplotlib, `html` fills the templates. Nothing is computed anew: the pages
show the contents of documents and results.
"""

"""What people see of a round: `report`."""

from pathlib import Path
from typing import Annotated

import typer

from collabdm.cli.options import app, check_output, console


@app.command()
def report(
    folders: Annotated[
        list[Path], typer.Argument(metavar="DIR...", help="Folders of rounds or simulations, or one of `reproduce`.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The page.", show_default="report.html in the first folder"),
    ] = None,
) -> None:
    """Show rounds, or tables beside the paper's, on one HTML page that needs no network, with plots as SVG and PNG."""
    from collabdm.report.grid_page import write_grid_page
    from collabdm.report.grid_summary import contains_grids
    from collabdm.report.round_page import write_report

    place = output or folders[0] / "report.html"
    if folders[0].is_dir() or output is not None:
        check_output(place)
    one = len(folders) == 1 and contains_grids(folders[0])
    written = write_grid_page(folders[0], place) if one else write_report(folders, place)
    console.print(f"{place}" + (f", and {len(written) - 1} plots in {place.with_suffix('')}" if written[1:] else ""))

"""What people see of a round: `report`."""

from pathlib import Path
from typing import Annotated

import typer

from collabdm.cli.options import app, check_output, console


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of rounds or simulations.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="The page.", show_default="report.html in the first folder"),
    ] = None,
) -> None:
    """Show rounds on one HTML page that needs no network, with its plots as SVG and PNG beside it."""
    from collabdm.report import write_report  # draws: takes a second to import

    place = output or folders[0] / "report.html"
    if folders[0].is_dir() or output is not None:
        check_output(place)
    written = write_report(folders, place)
    console.print(f"{place}" + (f", and {len(written) - 1} plots in {place.with_suffix('')}" if written[1:] else ""))

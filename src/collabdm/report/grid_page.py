"""Write the page for the results of `collabdm reproduce`, next to the paper's numbers.

    GRID.SCALE.json (the grids) + *.jsonl (records of cells) -> tables, plots, provenance

At the paper's scale, the colour of a number shows whether it reaches the paper's. A smaller scale
has the same columns but no colours, because its numbers are not comparable with the paper's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collabdm.documents.atomic_write import atomic_write
from collabdm.lab.reproduce.grid_results import Entry, GridResults
from collabdm.lab.reproduce.grids import Grid, axis_label, picture_path, pictured_cells
from collabdm.pictures import data_uri
from collabdm.report.figures import write_figures
from collabdm.report.grid_plots import grid_figures
from collabdm.report.grid_summary import (
    commands,
    provenance_rows,
    read_grids,
    row_costs,
    settings_line,
)
from collabdm.report.html import Plot, Table, render
from collabdm.report.page_files import check_page

#: points below the paper's number that still count as reaching it, or two deviations if larger
TOLERANCE = 1.5

SCALES = {
    "paper": "The paper's scale.",
    "cpu": "A small scale for a CPU: fewer and other steps, images, networks and epochs, so not "
    "the paper's numbers.",
}


def write_grid_page(folder: Path, output: Path) -> list[Path]:
    """Write the page, and its plots into a folder of the same name.

    Args:
        folder: A folder that `collabdm reproduce` wrote.
        output: The path of the HTML page.

    Returns:
        The files written, the page first.

    Raises:
        DocumentError: A file that is named like a grid does not contain one.
        DataError: A record is damaged.
    """
    results = read_grids(folder)
    check_page(output, "grids")
    figures = {name: drawn for each in results for name, drawn in grid_figures(each).items()}
    paths, svgs = write_figures(figures, output.with_suffix(""))

    columns = ("machine", "computed in", "versions", "commit", "cells")
    failed = [record for each in results for record in each.records if record.failed]
    content = render(
        "grids.html",
        title="Results beside the paper's",
        kind="grids",
        results=results,
        svgs=svgs,
        pictures={each.grid.slug: read_pictures(folder, each.grid) for each in results},
        origins=Table(columns, provenance_rows(results)),
        errors={record.digest[:16]: record.error for record in failed},
        commands=list(commands(results)),
        **_TEMPLATE_FUNCTIONS,
    )
    atomic_write(output, content)
    return [output, *paths]


def read_pictures(folder: Path, grid: Grid) -> dict[tuple[str, ...], str]:
    """Read the pictures of distilled sets as data URIs, by row and values on the axes."""
    paths = {place: picture_path(folder, cell) for place, cell in pictured_cells(grid).items()}
    return {
        place: data_uri("webp", path.read_bytes()) for place, path in paths.items() if path.exists()
    }


def pictures_of_table(
    grid: Grid, sheet: Mapping[str, str], pictures: Mapping[tuple[str, ...], str]
) -> dict[str, str]:
    """Select the pictures of one table, by row; empty unless every axis has a fixed value.

    Args:
        grid: The grid.
        sheet: The values that the table has on the axes of `tables`.
        pictures: All pictures of the grid.
    """
    at = {**sheet, **(grid.pictures_at or {})}
    if grid.pictures_at is None or set(at) != set(grid.axes):
        return {}

    values = tuple(at[axis] for axis in grid.axes)
    return {row: pictures[row, *values] for row in grid.rows if (row, *values) in pictures}


def plot_of_table(grid: Grid, title: str, svg: str) -> Plot:
    """Add the caption to the plot of one table."""
    at = f" ({axis_label(grid.bytes_at)})" if grid.bytes_at else ""
    against = grid.along or "bytes sent per site, at most"
    return Plot(svg, f"{title or grid.title}{at}: accuracy against {against}")


@dataclass(frozen=True)
class TableCell:
    """A result next to the paper's; `standing` is its CSS class: reached, below or plain."""

    own: Entry
    paper: str
    over_random: str
    standing: str


def table_cell(results: GridResults, row: str, at: Mapping[str, str]) -> TableCell:
    """Format the result of a row next to the paper's; `at` has a value for every axis."""
    own, gap = results.entry(row, at), results.above_paper(row, at)
    published, above = results.grid.published(row, at), results.over_random(row, at)

    paper = ""
    if published is not None:
        paper = f"paper {published.accuracy:.1f}" + ("" if gap is None else f", {gap:+.1f}")

    over_random = "" if above is None else f"{above:+.1f} over random"
    return TableCell(own, paper, over_random, standing(results.grid, own, gap))


def standing(grid: Grid, own: Entry, gap: float | None) -> str:
    """Compare a result with the paper's: `reached`, `below`, or `plain` if not comparable.

    Args:
        grid: The grid.
        own: The result.
        gap: Percentage points above the paper's number; None if it cannot be computed.
    """
    if grid.scale != "paper" or gap is None:
        return "plain"
    return "reached" if gap >= -max(TOLERANCE, 2 * own.std) else "below"


_TEMPLATE_FUNCTIONS: dict[str, Any] = {
    "cell": table_cell,
    "costs": row_costs,
    "columns_of": lambda grid: [axis_label(column) or "accuracy, %" for column in grid.columns],
    "label": axis_label,
    "pictures_of": pictures_of_table,
    "plot_of": plot_of_table,
    "scale_text": SCALES.get,
    "settings_line": settings_line,
}

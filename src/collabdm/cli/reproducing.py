"""Reproduce published tables and figures: find the cells without a result, and run them."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from collabdm.cli.console import Bars, console, table
from collabdm.cli.running import check_output
from collabdm.documents.atomic_write import atomic_write
from collabdm.errors import PlanError, did_you_mean
from collabdm.lab.reproduce.cell_runner import CellRunner
from collabdm.lab.reproduce.grid_files import read_grid
from collabdm.lab.reproduce.grids import Cell, Grid, ordered_cells, picture_path, pictured_cells
from collabdm.lab.reproduce.records import only_writer, read_records
from collabdm.lab.reproduce.running import (
    FinishedCell,
    StartedCell,
    missing,
    run_cells,
    share_out,
)
from collabdm.lab.reproduce.selection import Selection, read_selection
from collabdm.lab.reproduce.shipped import (
    SHIPPED,
    known_grids,
    read_shipped,
    shipped_folder,
    take_shipped,
)
from collabdm.lab.reproduce.timing import TimeEstimates
from collabdm.matching.compute import Compute
from collabdm.planning.option_values import whole_number

REPRODUCED = Path("reproduced")  # the default folder, with a folder for each grid

COMPILE_FROM_CELLS = 20  # with more cells than this, compiling the networks pays off


@dataclass(frozen=True)
class Reproduction:
    """The published tables and figures to reproduce, and the part to run on this machine.

    Attributes:
        grids: the tables and figures, all at one scale.
        output: the folder for the results.
        scale: the name of the scale, `paper` or `cpu`.
        share: which share of the cells this machine runs, counted from 1.
        shares: the number of shares that the cells are divided into.
        retry: whether to run failed cells again.
        selection: the lines and values on axes to run.
        shipped: the folder of records that ship with the grids; None uses none.
    """

    grids: tuple[Grid, ...]
    output: Path
    scale: str
    share: int
    shares: int
    retry: bool
    selection: Selection = Selection()
    shipped: Path | None = None

    @property
    def lines(self) -> Path:
        """The file to which the records of this share are appended."""
        part = f"-{self.share}-of-{self.shares}" if self.shares > 1 else ""
        return self.output / f"{self.scale}{part}.jsonl"


@dataclass(frozen=True)
class CellChoice:
    """The options of `reproduce` that choose cells.

    Attributes:
        part: this machine's share, such as `1/3`; None means all cells.
        retry: whether to run failed cells again.
        lines: names of lines, separated by commas; None means all.
        where: restrictions of axes, such as `data=CIFAR-10`.
        fresh: whether to run cells whose records ship with the grids.
    """

    part: str | None = None
    retry: bool = False
    lines: str | None = None
    where: tuple[str, ...] = ()
    fresh: bool = False


def read_reproduction(
    names: Sequence[Path], output: Path | None, scale: str, choice: CellChoice = CellChoice()
) -> Reproduction:
    """Read the grids of a reproduction.

    Args:
        names: names of known grids, or TOML files of grids.
        output: the folder for the results; None means a folder in `reproduced`.
        scale: name of a scale.
        choice: the cells to run.

    Returns:
        The reproduction.

    Raises:
        PlanError: If a grid, the share or the selection is invalid.
    """
    known = known_grids(Path())
    grids = tuple(read_grid(_grid_path(name, known), scale) for name in names)
    share, shares = share_of(choice.part)
    selection = read_selection(grids, choice.lines, choice.where)
    shipped = None if choice.fresh else shipped_folder(Path())
    folder = output or REPRODUCED / "+".join(grid.name for grid in grids)
    return Reproduction(grids, folder, scale, share, shares, choice.retry, selection, shipped)


def _grid_path(name: Path, known: Mapping[str, Path]) -> Path:
    """Find the file of a grid by its name or path. Raises PlanError if it is neither."""
    if name.suffix or len(name.parts) > 1 or name.is_file():
        return name
    if str(name) not in known:
        listed = ", ".join(known) or "the TOML files of grids, since no grids are installed"
        nearest = did_you_mean(str(name), known)
        raise PlanError(f"the grid should be one of {listed}; found {str(name)!r}{nearest}")
    return known[str(name)]


def list_grids(scale: str) -> None:
    """Print the known grids with their titles, and how many of their cells have a result.

    Results are those that ship with the grids, and those in the default folders of results.
    """
    known = known_grids(Path())
    if not known:
        raise PlanError(
            "the grids should be in `experiments` of the current repository or installed; found "
            "none: name the TOML file of a grid"
        )

    shipped = shipped_folder(Path())
    records = read_records(shipped) if shipped is not None else {}
    rows = []
    for name, path in known.items():
        grid = read_grid(path, scale)
        cells = {cell.experiment.digest for cell in ordered_cells([grid])}
        own = read_records(REPRODUCED / name)
        done = [
            d for d in cells if any(d in found and not found[d].failed for found in (records, own))
        ]
        rows.append((name, grid.title, f"{len(done):,} of {len(cells):,}"))

    title = f"Tables and figures at the scale `{scale}`"
    console.print(table(title, ("grid", "title", "cells done"), rows, figures=False))
    console.print("run one: collabdm reproduce NAME", soft_wrap=True)


def start(reproduction: Reproduction) -> list[Cell]:
    """Write the grids to the results folder, print what is done, and return the cells to run."""
    output, scale = reproduction.output, reproduction.scale
    check_output(output / f"{reproduction.grids[0].name}.{scale}.json")
    for grid in reproduction.grids:
        content = grid.model_dump_json(indent=1) + "\n"
        atomic_write(output / f"{grid.name}.{scale}.json", content.encode())

    cells = [
        cell for cell in ordered_cells(reproduction.grids) if reproduction.selection.allows(cell)
    ]
    _take_shipped(reproduction, cells)
    records = read_records(output)
    own = share_out(cells, reproduction.shares)[reproduction.share - 1]
    left = missing(own, records, reproduction.retry)

    total = len({cell.experiment.digest for cell in cells})
    undone = len(missing(cells, records, reproduction.retry))
    time = time_estimate(*TimeEstimates(records.values()).total(left), len(left))
    chosen = "chosen cells" if reproduction.selection else "cells"
    console.print(
        f"{total - undone} of {total} {chosen} are done; {len(left)} to run here, {time}",
        soft_wrap=True,
    )
    if errors := len(missing(cells, records, retry=True)) - undone:
        console.print(f"{errors} failed before: `--retry` runs them again")
    return left


def _take_shipped(reproduction: Reproduction, cells: Sequence[Cell]) -> None:
    """Copy the records that ship with the grids, and print their number."""
    shipped, output = reproduction.shipped, reproduction.output
    if shipped is None:
        return

    take_shipped(shipped, cells, reproduction.grids, output)
    known = read_shipped(output)
    used = len({cell.experiment.digest for cell in cells} & known)
    if used:
        console.print(
            f"{used} results ship with the grids and are used as they are ({SHIPPED}); "
            "`--fresh` in a new folder runs those cells too",
            soft_wrap=True,
        )


def run(
    reproduction: Reproduction,
    cells: list[Cell],
    compute: Compute,
    minutes: float | None,
    quiet: bool,
) -> None:
    """Run cells, and print one line for each.

    Args:
        reproduction: the grids.
        cells: the cells to run, in order.
        compute: where to compute.
        minutes: the time limit, checked between cells; None runs all cells.
        quiet: whether to hide the progress bars.
    """
    compiled = True if len(cells) > COMPILE_FROM_CELLS else None
    compute = Compute(compute.device, compute.precision, compiled=compiled)
    pictures = {
        cell.experiment.digest: picture_path(reproduction.output, cell)
        for grid in reproduction.grids
        for cell in pictured_cells(grid).values()
    }

    writer = only_writer(reproduction.lines)
    with writer, tempfile.TemporaryDirectory() as folder, Bars(quiet) as bars:
        runner = CellRunner(Path(folder), compute, bars, pictures)
        limit = float("inf") if minutes is None else minutes
        for done in run_cells(cells, reproduction.lines, runner, limit, print_start):
            print_cell(done)


def share_of(text: str | None) -> tuple[int, int]:
    """Parse a share: `1/3` gives (1, 3), the first of three shares; None gives (1, 1).

    Raises PlanError if the text is not a share.
    """
    first, _, second = (text or "1/1").partition("/")
    share, shares = whole_number(first), whole_number(second)
    if share is None or shares is None or not 1 <= share <= shares:
        raise PlanError(f"`--part` should be one of several shares, such as 1/3; found {text!r}")
    return share, shares


def print_start(started: StartedCell) -> None:
    """Print which cell runs now, how long it will take, and how long all the rest."""
    alone = "time not known" if started.seconds is None else duration(started.seconds)
    whole = time_estimate(*started.time_left, started.cells - started.number + 1)
    rest = "" if started.number == started.cells else f"; with the rest: {whole}"
    console.print(
        f"{started.number} of {started.cells}: {started.cell.name}: {alone}{rest}",
        highlight=False,
        soft_wrap=True,
    )


def print_cell(done: FinishedCell) -> None:
    """Print the result of a cell that has just run, and the time left, on one line."""
    seconds = sum(done.record.seconds.values())
    result = done.record.error or f"{100 * main_accuracy(done):.1f} %"
    left = "none left"
    if done.cells_left:
        left = f"{done.cells_left} left, {time_estimate(*done.time_left, done.cells_left)}"
    console.print(
        f"{done.cell.name}: {result} ({seconds:.0f} s); {left}",
        highlight=False,
        soft_wrap=True,
    )


def main_accuracy(done: FinishedCell) -> float:
    """Return the mean accuracy of the networks trained on the cell's first set, its own."""
    accuracies = done.record.scores[0].accuracies
    return sum(accuracies) / len(accuracies)


def time_estimate(seconds: float, unknown: int, cells: int) -> str:
    """Describe how long the remaining cells will take, and how many have no estimate.

    >>> time_estimate(600.0, 2, 9)
    'about 10 min, and 2 without an estimate until one like them has run'

    Args:
        seconds: the total time of the cells with an estimate.
        unknown: the number of cells without an estimate.
        cells: the total number of remaining cells.

    Returns:
        The estimate as a phrase.
    """
    if unknown == cells and cells:
        return "time not known before the first"
    rest = f", and {unknown} without an estimate until one like them has run" if unknown else ""
    return duration(seconds) + rest


def duration(seconds: float) -> str:
    """Describe a time approximately, in a suitable unit.

    >>> duration(7500.0)
    'about 2.1 h'
    """
    if seconds < 90:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"

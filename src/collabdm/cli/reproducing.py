"""Reproduce published tables and figures: find the cells without a result, and run them."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from collabdm.cli.console import Bars, console
from collabdm.cli.running import check_output
from collabdm.documents.atomic_write import atomic_write
from collabdm.errors import PlanError
from collabdm.lab.reproduce.cell_runner import CellRunner
from collabdm.lab.reproduce.grid_files import read_grid
from collabdm.lab.reproduce.grids import Cell, Grid, ordered_cells, picture_path, pictured_cells
from collabdm.lab.reproduce.records import only_writer, read_records
from collabdm.lab.reproduce.running import FinishedCell, missing, run_cells, share_out
from collabdm.lab.reproduce.timing import TimeEstimates
from collabdm.matching.compute import Compute
from collabdm.planning.option_values import whole_number

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
    """

    grids: tuple[Grid, ...]
    output: Path
    scale: str
    share: int
    shares: int
    retry: bool

    @property
    def lines(self) -> Path:
        """The file to which the records of this share are appended."""
        part = f"-{self.share}-of-{self.shares}" if self.shares > 1 else ""
        return self.output / f"{self.scale}{part}.jsonl"


def read_reproduction(
    paths: Sequence[Path], output: Path, scale: str, part: str | None, retry: bool
) -> Reproduction:
    """Read the grids of a reproduction.

    Args:
        paths: TOML files of grids.
        output: the folder for the results.
        scale: name of a scale.
        part: this machine's share, such as `1/3`; None means all cells.
        retry: whether to run failed cells again.

    Returns:
        The reproduction.

    Raises:
        PlanError: If a grid or the share is invalid.
    """
    grids = tuple(read_grid(path, scale) for path in paths)
    share, shares = share_of(part)
    return Reproduction(grids, output, scale, share, shares, retry)


def start(reproduction: Reproduction) -> list[Cell]:
    """Write the grids to the results folder, print what is done, and return the cells to run."""
    output, scale = reproduction.output, reproduction.scale
    check_output(output / f"{reproduction.grids[0].name}.{scale}.json")
    for grid in reproduction.grids:
        content = grid.model_dump_json(indent=1) + "\n"
        atomic_write(output / f"{grid.name}.{scale}.json", content.encode())

    records = read_records(output)
    cells = ordered_cells(reproduction.grids)
    own = share_out(cells, reproduction.shares)[reproduction.share - 1]
    left = missing(own, records, reproduction.retry)

    total = len({cell.experiment.digest for cell in cells})
    undone = len(missing(cells, records, reproduction.retry))
    time = time_estimate(*TimeEstimates(records.values()).total(left), len(left))
    console.print(f"{total - undone} of {total} cells are done; {len(left)} to run here, {time}")
    if errors := len(missing(cells, records, retry=True)) - undone:
        console.print(f"{errors} failed before: `--retry` runs them again")
    return left


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
        for done in run_cells(cells, reproduction.lines, runner, limit):
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


def print_cell(done: FinishedCell) -> None:
    """Print the result of a cell that has just run, and the time left, on one line."""
    seconds = sum(done.record.seconds.values())
    result = done.record.error or f"{100 * main_accuracy(done):.1f} %"
    left = time_estimate(*done.time_left, done.cells_left)
    console.print(
        f"{done.cell.name}: {result} ({seconds:.0f} s); {done.cells_left} left, {left}",
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

"""Published tables and figures, made again: `reproduce`."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from collabdm.cli.console import Bars
from collabdm.cli.options import (
    Device,
    Precision,
    Quiet,
    Threads,
    app,
    check_output,
    compute_of,
    console,
)
from collabdm.documents.atomic_write import atomic_write
from collabdm.errors import PlanError
from collabdm.lab.reproduce.cell_runner import CellRunner
from collabdm.lab.reproduce.grids import SCALES, in_turn, picture_of, pictured, read_grid
from collabdm.lab.reproduce.records import read_records
from collabdm.lab.reproduce.running import FinishedCell, missing, run_cells, share_out
from collabdm.lab.reproduce.timing import TimeEstimates
from collabdm.matching.compute import Compute
from collabdm.planning.settings import number_of

COMPILE_FROM_CELLS = 20  # compiling once serves them all


@app.command()
def reproduce(
    grids: Annotated[list[Path], typer.Argument(metavar="GRID...", help="TOML files: experiments/table2.toml, …")],
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder of results.")],
    scale: Annotated[str, typer.Option(help=f"How large: {', '.join(SCALES)}.")] = "cpu",
    minutes: Annotated[float | None, typer.Option(min=0, help="Stop between cells before so many are over.")] = None,
    part: Annotated[str | None, typer.Option(help="This machine's share, such as 1/3, of the same grids.")] = None,
    retry: Annotated[bool, typer.Option("--retry", help="Run cells that failed again.")] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Run the cells of published tables and figures that are missing; what is done is never run again.

    Says at the start how long it will take, and goes on where it stopped. Results of several machines are merged by
    putting their files into one folder. `collabdm report` shows the folder.
    """
    read = [read_grid(path, scale) for path in grids]
    share, shares = share_of(part)
    lines = output / f"{scale}.jsonl" if shares == 1 else output / f"{scale}-{share}-of-{shares}.jsonl"
    check_output(output / f"{read[0].name}.{scale}.json")
    for grid in read:
        atomic_write(output / f"{grid.name}.{scale}.json", (grid.model_dump_json(indent=1) + "\n").encode())
    records = read_records(output)
    cells = in_turn(read)
    left = missing(share_out(cells, shares)[share - 1], records, retry)
    alone, undone = len({cell.experiment.digest for cell in cells}), len(missing(cells, records, retry))
    console.print(
        f"{alone - undone} of {alone} cells are done; {len(left)} to run here, "
        f"{told(*TimeEstimates(records.values()).total(left), len(left))}"
    )
    if wrong := len(missing(cells, records, retry=True)) - undone:
        console.print(f"{wrong} failed before: `--retry` runs them again")
    if left and minutes != 0:
        chosen = compute_of(device, precision, threads)
        compute = Compute(chosen.device, chosen.precision, compiled=True if len(left) > COMPILE_FROM_CELLS else None)
        with tempfile.TemporaryDirectory() as folder, Bars(quiet) as bars:
            shown = {c.experiment.digest: picture_of(output, c) for grid in read for c in pictured(grid).values()}
            workshop = CellRunner(Path(folder), compute, bars, shown)
            for done in run_cells(left, lines, workshop, float("inf") if minutes is None else minutes):
                tell(done)
    console.print(f"{output}: collabdm report {output}")


def share_of(text: str | None) -> tuple[int, int]:
    """`1/3` as the first of three."""
    first, _, second = (text or "1/1").partition("/")
    share, shares = number_of(first), number_of(second)
    if share is None or shares is None or not 1 <= share <= shares:
        raise PlanError(f"`--part` should be one of several, such as 1/3; found {text!r}")
    return share, shares


def tell(done: FinishedCell) -> None:
    """One line for a cell that was run."""
    seconds = sum(done.record.seconds.values())
    said = done.record.error or f"{100 * main_accuracy(done):.1f} %"
    left = told(*done.time_left, done.cells_left)
    console.print(
        f"{done.cell.name}: {said} ({seconds:.0f} s); {done.cells_left} left, {left}", markup=False, highlight=False,
        soft_wrap=True,
    )  # fmt: skip


def main_accuracy(done: FinishedCell) -> float:
    """The mean accuracy of the cell's own set."""
    found = done.record.scores[0].accuracies
    return sum(found) / len(found)


def told(seconds: float, unknown: int, cells: int) -> str:
    """How long cells will take, and of how many that is not known.

    >>> told(600.0, 2, 9)
    'about 10 min, and 2 whose time is not known before the first like them'
    """
    if unknown == cells and cells:
        return "time not known before the first"
    rest = f", and {unknown} whose time is not known before the first like them" if unknown else ""
    return duration(seconds) + rest


def duration(seconds: float) -> str:
    """About how long, for people.

    >>> duration(7500.0)
    'about 2.1 h'
    """
    if seconds < 90:
        return f"about {seconds:.0f} s"
    return f"about {seconds / 60:.0f} min" if seconds < 5400 else f"about {seconds / 3600:.1f} h"

"""Run the missing cells of grids, in order, on one machine or shared between several."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from collabdm.documents.canonical_json import canonical_json
from collabdm.lab.reproduce.cell_runner import CellRunner
from collabdm.lab.reproduce.grids import Cell
from collabdm.lab.reproduce.records import CellRecord, append, read_records
from collabdm.lab.reproduce.timing import TimeEstimates, TimeLeft


@dataclass(frozen=True)
class StartedCell:
    """A cell that runs now: its number from 1, the number of all, and how long they will take.

    `seconds` is None if no similar cell has a record; `time_left` includes this cell.
    """

    cell: Cell
    number: int
    cells: int
    seconds: float | None
    time_left: TimeLeft


@dataclass(frozen=True)
class FinishedCell:
    """A cell that was run, its record, and how many cells and how much time are left."""

    cell: Cell
    record: CellRecord
    cells_left: int
    time_left: TimeLeft


def missing(
    cells: Sequence[Cell], records: Mapping[str, CellRecord], retry: bool = False
) -> list[Cell]:
    """List the cells without a record; of cells with the same digest, only the first.

    Args:
        cells: Cells, in the order to run them in.
        records: Records by digest.
        retry: Whether failed cells count as missing.
    """
    done = {digest for digest, record in records.items() if not (retry and record.failed)}
    left: dict[str, Cell] = {}

    for cell in cells:
        if cell.experiment.digest not in done:
            left.setdefault(cell.experiment.digest, cell)

    return list(left.values())


def share_out(cells: Sequence[Cell], shares: int) -> list[list[Cell]]:
    """Divide the cells between several machines.

    Cells of one split, network and ipc stay together, so that they can reuse contributions. The
    shares do not depend on which cells are done. A single share keeps the order of the cells.
    """
    if shares == 1:
        return [list(cells)]

    groups: dict[str, list[Cell]] = {}
    for cell in cells:
        groups.setdefault(_shared_work(cell), []).append(cell)

    dealt = list(groups.values())
    return [[cell for group in dealt[i::shares] for cell in group] for i in range(shares)]


def _shared_work(cell: Cell) -> str:
    experiment = cell.experiment
    split = [experiment.data, experiment.sites, experiment.beta, experiment.class_floor]
    network, ipc = experiment.plan.get("network"), experiment.plan.get("ipc")

    return canonical_json([*split, experiment.seed, network, ipc])


def run_cells(
    cells: Sequence[Cell],
    output: Path,
    runner: CellRunner,
    minutes: float,
    on_start: Callable[[StartedCell], None] = lambda started: None,
) -> Iterator[FinishedCell]:
    """Run cells one by one, until all are done or the time is over.

    At least one cell is run. After that, the run ends before the first cell that is expected to
    exceed the time limit.

    Args:
        cells: The cells, in order.
        output: The file to append the records to.
        runner: The object that runs a cell.
        minutes: The time limit; infinity for no limit.
        on_start: Receives each cell before it runs.

    Yields:
        Each cell after its record is written.
    """
    end = time.monotonic() + 60 * minutes
    estimates = TimeEstimates(read_records(output.parent).values())

    for i, cell in enumerate(cells):
        expected = estimates.seconds(cell)
        if i and time.monotonic() + (expected or 0.0) >= end:
            return

        on_start(StartedCell(cell, i + 1, len(cells), expected, estimates.total(cells[i:])))
        record = runner.run(cell.experiment)
        append(output, record)
        estimates.correct(expected, record)
        estimates.add(record)

        rest = cells[i + 1 :]
        yield FinishedCell(cell, record, len(rest), estimates.total(rest))

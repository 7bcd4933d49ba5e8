"""The results of a grid: accuracy and cost of every row and column, computed from the records.

    entry = mean and deviation over the seeds of the accuracies, in percent
    row   = a line of the grid, or a further score of its cells (random real images, a network
            scored during training, the best and the worst of the networks that sites sent)

A cell without a record stays empty: nothing is interpolated.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from collabdm.documents.plan import Plan
from collabdm.lab.reproduce.grids import Cell, Grid, cells_of
from collabdm.lab.reproduce.records import CellRecord
from collabdm.lab.results import AccuracyRecord

Place = tuple[str, ...]  # a row, then a value of every axis, in the order of the axes


@dataclass
class Entry:
    """One entry of a table: accuracies in percent by seed and, for a line of the grid, its cost."""

    accuracies: dict[int, float] = field(default_factory=dict)
    uploads: list[int] = field(default_factory=list)
    rounds: int = 1
    site_seconds: list[float] = field(default_factory=list)
    server_seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def n(self) -> int:
        """The number of seeds."""
        return len(self.accuracies)

    @property
    def mean(self) -> float:
        """The mean accuracy over the seeds, in percent."""
        return statistics.fmean(self.accuracies.values())

    @property
    def std(self) -> float:
        """The standard deviation over the seeds, with n - 1; 0 for one seed."""
        return statistics.stdev(self.accuracies.values()) if self.n > 1 else 0.0

    @property
    def bytes(self) -> int | None:
        """The largest upload of a site, over the seeds; None if nothing is sent."""
        return max(self.uploads, default=None)

    def __str__(self) -> str:
        if not self.n:
            return "failed" if self.errors else "not run"

        deviation = f" ± {self.std:.1f}" if self.n > 1 else ""
        return f"{self.mean:.1f}{deviation} ({self.n})"


class CurveMean(NamedTuple):
    """A point along the refinement: bytes sent by a site, mean accuracy in percent, deviation."""

    bytes: int
    mean: float
    std: float
    n: int


class GridResults:
    """The results of one grid.

    Attributes:
        grid: The grid.
        records: The records of its distinct cells.
        done: The number of its distinct cells that succeeded.
        all: The number of its distinct cells.
    """

    def __init__(self, grid: Grid, records: Mapping[str, CellRecord]) -> None:
        self.grid, self.done, self.all = grid, 0, 0
        self.records: list[CellRecord] = []
        self._entries: dict[Place, Entry] = defaultdict(Entry)
        self._curves: dict[Place, dict[int, dict[int, tuple[int, float]]]] = defaultdict(dict)

        for digest, cells in _by_digest(cells_of(grid)).items():
            self.all += 1
            record = records.get(digest)
            if record is not None:
                self.done += not record.failed
                self.records.append(record)
                for cell in cells:
                    self._add(cell, record)

    def entry(self, row: str, at: Mapping[str, str]) -> Entry:
        """Return the entry of a row, at the given value of every axis."""
        return self._entries.get(self._place(row, at), Entry())

    def curve(self, row: str, at: Mapping[str, str]) -> list[CurveMean]:
        """Return the means over the seeds along the refinement, in order of the bytes sent."""
        by_seed = self._curves.get(self._place(row, at), {})
        points = []

        for step in sorted({step for steps in by_seed.values() for step in steps}):
            reached = [steps[step] for steps in by_seed.values() if step in steps]
            accuracies = [accuracy for _, accuracy in reached]
            deviation = statistics.stdev(accuracies) if len(reached) > 1 else 0.0
            most = max(sent for sent, _ in reached)
            points.append(CurveMean(most, statistics.fmean(accuracies), deviation, len(reached)))

        return points

    def over_random(self, row: str, at: Mapping[str, str]) -> float | None:
        """Return the percentage points above random real images of equal storage.

        Returns None if either is missing.
        """
        own = self.entry(row, at).accuracies
        random = self.entry(self.grid.against.get(row, ""), at).accuracies

        common = own.keys() & random.keys()
        return statistics.fmean(own[seed] - random[seed] for seed in common) if common else None

    def above_paper(self, row: str, at: Mapping[str, str]) -> float | None:
        """Return the percentage points above the paper's number; None if either is missing."""
        published, own = self.grid.published(row, at), self.entry(row, at)
        return None if published is None or not own.n else own.mean - published.accuracy

    def _place(self, row: str, at: Mapping[str, str]) -> Place:
        return row, *(at[axis] for axis in self.grid.axes)

    def _add(self, cell: Cell, record: CellRecord) -> None:
        values = tuple(cell.at.values())
        own = self._entries[cell.line, *values]
        if record.error is not None:
            own.errors.append(record.error)
            return

        for row, accuracies in _rows(cell, record):
            entry = self._entries[row, *values]
            entry.accuracies.setdefault(cell.seed, 100 * statistics.fmean(accuracies))

        upload = record.main_set.largest_upload
        if cell.line in self.grid.sends and upload is not None:
            own.uploads.append(upload)

        own.rounds = record.main_set.rounds or 1
        if record.taken_over is None:  # otherwise only a part of the work was timed
            own.site_seconds.append(record.seconds.get("sites", 0.0))
            own.server_seconds.append(record.seconds.get("server", 0.0))

        if record.curve:
            self._curves[cell.line, *values][cell.seed] = _points(cell, record)


def _by_digest(cells: list[Cell]) -> dict[str, list[Cell]]:
    groups: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        groups[cell.experiment.digest].append(cell)
    return groups


def _rows(cell: Cell, record: CellRecord) -> Iterator[tuple[str, tuple[float, ...]]]:
    """Yield the rows to which a cell contributes, each with its accuracies."""
    method, first = cell.experiment.method, record.scores[0].network
    scores: list[AccuracyRecord] = [score for score in record.scores if score.network == first]
    sites = []

    for score in scores:
        if score.what == method:
            yield cell.line, score.accuracies
        elif score.what.startswith(f"{method}, site-"):
            sites.append(score.accuracies)
        else:
            yield score.what, score.accuracies

    if sites:
        yield f"{cell.line}, best site", max(sites, key=statistics.fmean)
        yield f"{cell.line}, worst site", min(sites, key=statistics.fmean)


def _points(cell: Cell, record: CellRecord) -> dict[int, tuple[int, float]]:
    """Return, by step, the bytes that a site has sent by then and the accuracy in percent."""
    most = record.main_set.largest_upload or 0
    steps = cell.experiment.plan.get("steps", Plan.model_fields["steps"].default)
    per_step = record.bytes_per_step or 0

    return {
        point.step: (
            most - (steps - point.step) * per_step,
            100 * statistics.fmean(point.accuracies),
        )
        for point in record.curve
    }

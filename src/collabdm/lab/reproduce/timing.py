"""Measure how long cells take, and estimate how long the remaining ones will take.

An estimate is the median of the seconds of the most similar cells that have a record, multiplied by
the median ratio of measured to estimated seconds of the last cells that this process ran: records
may come from other machines.
"""

import statistics
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from collabdm.documents.canonical_json import canonical_json
from collabdm.lab.experiment import Experiment
from collabdm.lab.reproduce.grids import Cell
from collabdm.lab.reproduce.records import CellRecord
from collabdm.progress import Progress, Report, Stage

LAST_CELLS = 5  # whose ratio of measured to estimated seconds corrects the estimates


class Stopwatch:
    """A progress callback that adds up the seconds of the sites, the server and the scoring."""

    def __init__(self, report: Report) -> None:
        self._report, self._last = report, time.perf_counter()
        self._spent: dict[str, float] = defaultdict(float)

    def __call__(self, event: Progress) -> None:
        """Count the time since the last event for the part of the work that reports this event."""
        scoring = event.stage == Stage.TRAINING
        self._take("sites" if event.site is not None else "scoring" if scoring else "server")
        self._report(event)

    def seconds(self) -> dict[str, float]:
        """Return the seconds by part; the time since the last event counts as scoring."""
        self._take("scoring")
        return {part: round(seconds, 2) for part, seconds in self._spent.items()}

    def _take(self, part: str) -> None:
        now = time.perf_counter()
        self._spent[part] += now - self._last
        self._last = now


class TimeLeft(NamedTuple):
    """The estimated seconds of several cells, and the number of cells without an estimate."""

    seconds: float
    unknown: int


class TimeEstimates:
    """Estimates of the time of a cell, from records of similar cells at the same scale."""

    def __init__(self, records: Iterable[CellRecord]) -> None:
        self._seconds: dict[str, list[float]] = defaultdict(list)
        for record in records:
            self.add(record)
        self._ratios: list[float] = []

    def correct(self, expected: float | None, record: CellRecord) -> None:
        """Compare a cell that this process ran with its estimate, to correct later estimates."""
        measured = sum(record.seconds.values())
        if expected and measured and not record.failed and record.taken_over is None:
            self._ratios.append(measured / (expected / self._pace))

    @property
    def _pace(self) -> float:
        return statistics.median(self._ratios[-LAST_CELLS:]) if self._ratios else 1.0

    def add(self, record: CellRecord) -> None:
        """Use a record for later estimates, unless the cell failed."""
        if not record.failed:
            for key in _similarity_keys(record.experiment):
                self._seconds[key].append(sum(record.seconds.values()))

    def seconds(self, cell: Cell) -> float | None:
        """Estimate the seconds of a cell; None without a similar record."""
        for key in _similarity_keys(cell.experiment):
            if known := sorted(self._seconds.get(key, ())):
                return known[len(known) // 2] * self._pace
        return None

    def total(self, cells: Sequence[Cell]) -> TimeLeft:
        """Estimate the time of several cells."""
        estimates = [self.seconds(cell) for cell in cells]
        known = [seconds for seconds in estimates if seconds is not None]

        return TimeLeft(sum(known, 0.0), len(estimates) - len(known))


def _similarity_keys(experiment: Experiment) -> tuple[str, ...]:
    """Return keys that similar experiments have in common, the most specific first."""
    split = ("seed", "beta", "class_floor")
    settings = experiment.model_dump(mode="json")
    without_split = {key: value for key, value in settings.items() if key not in split}
    without_data = {key: value for key, value in without_split.items() if key != "data"}

    network = settings["plan"].get("network")
    scale = [experiment.trials, experiment.per_class, experiment.epochs, network]

    return (
        canonical_json(without_split),
        canonical_json(without_data),
        canonical_json([experiment.method, scale]),
        canonical_json(scale),
    )

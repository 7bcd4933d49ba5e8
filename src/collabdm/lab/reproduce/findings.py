"""What the records of a grid say: for every row and column the accuracies, one for each seed, and what they cost.

A row is a line of the grid, or a further score of its cells: random real images, a network on the way, and of the
networks that sites sent the best and the worst. Nothing is filled in: what was not run is not there.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from collabdm.documents.plan import Plan
from collabdm.lab.reproduce.grids import Cell, Grid, Published, cells_of
from collabdm.lab.reproduce.records import Record, failed

Place = tuple[str, ...]  # a row, and a value of every axis in their order


@dataclass
class Found:
    """One place of a table: accuracies in percent by seed, and of a line's own cells what they cost."""

    accuracies: dict[int, float] = field(default_factory=dict)
    networks: int = 0
    sent: list[int] = field(default_factory=list)
    rounds: int = 1
    sites: list[float] = field(default_factory=list)
    server: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def n(self) -> int:
        """Seeds."""
        return len(self.accuracies)

    @property
    def mean(self) -> float:
        """Over the seeds, in percent."""
        return statistics.fmean(self.accuracies.values())

    @property
    def std(self) -> float:
        """Over the seeds (n - 1); 0 for one."""
        return statistics.stdev(self.accuracies.values()) if self.n > 1 else 0.0

    @property
    def bytes(self) -> int | None:
        """What a site sends at most, over the seeds; None where nothing is sent."""
        return max(self.sent, default=None)

    def __str__(self) -> str:
        if not self.n:
            return "failed" if self.errors else "not run"
        return f"{self.mean:.1f}" + (f" ± {self.std:.1f}" if self.n > 1 else "") + f" ({self.n})"


class Findings:
    """All that was found of one grid."""

    def __init__(self, grid: Grid, records: Mapping[str, Record]) -> None:
        self.grid, self.done, self.all, self.records = grid, 0, 0, list[Record]()
        self._found: dict[Place, Found] = defaultdict(Found)
        self._curves: dict[Place, dict[int, dict[int, tuple[int, float]]]] = defaultdict(dict)
        for digest, cells in _by_digest(cells_of(grid)).items():
            self.all += 1
            record = records.get(digest)
            if record is not None:
                self.done += not failed(record)
                self.records.append(record)
                for cell in cells:
                    self._add(cell, record)

    def at(self, row: str, at: Mapping[str, str]) -> Found:
        """What was found for a row at values of all axes."""
        return self._found.get((row, *(at[axis] for axis in self.grid.axes)), Found())

    def curve(self, row: str, at: Mapping[str, str]) -> list[tuple[int, float, float, int]]:
        """Points along the refinement: bytes a site has sent, mean accuracy in percent, its deviation, seeds."""
        by_seed = self._curves.get((row, *(at[axis] for axis in self.grid.axes)), {})
        points = []
        for step in sorted({step for steps in by_seed.values() for step in steps}):
            found = [steps[step] for steps in by_seed.values() if step in steps]
            accuracies = [accuracy for _, accuracy in found]
            spread = statistics.stdev(accuracies) if len(found) > 1 else 0.0
            points.append((max(sent for sent, _ in found), statistics.fmean(accuracies), spread, len(found)))
        return points

    def over_random(self, row: str, at: Mapping[str, str]) -> float | None:
        """How many points a row is above random real images of the same storage; None where that is not known."""
        own, random = self.at(row, at), self.at(self.grid.against.get(row, ""), at)
        common = own.accuracies.keys() & random.accuracies.keys()
        return statistics.fmean(own.accuracies[s] - random.accuracies[s] for s in common) if common else None

    def difference(self, row: str, at: Mapping[str, str]) -> tuple[Published, float] | None:
        """The paper's number and how far ours is above it; None where either is missing."""
        published, own = self.grid.published(row, at), self.at(row, at)
        return None if published is None or not own.n else (published, own.mean - published.accuracy)

    def _add(self, cell: Cell, record: Record) -> None:
        values = tuple(cell.at.values())
        own = self._found[cell.line, *values]
        if failed(record):
            own.errors.append(record["error"])
            return
        for row, accuracies in _rows(cell, record):
            found = self._found[row, *values]
            found.accuracies.setdefault(cell.seed, 100 * statistics.fmean(accuracies))
            found.networks += len(accuracies)
        made = record["sets"][cell.experiment.method]
        if cell.line in self.grid.sends:
            own.sent.append(max(made["bytes_per_site"].values()))
        own.rounds = made.get("rounds", 1)
        if record.get("taken_over") is None:  # else it did not do all of the work
            own.sites.append(record["seconds"].get("sites", 0.0))
            own.server.append(record["seconds"].get("server", 0.0))
        if record.get("curve"):
            self._curves[cell.line, *values][cell.seed] = _points(cell, record)


def _by_digest(cells: list[Cell]) -> dict[str, list[Cell]]:
    found: dict[str, list[Cell]] = defaultdict(list)
    for cell in cells:
        found[cell.experiment.digest].append(cell)
    return found


def _rows(cell: Cell, record: Record) -> Iterator[tuple[str, list[float]]]:
    """Names of rows, and the accuracies of a cell that belong to them."""
    method, first = cell.experiment.method, record["scores"][0]["network"]
    scores: list[dict[str, Any]] = [score for score in record["scores"] if score["network"] == first]
    sites = []
    for score in scores:
        if score["what"] == method:
            yield cell.line, score["accuracies"]
        elif score["what"].startswith(f"{method}, site-"):
            sites.append(score["accuracies"])
        else:
            yield score["what"], score["accuracies"]
    if sites:
        yield f"{cell.line}, best site", max(sites, key=statistics.fmean)
        yield f"{cell.line}, worst site", min(sites, key=statistics.fmean)


def _points(cell: Cell, record: Record) -> dict[int, tuple[int, float]]:
    """Accuracy in percent after some steps, and what a site has sent for so many."""
    most = max(record["sets"][cell.experiment.method]["bytes_per_site"].values())
    steps = cell.experiment.plan.get("steps", Plan.model_fields["steps"].default)
    return {
        point["step"]: (
            most - (steps - point["step"]) * record["bytes_per_step"],
            100 * statistics.fmean(point["accuracies"]),
        )
        for point in record["curve"]
    }

"""Running the cells of grids: what is missing, in order, as long as the time allows; each in a folder of its own.

What cells of one split have in common is computed once where that is exact: a site's answer does not depend on what
the server does with it nor on how sets are scored, so cells that differ in `merging`, `refinement` or the recipe
take over the answers, or the set, of a cell that was run just before.
"""

import shutil
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from collabdm.documents.atomic_write import atomic_write_with
from collabdm.documents.canonical_json import canonical_json
from collabdm.documents.contribution_file import write_contribution
from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import read_plan
from collabdm.export.pictures import contact_sheet
from collabdm.lab.experiment import Experiment
from collabdm.lab.reproduce.grids import Cell
from collabdm.lab.reproduce.records import Record, append, commit, failed, machine, read_records
from collabdm.lab.simulate import simulate
from collabdm.matching.compute import Compute
from collabdm.matching.run_context import RunContext
from collabdm.methods.registry import METHODS
from collabdm.planning.cost import bytes_per_step
from collabdm.planning.make import with_rates
from collabdm.progress import Progress, Report, Stage, silent
from collabdm.rounds.contributions import read_contribution
from collabdm.scoring.outcomes import kind_of, read_kept
from collabdm.version import versions

IMAGES_SHOWN = 10  # of each class


FOLDERS_KEPT = 12  # of cells run before, to take over from


AFTER_THE_SITES = (  # of an Experiment
    *("networks", "trials", "recipe", "epochs", "learning_rate", "compare", "curve", "test_per_class"),
)


OF_THE_SERVER = ("merging", "refinement")  # of a Plan


class Stopwatch:
    """Progress that sums seconds by part, at the sites, at the server, in scoring, and passes itself on."""

    def __init__(self, report: Report) -> None:
        self._report, self._last = report, time.perf_counter()
        self._spent: dict[str, float] = defaultdict(float)

    def __call__(self, event: Progress) -> None:
        """Add the time since the last event to the part that reports this one."""
        scoring = event.stage == Stage.TRAINING
        self._take("sites" if event.site is not None else "scoring" if scoring else "server")
        self._report(event)

    def seconds(self) -> dict[str, float]:
        """By part; what comes after the last call is scoring."""
        self._take("scoring")
        return {part: round(seconds, 2) for part, seconds in self._spent.items()}

    def _take(self, part: str) -> None:
        now = time.perf_counter()
        self._spent[part] += now - self._last
        self._last = now


class Pace:
    """How long a cell will take: the median of those most like it, as far as any of its scale are known."""

    def __init__(self, records: dict[str, Record]) -> None:
        self._seconds: dict[str, list[float]] = defaultdict(list)
        for record in records.values():
            self.learn(record)

    def learn(self, record: Record) -> None:
        """Count a record in."""
        if not failed(record):
            for key in _likeness(record["experiment"]):
                self._seconds[key].append(sum(record["seconds"].values()))

    def expected(self, cell: Cell) -> float | None:
        """Seconds of a cell; None where nothing is known."""
        for key in _likeness(cell.experiment.model_dump(mode="json")):
            if found := sorted(self._seconds.get(key, ())):
                return found[len(found) // 2]
        return None

    def of_all(self, cells: Sequence[Cell]) -> tuple[float, int]:
        """Seconds of these cells as far as they can be told, and of how many they cannot."""
        expected = [self.expected(cell) for cell in cells]
        return sum((s for s in expected if s is not None), 0.0), expected.count(None)


def _likeness(experiment: dict[str, Any]) -> tuple[str, ...]:
    """What a cell should have in common with another for its time, the most first."""
    split = ("seed", "beta", "class_floor")
    same = {k: v for k, v in experiment.items() if k not in split}
    alike = {k: v for k, v in same.items() if k != "data"}
    scale = [experiment["trials"], experiment["per_class"], experiment["epochs"], experiment["plan"].get("network")]
    return (
        canonical_json(same),
        canonical_json(alike),
        canonical_json([experiment["method"], scale]),
        canonical_json(scale),
    )


@dataclass
class CellRunner:
    """A folder for the folders of cells, where they compute, who watches, and which sets are shown where, by digest."""

    folder: Path
    compute: Compute = Compute()
    report: Report = silent
    pictures: Mapping[str, Path] = field(default_factory=dict)
    kept: dict[str, tuple[Experiment, Path]] = field(default_factory=dict)

    def run(self, experiment: Experiment) -> Record:
        """The record of a cell, which holds the error where there was one."""
        about: Record = {"digest": experiment.digest, "experiment": experiment.model_dump(mode="json")}
        place = self.folder / experiment.digest[:16]
        clock = Stopwatch(self.report)
        try:
            source = self._take_over(experiment, place)
            results = simulate(experiment, place, RunContext(self.compute, clock))
        except Exception as error:  # whatever it was: it is recorded, and the other cells go on
            about["error"] = f"{type(error).__name__}: {error}"
        else:
            plan = read_plan(place / "plan.json")
            per_step = bytes_per_step(plan)
            about |= found_in(results) | {"bytes_per_step": per_step, "taken_over": source}
            self._show(experiment, plan, place)
            self._keep(experiment, place)
        return about | {
            "seconds": clock.seconds(),
            "compute": asdict(self.compute),
            "machine": machine(self.compute),
            "threads": torch.get_num_threads(),
            "versions": versions(),
            "commit": commit(),
        }

    def _show(self, experiment: Experiment, plan: Plan, place: Path) -> None:
        if experiment.digest not in self.pictures:
            return
        made = read_kept(METHODS[experiment.method], plan, place)
        images = None if made is None else kind_of(made).images(made)
        if images is not None:
            sheet = contact_sheet(images, IMAGES_SHOWN, 1)
            atomic_write_with(self.pictures[experiment.digest], lambda f: sheet.save(f, format="WEBP", quality=90))

    def _keep(self, experiment: Experiment, place: Path) -> None:
        self.kept[experiment.digest] = (experiment, place)
        for digest in list(self.kept)[:-FOLDERS_KEPT]:
            shutil.rmtree(self.kept.pop(digest)[1])

    def _take_over(self, experiment: Experiment, place: Path) -> str | None:
        """Bring what a cell kept has in common with this one; the digest of that cell, or None."""
        wanted = before_the_server(experiment)
        for digest, (other, folder) in reversed(self.kept.items()):
            if METHODS[other.method].options is None and before_the_server(other) == wanted:
                take_over(folder, other, place, experiment)
                return digest
        return None


def before_the_server(experiment: Experiment) -> dict[str, Any]:
    """The settings that the answers of sites depend on."""
    settings = {k: v for k, v in experiment.model_dump(mode="json").items() if k not in AFTER_THE_SITES}
    return settings | {"plan": {k: v for k, v in settings["plan"].items() if k not in OF_THE_SERVER}}


def take_over(source: Path, other: Experiment, place: Path, experiment: Experiment) -> None:
    """The answers in one cell's folder as those to another's plan; the set too where the plan is the same.

    The simulation reads them only if they answer its own plan, so nothing wrong can come in this way.
    """
    old = read_plan(source / "plan.json")
    plan = _with_server_of(old, experiment)
    for path in sorted((source / "contributions").glob("*.safetensors")):
        answer = replace(read_contribution(path, old), plan_digest=plan.digest)
        write_contribution(answer, place / "contributions" / path.name)
    if plan == old and experiment.curve in (0, other.curve):
        for path in source.glob("distilled.safetensors"):
            shutil.copy(path, place)
        if (source / "curve").is_dir():
            shutil.copytree(source / "curve", place / "curve", dirs_exist_ok=True)


def _with_server_of(plan: Plan, experiment: Experiment) -> Plan:
    """The plan with an experiment's settings of the server."""
    plain = {name: Plan.model_fields[name].default for name in OF_THE_SERVER}
    settings = with_rates(experiment.plan, plan.image.side)
    said = {name: settings[name] for name in OF_THE_SERVER if name in settings}
    try:
        return Plan.model_validate(plan.model_dump() | plain | said)
    except ValidationError:  # the simulation says what is wrong with them
        return plan


def found_in(results: dict[str, Any]) -> Record:
    """What a record keeps of a simulation's results."""
    kept = ("what", "network", "accuracies", "images")
    curve = [{k: item[k] for k in ("step", "accuracies")} for item in results.get("curve", [])]
    scores = [{k: score[k] for k in kept} for score in results["scores"]]
    return {"scores": scores, "sets": results["sets"]} | ({"curve": curve} if curve else {})


@dataclass(frozen=True)
class Done:
    """A cell that was run, its record, and what is left: cells, and seconds with the cells that cannot be told."""

    cell: Cell
    record: Record
    cells_left: int
    time_left: tuple[float, int]


def missing(cells: Sequence[Cell], records: dict[str, Record], retry: bool = False) -> list[Cell]:
    """The cells that no record is of, each digest once, where it comes first; with `retry`, failed ones as well."""
    done = {digest for digest, record in records.items() if not (retry and failed(record))}
    left: dict[str, Cell] = {}
    for cell in cells:
        if cell.experiment.digest not in done:
            left.setdefault(cell.experiment.digest, cell)
    return list(left.values())


def share_out(cells: Sequence[Cell], shares: int) -> list[list[Cell]]:
    """The cells for several machines: those of one split, network and IPC stay together, to take over from each other.

    A cell is in one share only, and the shares do not depend on what is done. One share keeps the order of the cells.
    """
    if shares == 1:
        return [list(cells)]
    splits: dict[str, list[Cell]] = {}
    for cell in cells:
        found = cell.experiment
        network, ipc = found.plan.get("network"), found.plan.get("ipc")
        split = canonical_json([found.data, found.sites, found.beta, found.class_floor, found.seed, network, ipc])
        splits.setdefault(split, []).append(cell)
    dealt = list(splits.values())
    return [[cell for split in dealt[i::shares] for cell in split] for i in range(shares)]


def run_cells(cells: Sequence[Cell], output: Path, workshop: CellRunner, minutes: float) -> Iterator[Done]:
    """Run cells one by one and write their records into a file, until all are done or the time is over.

    After the first, none is begun that is expected to go on beyond the time.
    """
    end = time.monotonic() + 60 * minutes
    pace = Pace(read_records(output.parent))
    for i, cell in enumerate(cells):
        expected = pace.expected(cell) if i else 0.0
        if time.monotonic() + (expected or 0.0) >= end:
            return
        record = workshop.run(cell.experiment)
        append(output, record)
        pace.learn(record)
        yield Done(cell, record, len(cells) - i - 1, pace.of_all(cells[i + 1 :]))

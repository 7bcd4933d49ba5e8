"""Run one cell of a grid (see `grids`) in its own folder; reuse contributions if possible."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from collabdm.documents.atomic_write import atomic_write_with
from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import read_plan
from collabdm.lab.experiment import Experiment
from collabdm.lab.reproduce.records import CellRecord, CurveAccuracies, commit, machine
from collabdm.lab.reproduce.reuse import site_settings, take_over
from collabdm.lab.reproduce.timing import Stopwatch
from collabdm.lab.results import AccuracyRecord, ComputeRecord, SimulationResults
from collabdm.lab.simulate import simulate
from collabdm.matching.compute import Compute
from collabdm.matching.run_context import RunContext
from collabdm.methods.registry import METHODS
from collabdm.planning.cost import bytes_per_step
from collabdm.progress import Report, silent
from collabdm.scoring.outcomes import find_outcome, kind_of
from collabdm.version import versions

IMAGES_SHOWN = 10  # of each class

FOLDERS_KEPT = 12  # of earlier cells, to reuse their files


@dataclass
class CellRunner:
    """Runs cells one after another.

    Attributes:
        folder: The folder that contains a folder for each of the last cells.
        compute: The device and the precision.
        report: The callback that receives every progress event.
        pictures: The paths for pictures of sets, by the digests of the cells to be shown.
        kept: Settings and folders of the last cells, by digest.
    """

    folder: Path
    compute: Compute = Compute()
    report: Report = silent
    pictures: Mapping[str, Path] = field(default_factory=dict)
    kept: dict[str, tuple[Experiment, Path]] = field(default_factory=dict)

    def run(self, experiment: Experiment) -> CellRecord:
        """Run a cell; its record contains the error if there was one."""
        place = self.folder / experiment.digest[:16]
        clock = Stopwatch(self.report)

        try:
            source = self._reuse(experiment, place)
            results = simulate(experiment, place, RunContext(self.compute, clock))
        except Exception as error:  # any error is recorded, and the other cells still run
            outcome: dict[str, Any] = {"error": f"{type(error).__name__}: {error}"}
        else:
            plan = read_plan(place / "plan.json")
            outcome = results_of(results) | {
                "bytes_per_step": bytes_per_step(plan),
                "taken_over": source,
            }
            self._write_picture(experiment, plan, place)
            self._keep(experiment, place)

        return CellRecord(
            digest=experiment.digest,
            experiment=experiment,
            **outcome,
            seconds=clock.seconds(),
            compute=ComputeRecord.of(self.compute),
            machine=machine(self.compute),
            threads=torch.get_num_threads(),
            versions=versions(),
            commit=commit(),
        )

    def _write_picture(self, experiment: Experiment, plan: Plan, place: Path) -> None:
        if experiment.digest not in self.pictures:
            return

        outcome = find_outcome(METHODS[experiment.method], plan, place)
        images = None if outcome is None else kind_of(outcome).images(outcome)
        if images is None:
            return

        sheet = images.picture(IMAGES_SHOWN, zoom=1)
        atomic_write_with(
            self.pictures[experiment.digest],
            lambda file: sheet.save(file, format="WEBP", quality=90),
        )

    def _keep(self, experiment: Experiment, place: Path) -> None:
        self.kept[experiment.digest] = (experiment, place)
        for digest in list(self.kept)[:-FOLDERS_KEPT]:
            shutil.rmtree(self.kept.pop(digest)[1])

    def _reuse(self, experiment: Experiment, place: Path) -> str | None:
        """Copy the files of an earlier cell that fits; return its digest, or None without one."""
        wanted = site_settings(experiment)

        for digest, (other, folder) in reversed(self.kept.items()):
            if METHODS[other.method].options is None and site_settings(other) == wanted:
                take_over(folder, other, place, experiment)
                return digest

        return None


def results_of(results: SimulationResults) -> dict[str, Any]:
    """Select the results of a simulation that a record contains: scores, sets and the curve."""
    return {
        "scores": tuple(
            AccuracyRecord(
                what=score.what,
                network=score.network,
                accuracies=score.accuracies,
                images=score.images,
            )
            for score in results.scores
        ),
        "sets": results.sets,
        "curve": tuple(
            CurveAccuracies(step=point.step, accuracies=point.accuracies) for point in results.curve
        ),
    }

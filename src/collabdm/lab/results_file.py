"""Write results.json during a simulation, after every score, so that it can resume."""

from collections.abc import Callable
from pathlib import Path

from collabdm.documents.outcomes import DistilledSet
from collabdm.documents.regular_file import read_regular
from collabdm.lab.curves import Curve
from collabdm.lab.experiment import Experiment
from collabdm.lab.results import (
    ComputeRecord,
    CurvePoint,
    ScoreRecord,
    SetRecord,
    SimulationResults,
    parse_record,
    read_json,
    write_results,
)
from collabdm.matching.compute import Compute
from collabdm.matching.run_context import RunContext
from collabdm.scoring.evaluation import Score
from collabdm.version import versions

Measure = Callable[[RunContext], list[Score]]


class ResultsFile:
    """results.json of a simulation, written after every score.

    An interrupted simulation can therefore resume. Every run rebuilds `sets`; scores and curve
    points already in the file are kept.

    Args:
        path: The file. If it is empty or cut short, it counts as absent.
        experiment: The settings that the results belong to.
        compute: The device and the precision of the scores.

    Raises:
        DataError: The file contains something other than results of a simulation.
    """

    def __init__(self, path: Path, experiment: Experiment, compute: Compute) -> None:
        self.path, self.experiment, self.compute = path, experiment, compute
        self.sets: dict[str, SetRecord] = {}
        self.scores: dict[str, list[ScoreRecord]] = {}
        self.curve: list[CurvePoint] = []
        if read_json(path):
            previous = parse_record(SimulationResults, read_regular(path), str(path))
            self.curve += previous.curve
            for score in previous.scores:
                self.scores.setdefault(score.what, []).append(score)

    def score(self, what: str, measure: Measure, context: RunContext) -> None:
        """Add the scores of one set, unless the file already contains them.

        Args:
            what: The name of the set.
            measure: A function that scores the set.
            context: The context for it; the checkpoints of each set are a part of the work.
        """
        if what not in self.scores:
            self.scores[what] = [ScoreRecord.of(score) for score in measure(context.part(what))]
            self.write()

    def draw(
        self,
        curve: Curve,
        final: DistilledSet,
        measure: Callable[[DistilledSet, RunContext], list[Score]],
        context: RunContext,
    ) -> None:
        """Add the scores along the refinement, unless the file already contains them.

        Args:
            curve: The chosen steps, and the images stored after them.
            final: The set after the last step.
            measure: A function that scores a set.
            context: The context for it; the checkpoints of each step are a part of the work.
        """
        scored = {point.step for point in self.curve}

        for step, earlier in curve.sets(final).items():
            if step not in scored:
                scores = measure(earlier, context.part(f"step {step}"))
                self.curve += [CurvePoint.at(step, score) for score in scores]
                self.write()

    def write(self, complete: bool = False) -> SimulationResults:
        """Write results.json and return its content."""
        results = SimulationResults(
            experiment=self.experiment,
            digest=self.experiment.digest,
            complete=complete,
            compute=ComputeRecord.of(self.compute),
            versions=versions(),
            sets=dict(self.sets),
            scores=tuple(score for group in self.scores.values() for score in group),
            curve=tuple(self.curve),
        )
        write_results(results, self.path)
        return results

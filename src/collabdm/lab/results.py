"""The scores of a simulation, on disk after each: results.json.

A score that is there is not made again, so a simulation that is stopped goes on where it stood.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.outcomes import DistilledSet
from collabdm.lab.curves import Curve
from collabdm.matching.compute import Compute
from collabdm.scoring.evaluation import Score
from collabdm.version import versions


class ResultsFile:
    """The scores made so far of one experiment, which is known by its settings and their digest."""

    def __init__(self, path: Path, experiment: dict[str, Any], digest: str, compute: Compute) -> None:
        self.path, self.experiment, self.digest, self.compute = path, experiment, digest, compute
        self.sets: dict[str, dict[str, Any]] = {}
        self.scores: dict[str, list[Score]] = {}
        kept = read_json(path)
        self.curve: list[dict[str, Any]] = kept.get("curve", [])
        for score in map(Score.read, kept.get("scores", [])):
            self.scores.setdefault(score.what, []).append(score)

    def score(self, what: str, make: Callable[[], list[Score]]) -> None:
        """The scores of one line, made unless they are there."""
        if what not in self.scores:
            self.scores[what] = make()
            self.write()

    def draw(self, curve: Curve, made: DistilledSet, make: Callable[[DistilledSet], list[Score]]) -> None:
        """The scores along the refinement, made unless they are there."""
        drawn = {item["step"] for item in self.curve}
        for step, earlier in curve.sets(made).items():
            if step not in drawn:
                self.curve += [{"step": step} | score.document() for score in make(earlier)]
                self.write()

    def write(self, complete: bool = False) -> dict[str, Any]:
        """Write results.json, and return what it holds."""
        results = {
            "experiment": self.experiment,
            "digest": self.digest,
            "complete": complete,
            "compute": asdict(self.compute),
            "versions": versions(),
            "sets": self.sets,
            "scores": [score.document() for group in self.scores.values() for score in group],
        }
        results |= {"curve": self.curve} if self.curve else {}
        atomic_write(self.path, (json.dumps(results, indent=2) + "\n").encode())
        return results


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file of the folder holds; nothing where there is none, or where it is damaged."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}

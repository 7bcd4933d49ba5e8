"""Record further results of a method's round: accuracies of predictors, traffic and sizes.

    watched.json   {"plan": digest, "found": {predictor: {epoch: accuracy}}}
    traffic.json   {"rounds": n, "up": {site: bytes}, "down": {site: bytes}}

Both are in the folder of the method's round. A predictor is an intermediate model of a method, such
as an ensemble, or the student after each epoch.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.plan import Plan
from collabdm.images import ImageSet
from collabdm.lab.results import SetRecord, read_json
from collabdm.matching.compute import Compute
from collabdm.matching.run_context import Predictor
from collabdm.methods.base import Outcome, Traffic
from collabdm.scoring.evaluation import Score, accuracy_of
from collabdm.scoring.outcomes import kind_of


@dataclass
class Watched:
    """Receives predictors (`RunContext.watch`), and stores their accuracies in a file.

    Attributes:
        path: the file; written after each predictor, and read at the start.
        plan: the plan; accuracies of a different plan are discarded.
        test: the test images.
        compute: the device and the precision.
        accuracies: the accuracies in 0 .. 1, by predictor and epoch.
    """

    path: Path
    plan: Plan
    test: ImageSet
    compute: Compute
    accuracies: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        stored = read_json(self.path)
        if stored.get("plan") == self.plan.digest:
            self.accuracies = stored["found"]

    def __call__(self, name: str, epoch: int, predictor: Predictor) -> None:
        """Test a predictor and store its accuracy.

        Args:
            name: the name of the predictor.
            epoch: the epoch of its training, or 0.
            predictor: a function from images, in network units, to logits.
        """
        normalisation = self.plan.image.normalisation
        accuracy = accuracy_of(predictor, self.test, normalisation, self.compute)
        self.accuracies.setdefault(name, {})[str(epoch)] = accuracy
        _write_json(self.path, {"plan": self.plan.digest, "found": self.accuracies})

    def scores(self, method: str) -> list[Score]:
        """Return a score for each predictor.

        For a predictor that was tested after several epochs, this is the score of the best epoch.
        The best epoch is chosen by its test accuracy, so the score is optimistic.
        """
        scores = []
        for name, by_epoch in self.accuracies.items():
            several = len(by_epoch) > 1
            label = f"{method}, best {name} of {len(by_epoch)}" if several else f"{method}, {name}"
            best = max(by_epoch.values())
            scores.append(Score(label, self.plan.network.name, (best,), 0))
        return scores


def write_traffic(traffic: Traffic, folder: Path) -> None:
    """Write the traffic of a method with several rounds into its folder."""
    content = {"rounds": traffic.rounds, "up": traffic.up, "down": traffic.down}
    _write_json(folder / "traffic.json", content)


def describe_outcome(outcome: Outcome, folder: Path) -> SetRecord:
    """Describe the plan, the size and the traffic of an outcome, for the results.

    Args:
        outcome: the outcome.
        folder: the folder of its round, which contains its file and the sites' files.

    Returns:
        The record.
    """
    kind = kind_of(outcome)
    images = kind.images(outcome)
    traffic = read_json(folder / "traffic.json")
    files = sorted((folder / "contributions").glob("*.safetensors"))

    return SetRecord(
        plan=outcome.plan.digest,
        bytes_per_site=traffic.get("up", {path.stem: path.stat().st_size for path in files}),
        bytes=(folder / kind.file).stat().st_size,
        images=0 if images is None else len(images),
        sites=outcome.sites,
        rounds=traffic.get("rounds"),
        bytes_to_each_site=traffic.get("down"),
    )


def _write_json(path: Path, content: dict[str, object]) -> None:
    atomic_write(path, (json.dumps(content, indent=2) + "\n").encode())

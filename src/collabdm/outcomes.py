"""What a method can give, a table: how each kind of outcome is written, read, scored and looked at.

    DistilledSet     images and labels        networks are trained on it and tested
    DistilledSteps   a course of training     its images are used as such a set; what it leads to is a line of its own
    DistilledModel   a network                tested as it is: one number, n = 1

On the way a method may show further predictors (`Run.watch`): the networks that sites sent, an ensemble, a student
after some epochs. `Watched` keeps their accuracies, each a line of the table beside the outcome's own.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collabdm.compute import Compute
from collabdm.errors import DocumentError
from collabdm.evaluation import Progress, Protocol, Score, accuracy_of, evaluate, score
from collabdm.files import read_distilled, write_distilled
from collabdm.images import ImageSet
from collabdm.ledger import read_json
from collabdm.methods import Method, Outcome
from collabdm.methods.answers import Traffic
from collabdm.methods.collabdm import Predictor
from collabdm.outcome_files import read_model, read_steps, write_model, write_steps
from collabdm.planning import geometry
from collabdm.protocol import DistilledSet, DistilledSteps, Plan
from collabdm.weights import DistilledModel
from collabdm.whole import write_whole

Scoring = Callable[[Any, ImageSet, Protocol, Compute, Progress], list[Score]]


@dataclass(frozen=True)
class Kind:
    """How one kind of outcome is kept and used; `images` is what can be shown of it."""

    file: str
    write: Callable[[Any, Path], None]
    read: Callable[[Path], Any]
    score: Scoring
    images: Callable[[Any], ImageSet | None]


def _score_steps(
    made: DistilledSteps, test: ImageSet, protocol: Protocol, compute: Compute, progress: Progress
) -> list[Score]:
    return score(made.method, made.as_set(), test, geometry(made.plan), protocol, compute, progress)


def _score_model(
    made: DistilledModel, test: ImageSet, protocol: Protocol, compute: Compute, progress: Progress
) -> list[Score]:
    network = made.network().to(compute.device)
    accuracy = accuracy_of(network, test, made.plan.image.normalisation, compute)
    return [Score(made.method, made.spec.name, (accuracy,), 0)]


KINDS: dict[type, Kind] = {
    DistilledSet: Kind("distilled.safetensors", write_distilled, read_distilled, evaluate, lambda made: made.images),
    DistilledSteps: Kind("steps.safetensors", write_steps, read_steps, _score_steps, lambda made: made.as_set()),
    DistilledModel: Kind("model.safetensors", write_model, read_model, _score_model, lambda made: None),
}


def kind_of(outcome: Outcome) -> Kind:
    """The kind of an outcome."""
    return KINDS[type(outcome)]


def read_kept(method: Method, plan: Plan, folder: Path) -> Outcome | None:
    """The outcome of the same plan that a folder holds already; None where it holds none."""
    kind = KINDS[method.outcome]
    try:
        made = kind.read(folder / kind.file)
    except DocumentError:
        return None
    return made if made.plan == plan else None


@dataclass
class Watched:
    """Accuracies of predictors on the way, by what they are and when they were seen; on disk after each."""

    path: Path
    plan: Plan
    test: ImageSet
    compute: Compute
    found: dict[str, dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kept = read_json(self.path)
        if kept.get("plan") == self.plan.digest:
            self.found = kept["found"]

    def __call__(self, what: str, when: int, predictor: Predictor) -> None:
        """Test a predictor and keep its accuracy."""
        accuracy = accuracy_of(predictor, self.test, self.plan.image.normalisation, self.compute)
        self.found.setdefault(what, {})[str(when)] = accuracy
        content = {"plan": self.plan.digest, "found": self.found}
        write_whole(self.path, (json.dumps(content, indent=2) + "\n").encode())

    def scores(self, name: str) -> list[Score]:
        """A line for each: of what was seen more than once, the best, which nobody could have picked beforehand."""
        lines = []
        for what, seen in self.found.items():
            label = f"{name}, {what}" if len(seen) == 1 else f"{name}, best {what} of {len(seen)}"
            lines.append(Score(label, self.plan.network.name, (max(seen.values()),), 0))
        return lines


def write_traffic(traffic: Traffic, folder: Path) -> None:
    """Keep what a conversation sent."""
    content = {"rounds": traffic.rounds, "up": traffic.up, "down": traffic.down}
    write_whole(folder / "traffic.json", (json.dumps(content, indent=2) + "\n").encode())


def describe_outcome(outcome: Outcome, folder: Path) -> dict[str, Any]:
    """What the results say of an outcome beside its scores: bytes from and to each site, and rounds."""
    kind = kind_of(outcome)
    sent = {p.stem: p.stat().st_size for p in sorted((folder / "contributions").glob("*.safetensors"))}
    traffic = read_json(folder / "traffic.json")
    rounds = {"rounds": traffic["rounds"], "bytes_to_each_site": traffic["down"]} if traffic else {}
    images = kind.images(outcome)
    return {
        "plan": outcome.plan.digest,
        "bytes_per_site": traffic["up"] if traffic else sent,
        "bytes": (folder / kind.file).stat().st_size,
        "images": 0 if images is None else len(images),
        "sites": outcome.sites,
        **rounds,
    }

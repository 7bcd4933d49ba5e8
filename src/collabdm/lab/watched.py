"""TODO lab.watched."""

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
        atomic_write(self.path, (json.dumps(content, indent=2) + "\n").encode())

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
    atomic_write(folder / "traffic.json", (json.dumps(content, indent=2) + "\n").encode())


def describe_outcome(outcome: Outcome, folder: Path) -> SetRecord:
    """What the results say of an outcome beside its scores: bytes from and to each site, and rounds."""
    kind = kind_of(outcome)
    sent = {p.stem: p.stat().st_size for p in sorted((folder / "contributions").glob("*.safetensors"))}
    traffic = read_json(folder / "traffic.json")
    images = kind.images(outcome)
    return SetRecord(
        plan=outcome.plan.digest,
        bytes_per_site=traffic["up"] if traffic else sent,
        bytes=(folder / kind.file).stat().st_size,
        images=0 if images is None else len(images),
        sites=outcome.sites,
        rounds=traffic.get("rounds"),
        bytes_to_each_site=traffic.get("down"),
    )

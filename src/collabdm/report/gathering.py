"""What a report tells, read from folders of rounds: documents and results, nothing computed anew.

A folder holds a simulation (`collabdm simulate -o`), or the files of a round by hand: a distilled set, contributions
and the results of `collabdm evaluate --json`, as far as they are there.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collabdm.documents.codec import HEADER_KEY, format_of
from collabdm.documents.outcome_files import read_distilled
from collabdm.documents.outcomes import DistilledSet
from collabdm.errors import DocumentError
from collabdm.lab.results import Results, SimulationResults, read_json, read_results
from collabdm.scoring.evaluation import Score

MEANS, IMAGES, FRAME, OWN = "class means", "local images", "labels, counts and header", "parts of the method"


PARTS = (MEANS, IMAGES, FRAME, OWN)


KINDS = {"statistics.codes": MEANS, "statistics.scales": MEANS, "local.images": IMAGES}


LARGEST_HEADER = 2**24


@dataclass(frozen=True)
class Round:
    """One folder: its set if it is there, the scores, the points along the refinement, what each site sent."""

    name: str
    made: DistilledSet | None
    scores: list[Score]
    curve: list[tuple[int, Score]] = field(default_factory=list)
    sent: dict[str, dict[str, int]] = field(default_factory=dict)
    results: Results | None = None

    @property
    def data(self) -> str:
        """The data that were scored on, if any."""
        return "" if self.results is None else self.results.data

    @property
    def main(self) -> str:
        """The name of the set that the round is about."""
        return self.made.method if self.made else next((s.what for s in self.scores), "")

    def bytes_of(self, what: str) -> int | None:
        """The most bytes that a site sent for a set; None where nothing was sent."""
        described = self.results.sets.get(what) if self.results else None
        largest = described.largest_upload if described else None
        if largest is None and what == self.main:
            largest = max((sum(parts.values()) for parts in self.sent.values()), default=None)
        return largest


def gather(folder: Path) -> Round:
    """What a folder holds. Raises DocumentError where it holds nothing that a report could show."""
    if not folder.is_dir():
        raise DocumentError(f"{folder} should be a folder of a round; found none there")
    results = _results(folder)
    made = _distilled(folder)
    if made is None and results is None:
        raise DocumentError(
            f"{folder} should hold a distilled set, or results of `simulate` or of `evaluate --json`; found neither"
        )
    scores = [record.score for record in results.scores] if results else []
    points = results.curve if isinstance(results, SimulationResults) else ()
    curve = [(point.step, point.score) for point in points]
    return Round(folder.resolve().name, made, scores, curve, _sent(folder, made), results)


def parts_of(path: Path) -> tuple[dict[str, Any], dict[str, int]]:
    """The header of a document in safetensors, and the bytes of its parts by kind, which add up to the file's."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > LARGEST_HEADER:
            raise ValueError("no safetensors header")
        tensors = json.loads(file.read(length))
    header = json.loads(tensors.pop("__metadata__")[HEADER_KEY])
    parts = dict.fromkeys(PARTS, 0)
    for name, tensor in tensors.items():
        start, end = tensor["data_offsets"]
        parts[KINDS.get(name, OWN if name.startswith("parts.") else FRAME)] += end - start
    parts[FRAME] += path.stat().st_size - sum(parts.values())
    return header, parts


def _results(folder: Path) -> Results | None:
    """results.json, or else the first JSON file in alphabetical order that contains scores."""
    if (folder / "results.json").exists():
        return read_results(folder / "results.json")
    scored = (path for path in sorted(folder.glob("*.json")) if "scores" in read_json(path))
    return next(map(read_results, scored), None)


def _distilled(folder: Path) -> DistilledSet | None:
    for path in sorted(folder.glob("*.safetensors")):
        if format_of(path) == "collabdm/distilled":
            return read_distilled(path)
    return None


def _sent(folder: Path, made: DistilledSet | None) -> dict[str, dict[str, int]]:
    """Bytes by part of the contributions to the set's plan that lie here, in contributions/ or in folders beside."""
    found: dict[str, dict[str, int]] = {}
    for pattern in ("*.safetensors", "contributions/*.safetensors", "../*/*.safetensors"):
        for path in sorted(folder.glob(pattern)):
            if made is None or format_of(path) != "collabdm/contribution":
                continue
            header, parts = parts_of(path)
            if header.get("plan_digest") == made.plan.digest:
                found.setdefault(str(header.get("site")), parts)
    return dict(sorted(found.items()))

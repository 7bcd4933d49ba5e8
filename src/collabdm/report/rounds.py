"""Read rounds from their folders, for a report.

A folder contains a simulation (`collabdm simulate -o`), or those files of a real round that exist:
a distilled set, contributions, and results of `collabdm evaluate --json`. It may also contain an
audit (`collabdm audit -o`), or nothing else.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collabdm.documents.codec import HEADER_KEY, format_of
from collabdm.documents.outcome_files import read_distilled
from collabdm.documents.outcomes import DistilledSet
from collabdm.errors import DataError, DocumentError
from collabdm.lab.audit.record import PICTURE_NAME, AuditRecord, read_record
from collabdm.lab.experiment import Experiment
from collabdm.lab.results import Results, SimulationResults, read_json, read_results
from collabdm.report.round_sets import ShownSet, read_sets, read_snapshots
from collabdm.scoring.evaluation import Score

MEANS, IMAGES, EXTRA = "class means", "local images", "extra tensors of the method"
REST = "labels, counts and header"
PARTS = (MEANS, IMAGES, REST, EXTRA)

PART_OF = {"statistics.codes": MEANS, "statistics.scales": MEANS, "local.images": IMAGES}
EXTRA_PREFIX = "parts."

LARGEST_HEADER = 2**24

PartSizes = dict[str, int]  # bytes by part


@dataclass(frozen=True)
class RoundFiles:
    """The files of a round: set, results, audit, and the bytes of contributions by site and part.

    `audit_picture` contains the bytes of audit.png, `sets` the images of every method, and
    `snapshots` the set after steps of the refinement.
    """

    name: str
    distilled: DistilledSet | None = None
    results: Results | None = None
    contributions: dict[str, PartSizes] = field(default_factory=dict)
    audit: AuditRecord | None = None
    audit_picture: bytes | None = None
    sets: tuple[ShownSet, ...] = ()
    snapshots: dict[int, DistilledSet] = field(default_factory=dict)

    @property
    def scores(self) -> list[Score]:
        """The scores of all sets and networks, in the order of the results file."""
        return [record.score for record in self.results.scores] if self.results else []

    @property
    def curve(self) -> list[tuple[int, Score]]:
        """Pairs of a step of the server's refinement and the score after it."""
        points = self.results.curve if isinstance(self.results, SimulationResults) else ()
        return [(point.step, point.score) for point in points]

    @property
    def experiment(self) -> Experiment | None:
        """The settings of a simulation; None for other rounds."""
        return self.results.experiment if isinstance(self.results, SimulationResults) else None

    @property
    def data(self) -> str:
        """The data that the networks were tested on, or of the audit; empty without both."""
        if self.results is not None:
            return self.results.data
        return self.audit.data if self.audit else ""

    @property
    def method(self) -> str:
        """The method of the set, or else of the first score, or of the audit; empty without all."""
        if self.distilled is not None:
            return self.distilled.method
        audited = f"audit of {self.audit.method}" if self.audit else ""
        return next((score.what for score in self.scores), audited)

    def largest_upload(self, method: str) -> int | None:
        """Return the most bytes that one site sent for a method; None if unknown."""
        recorded = self.results.sets.get(method) if self.results else None
        if recorded is not None and recorded.largest_upload is not None:
            return recorded.largest_upload
        if method != self.method:
            return None

        return max((sum(sizes.values()) for sizes in self.contributions.values()), default=None)


def read_round(folder: Path) -> RoundFiles:
    """Read the round in a folder.

    Raises:
        DocumentError: The folder contains no set, results or audit.
        DataError: The results are damaged, or their classes differ from those of the set.
    """
    if not folder.is_dir():
        raise DocumentError(f"{folder} should be a folder of a round; found none there")

    results, distilled, audit = _results(folder), _distilled(folder), read_record(folder)
    if distilled is None and results is None and audit is None:
        raise DocumentError(
            f"{folder} should contain a distilled set, or results of `simulate`, of "
            "`evaluate --json` or of `audit`; found none"
        )

    name, contributions = folder.resolve().name, _contributions(folder, distilled)
    path = folder / PICTURE_NAME
    picture = path.read_bytes() if audit is not None and path.exists() else None
    sets, snapshots = (
        read_sets(folder, distilled, results),
        read_snapshots(folder, distilled, results),
    )
    files = RoundFiles(name, distilled, results, contributions, audit, picture, sets, snapshots)
    _check_classes(files, folder)
    return files


def part_sizes(path: Path) -> tuple[dict[str, Any], PartSizes]:
    """Read the header of a safetensors document and its bytes by part, which sum to its size."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > LARGEST_HEADER:
            raise ValueError("no safetensors header")
        tensors = json.loads(file.read(length))

    header = json.loads(tensors.pop("__metadata__")[HEADER_KEY])
    sizes = dict.fromkeys(PARTS, 0)

    for name, tensor in tensors.items():
        start, end = tensor["data_offsets"]
        part = EXTRA if name.startswith(EXTRA_PREFIX) else PART_OF.get(name, REST)
        sizes[part] += end - start

    sizes[REST] += path.stat().st_size - sum(sizes.values())
    return header, sizes


def _results(folder: Path) -> Results | None:
    """Read results.json, or else the first JSON file by name that contains scores."""
    if (folder / "results.json").exists():
        return read_results(folder / "results.json")

    scored = (path for path in sorted(folder.glob("*.json")) if "scores" in read_json(path))
    return next(map(read_results, scored), None)


def _distilled(folder: Path) -> DistilledSet | None:
    for path in sorted(folder.glob("*.safetensors")):
        if format_of(path) == "collabdm/distilled":
            return read_distilled(path)
    return None


def _contributions(folder: Path, distilled: DistilledSet | None) -> dict[str, PartSizes]:
    """Read the bytes of each site's contribution to the set's plan, by part."""
    if distilled is None:
        return {}

    sizes: dict[str, PartSizes] = {}
    for path in _contribution_paths(folder):
        header, parts = part_sizes(path)
        if header.get("plan_digest") == distilled.plan.digest:
            sizes.setdefault(str(header.get("site")), parts)

    return dict(sorted(sizes.items()))


def _contribution_paths(folder: Path) -> Iterator[Path]:
    """Find contributions in the folder, in contributions/, and in the folders next to it."""
    for pattern in ("*.safetensors", "contributions/*.safetensors", "../*/*.safetensors"):
        for path in sorted(folder.glob(pattern)):
            if format_of(path) == "collabdm/contribution":
                yield path


def _check_classes(files: RoundFiles, folder: Path) -> None:
    """Check that the confusion matrices fit the set's classes. Raises DataError if not."""
    if files.distilled is None:
        return

    classes = len(files.distilled.plan.classes)
    sizes = {len(score.confusion) for score in files.scores} - {0, classes}
    if sizes:
        raise DataError(
            f"{folder} should contain a set and its own results; found a set of {classes} classes "
            f"and scores of {min(sizes)}: put them into folders of their own"
        )

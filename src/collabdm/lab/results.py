"""Records of results, which `simulate` and `evaluate --json` write and `report` reads.

    results.json of `simulate`   experiment, digest, complete, compute, versions, sets, scores,
                                 [curve]
    file of `evaluate --json`    set, plan, data, seed, sets, bytes, versions, recipe, compute,
                                 scores, [robustness, tally]

The records are pydantic models, strict about types. Unknown keys are ignored, so that the files of
later versions stay readable; a key in brackets is omitted if it has no value.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_serializer,
    model_validator,
)

from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.frozen_model import EXPECTED
from collabdm.documents.json_text import load_json
from collabdm.documents.regular_file import read_regular
from collabdm.errors import DataError
from collabdm.lab.experiment import Experiment
from collabdm.matching.compute import Compute
from collabdm.scoring.dd_ranking import Robustness
from collabdm.scoring.evaluation import Score

REMEDY = "restore the file, or repeat `collabdm simulate` or `collabdm evaluate --json`"

R = TypeVar("R", bound="Record")

Count = Annotated[int, Field(ge=0)]

Share = Annotated[float, Field(ge=0, le=1)]

Accuracies = Annotated[tuple[Share, ...], Field(min_length=1)]


class Record(BaseModel):
    """Base class of the records. A key in `optional` is omitted if its value is the default."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)

    optional: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_absent_keys(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        absent = self.absent_keys()

        return {key: value for key, value in handler(self).items() if key not in absent}

    def absent_keys(self) -> set[str]:
        """Return the keys to omit: the optional keys whose value is the default."""
        fields = type(self).model_fields
        defaults = {
            key: fields[key].get_default(call_default_factory=True) for key in self.optional
        }

        return {key for key, default in defaults.items() if getattr(self, key) == default}

    def document(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return self.model_dump(mode="json")


class ComputeRecord(Record):
    """The device and the precision of a computation."""

    device: str
    precision: str
    compiled: bool | None = None

    @classmethod
    def of(cls, compute: Compute) -> "ComputeRecord":
        """Make the record of a `Compute`."""
        return cls(**asdict(compute))


class SetRecord(Record):
    """A distilled set: its plan's digest, its size, and the bytes that its sites sent and received.

    `sites` counts the images of each class at each site. `rounds` and `bytes_to_each_site` are
    recorded for methods of several rounds only.
    """

    optional = frozenset({"rounds", "bytes_to_each_site"})

    plan: str
    bytes_per_site: dict[str, Count]
    bytes: Count
    images: Count
    sites: dict[str, list[Count]]
    rounds: Count | None = None
    bytes_to_each_site: dict[str, Count] | None = None

    @property
    def largest_upload(self) -> int | None:
        """The most bytes that one site sent; None if no site sent anything."""
        return max(self.bytes_per_site.values(), default=None)


class AccuracyRecord(Record):
    """Accuracies, in 0 .. 1, of networks trained on one set, one per trial."""

    what: str
    network: str
    accuracies: Accuracies
    images: Count


class ScoreRecord(AccuracyRecord):
    """The record of a `Score`. The file also states its mean, std, n and accuracy per class."""

    optional = frozenset({"macro_f1", "balanced_accuracy", "detection"})

    confusion: tuple[tuple[Count, ...], ...] = ()
    macro_f1: Share | None = None
    balanced_accuracy: Share | None = None
    detection: Share | None = None

    @model_validator(mode="after")
    def _confusion_is_square(self) -> "ScoreRecord":
        if any(len(row) != len(self.confusion) for row in self.confusion):
            raise ValueError("should have a `confusion` with as many columns as rows")
        return self

    @model_serializer(mode="wrap")
    def _with_figures(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        score = self.score
        figures = {"mean": score.mean, "std": score.std, "n": score.n}

        absent = self.absent_keys()
        stored = {key: value for key, value in handler(self).items() if key not in absent}
        return stored | figures | {"per_class": list(score.per_class)}

    @classmethod
    def of(cls, score: Score) -> "ScoreRecord":
        """Make the record of a `Score`."""
        return cls(**asdict(score))

    @property
    def score(self) -> Score:
        """The `Score` that was recorded."""
        return Score(**{field.name: getattr(self, field.name) for field in fields(Score)})


class _AtStep(Record):
    step: Count


class CurvePoint(ScoreRecord, _AtStep):  # in this order `step` comes first in the file
    """The score of the set after a step of the server's refinement."""

    @classmethod
    def at(cls, step: int, score: Score) -> "CurvePoint":
        """Make the record of a `Score` after a step."""
        return cls(step=step, **asdict(score))


class RobustnessRecord(Record):
    """The scores of DD-Ranking: see `Robustness`. Files of early versions have no `std`."""

    hlr: float
    ior: float
    lrs: float
    ars: float
    std: dict[str, float] = Field(default_factory=dict)
    n: Count = 1
    accuracies: dict[str, float] = Field(default_factory=dict)

    @classmethod
    def of(cls, robustness: Robustness) -> "RobustnessRecord":
        """Make the record of a `Robustness`."""
        return cls(**asdict(robustness))


class SimulationResults(Record):
    """results.json of one simulated round. `complete` is false while scores are still missing."""

    optional = frozenset({"curve"})

    experiment: Experiment
    digest: str
    complete: bool
    compute: ComputeRecord
    versions: dict[str, str]
    sets: dict[str, SetRecord]
    scores: tuple[ScoreRecord, ...]
    curve: tuple[CurvePoint, ...] = ()

    @property
    def data(self) -> str:
        """The name of the data that the networks were tested on."""
        return self.experiment.data

    @property
    def plans(self) -> frozenset[str]:
        """The digests of the plans of all sets that were scored."""
        return frozenset(record.plan for record in self.sets.values())


class EvaluationResults(Record):
    """The file of `evaluate --json`: the scores of one distilled set."""

    optional = frozenset({"robustness", "tally"})

    set: str
    plan: str
    data: str
    seed: int
    sets: dict[str, SetRecord] = Field(default_factory=dict)
    bytes: Count
    versions: dict[str, str]
    recipe: dict[str, JsonValue]
    compute: ComputeRecord
    scores: tuple[ScoreRecord, ...]
    robustness: RobustnessRecord | None = None
    tally: dict[str, JsonValue] | None = None

    @property
    def plans(self) -> frozenset[str]:
        """The digest of the plan of the set that was scored."""
        return frozenset({self.plan})


Results = SimulationResults | EvaluationResults


def write_results(results: Results, path: Path) -> None:
    """Write results as indented JSON."""
    atomic_write(path, (json.dumps(results.document(), indent=2) + "\n").encode())


def read_results(path: Path) -> Results:
    """Read the results of `simulate` or of `evaluate --json`.

    Raises:
        DataError: The file cannot be read, or a field is missing or of a wrong type.
    """
    try:
        content = read_regular(path)
    except OSError as error:
        raise DataError(f"{path} should be a readable file of results; {error}") from error

    if "experiment" in read_json(path):
        return parse_record(SimulationResults, content, str(path))
    return parse_record(EvaluationResults, content, str(path))


def parse_record(kind: type[R], content: bytes | str, place: str, remedy: str = REMEDY) -> R:
    """Parse a record from JSON.

    Args:
        kind: The class of the record.
        content: JSON text.
        place: The file, and the line if it contains several records, to name in the error.
        remedy: The advice at the end of the error.

    Raises:
        DataError: The text is not JSON, or a field is missing or of a wrong type.
    """
    try:
        return kind.model_validate_json(content)
    except ValidationError as error:
        raise DataError(f"{place}: {_first_problem(error)}: {remedy}") from error


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    field = ".".join(map(str, problem["loc"]))

    if problem["type"] == "json_invalid":
        return f"should be JSON; {problem['ctx']['error']}"
    if problem["type"] == "missing":
        return f"`{field}` should be present; found nothing"

    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] != "value_error":  # such as "Input should be a valid number"
        message = message[max(message.find("should"), 0) :]
    message = EXPECTED.get(problem["type"], message)
    subject = f"`{field}` " if field else ""
    return f"{subject}{message}; found {problem['input']!r:.80}"


def read_json(path: Path) -> dict[str, Any]:
    """Read the object in a JSON file; empty if the file is missing or contains no object."""
    try:
        content = load_json(read_regular(path))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}

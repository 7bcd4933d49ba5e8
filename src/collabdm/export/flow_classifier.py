"""A trained model at work on a table of flows: a class and a confidence for every window of rows.

    class = argmax_y p_y(x),   confidence = max_y p_y(x)      for x the image of `flows` rows

Reference: R. Holland et al., "One-shot collaborative data distillation", 2024, section 5.3.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from collabdm.data.flows.schemas import parse_schema
from collabdm.data.flows.windows import UNKNOWN, Windows
from collabdm.documents.flow_schema import FlowSchema
from collabdm.errors import DataError, PlanError
from collabdm.scoring.confusion import Confusion
from collabdm.scoring.trained_model import TrainedModel


@dataclass(frozen=True)
class Verdicts:
    """What a model says of windows: class numbers and confidences; `true` classes are -1 where not known."""

    classes: tuple[str, ...]
    predicted: Int64[Tensor, " n"]
    confidence: Float32[Tensor, " n"]
    true: Int64[Tensor, " n"]
    first: Int64[Tensor, " n"]

    def confusion(self) -> Confusion | None:
        """Counts of (true, predicted) over the windows whose class is known; None where there are none."""
        known = self.true != UNKNOWN
        if not known.any():
            return None
        return Confusion.of(self.true[known], self.predicted[known], len(self.classes))

    def csv(self, flows: int) -> str:
        """A line for each window: its first and last row (from 0, in order of time), class, confidence, true class."""
        lines = ["first_row,last_row,class,confidence,true_class"]
        for first, y, share, true in zip(
            *(tensor.tolist() for tensor in (self.first, self.predicted, self.confidence, self.true)), strict=True
        ):
            named = _quoted(self.classes[true]) if true != UNKNOWN else ""
            lines.append(f"{first},{first + flows - 1},{_quoted(self.classes[y])},{share:.4f},{named}")
        return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if set(text) & set(',"\n') else text


def schema_for(model: TrainedModel, schema: FlowSchema | None) -> FlowSchema:
    """The schema to read tables by: the one given, or the one that the model carries. Raises PlanError."""
    if schema is None:
        plan = model.provenance.get("plan")
        carried = model.provenance.get("flows") or (plan.get("flows") if isinstance(plan, dict) else None)
        if carried is None:
            raise PlanError("the model should carry a schema of flows; found none: name one with `--flows`")
        schema = parse_schema("the model's schema", carried)
    if (schema.classes, (1, schema.side, schema.side)) != (model.classes, model.image.shape):
        raise PlanError(
            f"the schema should have the model's classes, {', '.join(model.classes)}, and images of "
            f"{model.image.shape}; found {', '.join(schema.classes)} and side {schema.side}"
        )
    return schema


def classify(model: TrainedModel, found: Windows) -> Verdicts:
    """What the model says of every window. Raises DataError where there is none."""
    if not len(found.labels):
        raise DataError("there should be rows for one window at least; found fewer")
    confidence, predicted = model.probabilities(found.images).max(1)
    return Verdicts(model.classes, predicted, confidence, found.labels, found.first)


def rows_of(confusion: Confusion, classes: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Rows of a table: class, windows of it, precision, recall, and how many of them go to each class."""
    return [
        (
            name,
            f"{int(counts.sum()):,}",
            _share(precision),
            _share(recall),
            *(f"{int(n):,}" for n in counts),
        )
        for name, counts, precision, recall in zip(
            classes, confusion.counts, confusion.precision, confusion.recall, strict=True
        )
    ]


def _share(value: Tensor) -> str:
    return "-" if torch.isnan(value) else f"{100 * float(value):.1f}"

"""Predict a class, with its confidence, for each window of rows in a table of flows.

    class = argmax_y p_y(x),   confidence = max_y p_y(x),    x the image of a window of rows

where p_y(x) is the probability of class y that the model computes.

Reference: R. Holland et al., "One-shot collaborative data distillation", 2024, section 5.3.
"""

import csv
import io
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
class Predictions:
    """The predicted classes of windows.

    Attributes:
        classes: The names of the classes.
        predicted: The predicted class number of each window.
        confidence: The probability of the predicted class of each window.
        true: The true class number of each window; -1 for a window without a label.
        first: The first row of each window, from 0, in order of time.
    """

    classes: tuple[str, ...]
    predicted: Int64[Tensor, " n"]
    confidence: Float32[Tensor, " n"]
    true: Int64[Tensor, " n"]
    first: Int64[Tensor, " n"]

    def confusion(self) -> Confusion | None:
        """Count the confusion matrix of the labelled windows; None if no window has a label."""
        labelled = self.true != UNKNOWN
        if not labelled.any():
            return None
        return Confusion.of(self.true[labelled], self.predicted[labelled], len(self.classes))

    def csv(self, flows: int) -> str:
        """Write the predictions as CSV, with one line per window of `flows` rows."""
        return csv_head(flows) + self.csv_lines(flows)

    def csv_lines(self, flows: int, before: int = 0) -> str:
        """Write the lines of the CSV below its head.

        Args:
            flows: The rows of a window.
            before: The number of rows before those of these predictions.
        """
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")

        columns = (self.first + before, self.predicted, self.confidence, self.true)
        for first, y, confidence, true in zip(*(c.tolist() for c in columns), strict=True):
            label = self.classes[true] if true != UNKNOWN else ""
            rows = [first] if flows == 1 else [first, first + flows - 1]
            writer.writerow([*rows, self.classes[y], f"{confidence:.4f}", label])

        return text.getvalue()


def csv_head(flows: int) -> str:
    """Return the first line of the CSV of predictions for windows of `flows` rows."""
    rows = "row" if flows == 1 else "first_row,last_row"
    return f"{rows},class,confidence,true_class\n"


def schema_for(model: TrainedModel, schema: FlowSchema | None) -> FlowSchema:
    """Return the schema for reading tables: `schema`, or the model's own if `schema` is None.

    Raises:
        PlanError: The model contains no schema, or the schema does not fit the model.
    """
    if schema is None:
        schema = own_schema(model)

    if (schema.classes, schema.image_shape) != (model.classes, model.image.shape):
        raise PlanError(
            f"the schema should have the model's classes, {', '.join(model.classes)}, and images "
            f"of {model.image.shape}; found {', '.join(schema.classes)} and {schema.image_shape}: "
            "choose the schema that the model was trained with"
        )
    return schema


def own_schema(model: TrainedModel) -> FlowSchema:
    """Return the schema that a model contains. Raises PlanError if there is none."""
    plan = model.provenance.get("plan")
    own = model.provenance.get("flows") or (plan.get("flows") if isinstance(plan, dict) else None)
    if own is None:
        raise PlanError(
            "the model should contain a schema of flows; found none: name one with `--flows`"
        )
    return parse_schema("the model's schema", own)


def classify(model: TrainedModel, windows: Windows) -> Predictions:
    """Predict the class of every window. Raises DataError if there are no windows."""
    if not len(windows.labels):
        raise DataError("there should be rows for one window at least; found fewer: use more rows")

    confidence, predicted = model.probabilities(windows.images).max(1)
    return Predictions(model.classes, predicted, confidence, windows.labels, windows.first)


def confusion_rows(confusion: Confusion, classes: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Format one row for each class: windows, precision, recall, and windows by prediction."""
    return [
        (
            name,
            f"{int(counts.sum()):,}",
            _percent(precision),
            _percent(recall),
            *(f"{int(n):,}" for n in counts),
        )
        for name, counts, precision, recall in zip(
            classes, confusion.counts, confusion.precision, confusion.recall, strict=True
        )
    ]


def _percent(share: Tensor) -> str:
    return "-" if torch.isnan(share) else f"{100 * float(share):.1f}"

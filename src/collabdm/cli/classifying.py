"""Classify a table of flows with a trained model."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Int64
from torch import Tensor

from collabdm.cli.console import Bars, notes
from collabdm.cli.tables import Tables
from collabdm.data.flows.issues import Tally
from collabdm.data.flows.schemas import schema_of
from collabdm.data.flows.tables import Reading, read_flows
from collabdm.data.flows.windows import windows
from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.flow_schema import FlowSchema
from collabdm.export.flow_classifier import Predictions, classify, confusion_rows, schema_for
from collabdm.rounds.exchange import parse_rows
from collabdm.scoring.confusion import Confusion
from collabdm.scoring.trained_model import TrainedModel, read_model


@dataclass(frozen=True)
class Request:
    """The options of `classify`.

    Attributes:
        model: the file of a trained model.
        data: a table of flows; `-` is standard input.
        flows: the name or the file of a schema; None uses the model's schema.
        grouping: `stream` or `class`.
        rows: `COLUMN=VALUE`, which selects the rows to use; None uses all rows.
        held_out: whether to use only the rows that the schema reserves for testing.
        follow: whether to go on with the rows that are appended to the table.
    """

    model: Path
    data: Path
    flows: str | None
    grouping: str
    rows: str | None
    held_out: bool
    follow: bool = False

    def model_and_schema(self) -> tuple[TrainedModel, FlowSchema]:
        """Read the model, and the schema for its tables. Raises PlanError and DocumentError."""
        trained = read_model(self.model)
        given = None if self.flows is None else schema_of(self.flows)
        schema = schema_for(trained, given).model_copy(update={"grouping": self.grouping})
        if schema.as_rows and not self.held_out:
            # without windows or a split, the order of time does not matter
            schema = schema.model_copy(update={"time": None})
        return trained, schema


@dataclass
class Verdicts:
    """The predictions so far, counted.

    Attributes:
        schema: the schema of the table.
        flows: the number of rows read.
        predicted: the number of windows by predicted class.
        counts: the confusion matrix of the windows with a label.
        confidence: the sum of the confidences.
        mixed: the number of windows whose rows have several classes.
    """

    schema: FlowSchema
    flows: int = 0
    predicted: Int64[Tensor, " classes"] = field(init=False)
    counts: Int64[Tensor, "classes classes"] = field(init=False)
    confidence: float = 0.0
    mixed: int = 0

    def __post_init__(self) -> None:
        """Start with zeros."""
        classes = len(self.schema.classes)
        self.predicted = torch.zeros(classes, dtype=torch.int64)
        self.counts = torch.zeros(classes, classes, dtype=torch.int64)

    def add(self, predictions: Predictions, mixed: int) -> None:
        """Count predictions, and the windows among them whose rows have several classes."""
        classes = len(self.schema.classes)
        self.predicted += torch.bincount(predictions.predicted, minlength=classes)
        self.confidence += float(predictions.confidence.double().sum())
        self.mixed += mixed
        if confusion := predictions.confusion():
            self.counts += confusion.counts


def classify_table(request: Request, output: Path | None, quiet: bool, tables: Tables) -> None:
    """Classify each window of consecutive rows in a table, and print the counts and the time.

    Args:
        request: what to classify.
        output: a CSV file with one line per window; None writes no file.
        quiet: whether to hide the progress bars.
        tables: prints the tables.

    Raises:
        PlanError: If there is no schema of flows, or it does not fit the model.
        DataError: If the table does not fit the schema, or has too few rows.
    """
    trained, schema = request.model_and_schema()

    start = time.perf_counter()
    with Bars(quiet) as bars:
        reading = Reading(parse_rows(request.rows), request.grouping == "class", bars)
        rows, tally = read_flows(request.data, schema, reading)
    images = windows(rows, schema, "test" if request.held_out else "all")
    predictions = classify(trained, images)
    seconds = time.perf_counter() - start

    verdicts = Verdicts(schema, len(rows))
    verdicts.add(predictions, images.mixed)
    if output is not None:
        atomic_write(output, predictions.csv(schema.flows).encode())
    print_summary(str(request.data), verdicts, tally, seconds, tables)


def print_summary(
    title: str, verdicts: Verdicts, tally: Tally, seconds: float, tables: Tables
) -> None:
    """Print what was left out, the counts, the confusion matrix, and the time.

    Args:
        title: the name of the table.
        verdicts: the predictions.
        tally: the issues of the table.
        seconds: the time of reading and classifying.
        tables: prints the tables.
    """
    for line in tally.lines():
        notes.print(line)
    print_predictions(title, verdicts, tables)
    speed = f"{verdicts.flows / seconds:,.0f} per second on {torch.get_num_threads()} thread(s)"
    tables.line(f"{verdicts.flows:,} flows in {seconds:.2f} s, {speed}")
    tables.write()


def print_predictions(title: str, verdicts: Verdicts, tables: Tables) -> None:
    """Print the number of windows per class and, if the table has labels, the confusion matrix.

    Args:
        title: the name of the table.
        verdicts: the predictions.
        tables: prints the tables.
    """
    classes, unit = verdicts.schema.classes, "flows" if verdicts.schema.as_rows else "windows"
    number = int(verdicts.predicted.sum())
    rows = [(name, f"{int(n):,}") for name, n in zip(classes, verdicts.predicted, strict=True)]
    tables.add(f"{title}, {number:,} {unit}", ("class", unit), rows)
    if number:
        tables.line(f"confidence: {verdicts.confidence / number:.3f} on average")

    if not verdicts.counts.any():
        return
    confusion = Confusion(verdicts.counts)
    predicted = (f"as {name}" for name in classes)
    columns = ("true class", unit, "precision %", "recall %", *predicted)
    tables.add("Against the labels", columns, confusion_rows(confusion, classes))
    mixed = "" if unit == "flows" else f"; windows with rows of several classes: {verdicts.mixed:,}"
    tables.line(
        f"accuracy {100 * confusion.accuracy:.2f} %, "
        f"macro F1 {100 * confusion.macro_f1:.2f} %{mixed}"
    )

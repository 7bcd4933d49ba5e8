"""Classify a table of flows with a trained model."""

import time
from dataclasses import dataclass
from pathlib import Path

import torch

from collabdm.cli.console import Bars, notes
from collabdm.cli.tables import Tables
from collabdm.data.flows.schemas import schema_of
from collabdm.data.flows.tables import Reading, read_flows
from collabdm.data.flows.windows import windows
from collabdm.documents.atomic_write import atomic_write
from collabdm.export.flow_classifier import Predictions, classify, confusion_rows, schema_for
from collabdm.rounds.exchange import parse_rows
from collabdm.scoring.trained_model import read_model


@dataclass(frozen=True)
class Request:
    """The options of `classify`.

    Attributes:
        model: the file of a trained model.
        data: a table of flows.
        flows: the name or the file of a schema; None uses the model's schema.
        grouping: `stream` or `class`.
        rows: `COLUMN=VALUE`, which selects the rows to use; None uses all rows.
        held_out: whether to use only the rows that the schema reserves for testing.
    """

    model: Path
    data: Path
    flows: str | None
    grouping: str
    rows: str | None
    held_out: bool


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
    trained = read_model(request.model)
    given = None if request.flows is None else schema_of(request.flows)
    schema = schema_for(trained, given).model_copy(update={"grouping": request.grouping})

    start = time.perf_counter()
    with Bars(quiet) as bars:
        reading = Reading(parse_rows(request.rows), request.grouping == "class", bars)
        rows, tally = read_flows(request.data, schema, reading)
    images = windows(rows, schema, "test" if request.held_out else "all")
    predictions = classify(trained, images)
    seconds = time.perf_counter() - start

    for line in tally.lines():
        notes.print(line)
    if output is not None:
        atomic_write(output, predictions.csv(schema.flows).encode())
    print_predictions(request.data, predictions, images.mixed, tables)
    speed = f"{len(rows) / seconds:,.0f} per second on {torch.get_num_threads()} thread(s)"
    tables.line(f"{len(rows):,} flows in {seconds:.2f} s, {speed}")
    tables.write()


def print_predictions(data: Path, predictions: Predictions, mixed: int, tables: Tables) -> None:
    """Print the number of windows per class and, if the table has labels, the confusion matrix.

    Args:
        data: the table.
        predictions: the predicted class of each window.
        mixed: the number of windows whose rows have several classes.
        tables: prints the tables.
    """
    counts = torch.bincount(predictions.predicted, minlength=len(predictions.classes))
    rows = [(name, f"{int(n):,}") for name, n in zip(predictions.classes, counts, strict=True)]
    title = f"{data}, {len(predictions.predicted):,} windows"
    tables.add(title, ("class", "windows"), rows)
    tables.line(f"confidence: {float(predictions.confidence.mean()):.3f} on average")

    confusion = predictions.confusion()
    if confusion is None:
        return
    predicted = (f"as {name}" for name in predictions.classes)
    columns = ("true class", "windows", "precision %", "recall %", *predicted)
    tables.add("Against the labels", columns, confusion_rows(confusion, predictions.classes))
    tables.line(
        f"accuracy {100 * confusion.accuracy:.2f} %, macro F1 {100 * confusion.macro_f1:.2f} %; "
        f"windows with rows of several classes: {mixed:,}"
    )

"""Classify flows as they arrive, at standard input or in a file that grows."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import torch

from collabdm.cli.arrivals import appended, piped
from collabdm.cli.classifying import Request, Verdicts, print_summary
from collabdm.cli.console import notes
from collabdm.cli.stopping import StoppedError, StopRequest, stop_request
from collabdm.cli.tables import STANDARD_OUTPUT, Tables
from collabdm.data.flows.arriving import ArrivingRows
from collabdm.data.flows.tables import Reading
from collabdm.data.flows.windows import Flows, windows
from collabdm.documents.flow_schema import FlowSchema
from collabdm.errors import PlanError
from collabdm.export.flow_classifier import classify, csv_head
from collabdm.rounds.exchange import parse_rows
from collabdm.scoring.trained_model import TrainedModel

STANDARD_INPUT = Path("-")


def is_live(request: Request) -> bool:
    """Return whether rows are classified as they arrive."""
    return request.follow or request.data == STANDARD_INPUT


def check_request(request: Request, output: Path | None, json_file: Path | None) -> None:
    """Check that options fit rows as they arrive.

    Args:
        request: what to classify.
        output: the CSV file of the verdicts; None is standard output.
        json_file: the JSON file of the tables, if any.

    Raises:
        PlanError: an option needs all rows, or two outputs go to standard output.
    """
    faults = []
    if request.follow and request.data == STANDARD_INPUT:
        faults.append("`--follow` needs a file; standard input is followed until it ends")
    if request.held_out:
        faults.append("`--held-out` needs a whole table")
    if request.grouping != "stream":
        faults.append("`--grouping class` needs a whole table")
    if json_file == STANDARD_OUTPUT and output is None:
        faults.append("`--json -` needs `-o`, since the verdicts go to standard output")
    if faults:
        raise PlanError("; ".join(faults) + ": leave it out")


class LiveClassifier:
    """Classifies rows in their order of arrival; with images, windows of consecutive rows."""

    def __init__(self, model: TrainedModel, schema: FlowSchema) -> None:
        self._model, self._schema = model, schema
        self._before, self._left = 0, Flows(torch.zeros(0, 1), torch.zeros(0, dtype=torch.int64))
        self.verdicts = Verdicts(schema)

    def lines(self, rows: Flows) -> str:
        """Return the lines of CSV of new rows; rows of an unfinished window wait."""
        self.verdicts.flows += len(rows)
        if len(self._left):
            levels = torch.cat([self._left.levels, rows.levels])
            rows = Flows(levels, torch.cat([self._left.labels, rows.labels]))

        used = len(rows) // self._schema.flows * self._schema.flows
        self._left = Flows(rows.levels[used:], rows.labels[used:])
        if not used:
            return ""

        found = windows(Flows(rows.levels[:used], rows.labels[:used]), self._schema)
        predictions = classify(self._model, found)
        self.verdicts.add(predictions, found.mixed)
        text = predictions.csv_lines(self._schema.flows, self._before)
        self._before += used
        return text


def classify_live(request: Request, output: Path | None, json_file: Path | None) -> None:
    """Classify rows as they arrive, until the input ends or a signal stops the command.

    Args:
        request: what to classify.
        output: the CSV file of the verdicts; None is standard output. It is complete after every
            block of rows.
        json_file: the JSON file of the tables, if any.

    Raises:
        PlanError: If there is no schema of flows, or it does not fit the model.
        DataError: If the input is no CSV table of the schema, or a file is not only appended to.
        StoppedError: If a signal stopped the command, after the summary.
    """
    model, schema = request.model_and_schema()
    name = Path("standard input") if request.data == STANDARD_INPUT else request.data
    rows = ArrivingRows(name, schema, Reading(parse_rows(request.rows), labelled=False))
    classifier = LiveClassifier(model, schema)

    start = time.perf_counter()
    with stop_request() as stop, _opened(output) as file:
        file.write(csv_head(schema.flows))
        file.flush()
        ended = False
        try:
            for block in _arriving(request, rows, stop):
                file.write(classifier.lines(block))
                file.flush()
            ended = True
        finally:
            if ended or rows.read:
                seconds = time.perf_counter() - start
                tables = Tables(json_file, notes)
                print_summary(str(name), classifier.verdicts, rows.tally, seconds, tables)

    if rows.unfinished:
        notes.print("the last line was not read: it has no newline yet")
    if stop.signal is not None:
        raise StoppedError(stop.signal)


def _arriving(request: Request, rows: ArrivingRows, stop: StopRequest) -> Iterator[Flows]:
    """Yield rows, a block at a time, until the input ends or a signal arrives."""
    if request.follow:
        blocks = appended(request.data, lambda: bool(stop))
    else:
        blocks = piped(sys.stdin.fileno(), lambda: bool(stop))

    for block in blocks:
        yield from rows.add(block)
    if not stop:
        yield from rows.end()


@contextmanager
def _opened(output: Path | None) -> Iterator[TextIO]:
    """Open the file of the verdicts, or standard output."""
    if output is None:
        yield sys.stdout
        return
    with output.open("w", encoding="utf-8", newline="") as file:
        yield file

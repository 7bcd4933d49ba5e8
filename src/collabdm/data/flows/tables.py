"""Read tables of flows: each row becomes the pixels, or the encoded values, of its features.

A fault in a table either raises an error that states the remedy, or is counted and reported
(`issues`). Memory holds one chunk of the table and, for each row, one byte per feature plus 16;
with `form` rows, four bytes per encoded value, twice for a moment.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8

from collabdm.data.flows.cells import NOT_LISTED, clean, numbers, positions, texts, times
from collabdm.data.flows.chunks import MOST_SHOWN, Columns, chunks, some
from collabdm.data.flows.dialect import Rules
from collabdm.data.flows.issues import Issue, IssueKind, Tally
from collabdm.data.flows.labels import class_numbers
from collabdm.data.flows.rows import encode_categories, encode_numbers
from collabdm.data.flows.windows import UNKNOWN, Flows
from collabdm.documents.flow_schema import Column, FlowSchema, Number
from collabdm.errors import DataError
from collabdm.progress import Report, silent


@dataclass(frozen=True)
class Reading:
    """How to read a table.

    `rows` is a pair (column, value): only the rows with that value are read; None reads all. If
    `labelled`, every label must be a class of the schema. `report` receives progress events.
    """

    rows: tuple[str, str] | None = None
    labelled: bool = True
    report: Report = silent


@dataclass(frozen=True)
class Rows:
    """The rows of one chunk: their pixels, class numbers, and values of the time column."""

    levels: UInt8[np.ndarray, "n features"] | Float32[np.ndarray, "n width"]
    labels: Int64[np.ndarray, " n"]
    times: np.ndarray


def read_flows(
    location: str | Path, schema: FlowSchema, reading: Reading = Reading()
) -> tuple[Flows, Tally]:
    """Read the rows of a site's tables.

    Args:
        location: A table, several tables, a pattern or a folder (see `several`).
        schema: The columns, their maps to pixels, and the label.
        reading: Which rows to read, and whether they need labels.

    Returns:
        The rows in order of time, and the issues of the tables.

    Raises:
        DataError: A table cannot be read, columns or rows are missing, most values of a numeric
            column are text, or a required label is not a class of the schema.
    """
    counts: Counter[Issue] = Counter()
    parts = list(_read_chunks(location, schema, reading, counts))

    rows = sum(len(part.labels) for part in parts)
    _check_rows(location, counts, rows, reading)
    check_numbers(location, counts, rows)
    if reading.labelled:
        _check_labels(location, counts, schema)

    levels = torch.from_numpy(np.concatenate([part.levels for part in parts]))
    labels = torch.from_numpy(np.concatenate([part.labels for part in parts]))
    if schema.time is not None:
        of_rows = np.concatenate([part.times for part in parts])
        order = torch.from_numpy(np.argsort(of_rows, kind="stable"))
        levels, labels = levels[order], labels[order]

    return Flows(levels, labels), Tally(rows, counts)


def _read_chunks(
    location: str | Path, schema: FlowSchema, reading: Reading, counts: Counter[Issue]
) -> Iterator[Rows]:
    columns = columns_of(schema, reading)
    for chunk in chunks(location, columns, counts, reading.report):
        yield encoded_rows(chunk, schema, reading, counts)


def columns_of(schema: FlowSchema, reading: Reading) -> Columns:
    """Return the columns to read from a table."""
    needed = [column.name for column in schema.features]
    needed += [schema.time] if schema.time is not None else []
    needed += [reading.rows[0]] if reading.rows else []
    names = tuple(dict.fromkeys([*needed, schema.label]))
    optional = () if reading.labelled or schema.label in needed else (schema.label,)
    return Columns(names, optional, Rules.of(schema))


def encoded_rows(chunk: Any, schema: FlowSchema, reading: Reading, counts: Counter[Issue]) -> Rows:
    """Convert the rows of a chunk to pixels or encoded values.

    Args:
        chunk: The columns of `columns_of`, as an Arrow record batch.
        schema: The columns, their maps to pixels, and the label.
        reading: Which rows to read.
        counts: A counter to which the issues are added.
    """
    selected = _select(chunk, reading.rows, counts)
    cells = {name: clean(selected.column(name), schema.missing) for name in selected.schema.names}
    unlabelled = np.full(selected.num_rows, UNKNOWN, dtype=np.int64)
    labelled = schema.label in cells

    pixels = [_levels(column, cells[column.name], schema, counts) for column in schema.features]
    return Rows(
        np.concatenate(pixels, axis=1),
        class_numbers(cells[schema.label], schema, counts) if labelled else unlabelled,
        unlabelled if schema.time is None else times(cells[schema.time], schema, counts),
    )


def _select(chunk: Any, rows: tuple[str, str] | None, counts: Counter[Issue]) -> Any:
    """Select the rows with a given value in a given column."""
    if rows is None:
        return chunk

    import pyarrow.compute as pc  # imported here so that the command line starts fast

    column, value = rows
    selected = chunk.filter(pc.fill_null(pc.equal(texts(chunk.column(column)), value), False))

    others = Issue(IssueKind.OTHER_ROWS, f"`{column}` is not {value}")
    counts[others] += chunk.num_rows - selected.num_rows
    return selected


def _levels(
    column: Column, cells: Any, schema: FlowSchema, counts: Counter[Issue]
) -> UInt8[np.ndarray, "n 1"] | Float32[np.ndarray, "n width"]:
    """Convert a column to pixels or encoded values, and count its issues."""
    name = f"`{column.name}`"

    if isinstance(column, Number):
        values = numbers(cells, column.name, schema.missing_numbers, counts)
        outside = (values < column.low) | (values > column.high)
        limits = f"{name} outside {column.low:g} .. {column.high:g}"
        counts[Issue(IssueKind.OUTSIDE, limits)] += int(outside.sum())
        return encode_numbers(column, values) if schema.as_rows else column.levels(values)[:, None]

    places = positions(cells, column.values)
    counts[Issue(IssueKind.UNLISTED, name)] += int((places == NOT_LISTED).sum())
    return encode_categories(column, places) if schema.as_rows else column.levels(places)[:, None]


def _check_rows(path: str | Path, counts: Counter[Issue], rows: int, reading: Reading) -> None:
    """Check that there are rows. Raises DataError, which lists the issues that left rows out."""
    if rows:
        return

    selected = f" with {reading.rows[0]} {reading.rows[1]}" if reading.rows else ""
    issues = "".join(f"; {line}" for line in Tally(0, counts).lines())
    raise DataError(f"{path} should have rows{selected}; found none{issues}")


def check_numbers(path: str | Path, counts: Counter[Issue], rows: int) -> None:
    """Check that numeric columns contain mostly numbers.

    Args:
        path: The table.
        counts: The issues of its rows.
        rows: The number of rows.

    Raises:
        DataError: Most values of a numeric column are text.
    """
    for issue, count in counts.items():
        if issue.kind is IssueKind.NOT_NUMBERS and 2 * count > rows:
            raise DataError(
                f"{path} should contain numbers where the schema has a numeric column; "
                f"found {count:,} {issue}: correct the table, or list texts that mean a missing "
                "value in `missing_numbers` of the schema"
            )
        if issue.kind is IssueKind.NOT_TIMES and 2 * count > rows:
            raise DataError(
                f"{path} should contain times in the schema's `time_format`; "
                f"found {count:,} {issue}: make the schema with the table's `--time-format`"
            )


def _check_labels(path: str | Path, counts: Counter[Issue], schema: FlowSchema) -> None:
    """Check that all labels are classes of the schema. Raises DataError."""
    unknown = [
        f"{count:,} {issue}"
        for issue, count in counts.most_common()
        if issue.kind is IssueKind.UNKNOWN_LABEL
    ]
    if unknown:
        raise DataError(
            f"{path}: labels in `{schema.label}` should be among "
            f"{some(list(schema.class_numbers))}; found {'; '.join(unknown[:MOST_SHOWN])}: "
            "add them to `classes` or `merge` of the schema"
        )

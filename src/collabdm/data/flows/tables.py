"""Read tables of flows: each row becomes the pixels of its features.

A fault in a table either raises an error that states the remedy, or is counted and reported
(`issues`). Memory holds one chunk of the table and, for each row, one byte per feature plus 16.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64, Int32, Int64, UInt8

from collabdm.data.flows.chunks import MOST_SHOWN, check_columns, chunks, header, some
from collabdm.data.flows.issues import Issue, IssueKind, Tally
from collabdm.data.flows.windows import UNKNOWN, Flows
from collabdm.documents.flow_schema import Column, FlowSchema, Number
from collabdm.errors import DataError
from collabdm.progress import Report, silent

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?(?i:inf|infinity|nan)$"
NOT_LISTED, ABSENT = -1, -2  # codes of an unlisted text and of a missing value


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
class _Rows:
    """The rows of one chunk: their pixels, class numbers, and values of the time column."""

    levels: UInt8[np.ndarray, "n features"]
    labels: Int64[np.ndarray, " n"]
    times: np.ndarray


def read_flows(path: Path, schema: FlowSchema, reading: Reading = Reading()) -> tuple[Flows, Tally]:
    """Read the rows of a table.

    Args:
        path: The table: CSV (may be gzipped) or parquet.
        schema: The columns, their maps to pixels, and the label.
        reading: Which rows to read, and whether they need labels.

    Returns:
        The rows in order of time, and the issues of the table.

    Raises:
        DataError: The table cannot be read, columns or rows are missing, most values of a numeric
            column are text, or a required label is not a class of the schema.
    """
    counts: Counter[Issue] = Counter()
    parts = list(_read_chunks(path, schema, reading, counts))

    rows = sum(len(part.labels) for part in parts)
    _check_rows(path, counts, rows, reading)
    _check_numbers(path, counts, rows)
    if reading.labelled:
        _check_labels(path, counts, schema)

    levels = torch.from_numpy(np.concatenate([part.levels for part in parts]))
    labels = torch.from_numpy(np.concatenate([part.labels for part in parts]))
    if schema.time is not None:
        times = np.concatenate([part.times for part in parts])
        order = torch.from_numpy(np.argsort(times, kind="stable"))
        levels, labels = levels[order], labels[order]

    return Flows(levels, labels), Tally(rows, counts)


def _read_chunks(
    path: Path, schema: FlowSchema, reading: Reading, counts: Counter[Issue]
) -> Iterator[_Rows]:
    names = header(path)
    labelled = reading.labelled or schema.label in names

    needed = [column.name for column in schema.features]
    needed += [schema.time] if schema.time is not None else []
    needed += [reading.rows[0]] if reading.rows else []
    needed += [schema.label] if labelled else []
    needed = list(dict.fromkeys(needed))
    check_columns(path, names, needed)

    for chunk in chunks(path, needed, schema.missing, counts, reading.report):
        selected = _select(chunk, reading.rows, counts)
        cells = {name: _clean(selected.column(name), schema.missing) for name in needed}
        unlabelled = np.full(selected.num_rows, UNKNOWN, dtype=np.int64)

        pixels = [_levels(column, cells[column.name], counts) for column in schema.features]
        yield _Rows(
            np.stack(pixels, axis=1),
            _labels(cells[schema.label], schema, counts) if labelled else unlabelled,
            unlabelled
            if schema.time is None
            else _numbers(cells[schema.time], schema.time, counts),
        )


def _select(chunk: Any, rows: tuple[str, str] | None, counts: Counter[Issue]) -> Any:
    """Select the rows with a given value in a given column."""
    if rows is None:
        return chunk

    import pyarrow as pa  # here and below, so that the command line starts fast
    import pyarrow.compute as pc

    column, value = rows
    text = pc.utf8_trim_whitespace(chunk.column(column).cast(pa.string()))
    selected = chunk.filter(pc.fill_null(pc.equal(text, value), False))

    others = Issue(IssueKind.OTHER_ROWS, f"`{column}` is not {value}")
    counts[others] += chunk.num_rows - selected.num_rows
    return selected


def _clean(column: Any, missing: tuple[str, ...]) -> Any:
    """Strip surrounding spaces from a text column, with null for missing; numbers are unchanged."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        return column

    text = pc.utf8_trim_whitespace(column.cast(pa.string()))
    return pc.if_else(pc.is_in(text, pa.array(missing, pa.string())), None, text)


def _levels(column: Column, cells: Any, counts: Counter[Issue]) -> UInt8[np.ndarray, " n"]:
    """Convert a column to pixels, and count its issues."""
    name = f"`{column.name}`"

    if isinstance(column, Number):
        numbers = _numbers(cells, column.name, counts)
        outside = (numbers < column.low) | (numbers > column.high)
        limits = f"{name} outside {column.low:g} .. {column.high:g}"
        counts[Issue(IssueKind.OUTSIDE, limits)] += int(outside.sum())
        return column.levels(numbers)

    positions = _positions(cells, column.values)
    counts[Issue(IssueKind.UNLISTED, name)] += int((positions == NOT_LISTED).sum())
    return column.levels(positions)


def _positions(cells: Any, values: tuple[str, ...]) -> Int32[np.ndarray, " n"]:
    """Find positions in `values`; -1 for a text that is not listed, -2 for a missing value."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text = cells.cast(pa.string())
    positions = pc.fill_null(pc.index_in(text, pa.array(values, pa.string())), NOT_LISTED)
    return np.where(np.asarray(text.is_null()), ABSENT, np.asarray(positions)).astype(np.int32)


def _numbers(cells: Any, name: str, counts: Counter[Issue]) -> Float64[np.ndarray, " n"]:
    """Convert a column to numbers; NaN for missing values and for text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        numbers = cells.cast(pa.float64(), safe=False)
    except pa.ArrowInvalid:
        is_number = pc.match_substring_regex(cells, NUMBER)
        texts = int(pc.sum(pc.invert(is_number)).as_py())
        counts[Issue(IssueKind.NOT_NUMBERS, f"`{name}`")] += texts
        numbers = pc.if_else(is_number, cells, None).cast(pa.float64())

    return np.array(numbers.to_numpy(zero_copy_only=False), dtype=np.float64)


def _labels(cells: Any, schema: FlowSchema, counts: Counter[Issue]) -> Int64[np.ndarray, " n"]:
    """Convert labels to class numbers; -1 if a label is missing or not a class of the schema."""
    import pyarrow as pa
    import pyarrow.compute as pc

    positions = _positions(cells, tuple(schema.class_numbers))
    unknown = cells.cast(pa.string()).filter(pa.array(positions == NOT_LISTED))
    for label in pc.value_counts(unknown).to_pylist():
        counts[Issue(IssueKind.UNKNOWN_LABEL, f"{label['values']!r}")] += label["counts"]
    counts[Issue(IssueKind.NO_LABEL)] += int((positions == ABSENT).sum())

    numbers = [*schema.class_numbers.values(), UNKNOWN, UNKNOWN]  # -1 and -2 count from the end
    return np.array(numbers, dtype=np.int64)[positions]


def _check_rows(path: Path, counts: Counter[Issue], rows: int, reading: Reading) -> None:
    """Check that there are rows. Raises DataError, which lists the issues that left rows out."""
    if rows:
        return

    selected = f" with {reading.rows[0]} {reading.rows[1]}" if reading.rows else ""
    issues = "".join(f"; {line}" for line in Tally(0, counts).lines())
    raise DataError(f"{path} should have rows{selected}; found none{issues}")


def _check_numbers(path: Path, counts: Counter[Issue], rows: int) -> None:
    """Check that numeric columns contain mostly numbers. Raises DataError."""
    for issue, count in counts.items():
        if issue.kind is IssueKind.NOT_NUMBERS and 2 * count > rows:
            raise DataError(
                f"{path} should contain numbers where the schema has a numeric column; "
                f"found {count:,} {issue}: correct the table or the schema"
            )


def _check_labels(path: Path, counts: Counter[Issue], schema: FlowSchema) -> None:
    """Check that all labels are classes of the schema. Raises DataError."""
    unknown = [
        f"{count:,} {issue}"
        for issue, count in counts.most_common()
        if issue.kind is IssueKind.UNKNOWN_LABEL
    ]
    if unknown:
        raise DataError(
            f"{path}: labels in `{schema.label}` should be of {some(list(schema.class_numbers))}; "
            f"found {'; '.join(unknown[:MOST_SHOWN])}: "
            "add them to `classes` or `merge` of the schema"
        )

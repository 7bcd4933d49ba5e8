"""Read tables of flows, each row reduced to its pixels.

What is wrong in a table is either refused, with what to do, or counted and told (`Tally`), never dropped in
silence. Memory: one chunk of text, and for each row as many bytes as it has features, and 16 more.

Reference: none.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from collabdm.data.flows.chunks import MOST_SHOWN, Tally, check_columns, chunks, header, some
from collabdm.data.flows.windows import UNKNOWN, Flows
from collabdm.documents.flow_schema import Column, FlowSchema, Number
from collabdm.errors import DataError
from collabdm.progress import Report, silent

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?(?i:inf|infinity|nan)$"


@dataclass(frozen=True)
class Reading:
    """How a table is read: only rows whose `where` column has that text; labels needed or not; who watches."""

    where: tuple[str, str] | None = None
    labelled: bool = True
    report: Report = silent


@dataclass(frozen=True)
class _Rows:
    """The rows of one chunk: pixels, class numbers, and when they were."""

    levels: np.ndarray
    labels: np.ndarray
    times: np.ndarray


def read_flows(path: Path, schema: FlowSchema, reading: Reading = Reading()) -> tuple[Flows, Tally]:
    """All rows of a table, in order of time. Raises DataError where it is not one that the schema describes."""
    counts: Counter[str] = Counter()
    parts = list(_parts(path, schema, reading, counts))
    rows = sum(len(part.labels) for part in parts)
    if not rows:
        other = f", of {reading.where[0]} {reading.where[1]}" if reading.where else ""
        raise DataError(
            f"{path} should have rows{other}; found none" + "".join(f"; {x}" for x in Tally(0, counts).lines())
        )
    _check_numbers(path, counts, rows)
    _check_labels(path, counts, schema, reading.labelled)
    levels = torch.from_numpy(np.concatenate([part.levels for part in parts]))
    labels = torch.from_numpy(np.concatenate([part.labels for part in parts]))
    if schema.time is not None:
        order = torch.from_numpy(np.argsort(np.concatenate([part.times for part in parts]), kind="stable"))
        levels, labels = levels[order], labels[order]
    return Flows(levels, labels), Tally(rows, counts)


def _parts(path: Path, schema: FlowSchema, reading: Reading, counts: Counter[str]) -> Iterator[_Rows]:
    names = header(path)
    needed = [column.name for column in schema.features]
    needed += [schema.time] if schema.time is not None else []
    needed += [reading.where[0]] if reading.where else []
    needed += [schema.label] if reading.labelled or schema.label in names else []
    check_columns(path, names, needed)
    for chunk in chunks(path, list(dict.fromkeys(needed)), schema.missing, counts, reading.report):
        kept = _of_place(chunk, reading.where, counts)
        cells = {name: _cells(kept, name, schema) for name in dict.fromkeys(needed)}
        unlabelled = np.full(kept.num_rows, UNKNOWN, dtype=np.int64)
        yield _Rows(
            np.stack([_levels(column, cells[column.name], counts) for column in schema.features], axis=1),
            _labels(cells[schema.label], schema, counts) if schema.label in cells else unlabelled,
            unlabelled if schema.time is None else _numbers(cells[schema.time], schema.time, counts),
        )


def _of_place(chunk: Any, where: tuple[str, str] | None, counts: Counter[str]) -> Any:
    """The rows whose `where` column has the text asked for."""
    if where is None:
        return chunk
    import pyarrow as pa  # here and below: the command line should start fast
    import pyarrow.compute as pc

    text = pc.utf8_trim_whitespace(chunk.column(where[0]).cast(pa.string()))
    kept = chunk.filter(pc.fill_null(pc.equal(text, where[1]), False))
    counts[f"{LEFT_TO_OTHERS}, with another {where[0]} than {where[1]}"] += chunk.num_rows - kept.num_rows
    return kept


def _cells(chunk: Any, name: str, schema: FlowSchema) -> Any:
    """A column as text without spaces around it, or as the numbers that it holds."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = chunk.column(name)
    if pa.types.is_floating(column.type) or pa.types.is_integer(column.type):
        return column
    text = pc.utf8_trim_whitespace(column.cast(pa.string()))
    return pc.if_else(pc.is_in(text, pa.array(schema.missing, pa.string())), None, text)


def _levels(column: Column, cells: Any, counts: Counter[str]) -> np.ndarray:
    """Pixels of a column."""
    if isinstance(column, Number):
        numbers = _numbers(cells, column.name, counts)
        outside = (numbers < column.low) | (numbers > column.high)
        counts[f"values of `{column.name}` outside {column.low:g} .. {column.high:g}, clipped"] += int(outside.sum())
        return column.levels(numbers)
    places = _places(cells, column.values)
    counts[f"values of `{column.name}` that the schema does not list, taken as other"] += int((places == -1).sum())
    return column.levels(places)


def _places(cells: Any, known: tuple[str, ...]) -> np.ndarray:
    """Positions among the known texts; -1 for another, -2 for none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text = cells.cast(pa.string())
    found = np.asarray(pc.fill_null(pc.index_in(text, pa.array(known, pa.string())), -1))
    return np.where(np.asarray(text.is_null()), -2, found).astype(np.int32)


def _numbers(cells: Any, name: str, counts: Counter[str]) -> np.ndarray:
    """A column as numbers, NaN for what is missing or is not one."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        numbers = cells.cast(pa.float64(), safe=False)
    except pa.ArrowInvalid:
        good = pc.match_substring_regex(cells, NUMBER)
        counts[f"values of `{name}` {NOT_NUMBERS}"] += int(pc.sum(pc.invert(good)).as_py())
        numbers = pc.if_else(good, cells, None).cast(pa.float64())
    return np.array(numbers.to_numpy(zero_copy_only=False), dtype=np.float64)


def _labels(cells: Any, schema: FlowSchema, counts: Counter[str]) -> np.ndarray:
    """Class numbers; -1 where there is no label, or one that the schema does not know."""
    import pyarrow as pa
    import pyarrow.compute as pc

    places = _places(cells, tuple(schema.class_numbers))
    for value in pc.value_counts(cells.cast(pa.string()).filter(pa.array(places == -1))).to_pylist():
        counts[f"rows {NO_CLASS} {value['values']!r}"] += value["counts"]
    counts["rows without a label"] += int((places == -2).sum())
    numbers = np.array([*schema.class_numbers.values(), UNKNOWN, UNKNOWN], dtype=np.int64)  # -1 and -2 point to the end
    return numbers[places]


NOT_NUMBERS = "that are not numbers, taken as missing"


LEFT_TO_OTHERS = "rows left to others"


NO_CLASS = "with a label that is no class of the schema,"


def _check_numbers(path: Path, counts: Counter[str], rows: int) -> None:
    """Refuse a table most of whose values in a numeric column are text."""
    for what, n in counts.items():
        if NOT_NUMBERS in what and 2 * n > rows:
            raise DataError(f"{path} should hold numbers where the schema says so; found {n:,} {what}")


def _check_labels(path: Path, counts: Counter[str], schema: FlowSchema, labelled: bool) -> None:
    unknown = [f"{n:,} {what}" for what, n in counts.most_common() if what.startswith(f"rows {NO_CLASS}")]
    if labelled and unknown:
        raise DataError(
            f"{path}: labels in `{schema.label}` should be of {some(list(schema.class_numbers))}; "
            f"found {'; '.join(unknown[:MOST_SHOWN])}. Add them to `classes` or `merge` of the schema"
        )

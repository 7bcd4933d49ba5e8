"""Convert the cells of a column to texts, numbers and times.

A number is written in decimals, with an exponent or without. The whole numbers of a parquet column
of floats are texts without a decimal point, so that the labels 0.0 and 1.0 are `0` and `1`. Times
are seconds since 1970, in UTC where a time has no zone of its own.
"""

import math
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import numpy as np
from jaxtyping import Float64, Int32

from collabdm.data.flows.issues import Issue, IssueKind
from collabdm.documents.flow_schema import FlowSchema
from collabdm.errors import DataError

NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$|^[+-]?(?i:inf|infinity|nan)$"
NOT_LISTED, ABSENT = -1, -2  # codes of an unlisted text and of a missing value

LARGEST_WHOLE = 2.0**53
MICROSECONDS = 1e6


def clean(column: Any, missing: tuple[str, ...]) -> Any:
    """Strip surrounding spaces from a text column, with null for missing; others are unchanged."""
    import pyarrow as pa  # here and below, so that the command line starts fast
    import pyarrow.compute as pc

    if _is_number(column.type) or pa.types.is_temporal(column.type):
        return column

    text = texts(column)
    return pc.if_else(pc.is_in(text, pa.array(missing, pa.string())), None, text)


def texts(column: Any) -> Any:
    """Convert any column to texts without surrounding spaces. Raises DataError for lists etc."""
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        text = column.cast(pa.string())
        if pa.types.is_floating(column.type):
            wide = column.cast(pa.float64())
            whole = pc.and_(pc.equal(pc.floor(wide), wide), pc.less(pc.abs(wide), LARGEST_WHOLE))
            as_whole = pc.if_else(whole, wide, None).cast(pa.int64()).cast(pa.string())
            text = pc.coalesce(as_whole, text)
        return pc.utf8_trim_whitespace(text)
    except pa.ArrowException as error:
        raise DataError(
            f"columns should contain numbers, texts or times; found {column.type}: {error}"
        ) from error


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def positions(cells: Any, values: tuple[str, ...]) -> Int32[np.ndarray, " n"]:
    """Find positions in `values`; -1 for a text that is not listed, -2 for a missing value."""
    import pyarrow as pa
    import pyarrow.compute as pc

    text = texts(cells) if not pa.types.is_string(cells.type) else cells
    found = pc.fill_null(pc.index_in(text, pa.array(values, pa.string())), NOT_LISTED)
    return np.where(np.asarray(text.is_null()), ABSENT, np.asarray(found)).astype(np.int32)


def numbers(
    cells: Any, name: str, missing: tuple[str, ...] | None, counts: Counter[Issue]
) -> Float64[np.ndarray, " n"]:
    """Convert a column to numbers; NaN for missing values and for text.

    Args:
        cells: The column, cleaned.
        name: Its name.
        missing: Further texts that mean a missing value, in any case; None means that infinity is a
            number.
        counts: A counter to which text and infinite values are added.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_temporal(cells.type):
        return _epoch(cells)
    try:
        found = cells.cast(pa.float64(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        text = texts(cells)
        if missing is not None:
            unset = pa.array([value.lower() for value in missing], pa.string())
            text = pc.if_else(pc.is_in(pc.utf8_lower(text), unset), None, text)
        is_number = pc.match_substring_regex(text, NUMBER)
        counts[Issue(IssueKind.NOT_NUMBERS, f"`{name}`")] += int(
            pc.sum(pc.invert(is_number)).as_py() or 0
        )
        found = pc.if_else(is_number, text, None).cast(pa.float64())

    values = np.array(found.to_numpy(zero_copy_only=False), dtype=np.float64)
    if missing is not None:
        infinite = np.isinf(values)
        counts[Issue(IssueKind.INFINITE, f"`{name}`")] += int(infinite.sum())
        values[infinite] = np.nan
    return values


def _epoch(cells: Any) -> Float64[np.ndarray, " n"]:
    """Convert times, dates or durations to seconds."""
    import pyarrow as pa

    kind = cells.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        cells = cells.cast(pa.timestamp("us"), safe=False)
    elif pa.types.is_time(kind):
        cells = cells.cast(pa.time64("us"), safe=False)
    elif pa.types.is_duration(kind):
        cells = cells.cast(pa.duration("us"), safe=False)
    else:
        raise DataError(f"columns should contain numbers, texts or times; found {kind}")

    whole = cells.cast(pa.int64()).cast(pa.float64(), safe=False)
    return np.array(whole.to_numpy(zero_copy_only=False), dtype=np.float64) / MICROSECONDS


def times(cells: Any, schema: FlowSchema, counts: Counter[Issue]) -> Float64[np.ndarray, " n"]:
    """Convert the time column to seconds; NaN for missing values and for other texts.

    Args:
        cells: The column, cleaned.
        schema: The schema, with `time` and `time_format`.
        counts: A counter to which texts of another format are added.
    """
    import pyarrow as pa

    name, written = schema.time or "", schema.time_format
    if written is None or not (pa.types.is_string(cells.type)):
        return numbers(cells, name, schema.missing_numbers, counts)

    found = np.array([_seconds(text, written) for text in cells.to_pylist()], dtype=np.float64)
    missing = np.asarray(cells.is_null())
    counts[Issue(IssueKind.NOT_TIMES, f"`{name}`")] += int((np.isnan(found) & ~missing).sum())
    return found


def _seconds(text: str | None, written: str) -> float:
    """Convert one time to seconds since 1970; NaN if it is missing or in another format."""
    if text is None:
        return math.nan
    try:
        iso = written == "iso"
        found = datetime.fromisoformat(text) if iso else datetime.strptime(text, written)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return math.nan

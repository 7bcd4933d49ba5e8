"""Draft a schema from a sample table, for a person to review before sites agree on it.

number      a column in which at least 99 in 100 present values are numbers; its upper bound is the
            next power of ten above the largest magnitude, so that no site's extremes are revealed,
            and its lower bound is 0, or minus the upper bound if there are negative values
category    any other column with at most 64 values; a column with more values is left out
leaking     a column whose numbers never decrease, or whose name suggests a number that counts up
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from collabdm.data.flows.chunks import chunks, header, some
from collabdm.data.flows.schemas import first_fault
from collabdm.documents.flow_schema import Category, Column, FlowSchema, Number
from collabdm.errors import DataError
from collabdm.progress import silent

LABELS = ("attack type", "attack_cat", "class", "label", "target", "category")
MISSING: tuple[str, ...] = FlowSchema.model_fields["missing"].default
COUNTING = re.compile(
    r"^$|^(id|seq|offset|row|index|time|timestamp|date)$|base$|tcpb$|stream|teid|_raw$"
    r"|time_relative|unnamed",
    re.IGNORECASE,
)

DRAFT_SIDE = 32
MOST_ROWS = 200_000  # the sample is read up to about this many rows
MOST_VALUES = 64  # the most values of a category
NUMBERS_FROM = 0.99  # the least share of numbers in a numeric column
SMALL_QUANTILE = 0.05  # the quantile of the magnitudes that a logarithmic scale should resolve
LOG_RANGE = 100  # the ratio bound / unit above which a scale is logarithmic
LEAST_STEPS = 8  # a column with fewer steps between rows is not tested for counting


@dataclass(frozen=True)
class Draft:
    """A drafted schema, and the columns of the sample that are not in it."""

    schema: FlowSchema
    left_out: tuple[str, ...]


def draft(
    path: Path,
    label: str | None = None,
    side: int = DRAFT_SIDE,
    leave_out: Sequence[str] = (),
) -> Draft:
    """Draft a schema for tables that resemble a sample.

    An image contains as many rows as fit, each on its own lines.

    Args:
        path: The sample table.
        label: The label column; by default the first column with a usual name.
        side: The side of the images.
        leave_out: The columns to leave out.

    Raises:
        DataError: The sample has no label column or no rows, or no valid schema describes it.
    """
    names = header(path)
    label = _label_of(path, names, label)
    used = [name for name in dict.fromkeys(names) if name != label and name not in leave_out]
    sample = _sample(path, [*used, label])

    drafted = {name: _column(name, sample[name]) for name in used}
    columns = tuple(column for column in drafted.values() if column is not None)
    unused = (name for name, column in drafted.items() if column is None)
    try:
        return Draft(_schema(columns, sample, label, side), (*leave_out, *unused))
    except ValidationError as error:
        raise DataError(
            f"{path} should be described by a schema; {first_fault(error)}: choose other columns"
        ) from error


def _schema(
    columns: tuple[Column, ...], sample: dict[str, list[Any]], label: str, side: int
) -> FlowSchema:
    """Build the schema of these columns and of the sample's classes. Raises ValidationError."""
    leaking = tuple(c.name for c in columns if _counts(c.name, sample[c.name]))
    classes = sorted({str(value).strip() for value in sample[label] if value is not None} - {""})

    lines = math.ceil(max(1, len(columns) - len(leaking)) / side)
    return FlowSchema(
        columns=columns,
        leaking=leaking,
        label=label,
        classes=tuple(classes),
        side=side,
        flows=max(1, side // lines),
        layout="rows",
    )


def _label_of(path: Path, names: list[str], label: str | None) -> str:
    if label is not None:
        if label not in names:
            raise DataError(f"{path} should have the label's column `{label}`; found {some(names)}")
        return label

    usual = (name for known in LABELS for name in names if name.lower() == known)
    if (first := next(usual, None)) is not None:
        return first

    raise DataError(
        f"{path} should have a column of labels ({', '.join(LABELS)}); found {some(names)}: name it"
    )


def _sample(path: Path, columns: list[str]) -> dict[str, list[Any]]:
    """Read the first rows, by column. Raises DataError if there are none."""
    values: dict[str, list[Any]] = {name: [] for name in columns}

    for chunk in chunks(path, columns, MISSING, Counter(), silent):
        for name in columns:
            values[name] += chunk.column(name).to_pylist()
        if len(values[columns[0]]) >= MOST_ROWS:
            break

    if not values[columns[-1]]:
        raise DataError(f"{path} should have rows; found only column names")
    return values


def _column(name: str, values: list[Any]) -> Column | None:
    """Describe a column as numeric or a category; None if it has too many values, or no values."""
    present = [v.strip() if isinstance(v, str) else v for v in values if v is not None]

    numbers = _as_numbers(present)
    finite = numbers[np.isfinite(numbers)]
    if len(present) and len(finite) >= NUMBERS_FROM * len(present):
        return _bounded(name, finite)

    texts = sorted({str(value) for value in present} - {""})
    return Category(name=name, values=tuple(texts)) if 0 < len(texts) <= MOST_VALUES else None


def _bounded(name: str, values: np.ndarray) -> Number:
    """Describe a numeric column, with powers of ten as bounds and unit."""
    sizes = np.abs(values)
    largest = float(sizes.max())
    bound = 10.0 ** math.ceil(math.log10(largest)) if largest > 0 else 1.0
    low = -bound if (values < 0).any() else 0.0

    present = sizes[sizes > 0]
    small = float(np.quantile(present, SMALL_QUANTILE)) if len(present) else 1.0
    unit = 10.0 ** math.floor(math.log10(small))

    if bound > LOG_RANGE * unit:
        return Number(name=name, low=low, high=bound, scale="log", unit=unit)
    return Number(name=name, low=low, high=bound, scale="linear")


def _as_numbers(values: list[Any]) -> np.ndarray:
    """Convert values to floats; NaN for values that are not numbers."""
    return np.array([_number(value) for value in values], dtype=np.float64)


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan


def _counts(name: str, values: list[Any]) -> bool:
    """Return whether a column, by its name or its values, counts up, such as a row number."""
    if COUNTING.search(name):
        return True

    numbers = _as_numbers(values)
    steps = np.diff(numbers[np.isfinite(numbers)])
    if len(steps) < LEAST_STEPS:
        return False
    return bool((steps >= 0).all()) and float((steps > 0).mean()) > 0.5

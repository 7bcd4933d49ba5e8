"""Draft a schema from a sample table: a beginning, for a person to read and mend before it is agreed on.

    number      at least 99 in 100 present values are numbers;  bounds: the next power of ten beyond the largest
                magnitude found (so that no site's extremes are told), 0 below where nothing is negative
    category    other columns of at most 64 values;  more values than that: left out
    leaking     numbers that never fall from row to row, and names that say what counts within a capture

Reference: none.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from collabdm.data.flows.built_in import SCHEMAS
from collabdm.data.flows.chunks import chunks, header, some
from collabdm.documents.flow_schema import Category, Column, FlowSchema, Number
from collabdm.errors import DataError, PlanError
from collabdm.progress import silent

LABELS = ("attack type", "attack_cat", "class", "label", "target", "category")


MOST_VALUES = 64


MOST_ROWS = 200_000


NUMBERS_FROM = 0.99


COUNTING = re.compile(
    r"^$|^(id|seq|offset|row|index|time|timestamp|date)$|base$|tcpb$|stream|teid|_raw$|time_relative|unnamed",
    re.IGNORECASE,
)


DRAFT_SIDE = 32


MISSING = ("", "NaN", "nan", "NA", "null")


@dataclass(frozen=True)
class Draft:
    """A drafted schema, and the columns of the sample that are not in it."""

    schema: FlowSchema
    left_out: tuple[str, ...]


def schema_of(text: str) -> FlowSchema:
    """A schema by its name, from its JSON file, or from a plan that carries one. Raises PlanError."""
    if text in SCHEMAS:
        return SCHEMAS[text]
    try:
        document = json.loads(Path(text).read_bytes())
    except (OSError, ValueError) as error:
        raise PlanError(
            f"`flows` should be one of {', '.join(SCHEMAS)}, or a schema's JSON file; found {text!r} ({error})"
        ) from error
    in_plan = isinstance(document, dict) and document.get("format") == "collabdm/plan"
    return parse_schema(text, document.get("flows") if in_plan else document)


def parse_schema(where: str, document: Any) -> FlowSchema:
    """A schema from what its JSON says. Raises PlanError."""
    try:
        return FlowSchema.model_validate_json(json.dumps(document), strict=True)
    except ValidationError as error:
        raise PlanError(f"{where} should be a schema of flows; {_first(error)}") from error


def with_changes(schema: FlowSchema, changes: dict[str, Any], keep_leaking: bool = False) -> FlowSchema:
    """A schema with other fields; with the leaking columns if asked, and then no more flows than fit.

    Raises PlanError, naming what should change.
    """
    try:
        changed = FlowSchema.model_validate(schema.model_dump() | changes)
    except ValidationError as error:
        raise PlanError(f"schema: {_first(error)}") from error
    return changed.with_leaking() if keep_leaking else changed


def draft(path: Path, label: str | None = None, side: int = DRAFT_SIDE, leave_out: Sequence[str] = ()) -> Draft:
    """A schema for tables like a sample: as many rows an image as fit, every row on lines of its own.

    Raises DataError where the sample has no column of labels.
    """
    names = header(path)
    label = _label_of(path, names, label)
    kept = [name for name in dict.fromkeys(names) if name != label and name not in leave_out]
    sample = _sample(path, [*kept, label])
    columns = {name: _column(name, sample[name]) for name in kept}
    features = tuple(column for column in columns.values() if column is not None)
    classes = tuple(sorted({str(value).strip() for value in sample[label] if value is not None} - {""}))
    counting = tuple(c.name for c in features if COUNTING.search(c.name) or _never_falls(sample[c.name]))
    try:
        lines = math.ceil(max(1, len(features) - len(counting)) / side)
        schema = FlowSchema(
            columns=features, leaking=counting, label=label, classes=classes, side=side,
            flows=max(1, side // lines), layout="rows", missing=MISSING,
        )  # fmt: skip
    except ValidationError as error:
        raise DataError(f"{path} cannot be described by a schema yet: {_first(error)}") from error
    return Draft(schema, (*leave_out, *(name for name, column in columns.items() if column is None)))


def _first(error: ValidationError) -> str:
    item = error.errors()[0]
    return f"{'.'.join(map(str, item['loc']))} {item['msg']}".strip()


def _label_of(path: Path, names: list[str], label: str | None) -> str:
    if label is not None and label not in names:
        raise DataError(f"{path} should have the label's column `{label}`; found {some(names)}")
    found = label or next((name for known in LABELS for name in names if name.lower() == known), None)
    if found is None:
        raise DataError(f"{path} should have a column of labels ({', '.join(LABELS)}); found {some(names)}: name it")
    return found


def _sample(path: Path, columns: list[str]) -> dict[str, list[Any]]:
    values: dict[str, list[Any]] = {name: [] for name in columns}
    for chunk in chunks(path, columns, MISSING, Counter(), silent):
        for name in columns:
            values[name] += chunk.column(name).to_pylist()
        if len(values[columns[0]]) >= MOST_ROWS:
            break
    if not values[columns[-1]]:
        raise DataError(f"{path} should have rows; found column names alone")
    return values


def _column(name: str, values: list[Any]) -> Column | None:
    present = [value.strip() if isinstance(value, str) else value for value in values if value is not None]
    numbers = np.array([_number(value) for value in present], dtype=np.float64)
    finite = numbers[np.isfinite(numbers)]
    if len(present) and len(finite) >= NUMBERS_FROM * len(present):
        return _bounded(name, finite)
    texts = sorted({str(value) for value in present} - {""})
    return Category(name=name, values=tuple(texts)) if 0 < len(texts) <= MOST_VALUES else None


def _bounded(name: str, values: np.ndarray) -> Number:
    most = float(np.abs(values).max())
    bound = 10.0 ** math.ceil(math.log10(most)) if most > 0 else 1.0
    small = values[values != 0]
    unit = 10.0 ** math.floor(math.log10(float(np.quantile(np.abs(small), 0.05)))) if len(small) else 1.0
    wide = bound > 100 * unit
    return Number(
        name=name, low=-bound if (values < 0).any() else 0.0, high=bound,
        scale="log" if wide else "linear", unit=unit if wide else 1.0,
    )  # fmt: skip


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan


def _never_falls(values: list[Any]) -> bool:
    """Whether a column only counts up: a row number, a time."""
    numbers = np.array([_number(value) for value in values], dtype=np.float64)
    steps = np.diff(numbers[np.isfinite(numbers)])
    return len(steps) >= 8 and bool((steps >= 0).all()) and float((steps > 0).mean()) > 0.5

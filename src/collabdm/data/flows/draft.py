"""Draft a schema from sample tables, for a person to review before sites agree on it.

number      a column in which at least 99 in 100 present values are numbers; its upper bound is the
            next power of ten above the largest magnitude, so that no site's extremes are revealed,
            and its lower bound is 0, or minus the upper bound if there are negative values
category    any other column with at most 64 values; a column with more values is left out
leaking     a column that gives the label away (`leaks`), unless it is kept by name

All rows are read, by the same rules as later at the sites, and read again with the schema.
"""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64
from pydantic import ValidationError

from collabdm.data.flows.alone import classes_that_count, score, splits_of
from collabdm.data.flows.chunks import Columns, column_names, some
from collabdm.data.flows.dialect import Rules, plain
from collabdm.data.flows.issues import Tally
from collabdm.data.flows.labels import similar
from collabdm.data.flows.leaks import (
    LABEL_NAME,
    Evidence,
    identifies_a_host,
    is_address,
    reason_to_leave_out,
)
from collabdm.data.flows.profile import (
    MISSING_NUMBERS,
    MOST_VALUES,
    Profile,
    Sample,
    codes_of,
    profile,
)
from collabdm.data.flows.schemas import first_fault
from collabdm.data.flows.tables import read_flows
from collabdm.documents.flow_schema import ENCODINGS, Category, Column, FlowSchema, Number
from collabdm.errors import DataError, did_you_mean

LABELS = ("attack type", "attack_cat", "class", "label", "target", "category")

DRAFT_SIDE = 32
MOST_CLASSES = 1000
MOST_CHARACTERS = 256  # of a value of a category
SMALL_QUANTILE = 0.05  # the quantile of the magnitudes that a logarithmic scale should resolve
LOG_RANGE = 100  # the ratio bound / unit above which a scale is logarithmic


@dataclass(frozen=True)
class Choices:
    """What a person decides about a schema.

    Attributes:
        label: the label column; None takes the first column with a usual name.
        side: the side of the images.
        leave_out: columns to leave out.
        keep: columns to use although they give the label away.
        missing: texts that mean a missing value in any column, besides the usual ones.
        encoding: the encoding of tables that are not UTF-8.
        names: the columns of tables without a line of column names.
        empty_label: the class of rows with an empty label.
        time: the column to sort by.
        time_format: how it is written.
        rows: whether rows are distilled one by one, rather than as images.
    """

    label: str | None = None
    side: int = DRAFT_SIDE
    leave_out: Sequence[str] = ()
    keep: Sequence[str] = ()
    missing: Sequence[str] = ()
    encoding: str | None = None
    names: tuple[str, ...] | None = None
    empty_label: str | None = None
    time: str | None = None
    time_format: str | None = None
    rows: bool = False


@dataclass(frozen=True)
class ColumnReport:
    """One column of the sample: its kind, missing share and score, and why it is not used, if so.

    A column is `leaking` if it gives the label away; the schema contains it, but does not use it.
    One that is `left_out` is not in the schema.
    """

    name: str
    kind: str
    missing: float
    score: float
    leaking: str | None = None
    left_out: str | None = None

    @property
    def reason(self) -> str | None:
        """Why the column is not used, as text; None if it is used."""
        if self.left_out is not None:
            return f"left out: {self.left_out}"
        return None if self.leaking is None else f"leaking: {self.leaking}"


@dataclass(frozen=True)
class Draft:
    """A drafted schema, and what was found in the sample.

    `left_out` are the columns that are not in the schema, `chance` is the score of a guess, and
    `tally` are the issues of the sample, read with the schema.
    """

    schema: FlowSchema
    left_out: tuple[str, ...] = ()
    columns: tuple[ColumnReport, ...] = ()
    chance: float = 0.0
    tally: Tally = Tally()


def draft(location: str | Path, choices: Choices = Choices()) -> Draft:
    """Draft a schema for tables that resemble a sample.

    An image contains as many rows as fit, each on its own lines. Raises DataError if the sample has
    no label column or no rows, if a named column is not in it, or if no valid schema describes it.
    """
    rules = _rules(choices)
    names = column_names(location, rules)
    label = _label_of(location, names, choices)
    _check_names(location, names, choices)

    sample = profile(str(location), Columns(tuple(names), rules=rules), label)
    if not sample.rows:
        lines = "".join(f"; {line}" for line in Tally(0, sample.issues).lines())
        raise DataError(f"{location} should have rows; found only column names{lines}")

    reports, columns, chance = _reports(sample, label, choices)
    try:
        schema = _schema(columns, reports, _classes(location, label, sample, choices), choices)
    except ValidationError as error:
        raise DataError(
            f"{location} should be described by a schema; {first_fault(error)}: choose other "
            "columns with --label, --keep or --leave-out"
        ) from error

    _, tally = read_flows(location, schema)
    unused = tuple(r.name for r in reports if r.left_out is not None)
    return Draft(schema, unused, tuple(reports), chance, tally)


def _rules(choices: Choices) -> Rules:
    """Return the rules of reading. Raises DataError if the encoding is unknown."""
    if choices.encoding is not None and choices.encoding not in ENCODINGS:
        raise DataError(
            f"`encoding` should be one of {', '.join(ENCODINGS)}; found {choices.encoding!r}"
            f"{did_you_mean(choices.encoding, ENCODINGS)}"
        )
    missing = tuple(dict.fromkeys([*Rules().missing, *choices.missing]))
    return Rules(missing, choices.encoding, choices.names)


def _label_of(location: str | Path, names: list[str], choices: Choices) -> str:
    if choices.label is not None:
        label = choices.label if choices.label in names else plain(choices.label)
        if label not in names:
            raise DataError(
                f"{location} should have the label's column `{label}`; found {some(names)}"
                f"{did_you_mean(label, names)}"
            )
        return label

    usual = (name for known in LABELS for name in names if name.lower() == known)
    if (first := next(usual, None)) is not None:
        return first

    likely = [name for name in names if LABEL_NAME.search(name)]
    found = f"{some(names)}; the label may be in {some(likely)}" if likely else some(names)
    raise DataError(
        f"{location} should have a column of labels ({', '.join(LABELS)}); found {found}: "
        "name it with --label"
    )


def _check_names(location: str | Path, names: list[str], choices: Choices) -> None:
    """Check that columns to keep, to leave out and to sort by exist. Raises DataError."""
    asked = [*choices.keep, *choices.leave_out, *([choices.time] if choices.time else [])]
    unknown = [name for name in asked if name not in names and plain(name) not in names]
    if unknown:
        raise DataError(
            f"{location} should have the columns that are named; found no {some(unknown)}"
            f"{did_you_mean(unknown[0], names)}"
        )


def _classes(location: str | Path, label: str, sample: Sample, choices: Choices) -> dict[str, Any]:
    """Return the fields of the schema that name the classes. Raises DataError."""
    texts = sorted(unicodedata.normalize("NFC", text) for text in sample.labels if text)
    classes: dict[str, str] = {}
    merge = []

    for text in dict.fromkeys(texts):
        first = classes.setdefault(similar(text), text)
        if first != text:
            merge.append((text, first))

    names = list(classes.values())
    if choices.empty_label is not None and choices.empty_label not in names:
        names.append(choices.empty_label)
    if not 2 <= len(names) <= MOST_CLASSES:
        empty = sample.labels[None]
        rows = f" and {empty:,} rows with an empty label" if empty else ""
        remedy = " or name a class for empty labels with --empty-label" if empty else ""
        raise DataError(
            f"{location} should have 2 to {MOST_CLASSES:,} classes in `{label}`; found "
            f"{len(names):,}, {some(names)}{rows}: choose another column with --label{remedy}"
        )
    return {"label": label, "classes": tuple(names), "merge": tuple(merge)}


def _class_codes(column: Profile) -> Int64[np.ndarray, " n"]:
    """Number the classes of the kept rows; -1 for an empty label."""
    keys = [similar(text) if text else "" for text in column.texts]
    order = {key: k for k, key in enumerate(sorted(set(keys) - {""}))}
    return np.array([order.get(key, -1) for key in keys], dtype=np.int64)


def _reports(
    sample: Sample, label: str, choices: Choices
) -> tuple[list[ColumnReport], list[Column], float]:
    """Judge all columns but the label: reports, the schema's columns, and the score of a guess."""
    classes = _class_codes(sample.profiles[label])
    if choices.empty_label is not None:
        classes = np.where(classes < 0, classes.max(initial=0) + 1, classes)
    splits = splits_of(classes)
    chance = 1 / max(classes_that_count(splits, classes), 1)

    evidence = []
    for name, column in sample.profiles.items():
        if name != label:
            codes = codes_of(column)
            evidence.append(Evidence(column, codes, score(codes, classes, splits), chance))

    addresses = [found for found in evidence if is_address(found)]
    reports, columns = [], []
    for found in evidence:
        described = _column(found.profile, choices)
        left_out, leaking = _left_out(found, described, sample, choices), None
        if described is not None and left_out is None:
            columns.append(described)
            if not _is_in(found.profile.name, choices.keep):
                leaking = _leak(found, addresses, classes)
        kind = "number" if isinstance(described, Number) else "category" if described else "text"
        share = found.profile.missing_share
        reports.append(
            ColumnReport(found.profile.name, kind, share, found.score, leaking, left_out)
        )
    return reports, columns, chance


def _leak(
    found: Evidence, addresses: list[Evidence], classes: Int64[np.ndarray, " n"]
) -> str | None:
    """Return why a column gives the label away; None if it does not."""
    reason = reason_to_leave_out(found, classes)
    if reason is None and identifies_a_host(found, addresses, classes):
        return "a port that identifies a host"
    return reason


def _is_in(name: str, chosen: Sequence[str]) -> bool:
    return name in chosen or name in map(plain, chosen)


def _left_out(
    found: Evidence, described: Column | None, sample: Sample, choices: Choices
) -> str | None:
    """Return why a column cannot or should not be in the schema; None if it can."""
    name, column = found.profile.name, found.profile
    if _is_in(name, choices.leave_out):
        return "as requested"

    original = sample.profiles.get(name.rpartition(".")[0])
    if original is not None and name.rpartition(".")[2].isdecimal() and _same(original, column):
        return f"the same as `{original.name}`"
    if described is not None:
        return None
    if not column.present or column.present == column.unset:
        return "no values"
    return f"text with more than {MOST_VALUES} values, or very long ones"


def _same(first: Profile, second: Profile) -> bool:
    return first.texts == second.texts and (first.low, first.high) == (second.low, second.high)


def _column(column: Profile, choices: Choices) -> Column | None:
    """Describe a column as numeric or a category; None if it has too many values, or no values."""
    if column.is_number and column.numeric:
        return _bounded(column, choices)

    texts = tuple(sorted(column.values))
    if not 0 < len(texts) <= MOST_VALUES or max(map(len, texts)) > MOST_CHARACTERS:
        return None
    return Category(name=column.name, values=texts)


def _bounded(column: Profile, choices: Choices) -> Number:
    """Describe a numeric column, with powers of ten as bounds and unit."""
    largest = min(max(abs(column.low), abs(column.high)), 1e300)
    bound = max(10.0 ** math.ceil(math.log10(largest)), 1e-300) if largest > 0 else 1.0
    low = -bound if column.low < 0 else 0.0

    sizes = np.abs(column.numbers)
    present = sizes[np.isfinite(sizes) & (sizes > 0)]
    small = float(np.quantile(present, SMALL_QUANTILE)) if len(present) else 1.0
    unit = 10.0 ** max(math.floor(math.log10(small)), -300)

    kind: dict[str, bool] = {}
    if choices.rows:
        complete = column.numeric == column.rows
        kind = {name: True for name, so in (("whole", column.whole), ("complete", complete)) if so}
    if bound > LOG_RANGE * unit:
        return Number(name=column.name, low=low, high=bound, scale="log", unit=unit, **kind)
    return Number(name=column.name, low=low, high=bound, scale="linear", **kind)


def _schema(
    columns: list[Column], reports: list[ColumnReport], classes: dict[str, Any], choices: Choices
) -> FlowSchema:
    """Build the schema. Raises ValidationError."""
    reasons = tuple((r.name, r.leaking) for r in reports if r.leaking is not None)

    lines = math.ceil(max(1, len(columns) - len(reasons)) / choices.side)
    return FlowSchema(
        columns=tuple(columns),
        leaking=tuple(name for name, _ in reasons),
        **classes,
        missing=_rules(choices).missing,
        time=None if choices.time is None else plain(choices.time),
        side=choices.side,
        flows=max(1, choices.side // lines),
        layout="rows",
        missing_numbers=MISSING_NUMBERS,
        encoding=choices.encoding,
        names=choices.names,
        empty_label=choices.empty_label,
        time_format=choices.time_format,
        reasons=reasons or None,
    )

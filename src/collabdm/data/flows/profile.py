"""Describe the columns of a sample: their contents, missing values, and a part of the rows.

All rows are read, chunk by chunk. Of N rows, every k-th is kept in order, k the smallest power of
two that leaves fewer than 2 x `KEPT_ROWS`.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from collabdm.data.flows.cells import clean, numbers, texts
from collabdm.data.flows.chunks import Columns, chunks
from collabdm.data.flows.issues import Issue
from collabdm.progress import silent

KEPT_ROWS = 10_000
MOST_VALUES = 64  # distinct texts that are remembered

#: texts that mean a missing value of a number, in any case
MISSING_NUMBERS = (
    *("", "-", "?", "(empty)", "nan", "null", "none", "na", "n/a", "nil", "inf", "+inf", "-inf"),
    *("infinity", "+infinity", "-infinity"),
)


@dataclass
class Profile:
    """One column of the sample.

    `present` counts the values that are not missing, `numeric` those that are numbers and `unset`
    those that are missing only in a column of numbers. `low` and `high` are the extremes of the
    numbers. `values` are the distinct texts, at most `MOST_VALUES` + 1 of them. `kept` are Arrow
    arrays of the rows that are kept.
    """

    name: str
    rows: int = 0
    present: int = 0
    numeric: int = 0
    unset: int = 0
    low: float = np.inf
    high: float = -np.inf
    whole: bool = True
    is_time: bool = False
    values: set[str] = field(default_factory=set)
    kept: list[Any] = field(default_factory=list)

    def add(self, column: Any, missing: Sequence[str], kept: Any) -> None:
        """Add a chunk, of which the rows `kept` are remembered."""
        import pyarrow as pa
        import pyarrow.compute as pc

        cells = clean(column, tuple(missing))
        self.is_time |= bool(pa.types.is_temporal(cells.type))
        found = numbers(cells, self.name, MISSING_NUMBERS, Counter())
        finite = found[np.isfinite(found)]

        self.rows += len(cells)
        self.present += len(cells) - cells.null_count
        self.numeric += len(finite)
        if len(finite):
            self.low = min(self.low, float(finite.min()))
            self.high = max(self.high, float(finite.max()))
            self.whole &= bool((finite == np.floor(finite)).all())
        self.unset += self._unset(cells, found)

        if len(self.values) <= MOST_VALUES:
            distinct = pc.unique(texts(cells))
            fresh = (value for value in distinct.to_pylist() if value)
            for value in fresh:
                self.values.add(value)
                if len(self.values) > MOST_VALUES:
                    break
        self.kept.append((found[kept], texts(cells.take(pa.array(kept))).to_pylist()))

    def _unset(self, cells: Any, found: Float64[np.ndarray, " n"]) -> int:
        """Count the values that are missing in a column of numbers, such as `-` or infinity."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if not pa.types.is_string(cells.type):
            return int(np.isnan(found).sum()) - cells.null_count
        unset = pc.is_in(pc.utf8_lower(cells), pa.array(MISSING_NUMBERS, pa.string()))
        return int(pc.sum(pc.and_(unset, cells.is_valid())).as_py() or 0)

    def thin(self) -> None:
        """Forget every second row that is kept."""
        self.kept = [(self.numbers[::2], self.texts[::2])]

    @property
    def numbers(self) -> Float64[np.ndarray, " n"]:
        """The kept rows as numbers; NaN for missing values and texts."""
        return np.concatenate([part[0] for part in self.kept])

    @property
    def texts(self) -> list[str | None]:
        """The kept rows as texts; None for missing values."""
        return [text for part in self.kept for text in part[1]]

    @property
    def is_number(self) -> bool:
        """Whether at least 99 in 100 present values are numbers."""
        present = self.present - self.unset
        return present > 0 and self.numeric >= 0.99 * present

    @property
    def missing_share(self) -> float:
        """The share of missing values, in 0 .. 1."""
        there = self.numeric if self.is_number else self.present
        return 1 - there / max(self.rows, 1)


@dataclass
class Sample:
    """The profiles of all columns, the number of rows, every label's rows, and the issues."""

    profiles: dict[str, Profile]
    rows: int
    labels: Counter[str | None]
    issues: Counter[Issue]


def profile(location: str, columns: Columns, label: str) -> Sample:
    """Describe the columns of the tables at a location.

    Args:
        location: A table, several tables, a pattern or a folder.
        columns: All columns, the label among them.
        label: The label column.

    Raises:
        DataError: A table cannot be read.
    """
    import pyarrow.compute as pc

    missing = columns.rules.missing
    profiles = {name: Profile(name) for name in columns.names}
    labels: Counter[str | None] = Counter()
    issues: Counter[Issue] = Counter()
    rows, step, kept_rows = 0, 1, 0

    for chunk in chunks(location, columns, issues, silent):
        kept = np.arange(-rows % step, chunk.num_rows, step, dtype=np.int64)
        for name, column in profiles.items():
            column.add(chunk.column(name), missing, kept)

        of_label = pc.value_counts(clean(texts(chunk.column(label)), missing)).to_pylist()
        for entry in of_label:
            labels[entry["values"] or None] += entry["counts"]

        rows += chunk.num_rows
        kept_rows += len(kept)
        while kept_rows >= 2 * KEPT_ROWS:
            step *= 2
            kept_rows = -(-kept_rows // 2)
            for column in profiles.values():
                column.thin()

    return Sample(profiles, rows, labels, issues)


def codes_of(column: Profile) -> Int64[np.ndarray, " n"]:
    """Number the distinct values of the kept rows in order, from 0; -1 for a missing value."""
    if column.is_number:
        values = column.numbers
        codes = np.unique(values, return_inverse=True)[1].astype(np.int64)
        return np.where(np.isnan(values), -1, codes)

    texts_kept = column.texts
    order = {text: k for k, text in enumerate(sorted({t for t in texts_kept if t}))}
    return np.array([order[t] if t else -1 for t in texts_kept], dtype=np.int64)

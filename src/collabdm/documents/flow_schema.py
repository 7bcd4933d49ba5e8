"""The schema of a table of network flows, by which all sites turn rows into images alike.

A row becomes one pixel per feature, in 0 .. 255. The schema states the maps, which are never fitted
to data, so no site needs to see the rows of a different site:

    number      1 + round(254 (f(v) - f(low)) / (f(high) - f(low))),  v clipped to low .. high
                f(v) = v (linear) or sign(v) log(1 + |v| / unit) (log)
    category    1 + round(254 k / C) for the k-th of C values, k = 1 .. C;  1 for any other value
    missing     0

`flows` rows form an image of `side` x `side` pixels, padded with 0 (`collabdm.data.flows.windows`).

With `form` rows, each row is an image of one pixel instead, with a channel for each encoded value:

    number      (f(v) - f(low)) / (f(high) - f(low)) in 0 .. 1, not rounded;  0 if it is missing
                1 if it is missing, else 0, unless the column is `complete`
    category    one channel for each of the C values, one for any other value, one for missing: 1
                for the value of the row, 0 for the others

References: R. Holland et al., "One-shot collaborative data distillation", 2024, section 5 (rows of
a class combined into 64 x 64 images). S. Samarakoon et al., "5G-NIDD: a comprehensive network
intrusion detection dataset generated over 5G wireless network", 2022 (the data).
"""

import math
from typing import Annotated, ClassVar, Literal

import numpy as np
from jaxtyping import Float64, Int32, UInt8
from pydantic import Field, model_validator

from collabdm.documents.frozen_model import ExtendedModel, FrozenModel

MOST_VALUES = 2**16  # encoded values of a row

LEVELS = 254  # a value that is present has a pixel in 1 .. 1 + LEVELS
MISSING, OTHER = 0, 1  # the pixels of a missing and of an unlisted value

Name = Annotated[str, Field(max_length=256)]  # a column may have an empty name
Value = Annotated[str, Field(min_length=1, max_length=256)]

#: the encodings that a schema may declare; a byte order mark is recognised without a declaration
ENCODINGS = (
    *("utf-8", "utf-16", "utf-16-le", "utf-16-be", "cp1250", "cp1251", "cp1252", "cp1253"),
    *("cp1254", "cp1257", "cp437", "cp850", "iso-8859-1", "iso-8859-2", "iso-8859-5"),
    *("iso-8859-9", "iso-8859-15", "koi8-r", "gb18030", "big5", "shift_jis", "euc-jp", "euc-kr"),
)


class Number(ExtendedModel):
    """A numeric column, whose range `low` .. `high` is spread over the levels.

    The levels are evenly spaced in sign(v) log(1 + |v| / `unit`) if `scale` is log, and in v if it
    is linear. Two fields matter only for rows: a `whole` column has whole numbers, and a `complete`
    one no missing values.
    """

    extensions: ClassVar[tuple[str, ...]] = ("whole", "complete")

    name: Name
    low: float
    high: float
    scale: Literal["log", "linear"] = "log"
    unit: Annotated[float, Field(gt=0)] = 1.0
    whole: bool | None = None
    complete: bool | None = None

    @model_validator(mode="after")
    def _has_a_range(self) -> "Number":
        if not self.low < self.high:
            raise ValueError(
                f"`low` should be below `high` in column `{self.name}`; "
                f"found {self.low} and {self.high}"
            )
        return self

    def levels(self, values: Float64[np.ndarray, " n"]) -> UInt8[np.ndarray, " n"]:
        """Map values to pixels; NaN is a missing value."""
        share = self.shares(values)
        present = 1 + np.rint(LEVELS * np.nan_to_num(share))
        return np.where(np.isnan(share), MISSING, present).astype(np.uint8)

    def shares(self, values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Map values to their positions in the range, in 0 .. 1; NaN is a missing value."""
        low, high = self._curve(np.array([self.low, self.high]))
        return (self._curve(values.clip(self.low, self.high)) - low) / (high - low)

    def from_shares(self, shares: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Map positions in the range back to values; the inverse of `shares`."""
        low, high = self._curve(np.array([self.low, self.high]))
        curved = low + shares.clip(0, 1) * (high - low)
        if self.scale == "log":
            curved = np.sign(curved) * np.expm1(np.abs(curved)) * self.unit

        values = curved.clip(self.low, self.high)
        return np.rint(values) if self.whole else values

    @property
    def width(self) -> int:
        """The number of encoded values in a row."""
        return 1 if self.complete else 2

    def _curve(self, values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        """Apply the scale: f in the module's docstring."""
        if self.scale == "linear":
            return values
        return np.sign(values) * np.log1p(np.abs(values) / self.unit)


class Category(FrozenModel):
    """A text column. All values that are not listed share one level."""

    name: Name
    values: tuple[Value, ...] = Field(min_length=1, max_length=LEVELS)

    @model_validator(mode="after")
    def _values_differ(self) -> "Category":
        if len(set(self.values)) != len(self.values):
            raise ValueError(f"`values` should be distinct in column `{self.name}`")
        return self

    def levels(self, positions: Int32[np.ndarray, " n"]) -> UInt8[np.ndarray, " n"]:
        """Map positions in `values` to pixels; -1 is any other value, -2 a missing value."""
        listed = 1 + np.rint(LEVELS * (positions + 1.0) / len(self.values))
        present = np.where(positions == -1, OTHER, listed)
        return np.where(positions == -2, MISSING, present).astype(np.uint8)

    @property
    def width(self) -> int:
        """The number of encoded values in a row: the listed ones, any other, and missing."""
        return len(self.values) + 2


Column = Number | Category


class FlowSchema(ExtendedModel):
    """How a table of flows becomes images of its classes.

    - `columns`: the features, in order. `leaking` names those that reveal the label, because they
      count up during a capture; they are left out unless `keep_leaking` is set.
    - `label`: the label column, whose values are `classes`; `merge` assigns each additional value
      to one of these classes.
    - `missing`: texts that mean a missing value.
    - `time`: the column to sort by; None keeps the order of the rows.
    - `flows`, `side`: rows per image, and its height and width in pixels.
    - `layout`: `packed` writes one row after the other; `rows` begins a new line of the image with
      every row, and repeats the row as often as there is room.
    - `grouping`: `class` forms images from rows of one class; `stream` forms images from
      consecutive rows, and labels each with its majority class.
    - `missing_numbers`: further texts, in any case, that mean a missing value of a number; if it is
      set, so does infinity, which is clipped to the bounds otherwise.
    - `encoding`: the encoding of tables that are not UTF-8. `names`: the columns of tables without
      a line of column names. `time_format`: how `time` is written: `iso`, or directives such as
      `%d/%m/%Y %H:%M`; None means a number.
    - `empty_label`: the class of rows with an empty label; None means that they have no label.
    - `form`: `rows` distils rows one by one; None forms images of `flows` rows. `flows` is then 1,
      and `side` and `layout` have no meaning.
    - `reasons`: (column, reason) for columns in `leaking`, for the reader of the schema.
    - `split`: `time` reserves every `held_out`-th block of `block` images for testing, and leaves
      out the rows of one image on each side of the block; `random` reserves images drawn at
      random; `none` uses all images both for training and for testing.
    """

    extensions: ClassVar[tuple[str, ...]] = (
        *("missing_numbers", "encoding", "names", "empty_label", "time_format", "reasons"),
        "form",
    )

    columns: tuple[Column, ...] = Field(min_length=1, max_length=4096)
    leaking: tuple[Name, ...] = ()
    keep_leaking: bool = False
    label: Value
    classes: tuple[Value, ...] = Field(min_length=2, max_length=10_000)
    merge: tuple[tuple[Value, Value], ...] = ()
    missing: tuple[str, ...] = ("", "NaN", "nan", "NA", "null")
    time: Name | None = None
    flows: Annotated[int, Field(ge=1, le=16_384)]
    side: Annotated[int, Field(ge=8, le=128)]
    layout: Literal["packed", "rows"] = "packed"
    grouping: Literal["class", "stream"] = "class"
    split: Literal["time", "random", "none"] = "time"
    block: Annotated[int, Field(ge=1, le=10**6)] = 20
    held_out: Annotated[int, Field(ge=2, le=1000)] = 5
    missing_numbers: tuple[Name, ...] | None = None
    encoding: str | None = None
    names: tuple[Name, ...] | None = Field(default=None, min_length=2, max_length=4096)
    empty_label: Value | None = None
    time_format: Annotated[str, Field(min_length=2, max_length=64)] | None = None
    reasons: tuple[tuple[Name, Name], ...] | None = None
    form: Literal["rows"] | None = None

    @model_validator(mode="after")
    def _fields_agree(self) -> "FlowSchema":
        self._check_columns()
        self._check_labels()
        self._check_files()

        if self.as_rows:
            self._check_rows()
        elif self.flows > self.most_flows:
            raise ValueError(
                f"`flows` should be at most {self.most_flows}: {len(self.features)} features each, "
                f"in {self.side} x {self.side} pixels, layout {self.layout}; found {self.flows}"
            )
        return self

    def _check_columns(self) -> None:
        names = [column.name for column in self.columns]

        if len(set(names)) != len(names):
            raise ValueError("`columns` should have distinct names")
        if unknown := sorted(set(self.leaking) - set(names)):
            raise ValueError(f"`leaking` should be names of columns; found {', '.join(unknown)}")
        if self.label in names:
            raise ValueError(
                f"`label` should not be a feature; found `{self.label}` among `columns`"
            )
        if not self.features:
            raise ValueError("`leaking` should leave at least one column; found all of them in it")

    def _check_labels(self) -> None:
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("`classes` should be distinct names")

        merged = dict(self.merge)
        if len(merged) != len(self.merge) or not set(merged.values()) <= set(self.classes):
            raise ValueError("`merge` should contain each value once, with a class of `classes`")

        if self.empty_label is not None and self.empty_label not in self.classes:
            raise ValueError(
                f"`empty_label` should be one of `classes`; found `{self.empty_label}`"
            )

    def _check_files(self) -> None:
        if self.encoding is not None and self.encoding not in ENCODINGS:
            raise ValueError(
                f"`encoding` should be one of {', '.join(ENCODINGS)}; found `{self.encoding}`"
            )
        if self.time_format not in (None, "iso") and "%" not in str(self.time_format):
            raise ValueError(
                "`time_format` should be iso, or directives such as %d/%m/%Y %H:%M; "
                f"found `{self.time_format}`"
            )

    def _check_rows(self) -> None:
        if self.flows != 1:
            raise ValueError(f"`flows` should be 1 with `form` rows; found {self.flows}")
        if self.width > MOST_VALUES:
            raise ValueError(
                f"`columns` should give at most {MOST_VALUES} encoded values a row; "
                f"found {self.width}"
            )

    @property
    def as_rows(self) -> bool:
        """Whether rows are distilled one by one, rather than as images of several rows."""
        return self.form == "rows"

    @property
    def width(self) -> int:
        """The number of encoded values of a row, with `form` rows."""
        return sum(self.widths)

    @property
    def widths(self) -> tuple[int, ...]:
        """The number of encoded values of each column that is used, with `form` rows."""
        return tuple(column.width for column in self.features)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images."""
        return (self.width, 1, 1) if self.as_rows else (1, self.side, self.side)

    @property
    def features(self) -> tuple[Column, ...]:
        """The columns that become pixels."""
        return tuple(c for c in self.columns if self.keep_leaking or c.name not in self.leaking)

    @property
    def most_flows(self) -> int:
        """The number of rows that fit into one image."""
        if self.layout == "packed":
            return self.side**2 // len(self.features)
        return self.side // self.lines

    @property
    def lines(self) -> int:
        """The number of lines of the image that one row takes in the layout `rows`."""
        return math.ceil(len(self.features) / self.side)

    @property
    def class_numbers(self) -> dict[str, int]:
        """The class number of every value of the label."""
        numbers = {name: y for y, name in enumerate(self.classes)}
        return numbers | {value: numbers[name] for value, name in self.merge}

    def with_leaking(self) -> "FlowSchema":
        """Copy the schema, with leaking columns as features and `flows` lowered to what fits."""
        schema = self.model_copy(update={"keep_leaking": True})
        if self.as_rows:
            return schema
        return schema.model_copy(update={"flows": min(self.flows, schema.most_flows)})

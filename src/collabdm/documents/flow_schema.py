"""What sites agree on about a table of network flows, so that none needs to see another's rows.

A row becomes one pixel for each feature, in 0 .. 255, by maps that are declared and never fitted:

    number      missing 0;  1 + round(254 (f(v) - f(low)) / (f(high) - f(low))),  v clipped to low .. high
                f(v) = v (linear), or sign(v) log(1 + |v| / unit) (log)
    category    missing 0;  a value not listed 1;  the k-th of C values  1 + round(254 k / C),  k = 1 .. C

`flows` rows make one image of `side` x `side` pixels, filled up with 0 (`collabdm.flows.windows`).

References: R. Holland et al., "One-shot collaborative data distillation", 2024, section 5 (rows of a class
combined into 64 x 64 images). S. Samarakoon et al., "5G-NIDD: a comprehensive network intrusion detection
dataset generated over 5G wireless network", 2022 (the data).
"""

import math
from typing import Annotated, Literal

import numpy as np
from jaxtyping import Float64, Int32, UInt8
from pydantic import BaseModel, ConfigDict, Field, model_validator

LEVELS = 254  # of what is present; 0 is what is missing


MISSING, OTHER = 0, 1


Name = Annotated[str, Field(max_length=256)]  # a column may be unnamed


Value = Annotated[str, Field(min_length=1, max_length=256)]


class _Agreed(BaseModel):
    """A frozen part of a Plan; unknown keys, NaN and infinity are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Number(_Agreed):
    """A numeric column: `low` .. `high` are spread over the levels, by logarithms of v / `unit` or evenly."""

    name: Name
    low: float
    high: float
    scale: Literal["log", "linear"] = "log"
    unit: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _has_a_range(self) -> "Number":
        if not self.low < self.high:
            raise ValueError(f"`low` should be below `high` in column `{self.name}`; found {self.low} and {self.high}")
        return self

    def levels(self, values: Float64[np.ndarray, " n"]) -> UInt8[np.ndarray, " n"]:
        """Pixels of the values; NaN is a missing one."""
        low, high = self._curve(np.array([self.low, self.high]))
        share = (self._curve(values.clip(self.low, self.high)) - low) / (high - low)
        return np.where(np.isnan(share), MISSING, 1 + np.rint(LEVELS * np.nan_to_num(share))).astype(np.uint8)

    def _curve(self, values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
        return np.sign(values) * np.log1p(np.abs(values) / self.unit) if self.scale == "log" else values


class Category(_Agreed):
    """A column of names. What is not among `values` shares one level."""

    name: Name
    values: tuple[Value, ...] = Field(min_length=1, max_length=LEVELS)

    @model_validator(mode="after")
    def _values_differ(self) -> "Category":
        if len(set(self.values)) != len(self.values):
            raise ValueError(f"`values` should be distinct in column `{self.name}`")
        return self

    def levels(self, places: Int32[np.ndarray, " n"]) -> UInt8[np.ndarray, " n"]:
        """Pixels of positions in `values`; -1 is another value, -2 a missing one."""
        known = 1 + np.rint(LEVELS * (places + 1.0) / len(self.values))
        return np.where(places == -2, MISSING, np.where(places == -1, OTHER, known)).astype(np.uint8)


Column = Number | Category


class FlowSchema(_Agreed):
    """How a table of flows becomes images of its classes.

    - `columns`: the features, in order. Those in `leaking` give the label away (they count within a capture)
      and are left out unless `keep_leaking`.
    - `label`: the column of the label, `classes` its values; `merge` pairs a value with the class it joins.
    - `missing`: texts that mean that there is no value. `time`: the column to sort by; None takes rows as they come.
    - `flows` rows make an image of `side` x `side` pixels. `layout` `packed`: one row after the other;
      `rows`: every flow begins a new line of the image, repeated as often as there is room.
    - `grouping` `class`: images of rows of one class; `stream`: of consecutive rows, labelled by the majority.
    - `split` `time`: every `held_out`-th block of `block` images is for the test, and one image's rows on each
      side of it are left out; `random`: every image by lot; `none`: all is for training, and all for the test.
    """

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

    @model_validator(mode="after")
    def _parts_agree(self) -> "FlowSchema":
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names):
            raise ValueError("`columns` should have distinct names")
        if unknown := sorted(set(self.leaking) - set(names)):
            raise ValueError(f"`leaking` should be of the columns; found {', '.join(unknown)}")
        if self.label in names:
            raise ValueError(f"`label` should be none of the features; found `{self.label}` among `columns`")
        if len(set(self.classes)) != len(self.classes):
            raise ValueError("`classes` should be distinct names")
        if len(dict(self.merge)) != len(self.merge) or not {name for _, name in self.merge} <= set(self.classes):
            raise ValueError("`merge` should give each value once, with a class of `classes`")
        if not self.features:
            raise ValueError("`leaking` should leave at least one column")
        if self.flows > self.most_flows:
            raise ValueError(
                f"`flows` should be at most {self.most_flows}: {len(self.features)} features each, in "
                f"{self.side} x {self.side} pixels, layout {self.layout}; found {self.flows}"
            )
        return self

    @property
    def features(self) -> tuple[Column, ...]:
        """The columns that become pixels."""
        return tuple(c for c in self.columns if self.keep_leaking or c.name not in self.leaking)

    @property
    def most_flows(self) -> int:
        """How many rows fit in one image."""
        if self.layout == "packed":
            return self.side**2 // len(self.features)
        return self.side // self.lines

    @property
    def lines(self) -> int:
        """Lines of the image that one flow takes in the layout `rows`."""
        return math.ceil(len(self.features) / self.side)

    @property
    def places(self) -> dict[str, int]:
        """The class number of every value of the label."""
        own = {name: y for y, name in enumerate(self.classes)}
        return own | {value: own[name] for value, name in self.merge}

    def with_leaking(self) -> "FlowSchema":
        """The same with the leaking columns too, and as many flows as still fit."""
        kept = self.model_copy(update={"keep_leaking": True})
        return kept.model_copy(update={"flows": min(self.flows, kept.most_flows)})

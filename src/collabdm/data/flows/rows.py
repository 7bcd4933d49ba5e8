"""Encode the rows of a table as vectors of numbers, and decode vectors to rows.

    number      f(v) scaled to 0 .. 1 by the range of the schema;  1 in a second value if missing
    category    one value for each category, 1 for that of the row, 0 for the others

Decoding takes numbers back to their units, and the category with the largest value; a number is
missing if its second value is above one half. So decoding undoes encoding, up to the rounding of
float32 and, for a `whole` column, to whole numbers. `collabdm.documents.flow_schema` defines f.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int32
from torch import Tensor

from collabdm.documents.flow_schema import Category, Column, FlowSchema, Number
from collabdm.images import ImageSet

OTHER = "other"  # a decoded category that the schema does not list


def encode_numbers(
    column: Number, values: Float64[np.ndarray, " n"]
) -> Float32[np.ndarray, "n width"]:
    """Encode the values of a numeric column; NaN is a missing value."""
    missing = np.isnan(values)
    shares = np.where(missing, 0.0, column.shares(values))
    parts = [shares] if column.complete else [shares, missing]
    return np.stack(parts, axis=1).astype(np.float32)


def encode_categories(
    column: Category, positions: Int32[np.ndarray, " n"]
) -> Float32[np.ndarray, "n width"]:
    """Encode positions in `values`; -1 is any other value, -2 a missing value."""
    listed = len(column.values)
    at = np.where(positions >= 0, positions, listed - 1 - positions)
    return (at[:, None] == np.arange(column.width)).astype(np.float32)


def places(schema: FlowSchema) -> Iterator[tuple[Column, slice]]:
    """Yield the columns that are used, with the places of their values in an encoded row."""
    first = 0
    for column in schema.features:
        yield column, slice(first, first + column.width)
        first += column.width


def decode_rows(
    schema: FlowSchema, encoded: Float32[Tensor, "n width"]
) -> dict[str, list[float | int | str | None]]:
    """Decode rows: a list of values for each column, None where a value is missing."""
    values = encoded.double().numpy()
    decoded: dict[str, list[Any]] = {}
    for column, place in places(schema):
        own = values[:, place]
        if isinstance(column, Number):
            decoded[column.name] = _numbers(column, own)
        else:
            texts = (*column.values, OTHER, None)
            decoded[column.name] = [texts[k] for k in own.argmax(1).tolist()]
    return decoded


def decode_set(schema: FlowSchema, data: ImageSet) -> dict[str, list[float | int | str | None]]:
    """Decode a set of rows, with the label as its last column."""
    columns = decode_rows(schema, data.images.flatten(1))
    return columns | {schema.label: [data.classes[y] for y in data.labels.tolist()]}


def snapped(schema: FlowSchema, encoded: Float32[Tensor, "n width"]) -> Float32[Tensor, "n width"]:
    """Replace each row by the nearest one that a table could contain, apart from whole numbers.

    Numbers are clipped to their range, the largest value of a category becomes 1 and its others 0,
    and the number of a missing value becomes 0.
    """
    rows = encoded.clone()
    for column, place in places(schema):
        own = rows[:, place]
        if isinstance(column, Category):
            rows[:, place] = torch.nn.functional.one_hot(own.argmax(1), column.width).float()
            continue
        rows[:, place.start] = own[:, 0].clamp(0, 1)
        if not column.complete:
            missing = own[:, 1] > 0.5
            rows[:, place.start + 1] = missing.float()
            rows[missing, place.start] = 0.0
    return rows


def snapped_images(
    schema: FlowSchema, images: Float32[Tensor, "*n width 1 1"]
) -> Float32[Tensor, "*n width 1 1"]:
    """Replace rows, as images of one pixel, by the nearest ones that a table could contain."""
    return snapped(schema, images.reshape(-1, schema.width)).view(images.shape)


def _numbers(column: Number, own: Float64[np.ndarray, "n width"]) -> list[float | int | None]:
    values = column.from_shares(own[:, 0])
    missing = np.zeros(len(own), bool) if column.complete else own[:, 1] > 0.5
    convert = int if column.whole else _short
    return [
        None if gone else convert(value)
        for value, gone in zip(values.tolist(), missing.tolist(), strict=True)
    ]


def _short(value: float) -> float:
    """Round to seven digits, which is what float32 keeps."""
    return float(f"{value:.7g}")

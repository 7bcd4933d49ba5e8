"""Decode the images of a source, one by one, into an ImageSet."""

import math
import operator
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import SupportsIndex, cast

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from collabdm.errors import DataError
from collabdm.images import ImageSet

LARGEST_SIDE, MOST_BYTES = 1024, 2**36  # of decoded images

MOST_SHOWN = 8  # the most shapes or labels in an error


@dataclass(frozen=True)
class Undecoded:
    """One split of a source that has been located, but not read.

    - `where`: the name of the source, for errors; `size`: the number of its rows.
    - `pairs()` yields (image, label) for each row. An image is a path, encoded bytes, the hub's
      {bytes, path}, a Pillow image, an array or a tensor; a label is a whole number or a class
      name.
    - `names`: the class names of the numbers, if known.
    - `files`: the files whose changes invalidate the cache; if empty, nothing is cached.
    - `column(name)` returns a different column of the same rows, if the source has columns.
    """

    where: str
    size: int
    pairs: Callable[[], Iterable[tuple[object, object]]]
    names: tuple[str, ...] | None = None
    files: tuple[Path, ...] = ()
    column: Callable[[str], list[object]] | None = None


def decode(source: Undecoded, side: int | None = None, channels: int | None = None) -> ImageSet:
    """Decode every image and label of a source.

    Args:
        source: The split to decode.
        side: Resize to side x side pixels, bilinear with antialiasing, ignoring the aspect ratio.
        channels: Convert to grey (1) or RGB (3).

    Raises:
        DataError: There is no image, an image cannot be read, images differ in shape, or a label
            is neither a number nor a known name.
    """
    from collabdm.data.image_files import read_image  # Pillow takes time to import

    stack: np.ndarray | None = None
    shapes: Counter[tuple[int, ...]] = Counter()
    labels: list[object] = []

    for image, label in source.pairs():
        planes = read_image(image, f"image {len(labels)} of {source.where}", side, channels)
        if stack is None:
            stack = _stack(source, planes.shape)
        if planes.shape == stack.shape[1:]:
            stack[len(labels)] = planes

        shapes[planes.shape] += 1
        labels.append(label)

    if stack is None:
        raise DataError(f"{source.where} should contain images; found none")
    _check_shapes(shapes, source.where)

    numbers, classes = number_labels(labels, source.names, source.where)
    return ImageSet(torch.from_numpy(stack), numbers, classes)


def _stack(source: Undecoded, shape: tuple[int, ...]) -> np.ndarray:
    """Allocate the images of a source, all of one shape. Raises DataError if they are too large."""
    channels, height, width = shape
    if max(height, width) > LARGEST_SIDE or source.size * math.prod(shape) > MOST_BYTES:
        raise DataError(
            f"images should have at most {LARGEST_SIDE} pixels a side and {MOST_BYTES:,} bytes in "
            f"all; found in {source.where} {source.size:,} of {width} x {height} with {channels} "
            "channel(s): resize them (`side`; on the command line `--resize`)"
        )
    return np.empty((source.size, *shape), dtype=np.uint8)


def _check_shapes(shapes: Counter[tuple[int, ...]], where: str) -> None:
    """Check that all images have the same shape. Raises DataError with the count of each shape."""
    if len(shapes) == 1:
        return

    listed = "; ".join(
        f"{width} x {height} with {channels} channel(s): {count} images"
        for (channels, height, width), count in shapes.most_common(MOST_SHOWN)
    )
    others = len(shapes) - MOST_SHOWN
    raise DataError(
        "images of one set should have one size and one number of channels; "
        f"found in {where} {listed}{f'; and {others} other shapes' if others > 0 else ''}: "
        "resize and convert them (`side`, `channels`; on the command line `--resize`)"
    )


def number_labels(
    labels: list[object], names: tuple[str, ...] | None, where: str
) -> tuple[Int64[Tensor, " n"], tuple[str, ...]]:
    """Convert labels to positions in the class names.

    Args:
        labels: A whole number or a class name for each image.
        names: The class names; None uses the distinct labels, in order.
        where: The name of the source, for errors.

    Returns:
        The positions, and the class names.

    Raises:
        DataError: A label is neither a number nor a name, is negative, or is not among `names`.
    """
    if all(isinstance(label, str) for label in labels):
        return _number_texts([str(label) for label in labels], names, where)

    numbers = _whole_numbers(labels, where)
    if names is None:
        distinct, numbers = np.unique(numbers, return_inverse=True)
        names = tuple(str(number) for number in distinct)

    if numbers.max() >= len(names):
        raise DataError(
            f"labels of {where} should be in 0 .. {len(names) - 1}; found {numbers.max()}"
        )
    return torch.from_numpy(numbers.astype(np.int64)), names


def _number_texts(
    labels: list[str], names: tuple[str, ...] | None, where: str
) -> tuple[Int64[Tensor, " n"], tuple[str, ...]]:
    """Convert class names to positions in `names`, or in the sorted distinct labels."""
    names = tuple(sorted(set(labels))) if names is None else names
    positions = {name: y for y, name in enumerate(names)}

    if unknown := sorted(set(labels) - set(names)):
        raise DataError(
            f"labels of {where} should be among {list(names)}; found {unknown[:MOST_SHOWN]}"
        )
    return torch.tensor([positions[label] for label in labels], dtype=torch.int64), names


def _whole_numbers(labels: list[object], where: str) -> np.ndarray:
    """Convert labels to int64 numbers of 0 or more. Raises DataError."""
    try:
        whole = [operator.index(cast(SupportsIndex, label)) for label in labels]
        numbers = np.array(whole, dtype=np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"labels of {where} should be whole numbers or names ({error})") from error

    if numbers.min() < 0:
        raise DataError(
            f"labels of {where} should be 0 or more; found {numbers.min()}: "
            "leave out images without a label"
        )
    return numbers

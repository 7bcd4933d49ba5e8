"""Decode the images of a source, one by one, into an ImageSet."""

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from collabdm.data.conversion import Conversion, DeepLevelsError, UnreadableError
from collabdm.data.labels import number_labels
from collabdm.data.tally import Remark, Remarks
from collabdm.errors import DataError
from collabdm.images import ImageSet

LARGEST_SIDE, MOST_BYTES = 1024, 2**36  # of decoded images

MOST_SHOWN = 8  # the most shapes in an error
MOST_NAMED = 20  # pictures in an error


@dataclass(frozen=True)
class Undecoded:
    """One split of a source that has been located, but not read.

    - `where`: the name of the source, for errors; `size`: the number of its rows, at least.
    - `pairs()` yields (image, label) for each row. An image is a path, encoded bytes, the hub's
      {bytes, path}, a Pillow image, an array or a tensor; a label is a whole number or a class
      name.
    - `names`: the class names of the numbers, if known.
    - `files`: the files whose changes invalidate the cache; if empty, nothing is cached.
    - `column(name)` returns a different column of the same rows, if the source has columns.
    - `remarks`: what was skipped when the source was located.
    """

    where: str
    size: int
    pairs: Callable[[], Iterable[tuple[object, object]]]
    names: tuple[str, ...] | None = None
    files: tuple[Path, ...] = ()
    column: Callable[[str], list[object]] | None = None
    remarks: tuple[Remark, ...] = ()


@dataclass
class _Faults:
    """Pictures that cannot be read: the first names with their reasons, and their number."""

    lines: list[str]
    count: int = 0
    first: UnreadableError | None = None
    deep: list[DeepLevelsError] = field(default_factory=list)

    def add(self, error: UnreadableError) -> None:
        """Count a picture."""
        self.count += 1
        self.first = self.first or error
        if len(self.lines) < MOST_NAMED:
            self.lines.append(f"{error.where}: {error.reason}")


def decode(
    source: Undecoded,
    conversion: Conversion = Conversion(),
    skip_unreadable: bool = False,
) -> tuple[ImageSet, tuple[Remark, ...]]:
    """Decode every image and label of a source.

    Args:
        source: The split to decode.
        conversion: The side and channels of the images, and the rules of the plan.
        skip_unreadable: Whether to leave out pictures that cannot be read.

    Returns:
        The images, and what was skipped or changed.

    Raises:
        DataError: There is no image, images cannot be read or differ in shape, or a label is
            neither a number nor a known name.
    """
    from collabdm.data.image_files import read_image  # Pillow takes time to import

    stack: np.ndarray | None = None
    shapes: Counter[tuple[int, ...]] = Counter()
    labels: list[object] = []
    remarks, faults = Remarks(), _Faults([])

    for row, (image, label) in enumerate(source.pairs()):
        try:
            planes = read_image(image, f"image {row} of {source.where}", conversion, remarks)
        except UnreadableError as error:
            faults.add(error)
            if skip_unreadable:
                remarks.add("unreadable", error.where)
            continue
        except DeepLevelsError as error:
            faults.deep.append(error)
            continue
        if faults.deep or (faults.count and not skip_unreadable):
            continue  # nothing will be returned

        if stack is None:
            stack = _stack(source, planes.shape)
        if planes.shape == stack.shape[1:]:
            stack[len(labels)] = planes
        shapes[planes.shape] += 1
        labels.append(label)

    _check_readable(faults, skip_unreadable, source.where)
    if stack is None:
        raise DataError(f"{source.where} should contain images; found none that can be read")
    _check_shapes(shapes, source.where)

    numbers, classes = number_labels(labels, source.names, source.where)
    return ImageSet(torch.from_numpy(stack[: len(labels)]), numbers, classes), remarks.frozen()


def _check_readable(faults: _Faults, skip_unreadable: bool, where: str) -> None:
    """Raise one DataError about all pictures that cannot be read, if there are any."""
    if faults.count == 1 and faults.first is not None and not skip_unreadable:
        raise faults.first
    if faults.count and not skip_unreadable:
        others = faults.count - len(faults.lines)
        listed = "\n".join(f"  {line}" for line in faults.lines)
        more = f"\n  and {others:,} more" if others else ""
        raise DataError(
            f"every picture of {where} should be a whole image file; {faults.count:,} cannot be "
            f"read:\n{listed}{more}\n"
            "replace or remove them, or leave them out with `--skip-unreadable`"
        )
    if faults.deep:
        least = min(error.least for error in faults.deep)
        most = max(error.most for error in faults.deep)
        named = faults.deep[0].where
        if len(faults.deep) > 1:
            named += f" and {len(faults.deep) - 1:,} other pictures of {where}"
        raise DeepLevelsError(named, least, most)


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

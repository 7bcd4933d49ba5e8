"""From what a source holds (encoded bytes, files, arrays) to an ImageSet, once: the result is remembered.

    level = round(255 v)      for an array of real values v in 0 .. 1; bytes are taken as they are
    key   = SHA-256(format version, split, side, channels, (path, size, time of change) of every file)

A remembered set is three plain files named by its key: images and labels (.npy, mapped into memory, never
unpickled) and class names (JSON). Each is written beside its place and then moved there, the names last,
so a reader finds a whole set or none.

Reference: none; Pillow decodes the images.
"""

import hashlib
import io
import json
import operator
import os
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import SupportsIndex, cast

import numpy as np
import torch
from jaxtyping import Int64, Shaped, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from collabdm.documents.atomic_write import atomic_write_with
from collabdm.errors import DataError, OutputError
from collabdm.images import ImageSet

FORMAT = 1


GREY_MODES = ("L", "LA", "1")


DEEP_MODES = ("I", "F")  # 16 or 32 bits per level: Pillow would clip them silently


@dataclass(frozen=True)
class Undecoded:
    """One split of a source, found but not yet read.

    `pairs()` gives (image, label) for each of the `size` rows: an image is a path, encoded bytes, the hub's
    {bytes, path}, a Pillow image, an array or a tensor; a label is a whole number or a class name. `names`
    are the names of the numbers, if known. `files` tell whether the source changed (none: never
    remembered). `column` gives another column of the same rows, if the source has columns.
    """

    where: str
    size: int
    pairs: Callable[[], Iterable[tuple[object, object]]]
    names: tuple[str, ...] | None = None
    files: tuple[Path, ...] = ()
    column: Callable[[str], list[object]] | None = None


def decode(found: Undecoded, side: int | None = None, channels: int | None = None) -> ImageSet:
    """Read every image and label.

    `side`: resize to side × side pixels (bilinear with antialiasing, the aspect is not kept); `channels`:
    1 converts to grey, 3 to RGB. Raises DataError for an image that cannot be read, images of several
    shapes, a label that is not one, or no images.
    """
    stack: np.ndarray | None = None
    shapes: Counter[tuple[int, ...]] = Counter()
    labels: list[object] = []
    for image, label in found.pairs():
        planes = read_image(image, f"image {len(labels)} of {found.where}", side, channels)
        if stack is None:
            stack = np.empty((found.size, *planes.shape), dtype=np.uint8)
        if planes.shape == stack.shape[1:]:
            stack[len(labels)] = planes
        shapes[planes.shape] += 1
        labels.append(label)
    if stack is None:
        raise DataError(f"{found.where} should hold images; found none")
    _check_shapes(shapes, found.where)
    numbers, classes = number_labels(labels, found.names, found.where)
    return ImageSet(torch.from_numpy(stack), numbers, classes)


def _check_shapes(shapes: Counter[tuple[int, ...]], where: str) -> None:
    if len(shapes) == 1:
        return
    listed = [f"{w} x {h} with {c} channel(s): {n} images" for (c, h, w), n in shapes.most_common(8)]
    more = f"; and {len(shapes) - 8} other shapes" if len(shapes) > 8 else ""
    raise DataError(
        f"images of one set should have one size and one number of channels; found in {where} "
        f"{'; '.join(listed)}{more}. Resize and convert them (`side`, `channels`; on the command line `--resize`)"
    )


def read_image(
    image: object, where: str, side: int | None = None, channels: int | None = None
) -> UInt8[np.ndarray, "c h w"]:
    """One image as planes of bytes. `where` names it in errors; `side`, `channels` as in `decode`."""
    if isinstance(image, (np.ndarray, Tensor)):
        planes = _levels(np.asarray(image), where, channels_first=isinstance(image, Tensor))
        if channels in (None, len(planes)) and (side is None or planes.shape[1:] == (side, side)):
            return planes
        image = Image.fromarray(planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0))
    if isinstance(image, dict):
        image = image.get("bytes") or image.get("path")
    if isinstance(image, (Path, str)):
        where = f"`{image}`"
    picture = _convert(_open(image, where), where, channels)
    if side is not None and picture.size != (side, side):
        picture = picture.resize((side, side), Image.Resampling.BILINEAR)
    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _open(image: object, where: str) -> Image.Image:
    """The Pillow image with all its pixels read, upright."""
    if not isinstance(image, (Path, str, bytes, bytearray, Image.Image)):
        raise DataError(f"{where} should be an image, encoded bytes or an array; found {type(image).__name__}")
    try:
        if isinstance(image, (Path, str)):
            image = Path(image).read_bytes()
        picture = image if isinstance(image, Image.Image) else Image.open(io.BytesIO(image))
        picture.load()
        return ImageOps.exif_transpose(picture)
    except Exception as error:  # decoders raise whatever the broken bytes lead them to
        raise DataError(f"{where} should be a whole image file; it cannot be read ({error})") from error


def _convert(picture: Image.Image, where: str, channels: int | None) -> Image.Image:
    if picture.mode.startswith(DEEP_MODES):
        raise DataError(f"{where} should have 8 bits per channel; found mode {picture.mode}. Scale it to 0 .. 255")
    grey = channels == 1 or (channels is None and picture.mode in GREY_MODES)
    return picture.convert("L" if grey else "RGB")


def _levels(array: Shaped[np.ndarray, "..."], where: str, channels_first: bool) -> UInt8[np.ndarray, "c h w"]:
    """An array (h, w), (h, w, c) or (c, h, w), bytes or reals in 0 .. 1, as planes of bytes."""
    array = array[None] if array.ndim == 2 else array
    axes = [axis for axis in ((0, 2) if channels_first else (2, 0)) if array.shape[axis : axis + 1] in ((1,), (3,))]
    if array.ndim != 3 or not axes:
        raise DataError(f"{where} should be (h, w), (h, w, c) or (c, h, w) with c = 1 or 3; found {array.shape}")
    if np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):  # so that NaN is refused too
            raise DataError(
                f"{where} should have values in 0 .. 1; found {array.min():.4g} .. {array.max():.4g}. "
                "Leave normalisation to the Plan"
            )
        array = np.round(array.astype(np.float64) * 255).astype(np.uint8)
    if array.dtype != np.uint8:
        raise DataError(f"{where} should be uint8, or real in 0 .. 1; found {array.dtype}")
    return np.moveaxis(array, axes[0], 0)


def number_labels(
    labels: list[object], names: tuple[str, ...] | None, where: str
) -> tuple[Int64[Tensor, " n"], tuple[str, ...]]:
    """Labels as positions in the class names, and those names.

    Without `names` they are the labels found, in order: as text, or as numbers. Raises DataError for a
    label that is neither, is negative, or is not among `names`.
    """
    if all(isinstance(label, str) for label in labels):
        names = names if names is not None else tuple(sorted({str(label) for label in labels}))
        place = {name: y for y, name in enumerate(names)}
        if unknown := sorted({str(label) for label in labels} - place.keys()):
            raise DataError(f"labels of {where} should be among {list(names)}; found {unknown[:8]}")
        return torch.tensor([place[str(label)] for label in labels], dtype=torch.int64), names
    try:
        numbers = np.array([operator.index(cast(SupportsIndex, label)) for label in labels], dtype=np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"labels of {where} should be whole numbers or names ({error})") from error
    if numbers.min() < 0:
        raise DataError(f"labels of {where} should be 0 or more; found {numbers.min()} (images without a label?)")
    if names is None:
        distinct, numbers = np.unique(numbers, return_inverse=True)
        names = tuple(str(number) for number in distinct)
    if numbers.max() >= len(names):
        raise DataError(f"labels of {where} should be in 0 .. {len(names) - 1}; found {numbers.max()}")
    return torch.from_numpy(numbers.astype(np.int64)), names


def cache_folder() -> Path | None:
    """Where decoded sets are kept: COLLABDM_CACHE, else the user's cache folder; None without a home."""
    if named := os.environ.get("COLLABDM_CACHE"):
        return Path(named)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "collabdm"
    try:
        return Path.home() / ".cache" / "collabdm"
    except RuntimeError:
        return None


def cache_key(found: Undecoded, split: str, side: int | None, channels: int | None) -> str:
    """The name of a remembered set: it changes when a file of the source does."""
    stats = [(str(file.resolve()), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in found.files]
    identity = [FORMAT, split, side, channels, found.names, stats]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]


def recall(folder: Path, key: str) -> ImageSet | None:
    """The remembered set, its pixels mapped copy-on-write; None if it is absent or damaged."""
    try:
        classes = tuple(str(name) for name in json.loads((folder / f"{key}.json").read_text("utf-8")))
        images, labels = (
            np.load(folder / f"{key}.{part}.npy", mmap_mode="c", allow_pickle=False) for part in ("images", "labels")
        )
        return ImageSet(torch.from_numpy(images), torch.from_numpy(labels), classes)
    except (OSError, ValueError, TypeError, EOFError):
        return None


def remember(folder: Path, key: str, data: ImageSet) -> None:
    """Keep a decoded set for `recall`. A folder that cannot be written to is no error: nothing is kept."""
    with suppress(OSError, OutputError):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)  # a site's images are private
        atomic_write_with(
            folder / f"{key}.images.npy", lambda file: np.save(file, data.images.numpy(), allow_pickle=False)
        )
        atomic_write_with(
            folder / f"{key}.labels.npy", lambda file: np.save(file, data.labels.numpy(), allow_pickle=False)
        )
        atomic_write_with(folder / f"{key}.json", lambda file: file.write(json.dumps(data.classes).encode()))

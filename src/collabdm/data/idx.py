"""Locate images in IDX files, the format of MNIST, EMNIST and Fashion-MNIST.

    train-images-idx3-ubyte[.gz]    0 0 8 3    n    height    width    n x height x width bytes
    train-labels-idx1-ubyte[.gz]    0 0 8 1    n                       n bytes

The lengths are of four bytes, the first byte being the highest. `t10k` and `test` name test images.

Reference: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database of handwritten digits", 1998.
"""

import gzip
import math
import re
import struct
import zlib
from pathlib import Path

import numpy as np

from collabdm.data.archives import DEFLATE_RATIO, HEADER_ALLOWANCE
from collabdm.data.decoding import Undecoded
from collabdm.data.selection import Selection
from collabdm.data.splits import SPLIT_OF, choose_split
from collabdm.documents.regular_file import check_regular
from collabdm.errors import DataError

NAME = re.compile(r"(?P<set>.*?)[-_.]?(?P<part>images|labels)[-_.]idx[13][-_.]ubyte(\.gz)?", re.I)
PARTS = {"images": 3, "labels": 1}  # and the number of their dimensions
RAW = "raw"  # the folder in which torchvision stores them

Pair = dict[str, Path]  # the files of a set, by part


def idx_files(folder: Path) -> dict[str, Pair]:
    """Find the IDX files of a folder, or of `raw` in it, by set and part.

    Of a file and its compressed copy, the file itself is returned.
    """
    sets: dict[str, Pair] = {}
    for path in sorted([*folder.glob("*ubyte*"), *folder.glob(f"{RAW}/*ubyte*")]):
        named = NAME.fullmatch(path.name)
        if named is not None:
            sets.setdefault(named["set"], {}).setdefault(named["part"].lower(), path)
    return sets


def open_idx(
    folder: Path,
    sets: dict[str, Pair],
    split: str,
    names: tuple[str, ...] | None,
    selection: Selection,
) -> Undecoded:
    """Locate one split of a folder of IDX files.

    Args:
        folder: the folder.
        sets: its files, by set and part.
        split: the name of the split.
        names: the class names, if known; None uses the numbers.
        selection: the choices of the user.

    Raises:
        DataError: there is no such split, or several sets of it, or the files do not fit together.
    """
    chosen = choose_split({_split(name): sets[name] for name in sets}, split, None, f"`{folder}`")
    _check_one_set(folder, sets)
    if missing := [part for part in PARTS if part not in chosen]:
        there = ", ".join(path.name for path in chosen.values())
        raise DataError(
            f"`{folder}` should contain images and labels of each set; found {there} without "
            f"the {missing[0]}"
        )

    images, labels = (read_idx(chosen[part], PARTS[part]) for part in PARTS)
    if len(images) != len(labels):
        raise DataError(
            f"`{folder}` should contain one label per image; found {len(images):,} images and "
            f"{len(labels):,} labels"
        )
    return Undecoded(
        f"`{folder}`",
        len(images),
        lambda: zip(images, labels.tolist(), strict=True),
        selection.class_names or names,
    )


def _split(name: str) -> str:
    """Return the split that the name of a set ends in, such as `emnist-letters-train`."""
    word = re.split(r"[-_.]", name.lower())[-1]
    return "test" if word == "t10k" else SPLIT_OF.get(word, "train")


def _check_one_set(folder: Path, sets: dict[str, Pair]) -> None:
    """Check that no split has several sets, as in a folder of all of EMNIST. Raises DataError."""
    splits = [_split(name) for name in sets]
    if len(set(splits)) < len(splits):
        raise DataError(
            f"`{folder}` should contain one set for each split; found {', '.join(sorted(sets))}: "
            "move the files of one of them to a folder of their own"
        )


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Read an IDX file of bytes, compressed or not.

    Args:
        path: the file.
        dimensions: the number of dimensions that it should have.

    Raises:
        DataError: the file cannot be read, or is not an IDX file of bytes with these dimensions.
    """
    try:
        compressed = path.suffix.lower() == ".gz"
        most = check_regular(path) * (DEFLATE_RATIO if compressed else 1) + HEADER_ALLOWANCE
        with gzip.open(path) if compressed else path.open("rb") as file:
            shape = _shape(file.read(4 + 4 * dimensions), dimensions)
            expected = math.prod(shape)
            if expected > most:
                raise ValueError(f"its lengths are {shape}, more than the file can contain")
            content = file.read(expected + 1)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise DataError(f"`{path}` should be an IDX file of bytes; {_reason(error)}") from error

    if len(content) != expected:
        found = "more" if len(content) > expected else f"{len(content):,}"
        raise DataError(f"`{path}` should contain {expected:,} bytes of {shape}; found {found}")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape)


def _shape(header: bytes, dimensions: int) -> tuple[int, ...]:
    """Read the lengths from the first bytes of a file. Raises ValueError."""
    if header[:4] != bytes((0, 0, 8, dimensions)) or len(header) < 4 + 4 * dimensions:
        raise ValueError(f"it does not begin with 0 0 8 {dimensions} and its lengths")
    return struct.unpack(f">{dimensions}I", header[4:])


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or "it is cut off"

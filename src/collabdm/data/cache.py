"""A cache of decoded data sets, which can be loaded again in well under a second.

    key = SHA-256(format version, split, conversion, selection, names,
                  (path, size, change time) of files)

A cached set consists of three plain files named after its key: images and labels (.npy, mapped into
memory, never unpickled), and class names with remarks (JSON). Each is written atomically, the JSON
last, so a reader finds either a complete set or nothing. Only the owner can read the files, because
a site's images are private.
"""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
import platformdirs
import torch
from torch import Tensor

from collabdm.data.conversion import Conversion, most_pixels
from collabdm.data.decoding import Undecoded
from collabdm.data.selection import Selection
from collabdm.data.tally import Remark, remarks_from
from collabdm.documents.atomic_write import atomic_write, atomic_write_with
from collabdm.errors import DataError, OutputError
from collabdm.images import ImageSet

CACHE_FORMAT = 2
PRIVATE_FOLDER = 0o700


def cache_folder() -> Path | None:
    """Return the folder of decoded sets: COLLABDM_CACHE, or a folder in the user's cache folder.

    Returns None if the user has no home folder.
    """
    if named := os.environ.get("COLLABDM_CACHE"):
        return Path(named)

    try:
        folder = platformdirs.user_cache_path("collabdm", appauthor=False)
    except RuntimeError:  # older versions return a relative path instead
        return None
    return folder if folder.is_absolute() else None


def cache_key(source: Undecoded, split: str, conversion: Conversion, selection: Selection) -> str:
    """Compute the key of a decoded set, which changes with every file of its source.

    Args:
        source: The split, not yet decoded.
        split: The name of the split.
        conversion: The images to make.
        selection: The choices of the user.

    Raises:
        DataError: a file vanished.
    """
    try:
        stats = [(file, file.stat()) for file in source.files]
    except OSError as error:
        raise DataError(
            f"files of {source.where} should stay while they are read; `{error.filename}` cannot "
            f"be read ({error.strerror})"
        ) from error
    files = [(str(file.resolve()), stat.st_size, stat.st_mtime_ns) for file, stat in stats]

    made = [conversion.side, conversion.channels, conversion.rules.model_dump()]
    chosen = [selection.image_column, selection.label_column, selection.test_split]
    identity = [CACHE_FORMAT, split, made, chosen, selection.skip_unreadable, most_pixels()]
    content = json.dumps([*identity, source.names, files])
    return hashlib.sha256(content.encode(errors="surrogateescape")).hexdigest()[:32]


def read_cached(folder: Path, key: str) -> tuple[ImageSet, tuple[Remark, ...]] | None:
    """Read a cached set, with pixels mapped copy-on-write; None if it is absent or damaged."""
    try:
        stored = json.loads((folder / f"{key}.json").read_text("utf-8"))
        remarks = remarks_from(stored["remarks"])
        images, labels = (
            np.load(folder / f"{key}.{array}.npy", mmap_mode="c", allow_pickle=False)
            for array in ("images", "labels")
        )
        classes = tuple(str(name) for name in stored["classes"])
        return ImageSet(torch.from_numpy(images), torch.from_numpy(labels), classes), remarks
    except (OSError, ValueError, TypeError, KeyError, EOFError):
        return None


def write_cached(folder: Path, key: str, data: ImageSet, remarks: tuple[Remark, ...] = ()) -> None:
    """Write a decoded set for `read_cached`.

    The cache only saves time: if the folder is not writable, nothing is cached.

    Args:
        folder: The folder of the cache; a new folder is accessible only to its owner.
        key: The key of the set (`cache_key`).
        data: The decoded set, uint8.
        remarks: What was skipped or changed while it was decoded.
    """
    with suppress(OSError, OutputError):
        folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)

        _write_array(folder / f"{key}.images.npy", data.images)
        _write_array(folder / f"{key}.labels.npy", data.labels)
        entries = [[remark.reason, remark.count, remark.examples] for remark in remarks]
        stored = json.dumps({"classes": data.classes, "remarks": entries})
        atomic_write(folder / f"{key}.json", stored.encode(), private=True)


def _write_array(path: Path, tensor: Tensor) -> None:
    array = tensor.numpy()
    atomic_write_with(path, lambda f: np.save(f, array, allow_pickle=False), private=True)

"""A cache of decoded data sets, which can be loaded again in well under a second.

    key = SHA-256(format version, split, side, channels, names, (path, size, change time) of files)

A cached set consists of three plain files named after its key: images and labels (.npy, mapped into
memory, never unpickled) and class names (JSON). Each is written atomically, the names last, so a
reader finds either a complete set or nothing. Only the owner can read the files, because a site's
images are private.
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

from collabdm.data.decoding import Undecoded
from collabdm.documents.atomic_write import atomic_write, atomic_write_with
from collabdm.errors import OutputError
from collabdm.images import ImageSet

CACHE_FORMAT = 1
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


def cache_key(source: Undecoded, split: str, side: int | None, channels: int | None) -> str:
    """Compute the key of a decoded set, which changes with every file of its source.

    Args:
        source: The split, not yet decoded.
        split: The name of the split.
        side: The side that images are resized to, or None.
        channels: The number of channels that they are converted to, or None.
    """
    stats = [(file, file.stat()) for file in source.files]
    files = [(str(file.resolve()), stat.st_size, stat.st_mtime_ns) for file, stat in stats]

    identity = [CACHE_FORMAT, split, side, channels, source.names, files]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:32]


def read_cached(folder: Path, key: str) -> ImageSet | None:
    """Read a cached set, with pixels mapped copy-on-write; None if it is absent or damaged."""
    try:
        names = json.loads((folder / f"{key}.json").read_text("utf-8"))
        images, labels = (
            np.load(folder / f"{key}.{array}.npy", mmap_mode="c", allow_pickle=False)
            for array in ("images", "labels")
        )
        classes = tuple(str(name) for name in names)
        return ImageSet(torch.from_numpy(images), torch.from_numpy(labels), classes)
    except (OSError, ValueError, TypeError, EOFError):
        return None


def write_cached(folder: Path, key: str, data: ImageSet) -> None:
    """Write a decoded set for `read_cached`.

    The cache only saves time: if the folder is not writable, nothing is cached.

    Args:
        folder: The folder of the cache; a new folder is accessible only to its owner.
        key: The key of the set (`cache_key`).
        data: The decoded set, uint8.
    """
    with suppress(OSError, OutputError):
        folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE_FOLDER)

        _write_array(folder / f"{key}.images.npy", data.images)
        _write_array(folder / f"{key}.labels.npy", data.labels)
        atomic_write(folder / f"{key}.json", json.dumps(data.classes).encode(), private=True)


def _write_array(path: Path, tensor: Tensor) -> None:
    array = tensor.numpy()
    atomic_write_with(path, lambda f: np.save(f, array, allow_pickle=False), private=True)

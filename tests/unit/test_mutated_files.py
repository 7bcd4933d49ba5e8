"""Mutated files through the readers: an image set or the project's own error, in bounded memory.

COLLABDM_MUTATIONS sets the number of files of each kind, e.g. 5000 for a long run.
"""

import gzip
import io
import os
import resource
import struct
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from collabdm.data.sources import load
from collabdm.errors import CollabDMError

MUTATIONS = int(os.environ.get("COLLABDM_MUTATIONS", "150"))
MOST_GROWTH = 300 * 2**20  # bytes beyond twice the file


def levels(seed: int, side: int = 24) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def encoded(kind: str, seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(levels(seed)).save(buffer, kind)
    return buffer.getvalue()


def whole_npz() -> bytes:
    buffer = io.BytesIO()
    images = np.stack([levels(i, 8) for i in range(4)])
    np.savez_compressed(buffer, images=images, labels=np.array([0, 1, 0, 1]))
    return buffer.getvalue()


def whole_parquet() -> bytes:
    buffer = io.BytesIO()
    images = [{"bytes": encoded("PNG", i), "path": None} for i in range(4)]
    pq.write_table(pa.table({"image": images, "label": ["a", "b", "a", "b"]}), buffer)
    return buffer.getvalue()


def whole_idx() -> bytes:
    images = np.stack([levels(i, 8)[..., 0] for i in range(4)])
    return bytes((0, 0, 8, 3)) + struct.pack(">3I", *images.shape) + images.tobytes()


def whole_table() -> bytes:
    return b"file_name,label\n0.png,cat\n1.png,dog\n"


#: for each kind, the path of the file in the source, and its bytes; "" is the source itself
KINDS = {
    "png": ("cat/0.png", lambda: encoded("PNG")),
    "jpg": ("cat/0.jpg", lambda: encoded("JPEG")),
    "npz": ("", whole_npz),
    "parquet": ("", whole_parquet),
    "idx": ("train-images-idx3-ubyte", whole_idx),
    "idx.gz": ("train-images-idx3-ubyte.gz", lambda: gzip.compress(whole_idx(), mtime=0)),
    "csv": ("metadata.csv", whole_table),
}


def neighbours(kind: str, folder: Path) -> None:
    """Write the other files of a source."""
    if kind.startswith("idx"):
        labels = bytes((0, 0, 8, 1)) + struct.pack(">I", 4) + bytes((0, 1, 0, 1))
        (folder / "train-labels-idx1-ubyte").write_bytes(labels)
    if kind == "csv":
        for i in range(2):
            (folder / f"{i}.png").write_bytes(encoded("PNG", i))


def mutated(whole: bytes, seed: int) -> bytes:
    """Flip bytes, or cut, repeat, overwrite or insert a piece; mostly near the ends."""
    draw = np.random.default_rng(seed)
    content = bytearray(whole)
    for _ in range(int(draw.integers(1, 5))):
        if not content:
            break
        start = int(draw.integers(len(content)))
        if draw.random() < 0.5:  # headers are at the ends
            start = min(start, 100) if draw.random() < 0.5 else max(start, len(content) - 400)
            start = min(start, len(content) - 1)
        size = int(draw.integers(1, 9))
        action = int(draw.integers(6))
        if action == 0:
            content[start] ^= 1 << int(draw.integers(8))
        elif action == 1:
            content[start : start + size] = draw.bytes(size)
        elif action == 2:
            del content[start : start + size * 8]
        elif action == 3:
            content[start:start] = content[start : start + size * 8]
        elif action == 4:
            content[start : start + size] = b"\xff" * size
        else:
            del content[start:]
    return bytes(content)


def peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", KINDS)
def test_a_mutated_file_is_read_or_refused_in_bounded_memory(kind, tmp_path: Path) -> None:
    inside, made = KINDS[kind]
    whole, source = made(), tmp_path / ("set" if inside else f"set.{kind}")
    path = source / inside if inside else source
    path.parent.mkdir(parents=True, exist_ok=True)
    if inside:
        neighbours(kind, source)
    (tmp_path / "cache").write_text("a file, so that nothing is cached")

    path.write_bytes(whole)
    assert len(load(source, cache=tmp_path / "cache")) in (1, 2, 4)
    before, messages = peak(), []
    for seed in range(MUTATIONS):
        content = mutated(whole, seed)
        path.write_bytes(content)
        try:
            load(source, side=8, channels=3, cache=tmp_path / "cache")
        except CollabDMError as error:
            messages.append(str(error))
    assert messages
    assert not [message for message in messages if "BytesIO" in message]
    assert peak() - before < MOST_GROWTH + 2 * len(whole)

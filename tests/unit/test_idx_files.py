"""IDX files, the format of MNIST: what is read, and what is refused."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from collabdm.data.idx import read_idx
from collabdm.data.selection import Selection
from collabdm.data.sources import load
from collabdm.errors import DataError

IMAGES = np.arange(6 * 8 * 8, dtype=np.uint8).reshape(6, 8, 8)
LABELS = np.array([3, 1, 3, 1, 1, 3], dtype=np.uint8)


def idx(array: np.ndarray) -> bytes:
    lengths = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes((0, 0, 8, array.ndim)) + lengths + array.tobytes()


def write_set(folder: Path, name: str, compressed: bool = False, separator: str = "-") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for part, array in (("images", IMAGES), ("labels", LABELS)):
        path = folder / f"{name}-{part}{separator}idx{array.ndim}-ubyte"
        if compressed:
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(idx(array)))
        else:
            path.write_bytes(idx(array))


@pytest.mark.parametrize(
    ("inside", "prefix", "compressed", "separator"),
    [
        (".", "", True, "-"),  # as published
        ("raw", "", False, "-"),  # as torchvision extracts them
        (".", "", False, "."),  # as they are often renamed
        (".", "emnist-letters-", True, "-"),
    ],
)
def test_a_folder_of_idx_files_is_read_under_the_usual_names(
    tmp_path, inside, prefix, compressed, separator
) -> None:
    train, test = (f"{prefix}{name}" for name in ("train", "test" if prefix else "t10k"))
    for name in (train, test):
        write_set(tmp_path / inside, name, compressed, separator)
    for split in ("train", "test"):
        data = load(tmp_path, split)
        assert torch.equal(data.images[:, 0], torch.from_numpy(IMAGES))
        assert data.classes == ("1", "3")
        assert data.labels.tolist() == [1, 0, 1, 0, 0, 1]


def test_a_file_and_its_compressed_copy_are_one(tmp_path) -> None:
    write_set(tmp_path, "train")
    write_set(tmp_path, "train", compressed=True)
    assert len(load(tmp_path)) == 6


def test_numbers_of_idx_labels_get_names(tmp_path) -> None:
    write_set(tmp_path, "train")
    names = ("zero", "one", "two", "three")
    assert load(tmp_path, selection=Selection(class_names=names)).classes == names


def test_a_missing_part_another_split_and_several_sets_are_refused(tmp_path) -> None:
    write_set(tmp_path / "a", "train")
    with pytest.raises(DataError, match="should have a split `test`; found train"):
        load(tmp_path / "a", "test")

    (tmp_path / "a" / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="found train-images-idx3-ubyte without the labels"):
        load(tmp_path / "a")

    for name in ("emnist-letters-train", "emnist-digits-train"):
        write_set(tmp_path / "b", name)
    with pytest.raises(DataError, match="one set for each split; found emnist-digits-train, emn"):
        load(tmp_path / "b")


def test_images_and_labels_of_different_numbers_are_refused(tmp_path) -> None:
    write_set(tmp_path, "train")
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(LABELS[:5]))
    with pytest.raises(DataError, match="one label per image; found 6 images and 5 labels"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not begin with 0 0 8 3 and its lengths"),
        (idx(LABELS), "does not begin with 0 0 8 3"),
        (bytes((0, 0, 13, 3)) + idx(IMAGES)[4:], "does not begin with 0 0 8 3"),
        (idx(IMAGES)[:-1], "should contain 384 bytes of .6, 8, 8.; found 383"),
        (idx(IMAGES) + b"x", "should contain 384 bytes of .6, 8, 8.; found more"),
        (bytes((0, 0, 8, 3)) + b"\xff" * 12, "more than the file can contain"),
    ],
)
def test_damaged_idx_files_are_refused(tmp_path, content, message) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_idx(path, 3)


def test_a_damaged_compressed_idx_file_is_refused(tmp_path) -> None:
    path = tmp_path / "train-images-idx3-ubyte.gz"
    whole = gzip.compress(idx(IMAGES))
    for content in (b"not gzip", whole[: len(whole) // 2], whole[:20] + bytes(40) + whole[60:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match="should be an IDX file of bytes"):
            read_idx(path, 3)

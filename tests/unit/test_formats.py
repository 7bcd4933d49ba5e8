from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pictures import image_folder, parquet, pixels, planes

from collabdm.data.sources import column_values, load
from collabdm.errors import DataError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of each test's own."""
    monkeypatch.setenv("COLLABDM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# --- parquet -------------------------------------------------------------------------------------


def test_a_parquet_folder_gives_images_labels_and_the_class_names_of_its_schema(tmp_path) -> None:
    parquet(tmp_path / "train-00000-of-00002.parquet", [1, 0], ["cat", "dog"])
    parquet(tmp_path / "train-00001-of-00002.parquet", [1], ["cat", "dog"])
    data = load(tmp_path)
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [1, 0, 1]
    assert torch.equal(data.images[1], planes(pixels(1)))
    with pytest.raises(DataError, match="`test`; found train"):
        load(tmp_path, "test")


def test_a_missing_shard_is_noticed(tmp_path) -> None:
    parquet(tmp_path / "train-00000-of-00002.parquet", [1, 0])
    with pytest.raises(DataError, match="2 files of this split; found 1"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [([7, 5, 7], ("5", "7"), [1, 0, 1]), (["dog", "cat", "dog"], ("cat", "dog"), [1, 0, 1])],
)
def test_without_names_the_classes_are_the_labels_found(tmp_path, labels, classes, numbers) -> None:
    data = load(parquet(tmp_path / "mine.parquet", labels))
    assert data.classes == classes
    assert data.labels.tolist() == numbers


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 2], r"0 \.\. 1; found 2"),
        ([0, -1], "found -1"),
        ([0.5, 1.0], "whole numbers"),
        ([0, None], "whole"),
    ],
)
def test_labels_outside_the_classes_are_refused(tmp_path, labels, message) -> None:
    with pytest.raises(DataError, match=message):
        load(parquet(tmp_path / "mine.parquet", labels, ["a", "b"]))


def test_a_column_gives_its_values_and_a_missing_one_lists_those_there(tmp_path) -> None:
    path = parquet(tmp_path / "mine.parquet", [0, 1], site=["north", "south"])
    assert column_values(path, "site") == ("north", "south")
    with pytest.raises(DataError, match="`place`; found image, label, site"):
        column_values(path, "place")
    with pytest.raises(DataError, match="no columns"):
        column_values("digits", "site")


def test_a_parquet_file_that_is_none_or_has_no_images_is_refused(tmp_path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"nothing of the kind")
    with pytest.raises(
        DataError, match=r"bad\.parquet should be a parquet file; it cannot be read"
    ):
        load(tmp_path / "bad.parquet")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "flows.parquet")
    with pytest.raises(DataError, match=r"a column of images .*; found x"):
        load(tmp_path / "flows.parquet")


# --- image folders -------------------------------------------------------------------------------


def test_an_image_folder_has_its_subfolders_as_classes_in_alphabetical_order(tmp_path) -> None:
    data = load(image_folder(tmp_path / "set", dog=2, cat=1))
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [0, 1, 1]
    assert torch.equal(data.images[2], planes(pixels(1)))
    with pytest.raises(DataError, match="`test`; found one folder for each class"):
        load(tmp_path / "set", "test")


def test_train_and_test_above_the_classes_are_splits(tmp_path) -> None:
    image_folder(tmp_path / "set" / "train", cat=2, dog=1)
    image_folder(tmp_path / "set" / "test", cat=1)
    assert load(tmp_path / "set").counts().tolist() == [2, 1]
    assert load(tmp_path / "set", "test").counts().tolist() == [1]


def test_paths_without_images_are_refused_with_what_was_found(tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "none" / "a").mkdir(parents=True)
    (tmp_path / "none" / "a" / "notes.txt").write_text("no image")
    (tmp_path / "notes.txt").write_text("no data")
    for path, message in {
        "absent": "it does not exist",
        "empty": "found 0 subfolders",
        "none": "found 1 subfolder",
        "notes.txt": r"found a `\.txt` file",
    }.items():
        with pytest.raises(DataError, match=message):
            load(tmp_path / path)
    with pytest.raises(DataError, match="it does not exist"):
        load(str(tmp_path / "absent"))


# --- npz -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "read"),
    [
        ((2, 5, 4), (1, 5, 4)),
        ((2, 5, 4, 3), (3, 5, 4)),
        ((2, 3, 5, 4), (3, 5, 4)),
        ((2, 1, 5, 4), (1, 5, 4)),
    ],
)
def test_an_npz_may_have_its_channels_first_last_or_none(tmp_path, shape, read) -> None:
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.savez(
        tmp_path / "set.npz", images=images, labels=np.array([1, 0]), classes=np.array(["a", "b"])
    )
    data = load(tmp_path / "set.npz")
    assert data.shape == read
    assert data.classes == ("a", "b")
    assert data.labels.tolist() == [1, 0]
    assert sorted(data.images.flatten().tolist()) == sorted(images.flatten().tolist())


def test_an_npz_may_contain_both_splits(tmp_path) -> None:
    images = np.zeros((3, 4, 4), np.uint8)
    labels = np.array([[0], [1], [2]])
    np.savez(
        tmp_path / "a.npz",
        train_images=images,
        train_labels=labels,
        test_images=images[:1],
        test_labels=labels[:1],
    )
    np.savez(tmp_path / "b.npz", x_train=images, y_train=labels[:, 0])
    assert (len(load(tmp_path / "a.npz")), len(load(tmp_path / "a.npz", "test"))) == (3, 1)
    assert len(load(tmp_path / "b.npz")) == 3
    with pytest.raises(DataError, match="`test`; found train"):
        load(tmp_path / "b.npz", "test")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros(3)}, "`images` and `labels`.*found x"),
        ({"images": np.zeros((2, 4, 4), np.uint8)}, "found images"),
        (
            {"images": np.zeros((2, 4, 4), np.uint8), "labels": np.zeros(3, int)},
            "one label per image",
        ),
        ({"images": np.zeros((2, 4, 4), np.uint8), "labels": np.array(1)}, "one label per image"),
        (
            {"images": np.zeros((2, 4, 4), np.int64), "labels": np.zeros(2, int)},
            "should have 8 bits per level, or the plan a range",
        ),
        ({"images": np.full((2, 4, 4), 1.5), "labels": np.zeros(2, int)}, r"values in 0 \.\. 1"),
        ({"images": np.full((2, 4, 4), np.nan), "labels": np.zeros(2, int)}, r"values in 0 \.\. 1"),
        ({"images": np.zeros((2, 4), np.uint8), "labels": np.zeros(2, int)}, r"\(h, w\)"),
        ({"images": np.zeros((0, 4, 4), np.uint8), "labels": np.zeros(0, int)}, "found none"),
        ({"images": np.array([{}, {}]), "labels": np.zeros(2, int)}, "plain arrays"),
    ],
)
def test_an_npz_without_images_and_labels_is_refused(tmp_path, arrays, message) -> None:
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(DataError, match=message):
        load(tmp_path / "set.npz")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut", b"\x80\x04}."])
def test_a_file_that_only_calls_itself_npz_is_refused(tmp_path, content) -> None:
    (tmp_path / "set.npz").write_bytes(content)
    with pytest.raises(DataError, match="plain arrays"):
        load(tmp_path / "set.npz")

"""Pictures in tables and archives: columns, labels, the hub's layouts, arrays, shards, objects."""

import io
import json
import tarfile
from pathlib import Path

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pictures import draw, pixels, planes
from PIL import Image

from collabdm.data.selection import Selection
from collabdm.data.sources import column_values, fit_classes, load
from collabdm.errors import DataError
from collabdm.planning.make import default_policy, plan_for


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLABDM_CACHE", str(tmp_path / "cache"))


def encoded(seed: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels(seed)).save(buffer, "PNG")
    return buffer.getvalue()


def table(path: Path, image: str = "image", rows: int = 4, **columns: list) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": encoded(i), "path": None} for i in range(rows)]
    pq.write_table(pa.table({image: images, **columns}), path)
    return path


# --- columns -------------------------------------------------------------------------------------


def test_several_label_columns_are_listed_and_one_is_chosen_by_name(tmp_path) -> None:
    path = table(tmp_path / "a.parquet", fine_label=[0, 1, 2, 3], coarse_label=[0, 0, 1, 1])
    with pytest.raises(DataError, match="found fine_label, coarse_label: choose .*--label-column"):
        load(path)
    assert load(path, selection=Selection("coarse_label")).labels.tolist() == [0, 0, 1, 1]
    with pytest.raises(DataError, match="column `coarse`.*found image.*did you mean coarse_label"):
        load(path, selection=Selection("coarse"))


def test_several_image_columns_are_listed_and_one_is_chosen_by_name(tmp_path) -> None:
    path = table(tmp_path / "a.parquet", label=[0, 1, 0, 1])
    other = [{"bytes": encoded(9), "path": None}] * 4
    pq.write_table(pq.read_table(path).append_column("mask", pa.array(other)), path)
    with pytest.raises(DataError, match="one column of images; found image, mask"):
        load(path)
    chosen = load(path, selection=Selection(image_column="mask"))
    assert torch.equal(chosen.images[0], planes(pixels(9)))


def test_columns_are_found_in_any_case_and_unknown_ones_are_named(tmp_path) -> None:
    assert len(load(table(tmp_path / "a.parquet", "Image", Label=[0, 1, 0, 1]))) == 4
    path = table(tmp_path / "b.parquet", finding=["a", "b", "a", "b"], age=[1.0] * 4)
    with pytest.raises(DataError, match="found image, finding, age: name it with `--label-column`"):
        load(path)
    assert load(path, selection=Selection("finding")).classes == ("a", "b")


# --- labels --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "classes", "numbers"),
    [
        ([True, False, True, True], ("False", "True"), [1, 0, 1, 1]),
        ([2.0, 0.0, 2.0, 0.0], ("0", "2"), [1, 0, 1, 0]),
        ([" b", "a ", "b", "a"], ("a", "b"), [1, 0, 1, 0]),
        (["O\u0308l", "\u00d6l", "a", "a"], ("a", "\u00d6l"), [1, 1, 0, 0]),
    ],
)
def test_truth_values_whole_floats_and_untidy_text_are_labels(
    tmp_path, labels, classes, numbers
) -> None:
    data = load(table(tmp_path / "a.parquet", label=labels))
    assert (data.classes, data.labels.tolist()) == (classes, numbers)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([[0, 1], [1], [2], [0]], "one label per image; found .0, 1."),
        ([0.5, 1.0, 0.0, 1.0], "whole numbers or names; found float, such as 0.5"),
        ([0, None, 1, None], "2 of 4 images have none"),
        ([0.0, float("nan"), 1.0, 1.0], "1 of 4 images have none"),
    ],
)
def test_labels_that_are_not_one_number_or_name_are_refused(tmp_path, labels, said) -> None:
    with pytest.raises(DataError, match=said):
        load(table(tmp_path / "a.parquet", label=labels))


def test_label_numbers_get_names_from_the_user(tmp_path) -> None:
    path = table(tmp_path / "a.parquet", label=[0, 1, 1, 0])
    named = load(path, selection=Selection(class_names=("normal", "pneumonia")))
    assert named.classes == ("normal", "pneumonia")
    with pytest.raises(DataError, match="label numbers need names: add `--class-names`"):
        fit_classes(load(path), ("normal", "pneumonia"))
    with pytest.raises(DataError, match=r"in 0 \.\. 0; found 1: the class names are normal"):
        load(path, selection=Selection(class_names=("normal",)))


def test_numbers_of_classes_are_not_digits_but_the_ten_digits_are() -> None:
    for names in (("0", "1"), tuple(map(str, range(11))), ("1", "2", "3", "4", "5")):
        assert "flip" in default_policy(names)
    assert "flip" not in default_policy(tuple("0123456789"))


# --- the hub's layouts ---------------------------------------------------------------------------


def test_splits_may_be_folders_below_a_configuration(tmp_path) -> None:
    for split, rows in (("train", 4), ("test", 2)):
        table(tmp_path / "default" / split / "0000.parquet", rows=rows, label=[0, 1] * (rows // 2))
    for folder in (tmp_path, tmp_path / "default"):
        assert (len(load(folder)), len(load(folder, "test"))) == (4, 2)
    assert len(load(tmp_path / "default" / "train")) == 4
    with pytest.raises(DataError, match="split `test`; found train"):
        load(tmp_path / "default" / "train", "test")


def test_splits_may_be_file_names_below_data(tmp_path) -> None:
    table(tmp_path / "data" / "train-00000-of-00001.parquet", label=[0, 1, 0, 1])
    table(tmp_path / "data" / "Validation-00000-of-00001.parquet", rows=2, label=[0, 1])
    assert len(load(tmp_path)) == 4
    assert len(load(tmp_path, "test", selection=Selection(test_split="validation"))) == 2


def test_several_configurations_are_listed(tmp_path) -> None:
    for name in ("v1", "v2"):
        table(tmp_path / name / "train" / "0000.parquet", label=[0, 1, 0, 1])
    with pytest.raises(DataError, match="found parquet files in .*v1, .*v2: pass one"):
        load(tmp_path)


def test_a_file_without_the_columns_of_the_others_is_named(tmp_path) -> None:
    table(tmp_path / "train-00000-of-00002.parquet", label=[0, 1, 0, 1])
    table(tmp_path / "train-00001-of-00002.parquet", klass=[0, 1, 0, 1])
    with pytest.raises(DataError, match="00001-of-00002.parquet` should have the column label"):
        load(tmp_path)


# --- arrays --------------------------------------------------------------------------------------


def medmnist(path: Path, classes: int, shape: tuple[int, ...] = (8, 8), **labels) -> Path:
    arrays = {}
    for split, n in (("train", 12), ("val", 4), ("test", 6)):
        arrays[f"{split}_images"] = np.zeros((n, *shape), np.uint8)
        numbers = (np.arange(n) % classes).astype(np.uint8)[:, None]
        arrays[f"{split}_labels"] = labels.get("labels", lambda x: x)(numbers)
    np.savez(path, **arrays)
    return path


def test_medmnist_is_read_with_numbers_as_classes(tmp_path) -> None:
    path = medmnist(tmp_path / "blood.npz", 3, (8, 8, 3))
    data = load(path)
    assert (data.classes, len(data), data.shape) == (("0", "1", "2"), 12, (3, 8, 8))
    assert len(load(path, "test")) == 6
    assert len(load(path, "test", selection=Selection(test_split="val"))) == 4
    assert "flip" in plan_for(data, network={"width": 8, "depth": 1}).augment


def test_several_labels_per_image_and_volumes_are_refused(tmp_path) -> None:
    several = medmnist(tmp_path / "chest.npz", 2, labels=lambda x: np.repeat(x, 14, 1))
    with pytest.raises(DataError, match=r"found \(12, 14\) labels, 14 for each image"):
        load(several)
    with pytest.raises(DataError, match="which are volumes: choose slices"):
        load(medmnist(tmp_path / "organ.npz", 2, (9, 9, 9)))


@pytest.mark.parametrize(
    ("images", "labels"),
    [("images", "labels"), ("X_train", "y_train"), ("train_images", "train_labels"), ("x", "y")],
)
def test_a_folder_of_npy_files_is_read_in_pairs(tmp_path, images, labels) -> None:
    np.save(tmp_path / f"{images}.npy", np.zeros((3, 8, 8), np.uint8))
    np.save(tmp_path / f"{labels}.npy", np.array([0, 1, 0]))
    np.save(tmp_path / "site.npy", np.array(["a", "b", "a"]))
    assert load(tmp_path).labels.tolist() == [0, 1, 0]
    assert column_values(tmp_path, "site") == ("a", "b", "a")
    (tmp_path / f"{images}.npy").write_bytes(b"\x93NUMPY nothing")
    with pytest.raises(DataError, match="should be an .npy file of a plain array"):
        load(tmp_path)


def test_a_single_npy_file_and_an_archive_are_refused_with_the_remedy(tmp_path) -> None:
    for name, remedy in (("a.npy", "name the folder"), ("a.zip", "extract it"), ("a.png", "class")):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(DataError, match=remedy):
            load(tmp_path / name)


# --- shards --------------------------------------------------------------------------------------


def shard(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def samples(labels: list[object], kind: str) -> dict[str, bytes]:
    members = {}
    for i, label in enumerate(labels):
        members[f"{i:03}.png"] = encoded(i)
        written = json.dumps({"label": label, "id": i}) if kind == "json" else str(label)
        members[f"{i:03}.{kind}"] = written.encode()
    return members


@pytest.mark.parametrize("kind", ["cls", "json"])
@pytest.mark.parametrize(("name", "mode"), [("a.tar", "w"), ("a.tar.gz", "w:gz")])
def test_a_shard_is_read_with_numbers_or_names(tmp_path, kind, name, mode) -> None:
    data = load(shard(tmp_path / "n" / name, samples([1, 0, 1], kind), mode))
    assert data.labels.tolist() == [1, 0, 1]
    assert torch.equal(data.images[2], planes(pixels(2)))
    assert load(shard(tmp_path / "t" / name, samples(["dog", "cat"], kind), mode)).classes == (
        "cat",
        "dog",
    )


def test_a_folder_of_shards_has_splits_by_name(tmp_path) -> None:
    for name in ("train-000.tar", "train-001.tar", "val-000.tar"):
        shard(tmp_path / name, samples([0, 1], "cls"))
    assert len(load(tmp_path)) == 4
    with pytest.raises(DataError, match="--test-split val"):
        load(tmp_path, "test")


def test_samples_without_a_label_and_damaged_shards_are_refused(tmp_path) -> None:
    unlabelled = samples([0, 1], "cls")
    del unlabelled["001.cls"]
    with pytest.raises(DataError, match="1 of 2 have none, the first is 001"):
        load(shard(tmp_path / "a.tar", unlabelled))
    path = shard(tmp_path / "b.tar", samples([0, 1], "cls"))
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(DataError, match="should be a .tar file; it is damaged or cut off"):
        load(path)
    two = {"000.json": b'{"label": 1, "class": 2}', "000.png": encoded(0)}
    with pytest.raises(DataError, match="one label; found label, class"):
        load(shard(tmp_path / "c.tar", two))


# --- objects -------------------------------------------------------------------------------------


def test_a_data_set_that_was_saved_to_disk_is_read(tmp_path) -> None:
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=["a", "b"])
    )
    images = [Image.fromarray(pixels(i)) for i in range(3)]
    rows = datasets.Dataset.from_dict({"image": images, "label": [1, 0, 1]}, features=features)
    rows.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=rows, test=rows.select([2])).save_to_disk(tmp_path / "two")
    assert load(tmp_path / "one").labels.tolist() == [1, 0, 1]
    assert load(tmp_path / "two", "test").classes == ("a", "b")
    assert torch.equal(load(tmp_path / "two", "test").images[0], planes(pixels(2)))
    (tmp_path / "one" / "state.json").write_text("{")
    with pytest.raises(DataError, match="as `save_to_disk` writes it; it is damaged"):
        load(tmp_path / "one")


def test_a_frame_of_paths_or_arrays_is_read(tmp_path) -> None:
    paths = [str(tmp_path / f"{i}.png") for i in range(3)]
    for i, path in enumerate(paths):
        draw(Path(path), pixels(i))
    frame = pd.DataFrame({"path": paths, "label": ["b", "a", "b"], "site": ["x", "y", "x"]})
    assert load(frame).classes == ("a", "b")
    assert column_values(frame, "site") == ("x", "y", "x")
    arrays = pd.DataFrame({"image": [pixels(i) for i in range(3)], "label": [1, 0, 1]})
    assert torch.equal(load(arrays).images[1], planes(pixels(1)))


def test_a_torch_data_set_is_read_with_its_classes() -> None:
    class Two(torch.utils.data.Dataset):
        classes = ("cat", "dog")

        def __len__(self) -> int:
            return 2

        def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
            return pixels(i), i

    assert load(Two()).classes == ("cat", "dog")

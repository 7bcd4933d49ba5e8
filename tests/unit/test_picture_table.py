"""Pictures whose labels are in a table next to them, metadata.csv or metadata.jsonl."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from collabdm.data.selection import Selection
from collabdm.data.sources import column_values, load, load_tallied
from collabdm.errors import DataError, PlanError
from collabdm.planning.settings import new_plan


def draw(path: Path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8), level, np.uint8)).save(path)


def labelled(
    folder: Path, text: str = "file_name,label\n0.png,dog\n1.png,cat\n2.png,dog\n"
) -> Path:
    for i in range(3):
        draw(folder / f"{i}.png", 80 * i)
    (folder / "metadata.csv").write_text(text, encoding="utf-8")
    return folder


def read(folder: Path, split: str = "train", **choices) -> list[tuple[int, str]]:
    data = load(folder, split, selection=Selection(**choices))
    levels = data.images[:, 0, 0, 0].tolist()
    return [(level, data.classes[y]) for level, y in zip(levels, data.labels.tolist(), strict=True)]


EXPECTED = [(0, "dog"), (80, "cat"), (160, "dog")]


def test_a_table_of_labels_next_to_the_pictures_is_read(tmp_path) -> None:
    assert read(labelled(tmp_path)) == EXPECTED


def test_a_table_of_json_lines_is_read(tmp_path) -> None:
    labelled(tmp_path)
    (tmp_path / "metadata.csv").unlink()
    rows = [
        {"file_name": f"{i}.png", "label": name} for i, name in enumerate(("dog", "cat", "dog"))
    ]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert read(tmp_path) == EXPECTED


def test_every_split_may_have_a_table(tmp_path) -> None:
    labelled(tmp_path / "train")
    labelled(tmp_path / "val", "file_name,label\n2.png,cat\n")
    assert read(tmp_path) == EXPECTED
    assert read(tmp_path, "test", test_split="val") == [(160, "cat")]
    with pytest.raises(DataError, match="should have a split `test`; found train, val"):
        load(tmp_path, "test")


def test_names_without_ending_and_pictures_in_subfolders_are_found(tmp_path) -> None:
    """As in HAM10000: image_id, dx, and two folders of pictures."""
    for i in range(3):
        draw(tmp_path / f"part_{i % 2}" / f"ISIC_{i}.jpg", 80 * i)
    (tmp_path / "metadata.csv").write_text("image_id,dx\nISIC_0,nv\nISIC_2,mel\nISIC_1,nv\n")
    assert [name for _, name in read(tmp_path)] == ["nv", "mel", "nv"]


def test_pictures_that_the_table_lacks_are_counted_and_missing_ones_refused(tmp_path) -> None:
    labelled(tmp_path, "file_name,label\n0.png,dog\n1.png,cat\n")
    tally = load_tallied(tmp_path)[1]
    assert [(r.reason, r.count) for r in tally.remarks] == [("unlisted", 1)]

    labelled(tmp_path, "file_name,label\n0.png,dog\nx.png,cat\ny.png,cat\n")
    with pytest.raises(DataError, match=r"2 of 3 are missing: x.png, y.png"):
        load(tmp_path)


def test_an_empty_label_is_refused_and_several_columns_of_labels_are_listed(tmp_path) -> None:
    labelled(tmp_path, "file_name,label\n0.png,dog\n1.png,\n")
    with pytest.raises(DataError, match="1 of 2 images have none"):
        load(tmp_path)

    labelled(tmp_path, "file_name,label,category\n0.png,dog,a\n1.png,cat,b\n")
    with pytest.raises(DataError, match="found label, category: choose one with `--label-column`"):
        load(tmp_path)
    assert read(tmp_path, label_column="category") == [(0, "a"), (80, "b")]


def test_other_columns_name_the_sites(tmp_path) -> None:
    labelled(tmp_path, "file_name,label,clinic\n0.png,dog,a\n1.png,cat,b\n")
    assert column_values(tmp_path, "clinic") == ("a", "b")


@pytest.mark.parametrize(
    "text", ["", "file_name,label\n", "file_name,label\n0.png,a,b,c\n", "\xff"]
)
def test_damaged_tables_are_refused(tmp_path, text) -> None:
    labelled(tmp_path)
    (tmp_path / "metadata.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=r"metadata.csv` should"):
        load(tmp_path)


def test_a_table_without_labels_leaves_the_folders_as_classes(tmp_path) -> None:
    for name in ("cat", "dog"):
        draw(tmp_path / name / "0.png", 9)
    (tmp_path / "metadata.csv").write_text("file_name,caption\ncat/0.png,a cat\n")
    assert load(tmp_path).classes == ("cat", "dog")


def test_a_split_without_class_folders_is_named(tmp_path) -> None:
    draw(tmp_path / "train" / "cat" / "0.png", 9)
    draw(tmp_path / "val" / "0.png", 9)
    with pytest.raises(DataError, match="no class folders in val: sort its pictures"):
        load(tmp_path)


def test_a_single_class_is_refused_with_what_to_do(tmp_path) -> None:
    draw(tmp_path / "HAM10000_images_part_1" / "0.png", 9)
    with pytest.raises(PlanError, match="at least two names; found HAM10000_images_part_1: sort"):
        new_plan(str(tmp_path), None, None, {})


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("digits.csv", "if its cells are pixels, convert it to an .npz"),
        ("pcam.h5", "convert it to an .npz file"),
        ("train_32x32.mat", "convert it to an .npz file"),
        ("data.pkl", "it may contain code; convert it"),
    ],
)
def test_files_of_other_kinds_are_refused_with_the_remedy(tmp_path, name, advice) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=advice):
        load(tmp_path / name)

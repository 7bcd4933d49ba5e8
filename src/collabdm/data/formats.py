"""Locate data sets in files: parquet in the hub's layout, image folders, and .npz archives.

Nothing is decoded here: each function returns an `Undecoded`, or raises an error that states which
files were expected.

Reference: Q. Lhoest et al., "Datasets: a community library for natural language processing", EMNLP
2021 (the layout: `image` {bytes, path} and `label`, class names in the schema's metadata).
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from collabdm.data.archives import npz_arrays, npz_names, open_parquet, parquet_batches
from collabdm.data.decoding import Undecoded
from collabdm.errors import DataError

IMAGE_COLUMNS = ("image", "img", "images", "picture", "png", "jpg", "webp")
LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target", "cls")

IMAGE_SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
)
SPLIT_FOLDERS = ("train", "test", "val", "valid", "validation")
NPZ_KEYS = (("{}_images", "{}_labels"), ("x_{}", "y_{}"))


def need_split(split: str, splits: Iterable[str], where: str) -> None:
    """Check that a source has a split.

    Args:
        split: The name of the split.
        splits: The names of the splits of the source.
        where: The name of the source, for the error.

    Raises:
        DataError: The source has no such split.
    """
    names = sorted(set(splits))
    if split not in names:
        raise DataError(
            f"{where} should have a split `{split}`; found {', '.join(names) or 'none'}"
        )


def open_folder(folder: Path, split: str, names: tuple[str, ...] | None = None) -> Undecoded:
    """Locate one split in a folder of parquet files, or in an image folder.

    Args:
        folder: The folder. Parquet files are in it, or in one of its subfolders.
        split: The name of the split.
        names: The class names, used if the parquet files have none.

    Raises:
        DataError: There is no such split, or the folder contains no data set.
    """
    tables = sorted([*folder.glob("*.parquet"), *folder.glob("*/*.parquet")])
    if not tables:
        return _image_folder(folder, split)

    parents = sorted({str(table.parent) for table in tables})
    if len(parents) > 1:
        raise DataError(
            f"`{folder}` should contain one data set; "
            f"found parquet files in {', '.join(parents)}: pass one of these folders"
        )

    splits: dict[str, list[Path]] = {}
    for table in tables:
        splits.setdefault(_split_of(table), []).append(table)
    need_split(split, splits, f"`{folder}`")

    return _parquet(splits[split], names)


def _split_of(table: Path) -> str:
    """Return the split in a file name such as train-00000-of-00003.parquet."""
    match = re.match("[a-z]+", table.stem.lower())
    return match.group() if match else "train"


def _parquet(files: list[Path], names: tuple[str, ...] | None) -> Undecoded:
    """Locate the images in parquet files with the hub's layout.

    The files are read in place; the library `datasets` would copy them to its own cache.
    """
    tables = _open_parquet(files)
    where = f"`{files[0].parent}`" if len(files) > 1 else f"`{files[0]}`"
    schema = tables[0].schema_arrow
    image, label = pick_columns(schema.names, where)

    def values(*columns: str) -> Iterator[tuple[object, ...]]:
        for path, table in zip(files, tables, strict=True):
            for batch in parquet_batches(path, table, columns):
                yield from zip(*(batch.column(name).to_pylist() for name in columns), strict=True)

    def pairs() -> Iterator[tuple[object, object]]:
        return ((row[0], row[1]) for row in values(image, label))

    def column(name: str) -> list[object]:
        if any(name not in table.schema_arrow.names for table in tables):
            raise DataError(
                f"{where} should have a column `{name}`; found {', '.join(schema.names)}"
            )
        return [value for (value,) in values(name)]

    size = sum(table.metadata.num_rows for table in tables)
    names = _class_names(schema.metadata or {}, label) or names
    return Undecoded(where, size, pairs, names, tuple(files), column)


def _open_parquet(files: list[Path]) -> list[Any]:
    """Open the files of one split. Raises DataError if one is missing or damaged."""
    count = re.search(r"-of-(\d+)", files[0].stem)
    if count and len(files) != int(count.group(1)):
        raise DataError(
            f"`{files[0].parent}` should contain {int(count.group(1))} files of this split; "
            f"found {len(files)}"
        )

    return [open_parquet(file) for file in files]


def pick_columns(present: Iterable[str], where: str) -> tuple[str, str]:
    """Find the image column and the label column by their usual names.

    Raises DataError, which names the source `where`, if one of them is missing.
    """
    present = list(present)
    image = next((name for name in IMAGE_COLUMNS if name in present), None)
    label = next((name for name in LABEL_COLUMNS if name in present), None)

    if image is None or label is None:
        raise DataError(
            f"{where} should have a column of images ({', '.join(IMAGE_COLUMNS)}) and one of "
            f"labels ({', '.join(LABEL_COLUMNS)}); found {', '.join(present)}: rename the columns"
        )
    return image, label


def _class_names(metadata: Mapping[bytes, bytes], label: str) -> tuple[str, ...] | None:
    """Read the ClassLabel names that the hub writes into a parquet file's schema, if any."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
        return tuple(str(name) for name in names)
    except (KeyError, TypeError, ValueError):
        return None


def _image_folder(root: Path, split: str) -> Undecoded:
    """Locate images in one subfolder per class, inside one folder per split if there are splits."""
    folders = _subfolders(root)

    if folders and all(folder.name in SPLIT_FOLDERS for folder in folders):
        need_split(split, [folder.name for folder in folders], f"`{root}`")
        root = root / split
        folders = _subfolders(root)
    elif folders and split != "train":
        raise DataError(
            f"image folder `{root}` should have a split `{split}`; found one folder for each class "
            f"and no splits: put the folders of the {split} images into {root / split}"
        )

    images = [
        (path, folder.name)
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
    if not images:
        raise DataError(
            f"`{root}` should contain parquet files, or one subfolder of images for each class; "
            f"found {len(folders)} subfolders and {len(list(root.iterdir()))} entries, "
            "but no image in a subfolder"
        )

    names = tuple(folder.name for folder in folders)
    files = tuple(path for path, _ in images)
    return Undecoded(f"`{root}`", len(images), lambda: images, names, files)


def _subfolders(folder: Path) -> list[Path]:
    visible = (p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    return sorted(visible, key=lambda path: path.name)


def open_file(path: Path, split: str) -> Undecoded:
    """Locate one split of an .npz archive, or of a single parquet file. Raises DataError."""
    if path.suffix == ".npz":
        return _npz(path, split)

    if path.suffix == ".parquet":
        need_split(split, ["test" if _split_of(path) == "test" else "train"], f"`{path}`")
        return _parquet([path], None)

    raise DataError(
        f"`{path}` should be a folder, an .npz or a .parquet file; found a `{path.suffix}` file"
    )


def _npz(path: Path, split: str) -> Undecoded:
    """Read one split of an .npz archive. It is not cached, because arrays need no decoding."""
    present = npz_names(path)
    images, labels = npz_arrays(path, _npz_keys(path, split, present))

    if labels.ndim == 0 or labels.size != len(labels) or images.shape[:1] != labels.shape[:1]:
        raise DataError(
            f"`{path}` should contain one label per image; "
            f"found {images.shape} images and {labels.shape} labels"
        )
    values = labels.reshape(-1).tolist()

    def column(name: str) -> list[object]:
        if name not in present:
            raise DataError(f"`{path}` should contain `{name}`; found {', '.join(present)}")
        return npz_arrays(path, [name])[0].tolist()

    def pairs() -> Iterable[tuple[object, object]]:
        return zip(images, values, strict=True)

    names = None
    if "classes" in present:
        names = tuple(str(name) for name in npz_arrays(path, ["classes"])[0].reshape(-1))
    return Undecoded(f"`{path}`", len(images), pairs, names, (), column)


def _npz_keys(path: Path, split: str, arrays: Sequence[str]) -> tuple[str, str]:
    """Find the keys of the images and labels of a split in an archive. Raises DataError."""
    keys = {
        name: (images.format(name), labels.format(name))
        for images, labels in NPZ_KEYS
        for name in SPLIT_FOLDERS
        if images.format(name) in arrays
    }
    if "images" in arrays:
        keys["train"] = ("images", "labels")

    if not keys or any(label not in arrays for _, label in keys.values()):
        raise DataError(
            f"`{path}` should contain `images` and `labels`, or `train_images` and `train_labels`; "
            f"found {', '.join(arrays) or 'nothing'}"
        )

    need_split(split, keys, f"`{path}`")
    return keys[split]

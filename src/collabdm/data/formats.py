"""Data sets in files: parquet in the hub's layout, image folders, and .npz archives.

Nothing is decoded here: each function gives what was found as `Undecoded`, or says what should be there.

Reference: Q. Lhoest et al., "Datasets: a community library for natural language processing", EMNLP 2021
(the layout: `image` {bytes, path} and `label`, class names in the schema's metadata).
"""

import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from collabdm.data.decoding import Undecoded
from collabdm.errors import DataError

IMAGE_COLUMNS = ("image", "img", "images", "picture", "png", "jpg", "webp")


LABEL_COLUMNS = ("label", "labels", "fine_label", "class", "target", "cls")


IMAGE_SUFFIXES = frozenset((".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"))


SPLIT_FOLDERS = ("train", "test", "val", "valid", "validation")


NPZ_KEYS = (("{}_images", "{}_labels"), ("x_{}", "y_{}"))


def need_split(split: str, splits: Iterable[str], where: str) -> None:
    """Raise DataError, with the splits found, unless `split` is one of them."""
    names = sorted(set(splits))
    if split not in names:
        raise DataError(f"{where} should have a split `{split}`; found {', '.join(names) or 'none'}")


def open_folder(folder: Path, split: str, names: tuple[str, ...] | None = None) -> Undecoded:
    """One split of a folder of parquet files or of images; `names`: class names if the files give none."""
    tables = sorted([*folder.glob("*.parquet"), *folder.glob("*/*.parquet")])
    if not tables:
        return _image_folder(folder, split)
    parents = sorted({str(table.parent) for table in tables})
    if len(parents) > 1:
        raise DataError(f"`{folder}` should hold one data set; found parquet files in {', '.join(parents)}: pass one")
    splits: dict[str, list[Path]] = {}
    for table in tables:
        splits.setdefault(_split_of(table), []).append(table)
    need_split(split, splits, f"`{folder}`")
    return _tables(splits[split], names)


def _split_of(table: Path) -> str:
    """The split in a file name such as train-00000-of-00003.parquet."""
    match = re.match("[a-z]+", table.stem.lower())
    return match.group() if match else "train"


def _tables(files: list[Path], names: tuple[str, ...] | None) -> Undecoded:
    """Parquet files of the hub's layout, read in place (`datasets` would copy them to its own cache)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    of = re.search(r"-of-(\d+)", files[0].stem)
    if of and len(files) != int(of.group(1)):
        raise DataError(f"`{files[0].parent}` should hold {int(of.group(1))} files of this split; found {len(files)}")
    try:
        tables = [pq.ParquetFile(file) for file in files]
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{files[0]} and its like should be parquet files; they cannot be read ({error})") from error
    schema = tables[0].schema_arrow
    where = f"`{files[0].parent}`" if len(files) > 1 else f"`{files[0]}`"
    image, label = pick_columns(schema.names, where)

    def column(name: str) -> list[object]:
        if any(name not in table.schema_arrow.names for table in tables):
            raise DataError(f"{where} should have a column `{name}`; found {', '.join(schema.names)}")
        return [value for table in tables for value in table.read([name]).column(0).to_pylist()]

    def pairs() -> Iterator[tuple[object, object]]:
        for table in tables:
            rows = table.read([image, label])
            yield from zip(rows.column(image).to_pylist(), rows.column(label).to_pylist(), strict=True)

    size = sum(table.metadata.num_rows for table in tables)
    names = _class_names(schema.metadata or {}, label) or names
    return Undecoded(where, size, pairs, names, tuple(files), column)


def pick_columns(present: Iterable[str], where: str) -> tuple[str, str]:
    """The image column and the label column."""
    present = list(present)
    image = next((name for name in IMAGE_COLUMNS if name in present), None)
    label = next((name for name in LABEL_COLUMNS if name in present), None)
    if image is None or label is None:
        raise DataError(
            f"{where} should have a column of images ({', '.join(IMAGE_COLUMNS)}) and one of labels "
            f"({', '.join(LABEL_COLUMNS)}); found {', '.join(present)}. Rename the columns"
        )
    return image, label


def _class_names(metadata: Mapping[bytes, bytes], label: str) -> tuple[str, ...] | None:
    """The ClassLabel names that the hub writes into a parquet file's schema."""
    try:
        names = json.loads(metadata[b"huggingface"])["info"]["features"][label]["names"]
        return tuple(str(name) for name in names)
    except (KeyError, TypeError, ValueError):
        return None


def _image_folder(root: Path, split: str) -> Undecoded:
    folders = _subfolders(root)
    if folders and all(folder.name in SPLIT_FOLDERS for folder in folders):
        need_split(split, [folder.name for folder in folders], f"`{root}`")
        root = root / split
        folders = _subfolders(root)
    elif folders and split != "train":
        raise DataError(
            f"image folder `{root}` should have a split `{split}`; found one folder for each class and no splits: "
            f"put the folders of the {split} images into {root / split}"
        )
    files = [
        (path, folder.name)
        for folder in folders
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    ]
    if not files:
        raise DataError(
            f"`{root}` should hold parquet files, or one subfolder of images for each class; found "
            f"{len(folders)} subfolders and {len(list(root.iterdir()))} entries, but no image in a subfolder"
        )
    names = tuple(folder.name for folder in folders)
    return Undecoded(f"`{root}`", len(files), lambda: files, names, tuple(path for path, _ in files))


def _subfolders(folder: Path) -> list[Path]:
    visible = (path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return sorted(visible, key=lambda path: path.name)


def open_file(path: Path, split: str) -> Undecoded:
    """One split of an .npz archive or of a single parquet file."""
    if path.suffix == ".npz":
        return _npz(path, split)
    if path.suffix == ".parquet":
        need_split(split, ["test" if _split_of(path) == "test" else "train"], f"`{path}`")
        return _tables([path], None)
    raise DataError(f"`{path}` should be a folder, an .npz or a .parquet file; found a `{path.suffix}` file")


def _npz(path: Path, split: str) -> Undecoded:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"`{path}` should be an .npz of plain arrays; it cannot be read ({error})") from error
    keys = {s: (i.format(s), k.format(s)) for i, k in NPZ_KEYS for s in SPLIT_FOLDERS if i.format(s) in arrays}
    if "images" in arrays:
        keys["train"] = ("images", "labels")
    if not keys or any(label not in arrays for _, label in keys.values()):
        raise DataError(
            f"`{path}` should hold `images` and `labels`, or `train_images` and `train_labels`; "
            f"found {', '.join(arrays) or 'nothing'}"
        )
    need_split(split, keys, f"`{path}`")
    images, labels = (arrays[key] for key in keys[split])
    if labels.ndim == 0 or labels.size != len(labels) or images.shape[:1] != labels.shape[:1]:
        raise DataError(
            f"`{path}` should hold one label per image; found {images.shape} images and {labels.shape} labels"
        )
    names = tuple(str(name) for name in arrays["classes"]) if "classes" in arrays else None
    values = labels.reshape(-1).tolist()

    def column(name: str) -> list[object]:
        if name not in arrays:
            raise DataError(f"`{path}` should hold `{name}`; found {', '.join(arrays)}")
        return arrays[name].tolist()

    return Undecoded(f"`{path}`", len(images), lambda: zip(images, values, strict=True), names, (), column)

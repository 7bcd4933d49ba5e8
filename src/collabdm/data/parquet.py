"""Locate images in parquet files with the hub's layouts.

    data/train-00000-of-00003.parquet        the split is the beginning of the name
    default/train/0000.parquet               the split is the folder; `default` is a configuration

The files are read in place; the library `datasets` would copy them to its own cache.

Reference: Q. Lhoest et al., "Datasets: a community library for natural language processing", EMNLP
2021 (the layout: `image` {bytes, path} and `label`, class names in the schema's metadata).
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from collabdm.data.archives import open_parquet, parquet_batches
from collabdm.data.columns import pick_columns
from collabdm.data.decoding import Undecoded
from collabdm.data.folders import is_foreign
from collabdm.data.selection import Selection
from collabdm.data.splits import choose_split, split_of
from collabdm.errors import DataError

SHARD = re.compile(r"(.+?)-\d+-of-(\d+)")
DATA_FOLDER = "data"  # the hub's folder of all files, which is not a configuration


def parquet_files(folder: Path) -> list[Path]:
    """List the parquet files of a folder, up to two folders below it."""
    patterns = ("*.parquet", "*/*.parquet", "*/*/*.parquet")
    found = sorted(path for pattern in patterns for path in folder.glob(pattern))
    return [p for p in found if not any(map(is_foreign, p.relative_to(folder).parts))]


def open_parquet_folder(
    folder: Path, files: list[Path], split: str, names: tuple[str, ...] | None, selection: Selection
) -> Undecoded:
    """Locate one split in a folder of parquet files.

    Args:
        folder: the folder.
        files: its parquet files.
        split: the name of the split.
        names: the class names, used if the files have none.
        selection: the choices of the user.

    Raises:
        DataError: there is no such split, or there are several data sets.
    """
    configurations = sorted({_configuration(file, folder) for file in files})
    if len(configurations) > 1:
        raise DataError(
            f"`{folder}` should contain one data set; found parquet files in "
            f"{', '.join(str(folder / name) for name in configurations)}: pass one of these folders"
        )

    known = any(_split_name(file, folder) for file in files)
    splits: dict[str, list[Path]] = {}
    for file in files:
        name = _split_name(file, folder) or (file.stem if known else "train")
        splits.setdefault(name, []).append(file)
    chosen = choose_split(splits, split, selection.test_split, f"`{folder}`")
    return open_parquet_files(chosen, names, selection)


def _configuration(file: Path, folder: Path) -> str:
    """Return the folder of a configuration, relative to `folder`; `.` if there is none."""
    parts = list(file.relative_to(folder).parts[:-1])
    if parts and split_of(parts[-1]) is not None:
        parts.pop()
    if parts == [DATA_FOLDER]:
        parts.pop()
    return "/".join(parts) or "."


def _split_name(file: Path, folder: Path) -> str | None:
    """Return the split of a file, by its name or its folder; None if neither names one."""
    shard = SHARD.fullmatch(file.stem)
    if shard is not None:
        return shard[1]
    if (split := split_of(file.stem)) is not None:
        return split
    return split_of(file.parent.name) if file.parent != folder else split_of(folder.name)


def file_split(file: Path) -> str:
    """Return the split of a file that is named alone: test, if its name says so, or train."""
    return "test" if split_of(file.stem) == "test" else "train"


def open_parquet_files(
    files: list[Path], names: tuple[str, ...] | None, selection: Selection
) -> Undecoded:
    """Locate the images in the parquet files of one split.

    Args:
        files: the files, in order.
        names: the class names, used if the files have none.
        selection: the choices of the user.

    Raises:
        DataError: a file is missing or damaged, or the columns are not found.
    """
    tables = _open_all(files)
    where = f"`{files[0].parent}`" if len(files) > 1 else f"`{files[0]}`"
    schema = tables[0].schema_arrow
    features = _features(schema.metadata or {})
    image, label = pick_columns(schema.names, where, selection, _typed(schema, features))

    def values(*columns: str) -> Iterator[tuple[object, ...]]:
        for path, table in zip(files, tables, strict=True):
            if missing := [name for name in columns if name not in table.schema_arrow.names]:
                raise DataError(
                    f"`{path}` should have the column {', '.join(missing)}, as `{files[0]}`; "
                    f"found {', '.join(table.schema_arrow.names)}"
                )
            for batch in parquet_batches(path, table, columns):
                yield from _rows(path, batch, columns)

    def pairs() -> Iterator[tuple[object, object]]:
        return ((row[0], row[1]) for row in values(image, label))

    def column(name: str) -> list[object]:
        if any(name not in table.schema_arrow.names for table in tables):
            raise DataError(
                f"{where} should have a column `{name}`; found {', '.join(schema.names)}"
            )
        return [value for (value,) in values(name)]

    size = sum(table.metadata.num_rows for table in tables)
    names = selection.class_names or _names(features.get(label)) or names
    return Undecoded(where, size, pairs, names, tuple(files), column)


def _rows(path: Path, batch: Any, columns: Sequence[str]) -> list[tuple[object, ...]]:
    """Convert a batch to rows of Python values. Raises DataError."""
    try:
        return list(zip(*(batch.column(name).to_pylist() for name in columns), strict=True))
    except Exception as error:  # damaged text, or columns of different lengths
        raise DataError(
            f"rows of {path} should be readable; the file is damaged: copy it again"
        ) from error


def _open_all(files: list[Path]) -> list[Any]:
    """Open the files of one split. Raises DataError if one is missing or damaged."""
    count = SHARD.fullmatch(files[0].stem)
    if count and len(files) != int(count[2]):
        raise DataError(
            f"`{files[0].parent}` should contain {int(count[2])} files of this split; "
            f"found {len(files)}"
        )
    return [open_parquet(file) for file in files]


def _features(metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    """Read the features that the hub writes into a parquet file's schema, if any."""
    try:
        features = json.loads(metadata[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _names(feature: Any) -> tuple[str, ...] | None:
    """Return the class names of a feature; None if it has none."""
    names = feature.get("names") if isinstance(feature, dict) else None
    return tuple(str(name) for name in names) if isinstance(names, list) and names else None


def _typed(schema: Any, features: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Return the columns of images and of class labels, by their types."""
    import pyarrow as pa

    images = [
        field.name
        for field in schema
        if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
    ]
    return images, [name for name in schema.names if _names(features.get(name))]

"""Locate pictures whose labels are in a table next to them, as `datasets` reads image folders.

    train/metadata.csv      file_name,label
    train/0001.png          0001.png,cat

The table is metadata.csv or metadata.jsonl, in the folder itself or in the folder of each split.
A name in it is a path below the table's folder, or the name of a picture there, with or without its
ending. Without a column of labels in the table, the folders are the classes.

Reference: Q. Lhoest et al., "Datasets: a community library for natural language processing", EMNLP
2021 (ImageFolder).
"""

import csv
import io
import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from collabdm.data.columns import LABEL_COLUMNS, pick_columns
from collabdm.data.decoding import Undecoded
from collabdm.data.folders import pictures_below, subfolders
from collabdm.data.selection import Selection
from collabdm.data.splits import SPLIT_OF, choose_split
from collabdm.data.tally import Remarks
from collabdm.documents.regular_file import read_regular
from collabdm.errors import DataError

TABLES = ("metadata.csv", "metadata.jsonl")
FILE_COLUMNS = ("file_name", "filename", "file", "path", "image_id")

MOST_SHOWN = 8  # names in an error

Rows = list[dict[str, object]]


class LabelTable(NamedTuple):
    """A table of labels: its path and its rows."""

    path: Path
    rows: Rows


def labelled_tables(root: Path, selection: Selection) -> dict[str, LabelTable]:
    """Find the tables of labels of a folder and of its splits, by split; empty if there are none.

    Raises DataError if a table cannot be read.
    """
    folders = {"train": root}
    splits = {p.name: p for p in subfolders(root) if _is_split(p.name, selection)}
    if not _table(root):
        folders = splits

    paths = {name: path for name, folder in folders.items() if (path := _table(folder))}
    tables = {name: LabelTable(path, _rows(path)) for name, path in paths.items()}
    return {name: table for name, table in tables.items() if _is_labelled(table.rows, selection)}


def _is_split(name: str, selection: Selection) -> bool:
    return name.lower() in SPLIT_OF or name == selection.test_split


def _table(folder: Path) -> Path | None:
    return next((folder / name for name in TABLES if (folder / name).is_file()), None)


def _is_labelled(rows: Rows, selection: Selection) -> bool:
    """Return whether a table has columns of files and of labels."""
    columns = {name.lower() for name in _columns(rows)}
    files = selection.image_column is not None or columns & set(FILE_COLUMNS)
    labels = selection.label_column is not None or columns & set(LABEL_COLUMNS)
    return bool(files and labels)


def open_picture_table(
    root: Path, tables: dict[str, LabelTable], split: str, selection: Selection
) -> Undecoded:
    """Locate one split of pictures with tables of labels.

    Args:
        root: the folder.
        tables: its tables, by split.
        split: the name of the split.
        selection: the choices of the user.

    Raises:
        DataError: there is no such split, a column is missing, or pictures of the table are.
    """
    table, rows = choose_split(tables, split, selection.test_split, f"`{root}`")
    where, remarks = f"`{table}`", Remarks()
    columns = _columns(rows)
    files = [name for name in columns if name.lower() in FILE_COLUMNS]
    image, label = pick_columns(columns, where, selection, (files[:1], ()))

    paths = _paths(table, [str(row.get(image)) for row in rows], remarks)
    labels = [row.get(label) for row in rows]
    return Undecoded(
        where,
        len(paths),
        lambda: zip(paths, [None if label == "" else label for label in labels], strict=True),
        selection.class_names,
        (table, *paths),
        lambda name: [row.get(name) for row in rows],
        remarks.frozen(),
    )


def _columns(rows: Rows) -> list[str]:
    """Return the names of all columns, in the order of their first occurrence."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _rows(table: Path) -> Rows:
    """Read the rows of a table. Raises DataError if it is empty or cannot be read."""
    try:
        text = read_regular(table).decode("utf-8-sig")
        if table.suffix == ".jsonl":
            rows: Rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            rows = [dict(row) for row in csv.DictReader(io.StringIO(text), strict=True)]
        if not all(isinstance(row, dict) and None not in row for row in rows):
            raise ValueError("a line has more cells than there are columns, or is not an object")
    except (OSError, ValueError, RecursionError, csv.Error) as error:
        raise DataError(
            f"`{table}` should be a table in UTF-8 with columns file_name and label; it cannot be "
            f"read ({error})"
        ) from error
    if not rows:
        raise DataError(f"`{table}` should have a row for each picture; found none")
    return rows


def _paths(table: Path, names: list[str], remarks: Remarks) -> list[Path]:
    """Find the pictures of the rows. Raises DataError with the names of those that are missing."""
    present = pictures_below(table.parent, Remarks())
    times = Counter(key for path in present for key in {path.name, path.stem})
    by_name = {key: path for path in present for key in (path.stem, path.name) if times[key] == 1}
    by_name |= {str(path.relative_to(table.parent)): path for path in present}

    if missing := [name for name in names if name not in by_name]:
        shown = ", ".join(missing[:MOST_SHOWN])
        raise DataError(
            f"every picture of `{table}` should exist below its folder; {len(missing):,} of "
            f"{len(names):,} are missing: {shown}{', …' if len(missing) > MOST_SHOWN else ''}"
        )

    paths = [by_name[name] for name in names]
    for path in sorted(set(present) - set(paths)):
        remarks.add("unlisted", str(path))
    return paths

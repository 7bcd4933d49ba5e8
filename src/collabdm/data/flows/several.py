"""Find the tables of one site: a file, several files, a pattern or a folder.

a.csv                 one table
a.csv,b.csv           several, in this order
days/*.csv            all files that match, in natural order: day2 before day10
days                  all files of the folder and its folders with the ending of a table
"""

import glob
import os
import re
from pathlib import Path
from typing import NamedTuple

from collabdm.data.folders import is_foreign
from collabdm.errors import DataError

_FORMS = ("csv", "tsv", "tab", "txt", "psv", "log", "json", "jsonl", "ndjson", "labeled", "parquet")
_COMPRESSED = ("gz", "bz2", "xz", "zst", "zip")
TABLE_ENDING = re.compile(rf"\.({'|'.join(_FORMS)})(\.({'|'.join(_COMPRESSED)}))?$|\.zip$", re.I)

PATTERN = re.compile(r"[*?\[]")
MOST_TABLES = 10_000


class Tables(NamedTuple):
    """The tables of a site, in order, and the files of its folder that are no tables."""

    paths: tuple[Path, ...]
    left_out: tuple[Path, ...] = ()


def tables_of(location: str | Path) -> Tables:
    """Find the tables at a location. Raises DataError if there are none, or more than 10,000."""
    text = str(location)
    parts = [text] if os.path.exists(text) or "," not in text else text.split(",")

    found: list[Path] = []
    left_out: list[Path] = []
    for part in filter(None, map(str.strip, parts)):
        tables = _tables_at(part)
        found += tables.paths
        left_out += tables.left_out

    if not found:
        raise DataError(f"{text} should name a table; found no name")
    if len(found) > MOST_TABLES:
        raise DataError(f"{text} should be at most {MOST_TABLES:,} tables; found {len(found):,}")
    return Tables(tuple(found), tuple(left_out))


def is_hidden(name: str) -> bool:
    """Return whether a file, or one of its folders, is hidden or belongs to a system."""
    return any(is_foreign(part) for part in Path(name).parts if part != "..")


def natural_order(path: Path) -> list[tuple[int, int, str]]:
    """Return a key that sorts numbers within names by their value."""
    parts = re.split(r"([0-9]{1,18})", str(path))
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts if p]


def _tables_at(text: str) -> Tables:
    """Find the tables of one name, folder or pattern. Raises DataError."""
    if os.path.isdir(text):
        return _tables_in(Path(text))

    if not os.path.exists(text) and PATTERN.search(text):
        matches = [Path(p) for p in glob.glob(text, recursive=True) if os.path.isfile(p)]
        if not matches:
            raise DataError(f"{text} should match a file; found none: check the pattern")
        return Tables(tuple(sorted(matches, key=natural_order)))

    return Tables((Path(text),))


def _tables_in(folder: Path) -> Tables:
    """Find the tables of a folder and its folders. Raises DataError if there are none."""
    files = [
        Path(root, name)
        for root, _, names in os.walk(folder)
        for name in names
        if not is_hidden(os.path.join(os.path.relpath(root, folder), name).removeprefix("./"))
    ]
    files = sorted((file for file in files if file.is_file()), key=natural_order)
    tables = tuple(file for file in files if TABLE_ENDING.search(file.name))

    if not tables:
        raise DataError(
            f"{folder} should contain tables of flows (.{', .'.join(_FORMS)}, compressed or not); "
            f"found {len(files)} other files"
        )
    return Tables(tables, tuple(file for file in files if file not in set(tables)))

"""Read the tables of several stations as the sites of a simulation: by file, or by a column.

    tables  ->  windows of each station's rows  ->  training images per site, all test images

A table that does not exist at its path is looked up in the folder COLLABDM_DATA.

Reference: R. Holland et al., "One-shot collaborative data distillation", 2024, section 5 (two base
stations).
"""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from collabdm.data.flows.cells import texts
from collabdm.data.flows.chunks import Columns, chunks, some
from collabdm.data.flows.dialect import Rules
from collabdm.data.flows.issues import IssueKind
from collabdm.data.flows.several import PATTERN, tables_of
from collabdm.data.flows.tables import Reading, read_flows
from collabdm.data.flows.windows import windows
from collabdm.data.partition import Partition, by_column
from collabdm.documents.flow_schema import FlowSchema
from collabdm.errors import DataError
from collabdm.images import ImageSet, pool
from collabdm.progress import silent

logger = logging.getLogger("collabdm")

MOST_STATIONS = 1000


class Stations(NamedTuple):
    """Training and test images, and the `split` of the former over sites (None for one site)."""

    train: ImageSet
    test: ImageSet
    split: Partition | None


class _Table(NamedTuple):
    """A site, its table, and the (column, value) that selects its rows; None selects all rows."""

    site: str
    path: Path
    rows: tuple[str, str] | None


def stations(data: str, schema: FlowSchema, column: str | None = None, seed: int = 0) -> Stations:
    """Load the images of one table, or of several tables, each of which is a site.

    Args:
        data: The path of a table, or several paths separated by commas, each a file, a pattern or a
            folder; sites are named after their files or folders.
        schema: The schema of all tables. Issues of a table are counted and logged.
        column: The column of a single table whose values are the sites; NAME=1,2 uses only these
            values.
        seed: The seed of a random split.

    Raises:
        DataError: A table does not follow the schema, sites cannot be named, or there are no images
            for training or for testing.
    """
    train_of: dict[str, ImageSet] = {}
    tests = []

    for site, path, rows in _tables(data, schema, column):
        flows, tally = read_flows(path, schema, Reading(rows))
        for line in tally.lines(IssueKind.OTHER_ROWS):
            logger.warning("%s, %s", path, line)

        train_of[site] = windows(flows, schema, "train", seed).labelled(schema.classes)
        tests.append(windows(flows, schema, "test", seed).labelled(schema.classes))

    train, test = pool(list(train_of.values())), pool(tests)
    if not len(train) or not len(test):
        raise DataError(
            f"{data} should yield images of {schema.flows} rows for training and for the test; "
            f"found {len(train)} and {len(test)}: "
            "take more rows, fewer `flows`, or another `split`"
        )

    site_of_image = [site for site, own in train_of.items() for _ in range(len(own))]
    is_split = len(train_of) > 1 or column is not None
    return Stations(train, test, by_column(site_of_image) if is_split else None)


def _tables(data: str, schema: FlowSchema, column: str | None) -> Iterator[_Table]:
    """Find the table of each site. Raises DataError."""
    paths = [table_path(text.strip()) for text in data.split(",") if text.strip()]

    if column is None:
        names = _names(paths)
        if len(set(names)) != len(names) or not names:
            raise DataError(
                f"`data` should name tables whose files or folders differ in name; found {data!r}"
            )
        yield from (_Table(name, path, None) for name, path in zip(names, paths, strict=True))
        return

    if len(paths) != 1:
        raise DataError(f"`site_column` should be used with one table; found {len(paths)}")
    name, values = _values_wanted(paths[0], column, Rules.of(schema))
    yield from (_Table(value, paths[0], (name, value)) for value in values)


def _values_wanted(path: Path, column: str, rules: Rules) -> tuple[str, list[str]]:
    """Parse NAME or NAME=VALUE,VALUE: the column and its values. Raises DataError."""
    name, equals, chosen = column.partition("=")
    values = values_of(path, name, rules)
    if not equals:
        return name, values

    wanted = [text.strip() for text in chosen.split(",") if text.strip()]
    if not wanted:
        raise DataError(f"`site_column` should be NAME, or NAME=VALUE,VALUE; found {column!r}")
    if unknown := sorted(set(wanted) - set(values)):
        raise DataError(
            f"column `{name}` of {path} should contain {', '.join(wanted)}; "
            f"found no {', '.join(unknown)} in it"
        )
    return name, [value for value in values if value in wanted]


def table_path(text: str) -> Path:
    """Find a table, as given or in COLLABDM_DATA. Raises DataError if neither exists."""
    folder = os.environ.get("COLLABDM_DATA")
    for path in (Path(text), *([Path(folder) / text] if folder else [])):
        if path.exists() or (PATTERN.search(text) and _matches(path)):
            return path

    looked = f"nor in COLLABDM_DATA, {folder}" if folder else "and COLLABDM_DATA names no folder"
    raise DataError(f"{text} should be a table of flows; it does not exist, {looked}")


def _matches(pattern: Path) -> bool:
    """Return whether a pattern matches a file."""
    try:
        return bool(tables_of(pattern).paths)
    except DataError:
        return False


def _names(paths: list[Path]) -> list[str]:
    """Name sites after their files, without suffixes, or after folders if two names are equal."""
    names = [path.name.split(".")[0] for path in paths]
    distinct = len(set(names)) == len(names)
    return names if distinct else [path.resolve().parent.name for path in paths]


def values_of(path: Path, column: str, rules: Rules) -> list[str]:
    """Read the distinct texts in a column of a table.

    Args:
        path: The table.
        column: The name of the column.
        rules: How tables are read, as the schema specifies.

    Returns:
        The texts in alphabetical order, without surrounding spaces.

    Raises:
        DataError: There is no such column, or it has more than a thousand texts (sites).
    """
    import pyarrow.compute as pc  # imported here so that the command line starts fast

    values: set[str] = set()

    for chunk in chunks(path, Columns((column,), rules=rules), Counter(), silent):
        found = pc.unique(texts(chunk.column(column))).to_pylist()
        values |= set(found) - {None, *rules.missing}
        if len(values) > MOST_STATIONS:
            raise DataError(
                f"column `{column}` of {path} should name at most {MOST_STATIONS} sites; "
                f"found {some(sorted(values))}"
            )

    return sorted(values)

"""The tables of several stations as one data set that is already split: by file, or by a column of one table.

    tables  ->  windows of each station's rows by themselves  ->  training images, each of a station; test images

A table that is not where its path says is looked for in the folder COLLABDM_DATA.

Reference: R. Holland et al., "One-shot collaborative data distillation", 2024, section 5 (two base stations).
"""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from collabdm.data.flows.chunks import check_columns, chunks, header, some
from collabdm.data.flows.tables import LEFT_TO_OTHERS, Reading, read_flows
from collabdm.data.flows.windows import windows
from collabdm.data.partition import Partition, by_column
from collabdm.documents.flow_schema import FlowSchema
from collabdm.errors import DataError
from collabdm.images import ImageSet, pool
from collabdm.progress import silent

logger = logging.getLogger("collabdm")


MOST_STATIONS = 1000


class Stations(NamedTuple):
    """Images for training and for the test, and which site holds which; None where nothing says it."""

    train: ImageSet
    test: ImageSet
    split: Partition | None


def stations(data: str, schema: FlowSchema, column: str | None = None, seed: int = 0) -> Stations:
    """The images of one table, or of several by commas: then each is a site, named after its file or folder.

    `column` names a column of the one table whose values are the sites; NAME=1,2 takes the rows of these values only.
    `seed` draws a random split. What is wrong in a table is counted and logged. Raises DataError where the tables are
    not of the schema, or give no image for training or for the test.
    """
    trains, tests = {}, []
    for site, path, where in _tables(data, schema, column):
        flows, tally = read_flows(path, schema, Reading(where))
        for line in tally.lines():
            if not line.startswith(LEFT_TO_OTHERS):  # that is as it should be
                logger.warning("%s, %s", path, line)
        trains[site] = windows(flows, schema, "train", seed).labelled(schema.classes)
        tests.append(windows(flows, schema, "test", seed).labelled(schema.classes))
    train, test = pool(list(trains.values())), pool(tests)
    if not len(train) or not len(test):
        raise DataError(
            f"{data} should give images of {schema.flows} rows for training and for the test; found {len(train)} and "
            f"{len(test)}: take more rows, fewer `flows`, or another `split`"
        )
    names = [site for site, held in trains.items() for _ in range(len(held))]
    return Stations(train, test, by_column(names) if len(trains) > 1 or column is not None else None)


def _tables(data: str, schema: FlowSchema, column: str | None) -> Iterator[tuple[str, Path, tuple[str, str] | None]]:
    """The name of each site, its table, and the rows in it that are the site's."""
    paths = [table_path(text.strip()) for text in data.split(",") if text.strip()]
    if column is None:
        names = _names(paths)
        if len(set(names)) != len(names) or not names:
            raise DataError(f"`data` should name tables whose files or folders differ in name; found {data!r}")
        yield from ((name, path, None) for name, path in zip(names, paths, strict=True))
        return
    if len(paths) != 1:
        raise DataError(f"`site_column` should stand with one table; found {len(paths)}")
    name, equals, chosen = column.partition("=")
    values = values_of(paths[0], name, schema.missing)
    wanted = [text.strip() for text in chosen.split(",") if text.strip()] if equals else values
    if not wanted:
        raise DataError(f"`site_column` should be NAME, or NAME=VALUE,VALUE; found {column!r}")
    if unknown := sorted(set(wanted) - set(values)):
        raise DataError(f"column `{name}` of {paths[0]} should hold {', '.join(wanted)}; no {', '.join(unknown)} there")
    yield from ((value, paths[0], (name, value)) for value in values if value in wanted)


def table_path(text: str) -> Path:
    """The path of a table: as it is said, or else in the folder COLLABDM_DATA. Raises DataError where neither is."""
    folder = os.environ.get("COLLABDM_DATA")
    for path in (Path(text), *([Path(folder) / text] if folder else [])):
        if path.exists():
            return path
    looked = f"nor in COLLABDM_DATA, {folder}" if folder else "and COLLABDM_DATA names no folder to look in"
    raise DataError(f"{text} should be a table of flows; nothing is there, {looked}")


def _names(paths: list[Path]) -> list[str]:
    """The names of the files without their endings; where two are the same, those of their folders."""
    names = [path.name.split(".")[0] for path in paths]
    return names if len(set(names)) == len(names) else [path.resolve().parent.name for path in paths]


def values_of(path: Path, column: str, missing: tuple[str, ...]) -> list[str]:
    """The distinct texts in a column of a table, in order. Raises DataError if they are too many for sites."""
    import pyarrow as pa  # the command line should start fast
    import pyarrow.compute as pc

    check_columns(path, header(path), [column])
    found: set[str] = set()
    for chunk in chunks(path, [column], missing, Counter(), silent):
        texts = pc.utf8_trim_whitespace(chunk.column(column).cast(pa.string()))
        found |= {text for text in pc.unique(texts).to_pylist() if text is not None and text not in missing}
        if len(found) > MOST_STATIONS:
            raise DataError(
                f"column `{column}` of {path} should name at most {MOST_STATIONS} sites; found {some(sorted(found))}"
            )
    return sorted(found)

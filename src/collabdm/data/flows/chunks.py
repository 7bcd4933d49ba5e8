"""A table of flows (CSV, also gzipped, or parquet) as a sequence of chunks, in bounded memory.

References: Apache Arrow reads the chunks. RFC 4180 (CSV).
"""

import csv
import gzip
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collabdm.errors import DataError
from collabdm.progress import Progress, Report, Stage

CHUNK_BYTES = 8 * 2**20


CHUNK_ROWS = 2**16


GZIP = b"\x1f\x8b"


UTF_16 = (b"\xff\xfe", b"\xfe\xff")


OTHER_DELIMITERS = ";\t|"


MOST_SHOWN = 5


@dataclass(frozen=True)
class Tally:
    """What was met in a table: rows read, and how often something in it was not as it should be."""

    rows: int = 0
    counts: Counter[str] = field(default_factory=Counter)

    def lines(self) -> list[str]:
        """One sentence for each kind, the most frequent first."""
        return [f"{what}: {n:,}" for what, n in self.counts.most_common() if n]


def header(path: Path) -> list[str]:
    """The names of the columns. Raises DataError where there are none to be read."""
    if path.suffix == ".parquet":
        return list(_parquet(path).schema_arrow.names)
    try:
        with path.open("rb") as file:
            first = file.read(2)
        if first in UTF_16:
            raise DataError(f"{path} should be UTF-8; found UTF-16: save it as UTF-8")
        with gzip.open(path) if first == GZIP else path.open("rb") as file:
            line = file.readline(2**20).decode("utf-8-sig", errors="replace")
    except (OSError, EOFError) as error:
        raise DataError(f"{path} should be a readable table; it cannot be read ({error})") from error
    if not line.strip():
        raise DataError(f"{path} should be a table with a line of column names; found an empty file")
    return next(csv.reader([line]))


def check_columns(path: Path, names: list[str], needed: list[str]) -> None:
    """Refuse a table without the columns needed, or with one of them twice. Raises DataError."""
    missing = [name for name in needed if name not in names]
    if missing and len(names) == 1 and any(d in names[0] for d in OTHER_DELIMITERS):
        raise DataError(f"{path} should have its columns separated by commas; found one column, {names[0]!r:.60}")
    if missing:
        raise DataError(
            f"{path} should have all columns of the schema; {some(missing)} missing; found {some(names)}. "
            "Rename the columns, or make a schema of this table with `collabdm schema`"
        )
    if twice := [name for name in dict.fromkeys(needed) if names.count(name) > 1]:
        raise DataError(f"{path} should have every column once; found twice: {some(twice)}")


def some(names: list[str]) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(f"`{name}`" for name in names[:MOST_SHOWN])
    return shown if len(names) <= MOST_SHOWN else f"{shown} and {len(names) - MOST_SHOWN} more"


def chunks(
    path: Path, columns: list[str], missing: tuple[str, ...], counts: Counter[str], report: Report
) -> Iterator[Any]:
    """Arrow record batches of the columns; from CSV they are text. Malformed rows are counted."""
    if path.suffix == ".parquet":
        yield from _parquet_chunks(path, columns, report)
    else:
        yield from _csv_chunks(path, columns, missing, counts, report)


def _parquet_chunks(path: Path, columns: list[str], report: Report) -> Iterator[Any]:
    file = _parquet(path)
    done = 0
    for chunk in file.iter_batches(CHUNK_ROWS, columns=columns):
        yield chunk
        done += chunk.num_rows
        report(Progress(Stage.READING, done, file.metadata.num_rows))


def _parquet(path: Path) -> Any:
    import pyarrow as pa  # here and below: the command line should start fast
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} should be a parquet file; it cannot be read ({error})") from error


def _csv_chunks(
    path: Path, columns: list[str], missing: tuple[str, ...], counts: Counter[str], report: Report
) -> Iterator[Any]:
    import pyarrow as pa
    from pyarrow.csv import ConvertOptions, ParseOptions, ReadOptions, open_csv

    def skip(row: Any) -> str:
        counts[f"rows left out, with another number of fields than {row.expected_columns}"] += 1
        return "skip"

    convert = ConvertOptions(
        column_types=dict.fromkeys(columns, pa.string()),
        include_columns=columns,
        null_values=list(missing),
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
    )
    size = path.stat().st_size
    try:
        with pa.OSFile(str(path)) as raw:
            packed = raw.read(2) == GZIP
            raw.seek(0)
            source = pa.CompressedInputStream(raw, "gzip") if packed else raw
            parse = ParseOptions(invalid_row_handler=skip)
            for chunk in open_csv(source, ReadOptions(block_size=CHUNK_BYTES), parse, convert):
                yield chunk
                report(Progress(Stage.READING, min(raw.tell(), size), size))
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} should be a whole CSV table in UTF-8; it cannot be read ({error})") from error

"""Read a table of flows, CSV (may be gzipped) or parquet, chunk by chunk in bounded memory.

References: Apache Arrow reads the chunks; RFC 4180 (CSV).
"""

import csv
import gzip
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from collabdm.data.archives import open_parquet, parquet_batches
from collabdm.data.flows.issues import Issue, IssueKind
from collabdm.documents.regular_file import check_regular
from collabdm.errors import DataError
from collabdm.progress import Progress, Report, Stage

CHUNK_BYTES = 8 * 2**20  # of CSV
HEADER_BYTES = 2**20

GZIP = b"\x1f\x8b"
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
OTHER_DELIMITERS = ";\t|"

MOST_SHOWN = 5  # the most names in an error


def header(path: Path) -> list[str]:
    """Read the names of a table's columns. Raises DataError if they cannot be read."""
    if path.suffix == ".parquet":
        return list(open_parquet(path).schema_arrow.names)

    try:
        check_regular(path)
        with path.open("rb") as file:
            first = file.read(2)
        if first in UTF_16:
            raise DataError(f"{path} should be UTF-8; found UTF-16: save it as UTF-8")

        with gzip.open(path) if first == GZIP else path.open("rb") as file:
            line = file.readline(HEADER_BYTES).decode("utf-8-sig", errors="replace")
    except (OSError, EOFError) as error:
        raise DataError(f"{path} should be a table; it cannot be read ({error})") from error

    if not line.strip():
        raise DataError(
            f"{path} should be a table with a line of column names; found an empty file"
        )
    return next(csv.reader([line]))


def check_columns(path: Path, names: list[str], needed: list[str]) -> None:
    """Check that a table has all required columns, each once.

    Args:
        path: The table, named in errors.
        names: The names of its columns.
        needed: The names of the required columns.

    Raises:
        DataError: A column is missing or occurs twice, or the delimiter is not a comma.
    """
    missing = [name for name in needed if name not in names]

    if missing and len(names) == 1 and any(mark in names[0] for mark in OTHER_DELIMITERS):
        raise DataError(
            f"{path} should have its columns separated by commas; "
            f"found one column, {names[0]!r:.60}: save it with commas"
        )
    if missing:
        raise DataError(
            f"{path} should have all columns of the schema; {some(missing)} missing; "
            f"found {some(names)}: "
            "rename the columns, or make a schema of this table with `collabdm schema`"
        )

    if repeated := [name for name in dict.fromkeys(needed) if names.count(name) > 1]:
        raise DataError(f"{path} should have every column once; found twice: {some(repeated)}")


def some(names: list[str]) -> str:
    """List the first names, and the number of the remaining ones."""
    shown = ", ".join(f"`{name}`" for name in names[:MOST_SHOWN])
    return shown if len(names) <= MOST_SHOWN else f"{shown} and {len(names) - MOST_SHOWN} more"


def chunks(
    path: Path,
    columns: list[str],
    missing: tuple[str, ...],
    counts: Counter[Issue],
    report: Report,
) -> Iterator[Any]:
    """Read columns of a table, chunk by chunk.

    Args:
        path: The table.
        columns: The names of the columns.
        missing: Texts that mean a missing value in CSV.
        counts: A counter to which the number of malformed rows, which are skipped, is added.
        report: A function that receives the progress (bytes of CSV, rows of parquet) after each
            chunk.

    Yields:
        Arrow record batches; the columns of CSV are text.

    Raises:
        DataError: The table cannot be read.
    """
    if path.suffix == ".parquet":
        yield from _parquet_chunks(path, columns, report)
    else:
        yield from _csv_chunks(path, columns, missing, counts, report)


def _parquet_chunks(path: Path, columns: list[str], report: Report) -> Iterator[Any]:
    file = open_parquet(path)
    done = 0
    for chunk in parquet_batches(path, file, columns):
        yield chunk
        done += chunk.num_rows
        report(Progress(Stage.READING, done, file.metadata.num_rows))


def _csv_chunks(
    path: Path,
    columns: list[str],
    missing: tuple[str, ...],
    counts: Counter[Issue],
    report: Report,
) -> Iterator[Any]:
    import pyarrow as pa
    from pyarrow.csv import ParseOptions, ReadOptions, open_csv

    def skip(row: Any) -> str:
        counts[Issue(IssueKind.ROW_LENGTH, f"{row.expected_columns}")] += 1
        return "skip"

    size = path.stat().st_size
    try:
        with pa.OSFile(str(path)) as raw:
            compressed = raw.read(2) == GZIP
            raw.seek(0)
            source = pa.CompressedInputStream(raw, "gzip") if compressed else raw

            for chunk in open_csv(
                source,
                ReadOptions(block_size=CHUNK_BYTES),
                ParseOptions(invalid_row_handler=skip),
                _as_text(columns, missing),
            ):
                yield chunk
                report(Progress(Stage.READING, min(raw.tell(), size), size))
    except (OSError, pa.ArrowException) as error:
        raise DataError(
            f"{path} should be a whole CSV table in UTF-8; it cannot be read ({error})"
        ) from error


def _as_text(columns: list[str], missing: tuple[str, ...]) -> Any:
    """Return Arrow's options to read only these columns, as text."""
    import pyarrow as pa
    from pyarrow.csv import ConvertOptions

    return ConvertOptions(
        column_types=dict.fromkeys(columns, pa.string()),
        include_columns=columns,
        null_values=list(missing),
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
    )

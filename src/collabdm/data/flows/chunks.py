"""Read the tables of a site chunk by chunk, in bounded memory: CSV, Zeek, JSON lines or parquet.

Every chunk has the same columns, in the same order, whatever their order in a file. A row that
repeats the column names, as in concatenated files, is left out and counted.

References: Apache Arrow reads the chunks; RFC 4180 (CSV).
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collabdm.data.archives import open_parquet, parquet_batches
from collabdm.data.flows.compression import Stream, open_table, unreadable
from collabdm.data.flows.dialect import Dialect, Rules, dialect_of, encoding_error, plain
from collabdm.data.flows.issues import Issue, IssueKind
from collabdm.data.flows.json_lines import json_chunks
from collabdm.data.flows.several import tables_of
from collabdm.data.flows.utf8 import MARK, MarkedText
from collabdm.data.flows.zeek import TabsForSpaces, is_other_head
from collabdm.errors import DataError, did_you_mean
from collabdm.progress import Progress, Report, Stage

CHUNK_BYTES = 8 * 2**20  # of text
MOST_SHOWN = 5  # the most names in an error


@dataclass(frozen=True)
class Columns:
    """The columns to read, by name, and the rules of reading. `optional` ones may be absent."""

    names: tuple[str, ...]
    optional: tuple[str, ...] = ()
    rules: Rules = Rules()


@dataclass(frozen=True)
class TextTable:
    """One table to read: how it is written, the columns to read, and where issues are counted.

    If `leaves_out`, rows with bytes of another encoding are left out, rather than the whole table.
    """

    path: Path
    dialect: Dialect
    columns: list[str]
    rules: Rules
    counts: Counter[Issue]
    leaves_out: bool = False


def column_names(location: str | Path, rules: Rules) -> list[str]:
    """List the columns of all tables at a location, each once. Raises DataError."""
    names: dict[str, None] = {}
    for path in tables_of(location).paths:
        dialect = dialect_of(path, rules)
        if dialect.like_rows:
            raise _without_names(path, dialect.written)
        names |= dict.fromkeys(dialect.names)
    return list(names)


def some(names: Sequence[str]) -> str:
    """List the first names, and the number of the remaining ones."""
    shown = ", ".join(f"`{name}`" for name in names[:MOST_SHOWN])
    return shown if len(names) <= MOST_SHOWN else f"{shown} and {len(names) - MOST_SHOWN} more"


def chunks(
    location: str | Path, columns: Columns, counts: Counter[Issue], report: Report
) -> Iterator[Any]:
    """Read columns of all tables at a location, chunk by chunk.

    Args:
        location: A table, several tables, a pattern or a folder (see `several`).
        columns: The columns.
        counts: A counter to which everything that was left out or read in a particular way is
            added.
        report: A function that receives the progress in bytes after each chunk.

    Yields:
        Arrow record batches, without the optional columns that a table lacks; the columns of
        tables of text are text, in which null is a missing value.

    Raises:
        DataError: A table cannot be read, or lacks a column.
    """
    tables = tables_of(location)
    for file in tables.left_out:
        counts[Issue(IssueKind.FILES, file.name)] += 1

    sizes = [path.stat().st_size if path.exists() else 0 for path in tables.paths]
    before = 0
    for path, size in zip(tables.paths, sizes, strict=True):
        start = before

        def report_bytes(done: int, start: int = start) -> None:
            report(Progress(Stage.READING, start + done, sum(sizes)))

        yield from _table_chunks(path, columns, counts, report_bytes)
        before += size


def _table_chunks(path: Path, wanted: Columns, counts: Counter[Issue], report: Any) -> Any:
    """Read one table, with the wanted columns in order."""
    dialect = dialect_of(path, wanted.rules)
    found = find_columns(path, dialect, wanted, counts)
    table = TextTable(path, dialect, list(dict.fromkeys(found.values())), wanted.rules, counts)
    read = _parquet_chunks if dialect.form == "parquet" else _text_chunks
    for chunk in read(table, report):
        kept = without_headers(chunk, dialect, counts)
        yield renamed(kept, found)


def renamed(chunk: Any, found: dict[str, str]) -> Any:
    """Name the columns of a chunk as they were asked for (`find_columns`)."""
    import pyarrow as pa

    arrays = [chunk.column(column) for column in found.values()]
    return pa.RecordBatch.from_arrays(arrays, names=list(found))


def find_columns(
    path: Path, dialect: Dialect, wanted: Columns, counts: Counter[Issue]
) -> dict[str, str]:
    """Find the columns of a table by name.

    Args:
        path: The table.
        dialect: How it is written.
        wanted: The columns.
        counts: A counter to which the issues of the dialect and of the names are added.

    Returns:
        For each wanted column, its name among those of the dialect.

    Raises:
        DataError: Required columns are missing.
    """
    counts.update(dialect.issues)
    found = _find(path, dialect, wanted)
    for column in (name for name in found.values() if name in dialect.names):
        written = dialect.written[dialect.names.index(column)]
        if dialect.written.count(written) > 1:
            counts[Issue(IssueKind.DOUBLED, f"`{written}.1` and so on")] = 1
    return found


def _find(path: Path, dialect: Dialect, wanted: Columns) -> dict[str, str]:
    """Find the columns by name. Raises DataError if required ones are missing."""
    found: dict[str, str] = {}
    missing = []
    for name in wanted.names:
        column = name if name in dialect.names else plain(name)
        if column in dialect.names:
            found[name] = column
        elif dialect.form == "json" and name not in wanted.optional:
            found[name] = name  # an object lacks what it has no value for
        elif name not in wanted.optional:
            missing.append(name)

    unknown = [c for c in found.values() if c not in dialect.names]
    if dialect.form == "json" and 2 * len(unknown) > len(found):
        missing += unknown
    if missing and dialect.like_rows:
        raise _without_names(path, dialect.written)
    if missing:
        raise DataError(
            f"{path} should have all columns of the schema; {some(missing)} missing; "
            f"found {some(dialect.names)}{did_you_mean(missing[0], dialect.names)}: "
            "rename the columns, or make a schema of this table with `collabdm schema`"
        )
    return found


def _without_names(path: Path, cells: Sequence[str]) -> DataError:
    return DataError(
        f"{path} should begin with a line of column names; found what looks like a row, "
        f"{some(cells)}: name the {len(cells)} columns with `collabdm schema --names`, "
        "as a,b,c or a file"
    )


def without_headers(chunk: Any, dialect: Dialect, counts: Counter[Issue]) -> Any:
    """Leave out the rows that repeat the column names."""
    if dialect.form not in ("csv", "zeek") or not chunk.num_columns:
        return chunk

    import pyarrow as pa  # here and below, so that the command line starts fast
    import pyarrow.compute as pc

    repeated: Any = None
    for name, column in zip(chunk.schema.names, chunk.columns, strict=True):
        written = dialect.written[dialect.names.index(name)]
        same = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(column), written), False)
        repeated = same if repeated is None else pc.and_(repeated, same)
        if not pc.any(repeated).as_py():
            return chunk

    counts[Issue(IssueKind.HEADER)] += int(pc.sum(repeated.cast(pa.int64())).as_py())
    return chunk.filter(pc.invert(repeated))


def _parquet_chunks(table: TextTable, report: Any) -> Iterator[Any]:
    path, names = table.path, table.dialect.names
    file = open_parquet(path)
    total, size, done = max(file.metadata.num_rows, 1), path.stat().st_size, 0
    written = {column: file.schema_arrow.names[names.index(column)] for column in table.columns}
    if len(set(file.schema_arrow.names)) < len(file.schema_arrow.names):
        raise DataError(f"{path} should have columns of different names: rename them")

    for chunk in parquet_batches(path, file, list(written.values())):
        yield renamed(chunk, written)
        done += chunk.num_rows
        report(size * done // total)


def _text_chunks(table: TextTable, report: Any) -> Iterator[Any]:
    """Read a table of text. Raises DataError."""
    path, dialect = table.path, table.dialect
    try:
        with open_table(path) as stream:
            if dialect.form == "json":
                read = json_chunks(
                    path, stream.source, dialect.encoding, table.columns, table.counts, CHUNK_BYTES
                )
            elif dialect.empty:
                return
            else:
                read = csv_chunks(table, stream)

            for chunk in read:
                yield chunk
                report(stream.position)
    except UnicodeDecodeError as error:
        raise encoding_error(path, dialect.encoding) from error


def csv_chunks(table: TextTable, stream: Stream) -> Iterator[Any]:
    """Read a CSV table, or a Zeek log. Raises DataError, or an exception of Arrow."""
    import pyarrow as pa
    from pyarrow.csv import ConvertOptions, ParseOptions, ReadOptions, open_csv

    path, dialect, columns = table.path, table.dialect, table.columns
    is_zeek = dialect.form == "zeek"
    other_heads = []

    def skip(row: Any) -> str:
        text = row.text or ""
        if is_zeek and text.startswith("#"):
            if is_other_head(text, dialect.written, dialect.delimiter):
                other_heads.append(text)
        else:
            table.counts[Issue(IssueKind.ROW_LENGTH, f"{row.expected_columns}")] += 1
        return "skip"

    text = MarkedText(stream.source)
    plain_text = text if dialect.encoding == "utf-8" else stream.source
    source = TabsForSpaces(plain_text) if dialect.spaced else plain_text
    convert = ConvertOptions(
        column_types=dict.fromkeys(columns, pa.string()),
        include_columns=columns,
        null_values=[*table.rules.missing, *dialect.nulls],
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
    )
    reader = open_csv(
        source if source is stream.source else pa.PythonFile(source, "r"),
        ReadOptions(
            block_size=CHUNK_BYTES,
            column_names=list(dialect.names),
            skip_rows=dialect.skip,
            encoding=dialect.encoding,
        ),
        ParseOptions(
            delimiter=dialect.delimiter,
            quote_char=False if is_zeek else '"',
            invalid_row_handler=skip,
        ),
        convert,
    )
    for chunk in reader:
        if text.is_faulty and _has_mark(chunk):
            if not table.leaves_out:
                raise encoding_error(path, dialect.encoding)
            chunk = _without_marks(chunk, table)
        yield chunk
        if other_heads:
            raise unreadable(path, "the logs in it have different columns: separate them")


def _has_mark(chunk: Any) -> bool:
    """Return whether a byte of another encoding was replaced in a column that is read."""
    import pyarrow.compute as pc

    return any(pc.any(pc.match_substring(column, MARK)).as_py() for column in chunk.columns)


def _without_marks(chunk: Any, table: TextTable) -> Any:
    """Leave out the rows with bytes of another encoding in a column that is read."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    marked = np.zeros(chunk.num_rows, dtype=bool)
    for column in chunk.columns:
        marked |= np.asarray(pc.fill_null(pc.match_substring(column, MARK), False))
    issue = Issue(IssueKind.UNREADABLE, f"bytes that are not {table.dialect.encoding.upper()}")
    table.counts[issue] += int(marked.sum())
    return chunk.filter(pa.array(~marked))

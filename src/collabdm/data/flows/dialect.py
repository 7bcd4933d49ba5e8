"""Find out how a table is written: its form, encoding, delimiter and column names.

names        without surrounding spaces and byte order mark, in NFC; of several columns with the
             same name, the first keeps it, and the later ones are read as NAME.1, NAME.2 (as pandas
             writes them)
delimiter    the one of `,` `;` tab `|` that separates the first line into the most columns
encoding     UTF-8, or that of a byte order mark; the encoding that a schema declares is used for
             files that are not UTF-8
"""

import codecs
import csv
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from collabdm.data.archives import open_parquet
from collabdm.data.flows.compression import open_table
from collabdm.data.flows.issues import Issue, IssueKind
from collabdm.data.flows.json_lines import json_names
from collabdm.data.flows.zeek import zeek_head
from collabdm.documents.flow_schema import FlowSchema
from collabdm.errors import DataError

HEADER_BYTES = 2**20
BLOCK = 2**20

DELIMITERS = ",;\t|"
DELIMITER_NAMES = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
EXCEL_SEPARATOR = re.compile(r'"?sep=(.)"?\s*')
UTF_8_MARK = b"\xef\xbb\xbf"
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
MOST_NAMES = 20_000

Form = Literal["csv", "zeek", "json", "parquet"]


@dataclass(frozen=True)
class Rules:
    """How tables are read, as a schema specifies; see `FlowSchema`."""

    missing: tuple[str, ...] = FlowSchema.model_fields["missing"].default
    encoding: str | None = None
    names: tuple[str, ...] | None = None

    @classmethod
    def of(cls, schema: FlowSchema) -> "Rules":
        """Return the rules of a schema."""
        return cls(schema.missing, schema.encoding, schema.names)


@dataclass(frozen=True)
class Dialect:
    """How one table is written.

    `names` are the columns as they are read, and `written` as they are in the file. The first
    `skip` lines contain no rows. `nulls` are further missing values, which the file declares.
    `like_rows` is whether the line of column names looks like a row.
    """

    form: Form
    names: tuple[str, ...]
    written: tuple[str, ...] = ()
    delimiter: str = ","
    encoding: str = "utf-8"
    skip: int = 0
    nulls: tuple[str, ...] = ()
    spaced: bool = False
    empty: bool = False
    like_rows: bool = False
    issues: tuple[Issue, ...] = ()


def plain(name: str) -> str:
    """Return a column's name as names are compared."""
    return unicodedata.normalize("NFC", name).strip().strip("\ufeff").strip()


def dialect_of(path: Path, rules: Rules) -> Dialect:
    """Find out how a table is written. Raises DataError if it is no table."""
    with open_table(path) as stream:
        head = _read(stream.source, HEADER_BYTES)

    if path.suffix.lower() == ".parquet" or head.startswith(b"PAR1"):
        names = tuple(open_parquet(path).schema_arrow.names)
        return Dialect("parquet", *_distinct(names))

    encoding = _encoding(path, head, rules)
    return dialect_of_text(path, _decoded(path, head, encoding), encoding, rules)


def dialect_of_text(path: Path, text: str, encoding: str, rules: Rules) -> Dialect:
    """Find out how a table of text is written.

    Args:
        path: The table, for messages.
        text: Its first lines.
        encoding: The encoding of the table.
        rules: How tables are read.

    Raises:
        DataError: The text is no table.
    """
    if not text.strip():
        raise DataError(
            f"{path} should be a table with a line of column names; found an empty file"
        )
    return _dialect(path, text, encoding, rules)


def _read(source: object, size: int) -> bytes:
    """Read up to `size` bytes."""
    parts: list[bytes] = []
    while size > 0 and (part := source.read(size)):  # type: ignore[attr-defined]
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _encoding(path: Path, head: bytes, rules: Rules) -> str:
    if head.startswith(UTF_8_MARK):
        return "utf-8"
    if head.startswith(UTF_16_MARKS):
        return "utf-16"

    declared = rules.encoding
    if declared is not None and declared.startswith("utf-16"):
        return declared
    if b"\0" in head[:4096]:
        raise DataError(
            f"{path} should be a table of text; found bytes of 0: it is a file of another kind, or "
            "UTF-16 without a byte order mark, which `collabdm schema --encoding utf-16-le` reads"
        )
    if declared is None or _first_fault(path, "utf-8") is None:
        return "utf-8"
    return declared


def _decoded(path: Path, head: bytes, encoding: str) -> str:
    """Decode the head of a table. Raises DataError if its first line is in another encoding."""
    final = len(head) < HEADER_BYTES
    try:
        text = codecs.getincrementaldecoder(encoding)().decode(head, final)
    except UnicodeDecodeError as error:
        text = codecs.getincrementaldecoder(encoding)("replace").decode(head, final)
        if "\ufffd" in text.lstrip().partition("\n")[0]:
            raise encoding_error(path, encoding) from error
    return text.removeprefix("\ufeff")


def encoding_error(path: Path, encoding: str) -> DataError:
    """Return the error about bytes that are not of an encoding, with the first one's line."""
    fault = _first_fault(path, encoding)
    where = "bytes of another encoding" if fault is None else f"0x{fault[0]:02x} in line {fault[1]}"
    remedy = (
        "tables from Windows are usually in cp1252: make the schema with `--encoding cp1252`, or "
        "convert the file, `iconv -f cp1252 -t utf-8`"
        if encoding == "utf-8"
        else "make the schema with the table's `--encoding`, or convert the file to UTF-8"
    )
    return DataError(f"{path} should be in {encoding.upper()}; found {where}: {remedy}")


def _first_fault(path: Path, encoding: str) -> tuple[int, int] | None:
    """Find the first byte that is not of an encoding, and its line; None if there is none."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    with open_table(path) as stream:
        while True:
            block = _read(stream.source, BLOCK)
            try:
                text = decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                before = error.object[: error.start]
                return error.object[error.start], line + before.count(b"\n")
            line += text.count("\n")
            if not block:
                return None


def _dialect(path: Path, text: str, encoding: str, rules: Rules) -> Dialect:
    """Find out how a table of text is written."""
    lines = re.split(r"\r\n|\r|\n", text)
    start = next(i for i, line in enumerate(lines) if line.strip())
    first = lines[start].lstrip()
    issues = _encoding_issues(encoding)

    if first.lower().startswith(("<!doctype", "<html", "<?xml")):
        raise DataError(f"{path} should be a table of flows; found a web page: download the file")
    if first.startswith(("{", "[")):
        names = json_names(path, lines[start:])
        return Dialect("json", names, names, encoding=encoding, issues=issues)

    head = zeek_head(lines[start:])
    if head is not None:
        rest = any(line.strip() for line in lines[start + head.lines :])
        names, written = _distinct(head.names)
        return Dialect(
            form="zeek",
            names=names,
            written=written,
            delimiter=head.separator,
            encoding=encoding,
            skip=start + head.lines,
            nulls=head.nulls,
            spaced=head.spaced,
            empty=not rest,
            issues=issues,
        )
    return _csv_dialect(path, lines, encoding, rules)


def _encoding_issues(encoding: str) -> tuple[Issue, ...]:
    return () if encoding == "utf-8" else (Issue(IssueKind.ENCODING, encoding),)


def _csv_dialect(path: Path, lines: list[str], encoding: str, rules: Rules) -> Dialect:
    """Find the delimiter and the column names of a CSV table."""
    issues = _encoding_issues(encoding)
    start = next(i for i, line in enumerate(lines) if line.strip())
    stated = EXCEL_SEPARATOR.fullmatch(lines[start])
    if stated:
        start = next((i for i in range(start + 1, len(lines)) if lines[i].strip()), start)

    found = [_first_row(path, lines[start:], mark) for mark in DELIMITERS]
    widest = max(range(len(DELIMITERS)), key=lambda i: len(found[i][0]))
    (cells, height), delimiter = found[widest], DELIMITERS[widest]
    if len(cells) > MOST_NAMES:
        raise DataError(f"{path} should have at most {MOST_NAMES:,} columns; found {len(cells):,}")

    headed = rules.names is None or _is_header(cells, rules.names)
    if not headed and len(cells) != len(rules.names or ()):
        raise DataError(
            f"{path} should have as many columns as `names`, {len(rules.names or ())}; "
            f"found {len(cells)}: correct the names"
        )

    skip = start + (height if headed else 0)
    names, written = _distinct(cells if headed else rules.names or ())
    if delimiter != ",":
        issues = (Issue(IssueKind.DELIMITER, DELIMITER_NAMES[delimiter]), *issues)
    return Dialect(
        form="csv",
        names=names,
        written=written,
        delimiter=delimiter,
        encoding=encoding,
        skip=skip,
        empty=not any(line.strip() for line in lines[skip:]),
        like_rows=headed and looks_like_a_row(cells),
        issues=issues,
    )


def _first_row(path: Path, lines: Sequence[str], delimiter: str) -> tuple[list[str], int]:
    """Split the first row, and count its lines. Raises DataError."""
    reader = csv.reader((line + "\n" for line in lines), delimiter=delimiter)
    try:
        return next(reader), reader.line_num
    except (csv.Error, StopIteration) as error:
        raise DataError(
            f"{path} should begin with a line of column names; found {error}"
        ) from error


def _is_header(cells: Sequence[str], names: Sequence[str]) -> bool:
    """Return whether the first row repeats at least half of the declared names."""
    known = {plain(name) for name in names}
    return 2 * sum(plain(cell) in known for cell in cells) >= len(cells)


def looks_like_a_row(cells: Sequence[str]) -> bool:
    """Return whether a line looks like a row: at least a third of its cells are numbers.

    Whole numbers that count up are names.
    """
    numbers = [cell for cell in cells if re.fullmatch(r"\s*-?\d+(\.\d+)?([eE]-?\d+)?\s*", cell)]
    counted = [str(k) for k in range(len(numbers))]
    return 3 * len(numbers) >= len(cells) and [n.strip() for n in numbers] != counted


def _distinct(names: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names as columns are read, all different, and as they are written."""
    written = tuple(plain(name) for name in names)
    taken, read = set(written), []
    seen: set[str] = set()

    for name in written:
        if name not in seen:
            seen.add(name)
            read.append(name)
            continue
        number = next(k for k in range(1, len(written) + 1) if f"{name}.{k}" not in taken)
        taken.add(f"{name}.{number}")
        read.append(f"{name}.{number}")
    return tuple(read), written

"""Read the rows of a CSV table as they arrive, in blocks of bytes that end anywhere.

The first line is the line of column names; its delimiter and names are found as in a file
(`dialect`). A row is one line, and is read once its newline has arrived. The rows are converted by
the same functions as those of a whole table, so they get the same values. A row that cannot be
read is left out and counted, where a whole table would be refused: a detector goes on.

Memory holds the current block and an unfinished line, which has at most `LONGEST_LINE` bytes.

Reference: RFC 4180 (CSV).
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from collabdm.data.flows.chunks import (
    TextTable,
    csv_chunks,
    find_columns,
    renamed,
    without_headers,
)
from collabdm.data.flows.compression import CODECS, OTHER_FILES, XZ, ZIP, Stream
from collabdm.data.flows.dialect import (
    EXCEL_SEPARATOR,
    UTF_8_MARK,
    UTF_16_MARKS,
    Rules,
    dialect_of_text,
)
from collabdm.data.flows.issues import Issue, IssueKind, Tally
from collabdm.data.flows.tables import Reading, check_numbers, columns_of, encoded_rows
from collabdm.data.flows.windows import Flows
from collabdm.documents.flow_schema import FlowSchema
from collabdm.errors import DataError

LONGEST_LINE = 2**20  # bytes
ENOUGH_ROWS = 1000  # to judge whether columns contain numbers

#: the first bytes of files that are no CSV, and the kind of the file
NO_CSV = (
    *((start, f"a file compressed with {codec}") for start, codec in CODECS),
    *((XZ, "a file compressed with xz"), (ZIP, "a zip archive"), (b"PAR1", "a parquet file")),
    *((mark, "text in UTF-16") for mark in UTF_16_MARKS),
    *((start, kind) for start, kind, _ in OTHER_FILES),
)
OTHER_LINES = (
    *(("{", "JSON"), ("[", "JSON")),
    *(("#separator", "a Zeek log"), ("#fields", "a Zeek log")),
)


class ArrivingRows:
    """Converts blocks of a CSV table to rows.

    Attributes:
        read: the number of rows that were read.
        counts: the issues of the rows.
    """

    def __init__(self, name: Path, schema: FlowSchema, reading: Reading) -> None:
        """Start before the first byte.

        Args:
            name: The table, for messages.
            schema: The columns and the label; its `time` is not used, rows stay in their order.
            reading: Which rows to read, and whether they need labels.
        """
        self._name, self._reading = name, reading
        self._schema = schema.model_copy(update={"time": None})
        self._found: dict[str, str] = {}
        self._table: TextTable | None = None
        self._rest = b""
        self._checked = False
        self.read = 0
        self.counts: Counter[Issue] = Counter()

    @property
    def tally(self) -> Tally:
        """The number of rows read, and the issues."""
        return Tally(self.read, self.counts)

    @property
    def unfinished(self) -> bool:
        """Whether a line without its newline has arrived."""
        return bool(self._rest.strip())

    def add(self, block: bytes) -> Iterator[Flows]:
        """Yield the rows whose lines a block completes, as far as there are any.

        Raises DataError if the block does not continue a CSV table of the schema.
        """
        content = self._rest + block
        cut = content.rfind(b"\n") + 1
        if self._table is None:
            self._check_kind(content)
            cut = cut if _has_a_head(content[:cut]) else 0

        self._rest = content[cut:]
        if len(self._rest) > LONGEST_LINE:
            raise DataError(
                f"{self._name} should have lines of at most {LONGEST_LINE:,} bytes; "
                "found a longer one: it is no table of flows"
            )
        if cut:
            yield from self._rows(content[:cut])

    def end(self) -> Iterator[Flows]:
        """Yield the row in a last line without a newline.

        Raises DataError if there was no line of column names, or too few numbers.
        """
        last, self._rest = self._rest, b""
        if last.strip() or self._table is None:
            yield from self._rows(last + b"\n")
        self._check_numbers()

    def _rows(self, lines: bytes) -> Iterator[Flows]:
        """Yield the rows of whole lines, the first of which may name the columns."""
        if self._table is None:
            self._table, lines = self._begin(lines)

        for chunk in _chunks(self._table, lines):
            kept = renamed(without_headers(chunk, self._table.dialect, self.counts), self._found)
            rows = encoded_rows(kept, self._schema, self._reading, self.counts)
            if len(rows.labels):
                self.read += len(rows.labels)
                yield Flows(torch.from_numpy(rows.levels), torch.from_numpy(rows.labels))

        if self.read >= ENOUGH_ROWS and not self._checked:
            self._check_numbers()

    def _begin(self, lines: bytes) -> tuple[TextTable, bytes]:
        """Find out how the table is written; return it, and the lines below its head."""
        rules = Rules.of(self._schema)
        text = lines.removeprefix(UTF_8_MARK).decode(_encoding(lines, rules), "replace")
        dialect = dialect_of_text(self._name, text, "utf-8", rules)
        self._found = find_columns(
            self._name, dialect, columns_of(self._schema, self._reading), self.counts
        )
        columns = list(dict.fromkeys(self._found.values()))
        table = TextTable(
            self._name, replace(dialect, skip=0), columns, rules, self.counts, leaves_out=True
        )
        return table, b"".join(lines.splitlines(keepends=True)[dialect.skip :])

    def _check_kind(self, content: bytes) -> None:
        """Check that the first bytes can be CSV. Raises DataError."""
        kinds = [kind for start, kind in NO_CSV if content.startswith(start)]
        line = content.removeprefix(UTF_8_MARK).lstrip()[:20].decode("utf-8", "replace")
        kinds += [kind for start, kind in OTHER_LINES if line.startswith(start)]
        kinds += ["bytes of 0"] if b"\0" in content else []
        if kinds:
            raise DataError(
                f"{self._name} should be CSV text to be classified as it arrives; found "
                f"{kinds[0]}: convert it on the way, or classify the finished file"
            )

    def _check_numbers(self) -> None:
        self._checked = True
        check_numbers(self._name, self.counts, self.read)


def _has_a_head(lines: bytes) -> bool:
    """Return whether there is a line of column names below blank lines and Excel's separator."""
    text = lines.removeprefix(UTF_8_MARK).decode("utf-8", "replace")
    found = [line for line in text.splitlines() if line.strip()]
    return bool(found) and (len(found) > 1 or not EXCEL_SEPARATOR.fullmatch(found[0]))


def _encoding(lines: bytes, rules: Rules) -> str:
    """Return UTF-8, or the encoding of the schema for lines that are not UTF-8."""
    try:
        lines.decode("utf-8")
    except UnicodeDecodeError:
        return rules.encoding or "utf-8"
    return "utf-8"


def _chunks(table: TextTable, lines: bytes) -> Iterator[Any]:
    """Parse lines; if Arrow refuses them, the half that it accepts."""
    import pyarrow as pa  # imported here so that the command line starts fast

    if not lines.strip():
        return

    counts: Counter[Issue] = Counter()
    source = pa.BufferReader(_recoded(lines, table))
    try:
        read = csv_chunks(replace(table, counts=counts), Stream(source, source, len(lines)))
        found = list(read)
    except pa.ArrowException:
        halves = lines.splitlines(keepends=True)
        if len(halves) == 1:
            table.counts[Issue(IssueKind.UNREADABLE, "no fields of CSV")] += 1
            return
        middle = len(halves) // 2
        yield from _chunks(table, b"".join(halves[:middle]))
        yield from _chunks(table, b"".join(halves[middle:]))
        return

    table.counts.update(counts)
    yield from found


def _recoded(lines: bytes, table: TextTable) -> bytes:
    """Convert lines to UTF-8 from the encoding of the schema, as far as they are in it."""
    encoding = _encoding(lines, table.rules)
    if encoding == "utf-8":
        return lines
    try:
        return lines.decode(encoding).encode()
    except UnicodeDecodeError:
        return lines

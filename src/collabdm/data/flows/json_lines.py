"""Read JSON lines, one object per flow, as Zeek and Suricata write them.

Nested objects are columns with dotted names: {"flow": {"bytes": 1}} has the column `flow.bytes`. A
value that an object lacks is missing. True and false are the texts `true` and `false`.

Reference: jsonlines.org.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from collabdm.data.flows.issues import Issue, IssueKind
from collabdm.errors import DataError

SAMPLED_LINES = 1000  # in which columns are looked for
MOST_LINE = 2**24  # bytes
MOST_DEPTH = 8


def json_names(path: Path, lines: Sequence[str]) -> tuple[str, ...]:
    """List the columns of the first lines. Raises DataError if they are not JSON objects.

    Args:
        path: The file, named in errors.
        lines: Its first lines; the last one may be cut off.
    """
    if lines[0].lstrip().startswith("["):
        raise DataError(
            f"{path} should have one JSON object per line; found an array: convert it, "
            "`jq -c '.[]'`"
        )

    names: dict[str, None] = {}
    found = 0
    for line in lines[:SAMPLED_LINES]:
        row = _object(line)
        found += row is not None
        for name in _flat_names(row or {}):
            names[name] = None

    if not found:
        raise DataError(f"{path} should have one JSON object per line; found {lines[0]!r:.60}")
    return tuple(names)


def json_chunks(
    path: Path,
    stream: Any,
    encoding: str,
    columns: Sequence[str],
    counts: Counter[Issue],
    size: int,
) -> Iterator[Any]:
    """Read columns of JSON lines, chunk by chunk.

    Args:
        path: The file, named in errors.
        stream: Its bytes.
        encoding: The encoding of the bytes.
        columns: The names of the columns.
        counts: A counter to which the lines that are not objects are added.
        size: The bytes of a chunk.

    Yields:
        Arrow record batches of text.

    Raises:
        DataError: A line is longer than 16 MiB.
    """
    import codecs

    import pyarrow as pa

    decoder = codecs.getincrementaldecoder(encoding)()
    present: set[str] = set()
    rest = ""

    while True:
        block = stream.read(size)
        text = rest + decoder.decode(block, final=not block)
        *lines, rest = text.split("\n")
        lines += [rest] if not block else []
        if len(rest) > MOST_LINE:
            raise DataError(f"{path} should have lines of at most {MOST_LINE:,} characters")

        values: dict[str, list[str | None]] = {name: [] for name in columns}
        for line in filter(str.strip, lines):
            row = _object(line)
            if row is None:
                counts[Issue(IssueKind.NOT_OBJECTS)] += 1
                continue
            for name in columns:
                values[name].append(_text(_value(row, name)))

        present |= {name for name in columns if any(v is not None for v in values[name])}
        if any(values.values()):
            yield pa.record_batch({n: pa.array(v, pa.string()) for n, v in values.items()})
        if not block:
            break

    for name in columns:
        counts[Issue(IssueKind.ABSENT, f"`{name}`")] += name not in present


def _object(line: str) -> dict[str, Any] | None:
    """Read one line; None if it is not a JSON object."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _flat_names(row: dict[str, Any], before: str = "", depth: int = 0) -> Iterator[str]:
    for name, value in row.items():
        if isinstance(value, dict) and depth < MOST_DEPTH:
            yield from _flat_names(value, f"{before}{name}.", depth + 1)
        else:
            yield f"{before}{name}"


def _value(row: dict[str, Any], name: str) -> Any:
    """Find a value by its name, or by the parts of a dotted name."""
    if name in row:
        return row[name]

    start, dot, end = name.partition(".")
    while dot:
        if isinstance(row.get(start), dict):
            return _value(row[start], end)
        more, dot, end = end.partition(".")
        start = f"{start}.{more}"
    return None


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value.encode("utf-8", "replace").decode() if value else value
    return json.dumps(value)

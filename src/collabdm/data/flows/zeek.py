r"""Read the head of a Zeek log in its own format, tab-separated with `#fields`.

    #separator \x09
    #unset_field  -
    #fields  ts  uid  id.orig_h  ...
    #types   time  string  addr  ...

The texts of `#unset_field` and `#empty_field` are missing values in every column. In the labelled
logs of IoT-23, spaces instead of tabs separate the last names and values (`tunnel_parents   label
detailed-label`); they are read as tabs.

Reference: The Zeek documentation, "Zeek log formats and inspection".
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

SPACES = re.compile(r" {2,}")
SEPARATED = re.compile(rb" {3,}")
MOST_COMMENTS = 100  # lines in which `#fields` is looked for


@dataclass(frozen=True)
class ZeekHead:
    """The names of a log's columns, its separator and missing values, and its length in lines."""

    names: tuple[str, ...]
    separator: str
    nulls: tuple[str, ...]
    lines: int
    spaced: bool


def zeek_head(lines: Sequence[str]) -> ZeekHead | None:
    """Read the head of a log from its first lines; None if it is no Zeek log."""
    separator, names, spaced = "\t", None, False
    nulls = ["-", "(empty)"]
    count = 0

    for line in lines[:MOST_COMMENTS]:
        if not line.startswith("#"):
            break
        count += 1
        if line.startswith("#separator"):
            separator = _separator(line) or separator
            continue

        key, *values = line.split(separator)
        if key in ("#unset_field", "#empty_field") and values:
            nulls.append(values[0])
        elif key == "#fields" and values:
            spaced = SPACES.search(values[-1]) is not None
            names = [*values[:-1], *SPACES.split(values[-1])]

    if names is None:
        return None
    return ZeekHead(tuple(names), separator, tuple(dict.fromkeys(nulls)), count, spaced)


def _separator(line: str) -> str | None:
    r"""Read the separator, written as \x09; None if it is not a single character."""
    text = line.removeprefix("#separator").strip(" ")
    found = re.fullmatch(r"\\x([0-9a-fA-F]{2})", text)
    if found:
        return chr(int(found.group(1), 16))
    return text if len(text) == 1 else None


def is_other_head(line: str, names: Sequence[str], separator: str) -> bool:
    """Return whether a comment among the rows declares other columns than the head does."""
    key, *values = line.rstrip("\r\n").split(separator)
    return key == "#fields" and SPACES.sub("\t", "\t".join(values)).split("\t") != list(names)


class TabsForSpaces:
    """A stream in which tabs replace runs of three or more spaces."""

    closed = False

    def __init__(self, source: Any) -> None:
        self._source = source
        self._rest = b""

    def read(self, size: int) -> bytes:
        """Read whole lines of about `size` bytes; nothing at the end."""
        while True:
            new = self._source.read(size)
            content = self._rest + new
            cut = content.rfind(b"\n") + 1 if new else len(content)

            if cut or not new:
                self._rest = content[cut:]
                return SEPARATED.sub(b"\t", content[:cut])
            self._rest = content

    def close(self) -> None:
        """Do nothing: whoever opened the source closes it."""

"""Mutated tables: an error of the project or a reading, in bounded memory.

COLLABDM_MUTATIONS sets the number of files of each form.
"""

import gzip
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from traffic import row, tiny_schema, write_csv

from collabdm.data.flows.draft import draft
from collabdm.data.flows.tables import Reading, read_flows
from collabdm.errors import CollabDMError

FILES = int(os.environ.get("COLLABDM_MUTATIONS", "150"))
DRAFTED = 10  # every so many files are drafted, too
MOST_GROWTH = 300 * 2**20  # bytes

ROWS = [row(i, "bad" if i % 3 == 0 else "ok") for i in range(40)]
SPICE = (
    *(b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\x96", b"\r", b"\n", b'"', b",", b";", b"\t", b"|"),
    *(b"{", b"[", b"}", b"#fields\t", b"#close", b"-", b"nan", b"1e999", b"\xed\xa0\x80", b"PAR1"),
    *(b"PK\x03\x04", b"\x1f\x8b", b"BZh9", b"\xfd7zXZ\x00", b"sep=;\n", b" " * 3, b"\\x09"),
)


def forms(folder: Path) -> dict[str, bytes]:
    """A valid table of each form."""
    csv = write_csv(folder / "whole.csv", ROWS).read_bytes()
    zeek = b"#separator \\x09\n#unset_field\t-\n#fields\t" + csv.replace(b",", b"\t")
    lines = "\n".join(json.dumps(r) for r in ROWS).encode()
    return {"csv": csv, "zeek": zeek, "json": lines, "gz": gzip.compress(csv, mtime=0)}


def mutated(content: bytes, draw: np.random.Generator) -> bytes:
    """Change, insert, delete or repeat some bytes."""
    data = bytearray(content)
    for _ in range(draw.integers(1, 6)):
        at = int(draw.integers(0, len(data) + 1)) if draw.random() < 0.7 else int(draw.integers(9))
        length = int(draw.integers(0, 30))
        kind = draw.integers(0, 5)
        if kind == 0 and at < len(data):
            data[at] = draw.integers(0, 256)
        elif kind == 1:
            data[at:at] = SPICE[draw.integers(len(SPICE))]
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length] * int(draw.integers(1, 50))
        else:
            data[at : at + length] = draw.bytes(length)
    return bytes(data)


def peak() -> int:
    """The most memory that this process has used, in bytes."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(found.group(1)) if found else 0


@pytest.mark.parametrize("form", ["csv", "zeek", "json", "gz"])
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_mutated_table_is_read_or_refused_in_bounded_memory(tmp_path, form: str) -> None:
    content = forms(tmp_path)[form]
    draw = np.random.default_rng(len(form))
    path = tmp_path / f"table.{form}"
    path.write_bytes(content)
    assert len(read_flows(path, tiny_schema())[0]) == 40
    draft(path)
    before, refused = peak(), 0

    for number in range(FILES):
        path.write_bytes(mutated(content, draw))
        try:
            if number % DRAFTED == 0:
                draft(path)
            else:
                read_flows(path, tiny_schema(), Reading(labelled=number % 2 == 0))
        except CollabDMError:
            refused += 1

    assert 0 < refused < FILES
    assert peak() - before < MOST_GROWTH

"""Recognise pages that this program wrote, so that no other file is overwritten.

A page names its kind in its head: `round` (one round), `rounds` (several) or `grids`. A page is
only replaced by one of its own kind. Pages of versions before this mark count as of any kind but
`rounds`.
"""

import re
from pathlib import Path

from collabdm.documents.atomic_write import check_writable
from collabdm.documents.regular_file import read_regular
from collabdm.errors import OutputError

MARK = re.compile(rb'<meta name="generator" content="collabdm report: (\w+)">')
OLD_MARK = b'<dialog aria-label="One image, large">'

KINDS = {"round": "of one round", "rounds": "of several rounds", "grids": "of `reproduce`"}

SEVERAL = Path("comparison.html")  # in the current folder: the page of several rounds


def check_page(path: Path, kind: str) -> None:
    """Check that a page can be written.

    Raises:
        OutputError: The path cannot be written, or is a file other than a page of this kind.
    """
    check_writable(path)
    if not path.exists():
        return

    try:
        content = read_regular(path)
    except OSError as error:
        raise OutputError(f"{path} should be new or a readable page; {error}") from error

    found = MARK.search(content[:4096])
    if found is not None and found[1].decode() == kind:
        return
    if found is None and OLD_MARK in content and kind != "rounds":
        return

    other = KINDS.get(found[1].decode()) if found is not None else None
    described = f"a page {other}" if other else "another file"
    raise OutputError(
        f"{path} should be new or a page {KINDS[kind]}; found {described}: "
        "name another file with `-o`"
    )

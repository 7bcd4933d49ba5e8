"""Read the names of the columns of tables without a line of column names."""

import csv
from pathlib import Path

from collabdm.data.flows.dialect import plain
from collabdm.documents.regular_file import SMALL, read_regular
from collabdm.errors import DataError


def names_of(text: str) -> tuple[str, ...]:
    """Read the names a,b,c, or a file with them. Raises DataError if it cannot be read.

    The file contains one line, one name a line, or a table of features with a column `Name`.
    """
    if not Path(text).is_file():
        return tuple(plain(name) for name in next(csv.reader([text]), []))
    try:
        content = read_regular(Path(text), SMALL)
    except OSError as error:
        raise DataError(f"{text} should be a file of column names; found {error}") from error

    try:
        decoded = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        decoded = content.decode("cp1252", "replace")
    rows = [row for row in csv.reader(decoded.splitlines()) if any(cell.strip() for cell in row)]
    if len(rows) <= 1:
        return tuple(plain(cell) for row in rows for cell in row)

    headings = [plain(cell).lower() for cell in rows[0]]
    if len(headings) > 1 and "name" in headings:
        place = headings.index("name")
        return tuple(plain(row[place]) for row in rows[1:] if len(row) > place)
    return tuple(plain(row[0]) for row in rows)

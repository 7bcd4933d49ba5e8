"""Open a table, compressed or not, as a stream of bytes.

The first bytes decide, and not the name: gzip, bzip2, xz, zstd, and a zip archive of one table. A
stream is never expanded as a whole, so that memory does not depend on the size of the table.
"""

import io
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collabdm.data.flows.several import TABLE_ENDING, is_hidden
from collabdm.documents.regular_file import check_regular
from collabdm.errors import DataError

#: the first bytes of compressed files, and Arrow's name of the compression
CODECS = ((b"\x1f\x8b", "gzip"), (b"BZh", "bz2"), (b"\x28\xb5\x2f\xfd", "zstd"))
XZ, ZIP = b"\xfd7zXZ\x00", b"PK\x03\x04"

#: the first bytes of other files that people take for tables, and what to do with them
OTHER_FILES = (
    (b"\xd4\xc3\xb2\xa1", "a capture of packets", "make flows of it, for instance with Zeek"),
    (b"\xa1\xb2\xc3\xd4", "a capture of packets", "make flows of it, for instance with Zeek"),
    (b"\x0a\x0d\x0d\x0a", "a capture of packets", "make flows of it, for instance with Zeek"),
    (b"\xd0\xcf\x11\xe0", "an Excel workbook", "save its sheet as CSV"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (b"Rar!", "a rar archive", "unpack it"),
    (b"\x89HDF", "an HDF5 file", "save its table as CSV or parquet"),
    (b"ARROW1", "an Arrow file", "save its table as parquet"),
    (b"@relatio", "an ARFF file", "save its rows as CSV, with a line of column names"),
    (b"@RELATIO", "an ARFF file", "save its rows as CSV, with a line of column names"),
)

MOST_MEMBERS = 8  # shown of an archive

#: the errors of damaged files
DAMAGED = (
    *(OSError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    *(RuntimeError, NotImplementedError),  # encrypted, or compressed by an unknown method
)


@dataclass(frozen=True)
class Stream:
    """The bytes of a table: Arrow's input stream, and the file from which it reads."""

    source: Any
    raw: Any
    size: int

    @property
    def position(self) -> int:
        """The bytes of the file that have been read."""
        return min(int(self.raw.tell()), self.size)


@contextmanager
def open_table(path: Path) -> Iterator[Stream]:
    """Open a table. Raises DataError if it cannot be read, within the `with` block too."""
    import pyarrow as pa  # here and below, so that the command line starts fast

    try:
        size = check_regular(path)
        with ExitStack() as stack:
            raw = stack.enter_context(pa.OSFile(str(path)))
            first = raw.read(8)
            raw.seek(0)
            _check_kind(path, first)
            yield Stream(_expanded(path, raw, first, stack), raw, size)
    except (*DAMAGED, pa.ArrowException) as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: object) -> DataError:
    """Return the error about a table that cannot be read."""
    return DataError(f"{path} should be a whole table; it cannot be read ({error})")


def _check_kind(path: Path, first: bytes) -> None:
    for start, kind, remedy in OTHER_FILES:
        if first.startswith(start):
            raise DataError(f"{path} should be a table of flows; found {kind}: {remedy}")


def _expanded(path: Path, raw: Any, first: bytes, stack: ExitStack) -> Any:
    """Return the stream of the uncompressed bytes. Raises DataError, or one of DAMAGED."""
    import pyarrow as pa

    for start, codec in CODECS:
        if first.startswith(start):
            return stack.enter_context(pa.CompressedInputStream(raw, codec))

    if first.startswith(XZ):
        return pa.PythonFile(io.BufferedReader(lzma.LZMAFile(raw)), "r")
    if first.startswith(ZIP):
        archive = stack.enter_context(zipfile.ZipFile(raw))
        member = stack.enter_context(archive.open(_member(path, archive)))
        return pa.PythonFile(member, "r")
    return raw


def _member(path: Path, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    """Find the only table of an archive. Raises DataError if there is another number of them."""
    files = [i for i in archive.infolist() if not i.is_dir() and not is_hidden(i.filename)]
    tables = [i for i in files if TABLE_ENDING.search(i.filename)] or files

    if any(i.filename.startswith("xl/") for i in files):
        raise DataError(f"{path} should be a table; found an Excel workbook: save its sheet as CSV")
    if len(tables) != 1:
        names = ", ".join(i.filename for i in tables[:MOST_MEMBERS])
        more = f" and {len(tables) - MOST_MEMBERS} more" if len(tables) > MOST_MEMBERS else ""
        raise DataError(
            f"{path} should contain one table; found {len(tables)}: {names}{more}: unpack it, and "
            "name the folder or the files"
        )
    return tables[0]

"""Read what arrives at standard input, or is appended to a file, in blocks of bytes.

A block is what is there when the reader comes back, gathered for at most `GATHER_SECONDS` and
`BLOCK` bytes, so few rows do not wait for more, and many are read together. The memory is bounded
by the block: a faster writer waits.

Reference: IEEE Std 1003.1, `tail -f` (a file that grows), `select`.
"""

import os
import select
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from collabdm.documents.regular_file import check_regular
from collabdm.errors import DataError

BLOCK = 2**20  # bytes
GATHER_SECONDS = 0.05
POLL_SECONDS = 0.2  # between two looks at a file, or at a request to stop

Stop = Callable[[], bool]


def piped(source: int, stop: Stop) -> Iterator[bytes]:
    """Yield the blocks of a pipe or file until its end.

    Args:
        source: the file descriptor.
        stop: whether to end before; it is asked at least every `POLL_SECONDS`.
    """
    while not stop():
        if not _is_ready(source, POLL_SECONDS):
            continue

        parts, size = [os.read(source, BLOCK)], 0
        until = time.monotonic() + GATHER_SECONDS
        while parts[-1] and (size := size + len(parts[-1])) < BLOCK:
            left = until - time.monotonic()
            if left <= 0 or not _is_ready(source, left):
                break
            parts.append(os.read(source, BLOCK - size))

        if size:
            yield b"".join(parts)
        if not parts[-1]:
            return


def appended(path: Path, stop: Stop) -> Iterator[bytes]:
    """Yield the blocks of a file, and then of all that is appended to it.

    Args:
        path: the file.
        stop: whether to end; it is asked at least every `POLL_SECONDS`.

    Raises:
        DataError: the file cannot be read, or it was shortened, replaced or removed.
    """
    try:
        check_regular(path)
        with path.open("rb", buffering=0) as file:
            while not stop():
                block = file.read(BLOCK)
                if block:
                    yield block
                    continue
                _check_same(path, os.fstat(file.fileno()), file.tell())
                time.sleep(POLL_SECONDS)
    except OSError as error:
        raise DataError(f"{path} should be a file that can be followed; found {error}") from error


def _check_same(path: Path, opened: os.stat_result, position: int) -> None:
    """Check that a path still leads to the opened file, of at least the size that was read."""
    try:
        found: os.stat_result | None = path.stat()
    except FileNotFoundError:
        found = None

    change = None
    if found is None:
        change = "removed"
    elif not os.path.samestat(found, opened):
        change = "replaced"
    elif found.st_size < position:
        change = "shortened"
    if change is not None:
        raise DataError(
            f"{path} should only grow while it is followed; it was {change}: start the command "
            "again for the new file; the verdicts so far are kept"
        )


def _is_ready(source: int, seconds: float) -> bool:
    """Wait until a read would not block; a regular file never does."""
    if stat.S_ISREG(os.fstat(source).st_mode):
        return True
    ready, _, _ = select.select([source], [], [], seconds)
    return bool(ready)

"""Read regular files only: a FIFO would wait for ever, and a device may never end.

Both functions raise OSError, as opening a file does, so that a caller handles all faults alike.
"""

import errno
import stat
from pathlib import Path

SPECIAL_KINDS = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISCHR, "a character device"),
)

SMALL, LARGE = 4 * 2**20, 2**30  # bytes: of settings and schemas, and of pictures and results


def check_regular(path: Path) -> int:
    """Return the size of a file.

    Raises:
        OSError: the file does not exist, or is a FIFO, a socket or a device.
    """
    status = path.stat()
    kinds = [kind for is_kind, kind in SPECIAL_KINDS if is_kind(status.st_mode)]
    if kinds:
        raise OSError(errno.EINVAL, f"it is {kinds[0]}, not a regular file")
    return status.st_size


def read_regular(path: Path, limit: int = LARGE) -> bytes:
    """Read a regular file of at most `limit` bytes.

    Raises:
        OSError: as for `check_regular`, or the file is larger, grows meanwhile, or cannot be read.
    """
    size = check_regular(path)
    if size > limit:
        raise OSError(errno.EFBIG, f"it has {size:,} bytes, more than {limit:,}")

    with path.open("rb") as file:
        content = file.read(size + 1)
    if len(content) > size:
        raise OSError(errno.EFBIG, "it grew while it was read")
    return content

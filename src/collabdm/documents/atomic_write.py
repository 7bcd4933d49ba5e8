"""Write files atomically: write a temporary file, then rename it.

A reader never finds an incomplete file, and a failed write leaves the old file unchanged:

1. Resolve symbolic links, and reject a target that exists but is not a regular file.
2. Write a new temporary file in the target's folder and flush it to the disk.
3. Rename it to the target.

A process that is killed leaves its temporary file; the next write to the same target removes it.

The process's umask determines the mode of the file, as usual. A private file, which may reveal a
site's data, is readable only by its owner.

Reference: IEEE Std 1003.1, `rename`: a rename within one file system is atomic.
"""

import errno
import glob
import io
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from collabdm.documents.regular_file import SPECIAL_KINDS
from collabdm.errors import OutputError

FILE_MODE = 0o666  # the umask removes permissions from it
PRIVATE_MODE = 0o600

STALE_SECONDS = 60.0  # a temporary file that is being written changes more often

_NOT_FILES = ((stat.S_ISDIR, "a folder"), *SPECIAL_KINDS)


def atomic_write(path: Path, content: bytes, *, private: bool = False) -> None:
    """Write bytes to a file, atomically.

    Args:
        path: The file to create or to replace. Missing folders are created.
        content: The whole content of the file.
        private: Make the file readable only by its owner, regardless of the umask.

    Raises:
        OutputError: The file cannot be written, or the path exists and is not a regular file. No
            temporary file is left behind.
    """
    atomic_write_with(path, lambda file: file.write(content), private=private)


def write_once(path: Path, content: bytes) -> bool:
    """Write a private file that never replaces another one: readers find all of it, or none.

    Args:
        path: The file to create. Missing folders are created.
        content: The whole content of the file.

    Returns:
        Whether the file was created; False if it exists already, and is left unchanged.

    Raises:
        OutputError: The file cannot be written.
    """
    with _output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = _create_beside(path, PRIVATE_MODE)

        try:
            with file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())

            os.link(file.name, path)  # fails if the path exists, unlike a rename
        except FileExistsError:
            return False
        finally:
            Path(file.name).unlink(missing_ok=True)
    return True


def atomic_write_with(
    path: Path, fill: Callable[[io.BufferedWriter], object], *, private: bool = False
) -> None:
    """Write a file atomically, with a function that writes the content.

    Args:
        path: The file to create or to replace. Missing folders are created.
        fill: A function that writes the content to the open temporary file.
        private: Make the file readable only by its owner, regardless of the umask.

    Raises:
        OutputError: As for `atomic_write`.
    """
    with _output_errors(path):
        target = _target_of(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        file = _create_beside(target, PRIVATE_MODE if private else FILE_MODE)
        _remove_stale(target, Path(file.name))

        try:
            with file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())

            os.replace(file.name, target)
        finally:
            Path(file.name).unlink(missing_ok=True)  # already gone after the rename


def check_writable(path: Path) -> None:
    """Check that a file can be written, before its content is computed, and change nothing.

    Raises OutputError.
    """
    if path.is_dir():
        raise OutputError(f"{path} should be a file to write; found a folder: name a file in it")

    with _output_errors(path):
        target = _target_of(path)
        missing = [folder for folder in target.parents if not folder.exists()]  # innermost first

        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            file = _create_beside(target, PRIVATE_MODE)
            file.close()
            Path(file.name).unlink()
        finally:
            for folder in missing:
                with suppress(OSError):  # not created, or used by another program meanwhile
                    folder.rmdir()


def _target_of(path: Path) -> Path:
    """Resolve the symbolic links of a path. Raises OutputError or OSError."""
    target = Path(os.path.realpath(path))
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return target

    kinds = [kind for is_kind, kind in _NOT_FILES if is_kind(mode)]
    if kinds:
        raise OutputError(_message(path, f"it is {kinds[0]}, not a regular file"))

    return target


def _create_beside(target: Path, mode: int) -> io.BufferedWriter:
    """Create a temporary file in the folder of `target`, under a name that is not in use."""

    def create(path: str, flags: int) -> int:
        return os.open(path, flags, mode)  # `open` and `mkstemp` have no mode of their own

    number = 0
    while True:
        temporary = target.with_name(f"{_part_prefix(target)}{os.getpid()}.{number}.part")
        try:
            return open(temporary, "xb", opener=create)  # the caller closes it
        except FileExistsError:
            number += 1


def _part_prefix(target: Path) -> str:
    return f".{target.name[:32]}."


def _remove_stale(target: Path, own: Path) -> None:
    """Remove temporary files of this target that killed processes have left.

    A file is stale if no process has its number here, and if it has not changed for
    `STALE_SECONDS` before `own` was created: a process of another machine may write it.
    """
    created = own.stat().st_mtime
    for part in target.parent.glob(f"{glob.escape(_part_prefix(target))}*.part"):
        number = part.name.removeprefix(_part_prefix(target)).partition(".")[0]
        with suppress(OSError):
            if part.stat().st_mtime < created - STALE_SECONDS and not _runs(number):
                part.unlink()


def _runs(process: str) -> bool:
    """Whether a process with this number exists here."""
    if os.name != "posix" or not process.isdecimal():
        return True  # not known: on other systems, or in another program's file
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


@contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    """Turn an OSError into an OutputError that names the path and the reason."""
    try:
        yield
    except OSError as error:
        full = error.errno == errno.ENOSPC
        reason = "the disk is full" if full else error.strerror or str(error)
        raise OutputError(_message(path, reason)) from error


def _message(path: Path, reason: str) -> str:
    return f"{path} should be writable; {reason}: choose another place for the output"

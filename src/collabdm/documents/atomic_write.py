"""A file is written whole or not at all: beside its place, then moved there."""

import errno
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from collabdm.errors import OutputError


def atomic_write(path: Path, content: bytes) -> None:
    """Write bytes to `path`. Raises OutputError where it cannot be written; no part is left behind."""
    atomic_write_with(path, lambda file: file.write(content))


def atomic_write_with(path: Path, fill: Callable[[io.BufferedWriter], object]) -> None:
    """Let `fill` write a file beside `path`, flush it to the disk, and move it there."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name[:64]}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
        temporary = None
    except OSError as error:
        reason = "the disk is full" if error.errno == errno.ENOSPC else error.strerror
        raise OutputError(f"{path} should be writable; {reason}: choose another place for the output") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def check_writable(path: Path) -> None:
    """Refuse a place that cannot be written, before any work is done for it. Raises OutputError."""
    if path.is_dir():
        raise OutputError(f"{path} should be a file to write; found a folder: name a file in it")
    new_folders = [folder for folder in path.parents if not folder.exists()]  # innermost first
    trial = path.parent / f".{path.name[:64]}.{os.getpid()}.part"
    try:
        atomic_write(trial, b"")
        trial.unlink()
    except OutputError as error:
        raise OutputError(str(error).replace(str(trial), str(path))) from error
    finally:
        for folder in filter(Path.is_dir, new_folders):
            folder.rmdir()

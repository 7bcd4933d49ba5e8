"""Keep compiled code in a folder that only this user can write.

PyTorch loads compiled code, and data that it unpickles, from its cache, by default in the shared
temporary folder, where another user may have created it first.
"""

import os
import stat
import tempfile
from functools import cache
from pathlib import Path

import platformdirs

FOLDER_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"  # PyTorch reads it; a setting of the user is kept


def use_private_folder() -> None:
    """Choose the folder of compiled code, unless the environment names one."""
    if FOLDER_VARIABLE not in os.environ:
        os.environ[FOLDER_VARIABLE] = str(_usable(_user_folder()) or Path(_temporary().name))


def _user_folder() -> Path | None:
    """Return the folder in COLLABDM_CACHE or the user's cache folder; None without a home."""
    if named := os.environ.get("COLLABDM_CACHE"):
        return Path(named).absolute() / "compiled"
    try:
        folder = platformdirs.user_cache_path("collabdm", appauthor=False) / "compiled"
    except RuntimeError:  # older versions return a relative path instead
        return None
    return folder if folder.is_absolute() else None


def _usable(folder: Path | None) -> Path | None:
    """Create a folder if necessary; None if another user owns it or can write to it."""
    if folder is None:
        return None
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.lstat()
    except OSError:
        return None

    others_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    own = not hasattr(os, "getuid") or status.st_uid == os.getuid()
    private = stat.S_ISDIR(status.st_mode) and own and not others_write
    return folder if private and os.access(folder, os.W_OK) else None


@cache
def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="collabdm-compiled-")  # removed when Python ends

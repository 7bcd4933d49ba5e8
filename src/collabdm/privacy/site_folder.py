"""The private folder of a site: its keys, its secret, and the ledger of what it has released.

It is `collabdm` in the user's data folder, or the folder that COLLABDM_SITE_FOLDER names; only the
user may read it.
"""

import os
from pathlib import Path

from platformdirs import user_data_path

from collabdm.errors import OutputError

FOLDER_VARIABLE = "COLLABDM_SITE_FOLDER"


def site_folder() -> Path:
    """Return the site's private folder, and create it if necessary. Raises OutputError."""
    named = os.environ.get(FOLDER_VARIABLE)
    folder = Path(named) if named else user_data_path("collabdm")

    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{folder} should be a folder that this user may write; {error.strerror}: name another "
            f"one in {FOLDER_VARIABLE}"
        ) from error
    return folder

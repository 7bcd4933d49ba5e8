"""Write the folder of the app that `flwr run` takes.

The folder contains only settings: the app's two programs are in this package, which is installed on
every machine. Flower itself is not needed to write it.
"""

from importlib.resources import files
from pathlib import Path

from collabdm.documents.atomic_write import atomic_write
from collabdm.errors import OutputError

SETTINGS = "pyproject.toml"  # the name that Flower expects


def write_app(folder: Path) -> Path:
    """Write the app into a new folder.

    Args:
        folder: the folder to create, with those above it.

    Returns:
        The file of the app's settings.

    Raises:
        OutputError: the folder exists, or cannot be created.
    """
    try:
        folder.mkdir(parents=True)
    except FileExistsError as error:
        raise OutputError(
            f"{folder} should be a new folder; found one that exists: choose another name, or "
            "remove it"
        ) from error
    except OSError as error:
        raise OutputError(
            f"{folder} should be a folder to create; {error.strerror}: choose another place"
        ) from error

    content = files("collabdm.flower").joinpath("app.toml").read_bytes()
    atomic_write(folder / SETTINGS, content)
    return folder / SETTINGS

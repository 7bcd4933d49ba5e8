"""The version of the package and of what it computes with; the documents have versions of their own."""

import platform
from importlib.metadata import version

__version__ = "0.1.0"


def versions() -> dict[str, str]:
    """Versions that stand in every document, so that a difference can be traced."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"collabdm": __version__, "python": python, "torch": version("torch"), "numpy": version("numpy")}

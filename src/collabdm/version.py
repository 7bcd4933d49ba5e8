"""The version of the package, and of the software that it computes with.

The documents have versions of their own.
"""

import platform
from importlib.metadata import version

__version__ = "0.1.0"


def versions() -> dict[str, str]:
    """The versions recorded in every document, to trace differences."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {
        "collabdm": __version__,
        "python": python,
        "torch": version("torch"),
        "numpy": version("numpy"),
    }

"""The versions of the package and of the software that it computes with.

The formats of the documents have versions of their own.
"""

__version__ = "0.1.0"


def versions() -> dict[str, str]:
    """Return the versions that every document records, so that differences can be traced."""
    import platform
    from importlib.metadata import version  # here, since it delays the command line

    python = ".".join(platform.python_version_tuple()[:2])
    return {
        "collabdm": __version__,
        "python": python,
        "torch": version("torch"),
        "numpy": version("numpy"),
    }

"""The version of the package, and of the software that it computes with.

The documents have versions of their own.
"""

__version__ = "0.1.0"


def versions() -> dict[str, str]:
    """The versions recorded in every document, to trace differences."""
    import platform
    from importlib.metadata import version  # here, since its imports delay the command line

    python = ".".join(platform.python_version_tuple()[:2])
    return {
        "collabdm": __version__,
        "python": python,
        "torch": version("torch"),
        "numpy": version("numpy"),
    }

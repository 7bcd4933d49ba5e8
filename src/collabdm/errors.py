"""The errors of the package. Messages state what was expected, what was found, and a remedy."""

import difflib
from collections.abc import Iterable


class CollabDMError(ValueError):
    """The base class of all errors that the package raises on purpose."""


class PlanError(CollabDMError):
    """A Plan cannot be carried out, or a setting is invalid."""


class DocumentError(CollabDMError):
    """A file is damaged, or is not the document that was expected."""


class DataError(CollabDMError):
    """A data set cannot be read, or does not fit the Plan."""


class ProbeError(CollabDMError):
    """This machine does not compute the same numbers as the Plan's author did."""


class OutputError(CollabDMError):
    """A file or folder cannot be written."""


def did_you_mean(text: str, names: Iterable[str]) -> str:
    """Suggest the nearest of several names, as the end of a message; empty if none is near.

    >>> did_you_mean("papr", ["paper", "short"])
    ': did you mean paper?'
    """
    nearest = difflib.get_close_matches(text, names, 1)
    return f": did you mean {nearest[0]}?" if nearest else ""

"""The errors of the package: the expected value, the value found, and what to do."""

import difflib
from collections.abc import Iterable


class CollabDMError(ValueError):
    """The base of all errors that the package raises on purpose."""


class PlanError(CollabDMError):
    """A Plan, or one of its settings, cannot be carried out."""


class DocumentError(CollabDMError):
    """A file is not the document that it should be."""


class DataError(CollabDMError):
    """A data set cannot be read, or does not fit the Plan."""


class ProbeError(CollabDMError):
    """This machine computes other numbers than the Plan's author did."""


class OutputError(CollabDMError):
    """A file or folder cannot be written."""


def did_you_mean(text: str, names: Iterable[str]) -> str:
    """The end of a message: a question with the nearest of several names; empty if none is near.

    >>> did_you_mean("papr", ["paper", "short"])
    ': did you mean paper?'
    """
    nearest = difflib.get_close_matches(text, names, 1)
    return f": did you mean {nearest[0]}?" if nearest else ""

"""The errors of the package. Messages state what was expected, what was found, and a remedy.

A message may quote a foreign file: a name, a key or a value that anybody has written. It is made
printable and of a sensible length here, so that no file can control a terminal or fill a log.
"""

import difflib
import unicodedata
from collections.abc import Iterable

#: the categories of Unicode with an effect instead of a shape; joiners are part of some scripts
CONTROLS = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
JOINERS = "\u200c\u200d"

MOST_CHARACTERS, MOST_LINES = 2000, 100  # of a line, and of a message


def printable(text: str, keep: str = "") -> str:
    r"""Replace the control characters of foreign text by their escapes, as in a Python string.

    Controls of the terminal, of the direction of text and of lines are replaced, and halves of
    surrogate pairs, which cannot be encoded. The characters in `keep` stay as they are.

    >>> printable("a\x1b[31mb\nc"), printable("a\nb", keep="\n")
    ('a\\x1b[31mb\\nc', 'a\nb')
    """
    if text.isprintable():
        return text
    return "".join(
        character if character in keep or not _has_an_effect(character) else _escape(character)
        for character in text
    )


def _has_an_effect(character: str) -> bool:
    return unicodedata.category(character) in CONTROLS and character not in JOINERS


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def shortened(message: str) -> str:
    """Limit a message to `MOST_LINES` lines of `MOST_CHARACTERS` characters each.

    >>> len(shortened("x" * 10**6)) < 2100
    True
    """
    lines = message.split("\n", MOST_LINES)
    if len(lines) > MOST_LINES:
        lines[-1] = f"… and {lines[-1].count(chr(10)) + 1:,} more lines"
    return "\n".join(map(_shortened_line, lines))


def _shortened_line(line: str) -> str:
    """Shorten a long line in the middle, because the remedy is at its end."""
    if len(line) <= MOST_CHARACTERS:
        return line
    half = MOST_CHARACTERS // 2
    left_out = len(line) - 2 * half
    return f"{line[:half]} … ({left_out:,} characters left out) … {line[-half:]}"


class CollabDMError(ValueError):
    """The base class of all errors that the package raises on purpose; its message is printable."""

    def __init__(self, message: str = "") -> None:
        super().__init__(printable(shortened(message), keep="\n"))


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


def machine_error(error: OSError | MemoryError) -> str:
    """Write the message about a failure of the machine that no command expects."""
    if isinstance(error, MemoryError):
        return "there should be enough memory for this command; found too little: close programs"
    place = f"{error.filename} " if error.filename else ""
    return f"{place}could not be used: {error.strerror or error}".strip()


def did_you_mean(text: str, names: Iterable[str]) -> str:
    """Suggest the nearest of several names, as the end of a message; empty if none is near.

    >>> did_you_mean("papr", ["paper", "short"])
    ': did you mean paper?'
    """
    nearest = difflib.get_close_matches(text[:MOST_CHARACTERS], names, 1)
    return f": did you mean {nearest[0]}?" if nearest else ""

"""Set up the log of a command: `--verbose`, `--log-file`, and the colours of messages.

Warnings always go to standard error. `--verbose` adds the steps of the work there; `--log-file`
appends everything to a file, with times. Both options may stand before or after the command.
"""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from collabdm.errors import OutputError, printable

VERBOSE, LOG_FILE = "--verbose", "--log-file"

PROGRESS = "collabdm.progress"

logger = logging.getLogger("collabdm")


class _OneLine(logging.Formatter):
    """Writes a record without control characters, which could come from names in files."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record), keep="\n")


def set_up_logs(verbose: bool, log_file: Path | None) -> None:
    """Send the records of this package to standard error, and to a file if one is named.

    Raises OutputError if the file cannot be written.
    """
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    handlers[0].setLevel(logging.INFO if verbose else logging.WARNING)
    handlers[0].addFilter(lambda record: record.name != PROGRESS)  # shown by `console.Bars`
    handlers[0].setFormatter(_OneLine("%(message)s"))

    if log_file is not None:
        try:
            handlers.append(logging.FileHandler(log_file, encoding="utf-8"))
        except OSError as error:
            raise OutputError(
                f"{log_file} should be a file to write; {error.strerror}: name another one"
            ) from error
        handlers[1].setFormatter(_OneLine("%(asctime)s %(levelname)s %(message)s"))

    for old in list(logger.handlers):
        logger.removeHandler(old)
        old.close()
    for handler in handlers:
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def options_first(arguments: Sequence[str]) -> list[str]:
    """Move the options about logs to the front, so that they may also follow the command.

    >>> options_first(["demo", "--verbose", "-o", "d", "--log-file", "f"])
    ['--verbose', '--log-file', 'f', 'demo', '-o', 'd']
    """
    first, rest = [], []
    words = iter(arguments)
    for word in words:
        if word == "--":
            rest += [word, *words]
        elif word == VERBOSE or word.startswith(f"{LOG_FILE}="):
            first.append(word)
        elif word == LOG_FILE:
            first += [word, *(value for value in [next(words, None)] if value is not None)]
        else:
            rest.append(word)
    return [*first, *rest]


def colour() -> bool | None:
    """Return False if NO_COLOR asks for text without colours; None leaves it to the terminal."""
    return False if os.environ.get("NO_COLOR") else None

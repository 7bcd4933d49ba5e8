"""How to read a source that can be read in several ways: its columns, class names and splits."""

import csv
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from collabdm.documents.picture_rules import PictureRules
from collabdm.documents.regular_file import SMALL, read_regular
from collabdm.errors import DataError


@dataclass(frozen=True)
class Selection:
    """The user's choices about a source, and the rules of the plan.

    Attributes:
        label_column: the column of the labels; None finds it by its usual names.
        image_column: the column of the images; None finds it by its usual names.
        class_names: the names of the label numbers 0, 1, …; None uses those of the source.
        test_split: the split to use as the test split; None uses the one called test.
        skip_unreadable: whether to leave out pictures that cannot be read.
        rules: how pictures become bytes.
    """

    label_column: str | None = None
    image_column: str | None = None
    class_names: tuple[str, ...] | None = None
    test_split: str | None = None
    skip_unreadable: bool = False
    rules: PictureRules = PictureRules()


def read_selection(
    label_column: str | None = None,
    image_column: str | None = None,
    names: str | None = None,
    test_split: str | None = None,
    skip_unreadable: bool = False,
) -> Selection:
    """Collect the choices of an operator, as the command line and a Flower node receive them.

    Args:
        label_column: the column of the labels.
        image_column: the column of the images.
        names: the class names, or a file of them (`class_names`).
        test_split: the split to test on.
        skip_unreadable: whether to leave out pictures that cannot be read.

    Raises:
        DataError: the class names cannot be read.
    """
    read = None if names is None else class_names(names)
    return Selection(label_column, image_column, read, test_split, skip_unreadable)


def class_name(text: str) -> str:
    """Normalise a class name: Unicode's composed form (NFC), without spaces at the ends."""
    return unicodedata.normalize("NFC", text).strip()


def class_names(text: str) -> tuple[str, ...]:
    """Read class names from a file with one name per line, or from a text with commas.

    Names with commas are quoted, as in CSV.

    >>> class_names('cat,"Pepper, bell"')
    ('cat', 'Pepper, bell')

    Raises DataError if the file cannot be read, a name is empty, or a name occurs twice.
    """
    names = _names_in(text)
    if "" in names:
        raise DataError(f"class names should not be empty; found an empty one in {text!r}")
    if repeated := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(
            f"class names should be distinct; found several of {', '.join(repeated)}: if names "
            """contain commas, quote them ('"Pepper, bell","Pepper, dried"'), or name a file """
            "with one name per line"
        )
    return names


def _names_in(text: str) -> tuple[str, ...]:
    """Read the names as `class_names` does, without comparing them."""
    if "," not in text and Path(text).suffix and Path(text).is_file():
        try:
            lines = read_regular(Path(text), SMALL).decode("utf-8-sig").splitlines()
        except (OSError, ValueError) as error:
            raise DataError(
                f"`{text}` should be a UTF-8 text file with one class name per line; "
                f"it cannot be read ({error})"
            ) from error
        return tuple(filter(None, map(class_name, lines)))

    try:
        rows = list(csv.reader([text], skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise DataError(
            f"class names should be separated by commas, and those with commas quoted; found {text}"
        ) from error
    return tuple(class_name(name) for row in rows for name in row)

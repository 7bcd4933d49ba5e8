"""The names of splits, as people write them: Training, TEST, val, validation, dev.

word  ->  train, test, val or eval; the case and the spelling do not matter
"""

import re
from collections.abc import Mapping
from typing import TypeVar

from collabdm.errors import DataError

Files = TypeVar("Files")

SPELLINGS = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "val": ("val", "valid", "validation", "dev"),
    "eval": ("eval", "evaluation"),
}
SPLIT_OF = {word: split for split, words in SPELLINGS.items() for word in words}


def split_of(name: str) -> str | None:
    """Return the split that a name begins with, such as `train-00000-of-00003`; None if none."""
    match = re.match("[a-z]+", name.lower())
    return SPLIT_OF.get(match.group()) if match else None


def choose_split(
    splits: Mapping[str, Files], split: str, test_split: str | None, where: str
) -> Files:
    """Choose one of several splits.

    Args:
        splits: the splits, by the names in the source.
        split: the split to use, in any spelling.
        test_split: the name to use in place of `test`; None uses the one called test.
        where: the name of the source, for errors.

    Returns:
        The chosen split.

    Raises:
        DataError: there is no such split, or there are several spellings of it.
    """
    wanted = split
    if split == "test" and test_split is not None:
        wanted = test_split
        if wanted in splits:
            return splits[wanted]

    canonical = SPLIT_OF.get(wanted.lower(), wanted.lower())
    matching = [name for name in splits if SPLIT_OF.get(name.lower(), name.lower()) == canonical]
    if len(matching) == 1:
        return splits[matching[0]]

    found = ", ".join(sorted(matching or splits)) or "none"
    if matching:
        raise DataError(f"{where} should have one split `{wanted}`; found {found}: rename one")
    advice = ""
    if split == "test" and test_split is None and len(splits) > 1:
        others = [name for name in sorted(splits) if split_of(name) != "train"]
        advice = f": to test on another one, add `--test-split {(others or sorted(splits))[0]}`"
    raise DataError(f"{where} should have a split `{wanted}`; found {found}{advice}")


def need_split(split: str, only: str, selection_split: str | None, where: str) -> None:
    """Check that a source with a single split has the one that is asked for. Raises DataError."""
    choose_split({only: None}, split, selection_split, where)

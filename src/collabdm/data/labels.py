"""Convert the labels of a source to positions in its class names.

whole numbers, 3.0        ->  3        numbers count the class names from 0
text                      ->  the class of that name, in Unicode's composed form
true, false               ->  the classes True and False
"""

import math
import operator
from collections.abc import Sequence
from typing import SupportsIndex, cast

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from collabdm.data.selection import class_name
from collabdm.errors import DataError, did_you_mean

MOST_SHOWN = 8  # the most labels in an error


def number_labels(
    labels: list[object], names: tuple[str, ...] | None, where: str
) -> tuple[Int64[Tensor, " n"], tuple[str, ...]]:
    """Convert labels to positions in the class names.

    Args:
        labels: A whole number, a truth value or a class name for each image.
        names: The class names; None uses the distinct labels, in order.
        where: The name of the source, for errors.

    Returns:
        The positions, and the class names.

    Raises:
        DataError: A label is neither a number nor a name, is negative, or is not among `names`.
    """
    _check_single(labels, where)
    if all(isinstance(label, (bool, np.bool_)) for label in labels):
        if names is None:
            labels = [str(bool(label)) for label in labels]
        else:
            labels = [int(cast(bool, label)) for label in labels]
    if all(isinstance(label, str) for label in labels):
        return _number_texts([class_name(str(label)) for label in labels], names, where)

    numbers = _whole_numbers(labels, where)
    if names is None:
        distinct, numbers = np.unique(numbers, return_inverse=True)
        names = tuple(str(number) for number in distinct)

    if numbers.max() >= len(names):
        raise DataError(
            f"labels of {where} should be in 0 .. {len(names) - 1}; found {numbers.max()}: the "
            f"class names are {', '.join(names[:MOST_SHOWN])}"
        )
    return torch.from_numpy(numbers.astype(np.int64)), names


def _check_single(labels: list[object], where: str) -> None:
    """Check that no label is missing and that each image has one. Raises DataError."""
    missing = sum(
        label is None or (isinstance(label, float) and math.isnan(label)) for label in labels
    )
    if missing:
        raise DataError(
            f"labels of {where} should be whole numbers or names; {missing:,} of {len(labels):,} "
            "images have none: leave out images without a label"
        )
    several = next((x for x in labels if isinstance(x, (list, tuple, dict, set))), None)
    if several is not None:
        raise DataError(
            f"{where} should have one label per image; found {str(several)[:80]}: sets with "
            "several labels per image are not supported; choose a column with one"
        )


def _number_texts(
    labels: list[str], names: tuple[str, ...] | None, where: str
) -> tuple[Int64[Tensor, " n"], tuple[str, ...]]:
    """Convert class names to positions in `names`, or in the sorted distinct labels."""
    names = tuple(sorted(set(labels))) if names is None else names
    positions = {class_name(name): y for y, name in enumerate(names)}

    if unknown := sorted(set(labels) - set(positions)):
        raise DataError(
            f"labels of {where} should be among {list(names)}; found "
            f"{unknown[:MOST_SHOWN]}{did_you_mean(unknown[0], names)}"
        )
    return torch.tensor([positions[label] for label in labels], dtype=torch.int64), names


def _whole_numbers(labels: Sequence[object], where: str) -> np.ndarray:
    """Convert labels to int64 numbers of 0 or more. Raises DataError."""
    try:
        whole = [_whole_number(label) for label in labels]
        numbers = np.array(whole, dtype=np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        kinds = sorted({type(label).__name__ for label in labels})
        raise DataError(
            f"labels of {where} should be whole numbers or names; found {', '.join(kinds)}, such "
            f"as {_odd(labels)}"
        ) from error

    if numbers.min() < 0:
        raise DataError(
            f"labels of {where} should be 0 or more; found {numbers.min()}: "
            "leave out images without a label"
        )
    return numbers


def _whole_number(label: object) -> int:
    """Convert a label to a whole number. Raises TypeError or ValueError."""
    if isinstance(label, (float, np.floating)) and float(label).is_integer():
        return int(label)
    return operator.index(cast(SupportsIndex, label))


def _odd(labels: Sequence[object]) -> str:
    """Return the first label that is not a whole number, as text."""
    for label in labels:
        try:
            _whole_number(label)
        except (TypeError, ValueError):
            return repr(label)[:80]
    return "a number that is too large"

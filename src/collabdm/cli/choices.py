"""The values that options with a fixed list of choices accept; typer shows them in the help.

The values repeat those of the models (Plan, FlowSchema, the registry of methods, ...), because
importing the models takes seconds; a test checks that both lists agree.
"""

import re
from typing import Literal

from collabdm.errors import did_you_mean

Preset = Literal["best", "real", "paper", "fedd3", "dosfl", "dense", "none"]

#: the methods of this package; other packages can add methods, so `--method` accepts any text
METHODS = (
    "collabdm",
    "collabdm-pae",
    "localdm",
    "localdm-pae",
    "central",
    "central-pae",
    "coreset",
    "fedd3",
    "dosfl",
    "dense",
    "rounds-means",
    "rounds-gradients",
    "fedavg",
)

#: the methods that a plan can use: all those that need only one round
PLAN_METHODS = METHODS[:10]

Wire = Literal["float16", "int8", "float32"]

ImageType = Literal["uint8", "float32"]

Init = Literal["real", "noise"]

LocalMethod = Literal["dm", "averages", "random", "none"]

Merging = Literal["weighted", "uniform", "median", "trimmed"]

Recipe = Literal["paper", "short", "strong"]

Fit = Literal["squash", "crop"]

Precision = Literal["auto", "float32", "bfloat16"]

Form = Literal["hub", "folder", "npz", "table", "onnx"]

FlowForm = Literal["images", "rows"]

RowForm = Literal["rows"]

Layout = Literal["packed", "rows"]

Grouping = Literal["class", "stream"]

Split = Literal["time", "random", "none"]

DataSplit = Literal["train", "test"]

Scale = Literal["paper", "cpu"]


def choice_message(option: str, message: str) -> str | None:
    """Reword typer's error about a value that is not a choice, and suggest the nearest choice.

    Returns None if typer's message is about something else.

    >>> choice_message("--wire", "'int' is not one of 'float16', 'int8'.")
    "`--wire` should be float16 or int8; found 'int': did you mean int8?"
    """
    parts = re.fullmatch(
        r"(?:Value error, )?'(.*)' is not one of ((?:'[^']*'(?:, )?)+)\.?", message, re.DOTALL
    )
    if parts is None:
        return None

    value, names = parts[1], re.findall(r"'([^']*)'", parts[2])
    expected = " or ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    return f"`{option}` should be {expected}; found {value!r}{did_you_mean(value, names)}"

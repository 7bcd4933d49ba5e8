"""Convert the options of `plan` and `simulate` to settings of a Plan."""

import re
from collections.abc import Callable, Mapping
from functools import partial, reduce
from typing import Any

from collabdm.documents.specs import OPERATIONS
from collabdm.errors import PlanError
from collabdm.planning.masking import masked_for
from collabdm.planning.settings import Settings, collect, list_of, merge_settings, nested


def without_none(**options: Any) -> Settings:
    """Return the options that were given: those whose value is not None."""
    return {name: value for name, value in options.items() if value is not None}


def whole_number(text: str) -> int | None:
    """Parse a whole number; None if the text is not a whole number.

    >>> whole_number(" -3 "), whole_number("3.5")
    (-3, None)
    """
    return int(text) if re.fullmatch("-?[0-9]{1,18}", text.strip()) else None


def sites(text: str) -> Settings:
    """Parse a number of sites, or their names separated by commas.

    >>> sites("5"), sites("north,south")
    ({'sites': 5, 'site_names': None}, {'sites': 2, 'site_names': ('north', 'south')})
    """
    number = whole_number(text)
    if number is not None:
        return {"sites": number, "site_names": None}
    names = list_of(text)
    return {"sites": len(names), "site_names": names}


def batch(text: str) -> Settings:
    """Parse a batch size, or `all`. Raises PlanError for any other text.

    `all` remains a string, since None would mean that the option was not given.
    """
    size = whole_number(text)
    if text != "all" and (size is None or size < 1):
        raise PlanError(f"`batch` should be a number of at least 1, or all; found {text!r}")
    return {"batch": text if size is None else size}


def sketch(width: int) -> Settings:
    """Set the width of the sketch, a random projection of the class means; 0 means no sketch."""
    return {"sketch": width or "none"}


def pae(enabled: bool) -> Settings:
    """Switch partition-and-expand on or off: each stored image contains 2 x 2 small ones."""
    return {"pae": 2 if enabled else 1}


def augment(text: str) -> Settings:
    """Parse augmentations separated by underscores, or `none`. Raises PlanError if unknown."""
    names = () if text == "none" else tuple(text.split("_"))
    if unknown := sorted(set(names) - set(OPERATIONS)):
        raise PlanError(
            f"`augment` should be among {'_'.join(OPERATIONS)}; found {', '.join(unknown)}"
        )
    return {"augment": names}


#: names of colours for `--ground`
GROUNDS = {"white": "#ffffff", "black": "#000000", "grey": "#808080"}


def ground(text: str) -> Settings:
    """Parse the colour behind transparent pixels: white, black, grey or #rrggbb."""
    return nested("pictures.ground", GROUNDS.get(text.lower(), text.lower()))


#: how to convert each option: a function, or the dotted name of the field that receives the value
OPTIONS: Mapping[str, Callable[[Any], Settings] | str] = {
    "sites": sites,
    "seed": "seed",
    "method": "method",
    "flows": "flows",
    "ipc": "ipc",
    "steps": "steps",
    "batch": batch,
    "fraction": "fraction",
    "sketch": sketch,
    "wire": "wire",
    "images": "images",
    "pae": pae,
    "init": "local.start",
    "local": "local.method",
    "local_steps": "local.steps",
    "local_images": "local.images",
    "average_of": "local.average_of",
    "passes": "refinement.passes",
    "merging": "merging",
    "largest_class": "largest_class",
    "augment": augment,
    "ground": ground,
    "range": "pictures.range",
    "fit": "pictures.fit",
    "network": "network",
    "masked_for": masked_for,
    "threshold": "masking.threshold",
    "epsilon": "privacy.epsilon",
    "delta": "privacy.delta",
    "clip": "privacy.clip",
}


def option_settings(options: Mapping[str, Any]) -> Settings:
    """Convert the options of a command to settings of a Plan; other options are ignored.

    Raises PlanError; the message names every option with an invalid value.
    """
    readings = []
    for name, value in options.items():
        if name in OPTIONS and value is not None:
            conversion = OPTIONS[name]
            convert = partial(nested, conversion) if isinstance(conversion, str) else conversion
            readings.append(partial(convert, value))
    return reduce(merge_settings, collect(*readings), {})

"""Read grids from TOML files.

A file describes a grid (see `grids`) at two scales: keys below `[paper]` or `[cpu]` apply to that
scale only, and `shared` names a file of settings that several grids have in common. `chosen`
selects lines, and `published` names the file of the paper's numbers.
"""

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from collabdm.documents.frozen_model import validation_message
from collabdm.errors import PlanError
from collabdm.lab.reproduce.grids import Grid, Published
from collabdm.planning.settings import Settings, merge_settings, read_toml

SCALES = ("paper", "cpu")


def read_grid(path: Path, scale: str) -> Grid:
    """Read a grid at one scale. The values of axes that the scale sets to false are omitted.

    Raises:
        PlanError: A file cannot be read, or a setting is wrong.
    """
    if scale not in SCALES:
        raise PlanError(f"`--scale` should be one of {', '.join(SCALES)}; found {scale!r}")

    settings = _at_scale(_with_shared(path), scale)
    published = settings.pop("published", None)
    settings = _with_chosen_lines(settings, path)
    dropped = _drop_values(settings)

    if published is not None:
        numbers = read_published(path.parent / published, path.stem)
        settings["paper"] = tuple(
            number
            for number in numbers
            if not any(number.at.get(axis) == value for axis, value in dropped)
        )

    try:
        return Grid(**settings | {"name": path.stem, "scale": scale})
    except ValidationError as error:
        raise PlanError(f"{path}: {validation_message(error)}") from error


def _with_shared(path: Path) -> Settings:
    settings = read_toml(path)
    shared = settings.pop("shared", None)
    return (
        settings if shared is None else merge_settings(_with_shared(path.parent / shared), settings)
    )


def _at_scale(settings: Settings, scale: str) -> Settings:
    own = settings.get(scale, {})
    common = {key: value for key, value in settings.items() if key not in SCALES}
    return merge_settings(common, own)


def _with_chosen_lines(settings: Settings, path: Path) -> Settings:
    lines = settings.get("lines", {})
    chosen = settings.get("chosen", list(lines))
    if unknown := [name for name in chosen if name not in lines]:
        raise PlanError(
            f"{path}: `chosen` should be among {', '.join(lines)}; found {', '.join(unknown)}"
        )

    rest = {key: value for key, value in settings.items() if key != "chosen"}
    return {"rows": tuple(chosen)} | rest | {"lines": {name: lines[name] for name in chosen}}


def _drop_values(settings: Settings) -> list[tuple[str, str]]:
    """Remove the values of axes that are set to false; return them, each with its axis."""
    axes = settings.get("axes", {})
    dropped = [(axis, value) for axis, of in axes.items() for value in of if of[value] is False]
    for axis, value in dropped:
        del axes[axis][value]
    return dropped


def read_published(path: Path, name: str) -> tuple[Published, ...]:
    """Read the paper's numbers for one grid.

    If a block lists several accuracies, each of its values on the axes is a list of the same
    length, or one value for all.
    """
    numbers = []

    for block in read_toml(path).get(name, []):
        accuracies = (
            block["accuracy"] if isinstance(block["accuracy"], list) else [block["accuracy"]]
        )
        for i, accuracy in enumerate(accuracies):
            at = {axis: _item(value, i) for axis, value in block.get("at", {}).items()}
            numbers.append(
                Published(
                    place=block["place"],
                    row=block["row"],
                    at=at,
                    accuracy=accuracy,
                    bytes=_item(block.get("bytes"), i),
                )
            )

    return tuple(numbers)


def _item(value: Any, i: int) -> Any:
    return value[i] if isinstance(value, list) else value

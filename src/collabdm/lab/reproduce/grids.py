"""Grids: the cells of one published table or figure.

    cells = lines x values of every axis x seeds
    settings of a cell = of the scale  <  of its values on the axes  <  of its line

Settings further right (`<`) replace those further left. A line is a method with its settings. An
axis, such as `beta`, the data or the split, maps each of its values to settings. A cell is
identified by the digest of its settings: a cell that belongs to two grids runs once, and a line
that sets the split itself, such as the pooled data, has one cell for all columns.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from collabdm.documents.frozen_model import FrozenModel
from collabdm.errors import PlanError
from collabdm.lab.experiment import Experiment
from collabdm.lab.settings import experiment_of
from collabdm.planning.presets import preset_settings
from collabdm.planning.settings import Settings, merge_settings

Choice = dict[str, tuple[str | int, ...]]  # values allowed for `line`, `seed` and the axes


class Published(FrozenModel):
    """A number in the paper, with the row and the values on the axes that it belongs to.

    Attributes:
        place: Where the paper states it, such as `Table 2`.
        row: The row of the grid.
        at: Values on some of the axes.
        accuracy: The accuracy, in percent.
        bytes: The bytes that a site sends for it, if the paper states them.
    """

    place: str
    row: str
    at: dict[str, str] = Field(default_factory=dict)
    accuracy: float
    bytes: float | None = None


class Grid(FrozenModel):
    """One table or figure at one scale.

    Attributes:
        name: The name of the TOML file, without its ending.
        scale: `paper` or `cpu`.
        title: Its title.
        text: A description.
        kind: `table`, or `curve` for curves along the refinement.
        rows: Its rows, in order: lines, and further scores of their cells such as `random real`.
        lines: The settings of each line.
        axes: The settings of each value of each axis.
        tables: The axes with a table for each value; the values of other axes are columns.
        seeds: The seeds of every cell.
        settings: The settings of the scale.
        stages: Cells to run first, as values allowed for `line`, `seed` and the axes.
        against: For each row, the row of random real images of the same storage.
        central: Lines that pool the data, so that nothing is sent.
        bytes_at: Values on the axes for the plot of accuracy against bytes.
        pictures_at: Values on the axes for the pictures of the sets of the first seed.
        along: An axis of numbers, against which accuracy is plotted.
        paper: The paper's numbers.
    """

    name: str
    scale: str
    title: str
    text: str = ""
    kind: Literal["table", "curve"] = "table"
    rows: tuple[str, ...]
    lines: dict[str, Settings]
    axes: dict[str, dict[str, Settings]]
    tables: tuple[str, ...] = ()
    seeds: tuple[int, ...]
    settings: Settings = Field(default_factory=dict)
    stages: tuple[Choice, ...] = ()
    against: dict[str, str] = Field(default_factory=dict)
    central: tuple[str, ...] = ()
    bytes_at: dict[str, str] | None = None
    pictures_at: dict[str, str] | None = None
    along: str | None = None
    paper: tuple[Published, ...] = ()

    @model_validator(mode="after")
    def _parts_agree(self) -> "Grid":
        if not self.lines or not self.seeds:
            raise ValueError("a grid should have at least one of `lines` and one of `seeds`")

        if unknown := sorted(set(self.tables) - set(self.axes)):
            axes, found = ", ".join(self.axes), ", ".join(unknown)
            raise ValueError(f"`tables` should be among {axes}; found {found}")

        along = self.axes.get(self.along, ("",)) if self.along is not None else ()
        if not all(map(_is_positive_number, along)):
            raise ValueError(f"`along` should be an axis of numbers above 0; found {self.along!r}")

        for choice in (*self.stages, _as_choice(self.bytes_at), _as_choice(self.pictures_at)):
            self._check_choice(choice)
        return self

    def _check_choice(self, choice: Choice) -> None:
        known: Choice = {"line": tuple(self.lines), "seed": self.seeds}
        known |= {axis: tuple(values) for axis, values in self.axes.items()}

        for name, values in choice.items():
            if wrong := [value for value in values if value not in known.get(name, ())]:
                allowed = known.get(name, tuple(known))
                raise ValueError(f"`{name}` should be among {allowed}; found {wrong}")

    @property
    def slug(self) -> str:
        """The name of the grid at its scale, for files and links."""
        return f"{self.name}-{self.scale}"

    @property
    def columns(self) -> tuple[dict[str, str], ...]:
        """One combination of values for each column, on the axes that are not in `tables`."""
        return combinations({a: tuple(v) for a, v in self.axes.items() if a not in self.tables})

    @property
    def sheets(self) -> tuple[dict[str, str], ...]:
        """One combination of values for each table, on the axes in `tables`."""
        return combinations({axis: tuple(self.axes[axis]) for axis in self.tables})

    def places(self, sheet: Mapping[str, str]) -> list[dict[str, str]]:
        """The values of all axes in one table, one combination for each column."""
        return [{axis: {**sheet, **column}[axis] for axis in self.axes} for column in self.columns]

    @property
    def sends(self) -> tuple[str, ...]:
        """The lines whose sites send something."""
        return tuple(line for line in self.lines if line not in self.central)

    def published(self, row: str, at: Mapping[str, str]) -> Published | None:
        """Return the paper's number for a row and a value of every axis; None if it has none.

        For a curve, this is the number at its end, which the paper states without bytes.
        """
        matching = (
            number
            for number in self.paper
            if number.row == row and all(at.get(k) == v for k, v in number.at.items())
        )
        return next((n for n in matching if self.kind != "curve" or n.bytes is None), None)


@dataclass(frozen=True)
class Cell:
    """One simulated round of a grid: its line, its values on the axes, its seed and settings."""

    line: str
    at: dict[str, str]
    seed: int
    experiment: Experiment

    @property
    def name(self) -> str:
        """The name of the cell, for people to read."""
        return f"{self.line}, {axis_label(self.at)}, seed {self.seed}"


def _is_positive_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) is not None and float(text) > 0


def _as_choice(at: Mapping[str, str] | None) -> Choice:
    return {axis: (value,) for axis, value in (at or {}).items()}


def axis_label(at: Mapping[str, str]) -> str:
    """Describe values on axes for people: a number is preceded by the name of its axis.

    >>> axis_label({"split": "pure", "beta": "0.1"})
    'pure, beta 0.1'
    """
    labels = (f"{axis} {value}" if value[:1].isdigit() else value for axis, value in at.items())
    return ", ".join(labels)


def combinations(axes: Mapping[str, tuple[str, ...]]) -> tuple[dict[str, str], ...]:
    """List every combination of one value of each axis; the last axis varies fastest.

    >>> combinations({"data": ("a", "b"), "beta": ("0.1",)})
    ({'data': 'a', 'beta': '0.1'}, {'data': 'b', 'beta': '0.1'})
    """
    return tuple(
        dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())
    )


def cells_of(grid: Grid) -> list[Cell]:
    """List all cells: those of the stages first, then the rest by seed, axes and line."""
    return ordered_cells([grid])


def ordered_cells(grids: Sequence[Grid]) -> list[Cell]:
    """List the cells of several grids: all first stages, all second stages, …, then the rest."""
    stages = itertools.zip_longest(*(grid.stages for grid in grids), fillvalue=None)
    cells: dict[tuple[Any, ...], Cell] = {}

    for chosen in (*stages, ({},) * len(grids)):
        for grid, stage in zip(grids, chosen, strict=True):
            for cell in () if stage is None else _cells_in(grid, stage):
                cells.setdefault((grid.name, cell.line, *cell.at.values(), cell.seed), cell)

    return list(cells.values())


def pictured_cells(grid: Grid) -> dict[tuple[str, ...], Cell]:
    """Return the cells whose sets are shown as pictures, by line and values on the axes."""
    if grid.pictures_at is None:
        return {}

    stage = _as_choice(grid.pictures_at) | {"seed": grid.seeds[:1]}
    return {(cell.line, *cell.at.values()): cell for cell in _cells_in(grid, stage)}


def picture_path(folder: Path, cell: Cell) -> Path:
    """Return the path of the picture of a cell's set, in a folder of results."""
    return folder / "pictures" / f"{cell.experiment.digest[:16]}.webp"


def _cells_in(grid: Grid, stage: Choice) -> Iterator[Cell]:
    axes = {
        axis: tuple(value for value in values if value in stage.get(axis, values))
        for axis, values in grid.axes.items()
    }
    seeds = [seed for seed in grid.seeds if seed in stage.get("seed", grid.seeds)]
    lines = [line for line in grid.lines if line in stage.get("line", tuple(grid.lines))]

    for seed, at, line in itertools.product(seeds, combinations(axes), lines):
        yield Cell(line, at, seed, _experiment(grid, line, at, seed))


def _experiment(grid: Grid, line: str, at: Mapping[str, str], seed: int) -> Experiment:
    parts = [grid.axes[axis][value] for axis, value in at.items()]
    settings: Settings = grid.settings
    for part in (*parts, grid.lines[line]):
        settings = merge_settings(settings, part)

    plan = settings.get("plan", {})
    if "preset" in settings:
        plan = merge_settings(preset_settings(settings["preset"]), plan)
    settings = {key: value for key, value in settings.items() if key != "preset"}

    try:
        return experiment_of(settings | {"seed": seed, "plan": plan})
    except PlanError as error:
        raise PlanError(f"{grid.name}, {line}: {error}") from error

"""A grid: the cells of one published table or figure, from a TOML file.

    cells = lines x values of every axis x seeds
    settings of a cell = the scale's  <  those of its values on the axes  <  those of its line

A line is a method with its settings, an axis a dictionary of values with theirs (`beta`, the data, the split). Each
grid exists at two scales, `paper` and `cpu`: what they change stands below the scale's name, and what several grids
share in the file that `shared` names. A cell is known by the digest of its settings, so cells that two grids have in
common are run once, and what a line settles by itself (the pooled data have no split) is one cell in all columns.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from collabdm.documents.frozen_model import validation_message
from collabdm.errors import PlanError
from collabdm.lab.experiment import Experiment
from collabdm.lab.settings import experiment_of
from collabdm.planning.presets import preset_settings
from collabdm.planning.settings import Settings, merge_settings, read_toml

SCALES = ("paper", "cpu")


class Published(BaseModel):
    """A number of the paper: the row and the values on the axes that it belongs to, and the place where it stands.

    `bytes` is what a site sends for it, where the paper says so; `accuracy` is in percent.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    place: str
    row: str
    at: dict[str, str] = Field(default_factory=dict)
    accuracy: float
    bytes: float | None = None


class Grid(BaseModel):
    """One table or figure at one scale.

    `rows` are what it shows, in order: lines, and further scores of their cells such as `random real`. A table is made
    for each value of the axes in `tables`; the other axes are its columns. `stages` say which cells come first.
    `against` names for a row the random real images of the same storage; `central` are lines that pool the data, for
    which nothing is sent; `bytes_at` says where on the axes accuracy is drawn against bytes, `pictures_at` where the
    sets of the first seed are shown; `along` is an axis of numbers that accuracy is drawn against.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

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
    stages: tuple[dict[str, tuple[str | int, ...]], ...] = ()
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
            raise ValueError(
                f"`tables` should be of {', '.join(self.axes)}; found {', '.join(unknown)}"
            )
        if self.along is not None and not all(
            _is_number(value) for value in self.axes.get(self.along, ("",))
        ):
            raise ValueError(f"`along` should be an axis of numbers above 0; found {self.along!r}")
        known: dict[str, tuple[str | int, ...]] = {"line": tuple(self.lines), "seed": self.seeds}
        known |= {axis: tuple(values) for axis, values in self.axes.items()}
        places: list[dict[str, tuple[str | int, ...]]] = [
            {axis: (value,) for axis, value in (at or {}).items()}
            for at in (self.bytes_at, self.pictures_at)
        ]
        for chosen in (*self.stages, *places):
            for name, values in chosen.items():
                if wrong := [value for value in values if value not in known.get(name, ())]:
                    raise ValueError(
                        f"`{name}` should be of {known.get(name, tuple(known))}; found {wrong}"
                    )
        return self

    @property
    def columns(self) -> tuple[dict[str, str], ...]:
        """The values of the axes that are not in `tables`, one combination for each column."""
        return combinations(
            {axis: tuple(v) for axis, v in self.axes.items() if axis not in self.tables}
        )

    @property
    def sheets(self) -> tuple[dict[str, str], ...]:
        """The values of the axes in `tables`, one combination for each table."""
        return combinations({axis: tuple(self.axes[axis]) for axis in self.tables})

    def places(self, sheet: Mapping[str, str]) -> list[dict[str, str]]:
        """The values of all axes in one table, one combination for each column."""
        return [{axis: {**sheet, **column}[axis] for axis in self.axes} for column in self.columns]

    @property
    def slug(self) -> str:
        """The name of the grid at its scale, for files and links."""
        return f"{self.name}-{self.scale}"

    @property
    def sends(self) -> tuple[str, ...]:
        """The lines whose sites send something."""
        return tuple(line for line in self.lines if line not in self.central)

    def published(self, row: str, at: Mapping[str, str]) -> Published | None:
        """The paper's number for a row at given values of all axes; None where it has none.

        Of a curve it is that of its end, which is told without bytes.
        """
        fits = (
            p for p in self.paper if p.row == row and all(at.get(k) == v for k, v in p.at.items())
        )
        return next((p for p in fits if self.kind != "curve" or p.bytes is None), None)


@dataclass(frozen=True)
class Cell:
    """One simulated round of a grid: its line, its values on the axes, its seed, and all its settings."""

    line: str
    at: dict[str, str]
    seed: int
    experiment: Experiment

    @property
    def name(self) -> str:
        """As people see it."""
        return f"{self.line}, {told(self.at)}, seed {self.seed}"


def _is_number(value: str) -> bool:
    return re.fullmatch(r"[0-9]+(\.[0-9]+)?", value) is not None and float(value) > 0


def told(at: Mapping[str, str]) -> str:
    """Values on axes as people see them: a number needs the name of its axis.

    >>> told({"split": "pure", "beta": "0.1"})
    'pure, beta 0.1'
    """
    return ", ".join(
        f"{axis} {value}" if value[:1].isdigit() else value for axis, value in at.items()
    )


def combinations(axes: Mapping[str, tuple[str, ...]]) -> tuple[dict[str, str], ...]:
    """Every combination of one value of each axis, the last axis fastest.

    >>> combinations({"data": ("a", "b"), "beta": ("0.1",)})
    ({'data': 'a', 'beta': '0.1'}, {'data': 'b', 'beta': '0.1'})
    """
    return tuple(
        dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())
    )


def read_grid(path: Path, scale: str) -> Grid:
    """A grid at one scale, from its TOML file and the files that it names. Raises PlanError.

    A value of an axis that the scale sets to false is not there.
    """
    if scale not in SCALES:
        raise PlanError(f"`--scale` should be one of {', '.join(SCALES)}; found {scale!r}")
    said = _with_shared(path)
    for other in SCALES:
        own = said.pop(other, {})
        said = merge_settings(said, own) if other == scale else said
    chosen = said.get("chosen", list(said.get("lines", {})))
    published = said.pop("published", None)
    said.pop("chosen", None)
    if unknown := [name for name in chosen if name not in said.get("lines", {})]:
        raise PlanError(
            f"{path}: `chosen` should be of {', '.join(said.get('lines', {}))}; found {', '.join(unknown)}"
        )
    said["lines"] = {name: said["lines"][name] for name in chosen}
    dropped = [
        (axis, value)
        for axis, of in said.get("axes", {}).items()
        for value in of
        if of[value] is False
    ]
    for axis, value in dropped:
        del said["axes"][axis][value]
    said = {"rows": tuple(chosen)} | said | {"name": path.stem, "scale": scale}
    if published is not None:
        numbers = published_of(path.parent / published, path.stem)
        said["paper"] = tuple(
            p for p in numbers if not any(p.at.get(axis) == value for axis, value in dropped)
        )
    try:
        return Grid(**said)
    except ValidationError as error:
        raise PlanError(f"{path}: {validation_message(error)}") from error


def _with_shared(path: Path) -> Settings:
    said = read_toml(path)
    shared = said.pop("shared", None)
    return said if shared is None else merge_settings(_with_shared(path.parent / shared), said)


def published_of(path: Path, name: str) -> tuple[Published, ...]:
    """The paper's numbers for one grid. A list of accuracies goes with lists of values on the axes, one each."""
    found = []
    for block in read_toml(path).get(name, []):
        accuracies = (
            block["accuracy"] if isinstance(block["accuracy"], list) else [block["accuracy"]]
        )
        for i, accuracy in enumerate(accuracies):
            at = {
                axis: v[i] if isinstance(v, list) else v for axis, v in block.get("at", {}).items()
            }
            sent = block["bytes"][i] if isinstance(block.get("bytes"), list) else block.get("bytes")
            found.append(
                Published(
                    place=block["place"], row=block["row"], at=at, accuracy=accuracy, bytes=sent
                )
            )
    return tuple(found)


def cells_of(grid: Grid) -> list[Cell]:
    """All cells, those of the stages first: by seed, then by the axes, the lines of one split side by side."""
    return in_turn([grid])


def pictured(grid: Grid) -> dict[tuple[str, ...], Cell]:
    """The cells whose sets are shown, by line and values on the axes; none where the grid shows none."""
    if grid.pictures_at is None:
        return {}
    stage = {axis: (value,) for axis, value in grid.pictures_at.items()} | {"seed": grid.seeds[:1]}
    return {(cell.line, *cell.at.values()): cell for cell in _cells_of(grid, stage)}


def picture_of(folder: Path, cell: Cell) -> Path:
    """Where the picture of a cell's set is, in a folder of results."""
    return folder / "pictures" / f"{cell.experiment.digest[:16]}.webp"


def in_turn(grids: Sequence[Grid]) -> list[Cell]:
    """The cells of several grids: the first stage of each, then the second of each, and so on; then all the others."""
    stages = itertools.zip_longest(*(grid.stages for grid in grids), fillvalue=None)
    found: dict[tuple[Any, ...], Cell] = {}
    for chosen in (*stages, ({},) * len(grids)):
        for grid, stage in zip(grids, chosen, strict=True):
            if stage is not None:
                for cell in _cells_of(grid, stage):
                    found.setdefault((grid.name, cell.line, *cell.at.values(), cell.seed), cell)
    return list(found.values())


def _cells_of(grid: Grid, stage: Mapping[str, tuple[str | int, ...]]) -> Iterator[Cell]:
    axes = {
        axis: tuple(v for v in values if v in stage.get(axis, values))
        for axis, values in grid.axes.items()
    }
    for seed in (s for s in grid.seeds if s in stage.get("seed", grid.seeds)):
        for at in combinations(axes):
            for line in (
                name for name in grid.lines if name in stage.get("line", tuple(grid.lines))
            ):
                yield Cell(line, at, seed, _experiment(grid, line, at, seed))


def _experiment(grid: Grid, line: str, at: Mapping[str, str], seed: int) -> Experiment:
    settings: Settings = grid.settings
    for part in (*(grid.axes[axis][value] for axis, value in at.items()), grid.lines[line]):
        settings = merge_settings(settings, part)
    settings = {k: v for k, v in settings.items() if k != "preset"} | {
        "seed": seed,
        "plan": merge_settings(preset_settings(settings["preset"]), settings.get("plan", {}))
        if "preset" in settings
        else settings.get("plan", {}),
    }
    try:
        return experiment_of(settings)
    except PlanError as error:
        raise PlanError(f"{grid.name}, {line}: {error}") from error

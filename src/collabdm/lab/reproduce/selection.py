"""Select cells of grids by their line and by their values on axes.

    --lines "collabdm, uniform,localdm"     two lines; names may contain commas
    --where data=CIFAR-10,MNIST             two values of one axis; `seed` is an axis too

A cell of a grid without an axis is not restricted by it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from collabdm.errors import PlanError, did_you_mean
from collabdm.lab.reproduce.grids import Cell, Grid

SEED = "seed"


@dataclass(frozen=True)
class Selection:
    """Allowed lines and values on axes; no lines allow every line."""

    lines: frozenset[str] = frozenset()
    where: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        """Return whether the selection restricts anything."""
        return bool(self.lines or self.where)

    def allows(self, cell: Cell) -> bool:
        """Return whether a cell is selected."""
        at = {**cell.at, SEED: str(cell.seed)}
        right_line = not self.lines or cell.line in self.lines
        return right_line and all(at.get(axis) in {*v, None} for axis, v in self.where.items())


def read_selection(
    grids: Sequence[Grid], lines: str | None, where: Iterable[str] | None
) -> Selection:
    """Read a selection from the options of `reproduce`.

    Args:
        grids: The grids, whose lines and axes are known.
        lines: Names of lines, separated by commas; None selects all.
        where: Restrictions AXIS=VALUE, or AXIS=VALUE,VALUE.

    Returns:
        The selection.

    Raises:
        PlanError: A line, an axis or a value is in none of the grids.
    """
    known_lines = dict.fromkeys(line for grid in grids for line in grid.lines)
    axes = _axes_of(grids)
    restrictions: dict[str, frozenset[str]] = {}

    for text in where or ():
        name, equals, values = text.partition("=")
        if not equals:
            raise PlanError(f"`--where` should be AXIS=VALUE, as in data=CIFAR-10; found {text!r}")
        (axis,) = _names(name.strip(), axes, "the axis in `--where`", single=True)
        chosen = frozenset(_names(values, axes[axis], f"`--where {axis}=`"))
        restrictions[axis] = restrictions.get(axis, frozenset()) | chosen

    chosen_lines = () if lines is None else _names(lines, known_lines, "`--lines`")
    return Selection(frozenset(chosen_lines), restrictions)


def _axes_of(grids: Sequence[Grid]) -> dict[str, dict[str, None]]:
    axes: dict[str, dict[str, None]] = {}
    for grid in grids:
        for axis, values in grid.axes.items():
            axes.setdefault(axis, {}).update(dict.fromkeys(values))
        axes.setdefault(SEED, {}).update(dict.fromkeys(map(str, grid.seeds)))
    return axes


def _names(text: str, known: Iterable[str], option: str, single: bool = False) -> list[str]:
    """Split a text at commas into known names, which may contain commas themselves.

    The longest known name is taken first. Upper and lower case do not differ.

    Args:
        text: The names.
        known: The known names.
        option: What the text is, for the message.
        single: Whether the text is one name.

    Returns:
        The names, spelt as they are known.

    Raises:
        PlanError: A name is not known.
    """
    spelt = {name.casefold(): name for name in known}
    parts = [text] if single else [part.strip() for part in text.split(",") if part.strip()]
    found: list[str] = []

    while parts:
        lengths = range(len(parts), 0, -1)
        joined = {n: ", ".join(parts[:n]).casefold() for n in lengths}
        n = next((n for n in lengths if joined[n] in spelt), None)
        if n is None:
            raise _unknown(parts[0], spelt, option)
        found.append(spelt[joined[n]])
        parts = parts[n:]

    if not found:
        raise _unknown(text, spelt, option)
    return found


def _unknown(name: str, spelt: Mapping[str, str], option: str) -> PlanError:
    nearest = did_you_mean(name.casefold(), spelt)
    for lower, known in spelt.items():
        nearest = nearest.replace(f"mean {lower}?", f"mean {known}?")
    listed = (
        "; ".join(spelt.values()) if any("," in n for n in spelt) else ", ".join(spelt.values())
    )
    return PlanError(f"{option} should be among {listed}; found {name!r}{nearest}")

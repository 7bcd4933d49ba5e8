"""Draw the plots of grids: accuracy against bytes sent, or along an axis of numbers.

Error bars are one standard deviation over seeds; stars are the paper's numbers.
"""

from collections.abc import Mapping
from typing import Any

from collabdm.lab.reproduce.grid_results import CurveMean, GridResults
from collabdm.lab.reproduce.grids import Published
from collabdm.report.figures import (
    DASHES,
    figure,
    finish,
    logarithmic_bytes,
    unit_of,
)
from collabdm.report.palette import GREY, looks_of

STAR = {"ls": "", "marker": "*", "ms": 11, "color": "#000000", "mfc": "none"}  # the paper's number

At = Mapping[str, str]  # a value for each axis, by the name of the axis


def grid_figures(results: GridResults) -> dict[str, Any]:
    """Draw a plot for each table of a grid that has results. Returns the plots by name."""
    grid, figures = results.grid, {}

    for i, sheet in enumerate(grid.sheets):
        name = f"{grid.slug}-{i + 1}"
        if grid.kind == "curve":
            figures[name] = along_refinement(results, sheet)
        elif grid.along is not None:
            figures[name] = along_axis(results, sheet)
        elif grid.bytes_at is not None:
            figures[name] = against_bytes(results, sheet | grid.bytes_at)

    return {name: drawn for name, drawn in figures.items() if drawn is not None}


def along_refinement(results: GridResults, at: At) -> Any | None:
    """Plot accuracy against bytes during the refinement; None if there are no results."""
    grid = results.grid
    curves = {row: points for row in grid.rows if (points := results.curve(row, at))}
    if not curves:
        return None

    ends = [row for row in grid.rows if row not in curves and results.entry(row, at).n]
    published = [p for p in grid.paper if all(at.get(k) == v for k, v in p.at.items())]
    most = max(points[-1].bytes for points in curves.values())
    unit, size = unit_of(most)

    looks = looks_of([*curves, *ends])

    def draw(axes: Any) -> None:
        for row, points in curves.items():
            _draw_curve(axes, points, size, label=row, **looks[row].style)
        for i, row in enumerate(ends):
            mean = results.entry(row, at).mean
            axes.axhline(mean, color=looks[row].colour, ls=DASHES[i % 4], lw=1.2, label=row)

        axes.set(xlabel=f"{unit} per site, at most", ylabel="accuracy, %")
        axes.set_xlim(0, 1.05 * most / size)
        for number in published:
            _draw_published(axes, number, most)
        finish(axes)

    return figure(draw, 3.4)


def _draw_curve(axes: Any, points: list[CurveMean], size: float, **style: Any) -> None:
    means, stds = [point.mean for point in points], [point.std for point in points]
    axes.errorbar([point.bytes / size for point in points], means, stds, **style)


def _draw_published(axes: Any, number: Published, most: int) -> None:
    """Draw the paper's number as a star; at the right edge if its bytes are unknown or too many."""
    unit, size = unit_of(most)
    within = number.bytes is not None and number.bytes <= most
    edge = 1.05 * most / size
    x = (number.bytes or 0) / size if within else edge

    text = f"paper {number.accuracy:.0f}"
    if number.bytes and not within:
        text += f" at {number.bytes / size:,.0f} {unit}"

    axes.plot(x, number.accuracy, clip_on=False, **STAR)
    place = {"xytext": (-8, 0), "textcoords": "offset points", "ha": "right", "va": "center"}
    axes.annotate(text, (x, number.accuracy), **place)


def along_axis(results: GridResults, at: At) -> Any | None:
    """Plot accuracy against a numeric axis of the grid, such as ipc; None without results."""
    grid, axis = results.grid, results.grid.along or ""
    values = sorted(grid.axes[axis], key=float)
    entries = {
        row: [(float(value), results.entry(row, {**at, axis: value})) for value in values]
        for row in grid.rows
    }
    measured = {row: [(x, own) for x, own in points if own.n] for row, points in entries.items()}
    lines = {row: points for row, points in measured.items() if points}
    if not lines:
        return None

    looks = looks_of(lines)

    def draw(axes: Any) -> None:
        for row, points in lines.items():
            xs, own = zip(*points, strict=True)
            means, stds = [entry.mean for entry in own], [entry.std for entry in own]
            axes.errorbar(xs, means, stds, label=row, **looks[row].style)

        for row in grid.rows:
            published = [(v, grid.published(row, {**at, axis: v})) for v in values]
            stars = [(float(v), number.accuracy) for v, number in published if number]
            if stars:
                axes.plot(*zip(*stars, strict=True), label=f"the paper's {row}", **STAR)

        axes.set_xscale("log")
        axes.set_xticks([float(value) for value in values], values)
        axes.minorticks_off()
        axes.set(xlabel=f"{axis} (log)", ylabel="accuracy, %")
        finish(axes)

    return figure(draw, 3.3 + 0.13 * len(grid.rows))


def against_bytes(results: GridResults, at: At) -> Any | None:
    """Plot accuracy against bytes sent; None if no row has results with bytes.

    Rows in which sites send bytes are points; pooled data and random real images are lines.
    """
    grid = results.grid
    entries = {row: results.entry(row, at) for row in grid.rows}
    measured = {row: own for row, own in entries.items() if own.n}
    sent = {row: (own, own.bytes) for row, own in measured.items() if own.bytes}
    lines = [row for row in measured if row in grid.central or row in grid.against.values()]
    if not sent:
        return None

    unit, size = unit_of(max(upload for _, upload in sent.values()))
    looks = looks_of(sent)

    def draw(axes: Any) -> None:
        for row, (own, upload) in sent.items():
            once = own.rounds == 1
            style = looks[row].style
            label = row if once else f"{row} ({own.rounds} rounds)"
            axes.errorbar(upload / size, own.mean, own.std, ls="", label=label, **style)

        for i, row in enumerate(lines):
            axes.axhline(measured[row].mean, color=GREY, ls=DASHES[i % 4], lw=1, label=row)

        axes.set_ylabel("accuracy, %")
        logarithmic_bytes(axes, unit)
        finish(axes)

    return figure(draw, 3.3 + 0.13 * (len(sent) + len(lines)))

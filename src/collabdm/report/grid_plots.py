"""The plots of grids: accuracy against the bytes that a site sends, along the refinement and of all methods; or
accuracy along an axis of numbers.

Bars are one standard deviation over seeds; stars are the paper's numbers.
"""

from collections.abc import Mapping
from typing import Any

from collabdm.lab.reproduce.grid_results import GridResults
from collabdm.report.plots import COLOURS, MARKERS, figure, legend_below, plain_logarithm, unit_of

STAR = {"ls": "", "marker": "*", "ms": 11, "color": "#000000", "mfc": "none"}  # a number of the paper


GREY, DASHES = "#777777", ("--", ":", "-.", (0, (5, 1)))


def refinement(found: GridResults, at: Mapping[str, str]) -> Any | None:
    """Accuracy against bytes along the refinement, for one table's values; None where nothing was run."""
    grid = found.grid
    curves = {row: points for row in grid.rows if (points := found.curve(row, at))}
    if not curves:
        return None
    published = [p for p in grid.paper if all(at.get(k) == v for k, v in p.at.items())]
    most = max(points[-1][0] for points in curves.values())
    unit, size = unit_of(most)

    def draw(axes: Any) -> None:
        for i, (row, points) in enumerate(curves.items()):
            sent, means, spreads, _ = zip(*points, strict=True)
            axes.errorbar(
                [b / size for b in sent], means, spreads, color=COLOURS[i % len(COLOURS)],
                marker=MARKERS[i % len(MARKERS)], capsize=3, label=row,
            )  # fmt: skip
        for i, row in enumerate(row for row in grid.rows if row not in curves and found.entry(row, at).n):
            axes.axhline(found.entry(row, at).mean, color=COLOURS[5], ls=DASHES[i % 4], lw=1.2, label=row)
        axes.set(xlabel=f"{unit} per site, at most", ylabel="accuracy, %")
        axes.set_xlim(0, 1.05 * most / size)
        for p in published:  # what it sends for more bytes, or for bytes that it does not say, stands at the edge
            within = p.bytes is not None and p.bytes <= most
            said = f"paper {p.accuracy:.0f}" + (f" at {p.bytes / size:,.0f} {unit}" if p.bytes and not within else "")
            place = (p.bytes or 0) / size if within else 1.05 * most / size
            axes.plot(place, p.accuracy, clip_on=False, **STAR)
            axes.annotate(said, (place, p.accuracy), (-8, 0), textcoords="offset points", ha="right", va="center")
        axes.grid(alpha=0.25)
        legend_below(axes)

    return figure(draw, 3.4)


def along_axis(found: GridResults, at: Mapping[str, str]) -> Any | None:
    """Accuracy along an axis of numbers, such as the images per class; None where nothing was run."""
    grid, axis = found.grid, found.grid.along or ""
    values = sorted(grid.axes[axis], key=float)
    rows = {row: [(float(v), found.entry(row, {**at, axis: v})) for v in values] for row in grid.rows}
    lines = {row: [(x, own) for x, own in points if own.n] for row, points in rows.items()}
    if not any(lines.values()):
        return None

    def draw(axes: Any) -> None:
        for i, (row, points) in enumerate((row, points) for row, points in lines.items() if points):
            axes.errorbar(
                [x for x, _ in points], [own.mean for _, own in points], [own.std for _, own in points],
                color=COLOURS[i % len(COLOURS)], marker=MARKERS[i % len(MARKERS)], capsize=3, label=row,
            )  # fmt: skip
        for row in grid.rows:
            stars = [(float(v), p.accuracy) for v in values if (p := grid.published(row, {**at, axis: v}))]
            if stars:
                axes.plot(*zip(*stars, strict=True), label=f"the paper's {row}", **STAR)
        axes.set_xscale("log")
        axes.set_xticks([float(v) for v in values], values)
        axes.minorticks_off()
        axes.set(xlabel=f"{axis} (log)", ylabel="accuracy, %")
        axes.grid(alpha=0.25)
        legend_below(axes)

    return figure(draw, 3.3 + 0.13 * len(lines))


def all_methods(found: GridResults, at: Mapping[str, str]) -> Any | None:
    """A point for each line whose sites send something, a line across for the others; None where nothing was run."""
    grid = found.grid
    rows = {row: found.entry(row, at) for row in grid.rows if found.entry(row, at).n}
    points = {row: own for row, own in rows.items() if own.bytes}
    across = [row for row in rows if row in grid.central or row in grid.against.values()]
    if not points:
        return None
    unit, size = unit_of(max(own.bytes or 0 for own in points.values()))

    def draw(axes: Any) -> None:
        for i, (row, own) in enumerate(points.items()):
            axes.errorbar(
                (own.bytes or 0) / size, own.mean, own.std, color=COLOURS[i % len(COLOURS)], ls="", capsize=3,
                marker=MARKERS[(i + i // len(COLOURS)) % len(MARKERS)], mfc=None if own.rounds == 1 else "none",
                label=row if own.rounds == 1 else f"{row} ({own.rounds} rounds)",
            )  # fmt: skip
        for i, row in enumerate(across):
            axes.axhline(rows[row].mean, color=GREY, ls=DASHES[i % 4], lw=1, label=row)
        axes.set_xscale("log")
        axes.set(xlabel=f"{unit} per site, at most (log)", ylabel="accuracy, %")
        plain_logarithm(axes)
        axes.grid(alpha=0.25)
        legend_below(axes)

    return figure(draw, 3.3 + 0.13 * (len(points) + len(across)))

"""Plot accuracy against bytes sent, and against the size of the set, for rounds on the same data.

Error bars are one standard deviation over trained networks. With several rounds, each point has the
number of its round; points of rounds that differ only in ipc are joined.
"""

from collections.abc import Sequence
from itertools import groupby
from statistics import fmean
from typing import Any

from collabdm.report.contestants import ALL, ALONE, RANDOM, is_random
from collabdm.report.figures import (
    figure,
    finish,
    label_lines,
    logarithmic,
    logarithmic_bytes,
    unit_of,
)
from collabdm.report.palette import GREY, look_of
from collabdm.report.rounds import RoundFiles
from collabdm.report.series import Point, by_name, points_of, shown_methods

MOST_LINES = 4  # of random real images and all the data, in one plot

Numbered = Sequence[tuple[int, RoundFiles]]


def accuracy_against_bytes(rounds: Numbered) -> Any | None:
    """Plot accuracy against bytes sent; None if no score has bytes.

    Methods are points; random real images and all the data are lines.
    """
    points = points_of(rounds)
    sent = [point for point in points if point.upload]
    if not sent:
        return None

    groups = by_name(sent, shown_methods(sent))
    lines = _lines(points, several=len(rounds) > 1)
    unit, size = unit_of(max(point.upload or 0 for point in sent))

    def draw(axes: Any) -> None:
        for name, group in groups.items():
            xs = [(point.upload or 0) / size for point in group]
            _draw_points(axes, xs, group, name)
            _number_rounds(axes, xs, group, len(rounds) > 1)

        for _, accuracy, dash in lines:
            axes.axhline(accuracy, color=GREY, ls=dash, lw=1)

        axes.set_ylabel("accuracy, %")
        logarithmic_bytes(axes, unit)
        label_lines(axes, [(accuracy, text) for text, accuracy, _ in lines])
        finish(axes)

    return figure(draw, 3.0 + 0.13 * len(groups))


def accuracy_against_size(rounds: Numbered) -> Any | None:
    """Plot accuracy against the number of stored images; None if all sets have the same size."""
    points = [point for point in points_of(rounds) if point.stored]
    if len({point.stored for point in points}) < 2:
        return None

    groups = by_name(points, shown_methods(points))
    real = [name for name in dict.fromkeys(p.what for p in points) if is_random(name)]
    baselines = by_name(points, real[:MOST_LINES])
    alone = [point for point in points if point.what.endswith(ALONE)]
    everything = [point for point in points if point.what == ALL]

    def draw(axes: Any) -> None:
        for name, group in groups.items():
            xs = [float(point.stored) for point in group]
            _draw_points(axes, xs, group, name)
            _join(axes, group, look_of(name).colour)
            _number_rounds(axes, xs, group, len(rounds) > 1)

        for (name, group), marker in zip(baselines.items(), "x+12", strict=False):
            _draw_real(axes, group, name, marker)
            _join(axes, group, GREY)
        _draw_real(axes, alone, "each site alone", ".")
        _draw_real(axes, everything, ALL, "*")

        axes.set_ylabel("accuracy, %")
        logarithmic(axes, "images that the set stores (log)")
        finish(axes)

    return figure(draw, 3.1 + 0.13 * (len(groups) + len(baselines)))


def _lines(points: Sequence[Point], several: bool) -> list[tuple[str, float, Any]]:
    """List the labelled lines: random real images, and all the data of the first round."""
    everything = [point for point in points if point.what == ALL][:1]
    random = [point for point in points if is_random(point.what)]
    if len(random) >= MOST_LINES:  # of several rounds
        random = [point for point in random if point.what == RANDOM]

    lines = []
    for point in [*everything, *random][:MOST_LINES]:
        dash = "-" if point.what == ALL else "--" if point.what == RANDOM else ":"
        text = f"{point.what} ({point.round})" if several else point.what
        lines.append((text, 100 * point.score.mean, dash))
    return lines


def _draw_points(axes: Any, xs: Sequence[float], group: Sequence[Point], name: str) -> None:
    means = [100 * point.score.mean for point in group]
    deviations = [100 * point.score.std for point in group]
    axes.errorbar(xs, means, deviations, ls="", label=name, **look_of(name).style)


def _draw_real(axes: Any, group: Sequence[Point], label: str, marker: str) -> None:
    if group:
        xs, ys = [point.stored for point in group], [100 * point.score.mean for point in group]
        axes.plot(xs, ys, ls="", marker=marker, color=GREY, ms=8, mew=1.5, label=label)


def _join(axes: Any, group: Sequence[Point], colour: str) -> None:
    """Join the points of rounds that differ only in ipc; those of several seeds are averaged."""
    ordered = sorted(group, key=lambda point: (point.settings, point.stored))
    for _, same in groupby(ordered, key=lambda point: point.settings):
        by_size: dict[int, list[float]] = {}
        for point in same:
            by_size.setdefault(point.stored, []).append(100 * point.score.mean)
        if len(by_size) > 1:
            axes.plot(list(by_size), list(map(fmean, by_size.values())), color=colour, lw=1.2)


def _number_rounds(axes: Any, xs: Sequence[float], group: Sequence[Point], several: bool) -> None:
    for x, point in zip(xs, group, strict=True) if several else ():
        place = {"xytext": (6, 4), "textcoords": "offset points", "size": 8}
        axes.annotate(str(point.round), (x, 100 * point.score.mean), **place)

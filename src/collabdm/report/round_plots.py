"""Draw the plots of one round's sites and classes."""

from typing import Any

from collabdm.report.contestants import best_of, is_method, is_random, of_first_network
from collabdm.report.figures import figure, finish, unit_of
from collabdm.report.palette import GREY, look_of
from collabdm.report.rounds import EXTRA, PARTS, RoundFiles
from collabdm.scoring.evaluation import Score

MOST_NUMBERED = 20  # classes of a confusion matrix with numbers in its cells

#: of parts of a contribution, apart from the colours of methods; their lightness differs
PART_COLOURS = ("#4A6488", "#93A9C1", "#D3DCE6", "#B9A35E")


def bytes_by_part(files: RoundFiles) -> Any | None:
    """Plot the bytes that each site sent, divided into the parts of a contribution."""
    sites = files.contributions
    if not sites:
        return None

    unit, size = unit_of(max(sum(sizes.values()) for sizes in sites.values()))
    extra = any(sizes[EXTRA] for sizes in sites.values())  # CollabDM itself sends none
    parts = [part for part in PARTS if part != EXTRA or extra]

    def draw(axes: Any) -> None:
        left = [0.0] * len(sites)
        for colour, part in zip(PART_COLOURS, parts, strict=False):
            widths = [sizes[part] / size for sizes in sites.values()]
            axes.barh(list(sites), widths, left=left, color=colour, label=part, height=0.7)
            left = [a + b for a, b in zip(left, widths, strict=True)]

        axes.invert_yaxis()
        axes.set_xlabel(f"{unit} sent")
        finish(axes, grid="x")

    return figure(draw, 1.4 + 0.3 * len(sites))


def accuracy_by_class(files: RoundFiles) -> Any | None:
    """Plot the accuracy on each class: the main set, the best other one, and random real images."""
    if files.distilled is None:
        return None

    known = [score for score in of_first_network(files.scores) if score.per_class]
    main = next((score for score in known if score.what == files.method), None)
    if main is None:
        return None

    rival = best_of(score for score in known if is_method(score.what) and score is not main)
    random = best_of(score for score in known if is_random(score.what))
    shown = [score for score in (main, rival, random) if score is not None]
    names = files.distilled.plan.classes

    def draw(axes: Any) -> None:
        for i, score in enumerate(shown):
            values = [100 * v if v is not None else float("nan") for v in score.per_class]
            rows = [y + (i - (len(shown) - 1) / 2) * 0.25 for y in range(len(names))]
            axes.plot(values, rows, ls="", clip_on=False, label=score.what, **_marker(score))

        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set(xlabel="accuracy, %", xlim=(-3, 103), xticks=range(0, 101, 20))
        finish(axes)

    return figure(draw, 1.4 + 0.28 * len(names))


def _marker(score: Score) -> dict[str, Any]:
    if is_random(score.what):
        return {"color": GREY, "marker": "x", "ms": 6, "mew": 1.5}
    look = look_of(score.what).style
    return {key: look[key] for key in ("color", "marker", "mfc", "mew")} | {"ms": 6}


def confusion_matrix(files: RoundFiles) -> Any | None:
    """Plot the confusion matrix of the main set, in percent of each true class (row)."""
    matrices = (s.confusion for s in files.scores if s.what == files.method and s.confusion)
    matrix = next(matrices, None)
    if matrix is None or files.distilled is None:
        return None

    names = files.distilled.plan.classes
    shares = [[100 * n / max(1, sum(row)) for n in row] for row in matrix]

    def draw(axes: Any) -> None:
        axes.imshow(shares, cmap="cividis", vmin=0, vmax=100)
        if len(names) <= MOST_NUMBERED:
            _write_numbers(axes, shares)

        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="predicted class", ylabel="true class")

    return figure(draw, 4.6)


def _write_numbers(axes: Any, shares: list[list[float]]) -> None:
    size = 8 if len(shares) <= 10 else 5
    for y, row in enumerate(shares):
        for x, share in enumerate(row):
            colour = "#ffffff" if share < 55 else "#000000"
            axes.text(x, y, f"{share:.0f}", ha="center", va="center", size=size, color=colour)

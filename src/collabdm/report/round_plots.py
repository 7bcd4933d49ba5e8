"""Draw the plots of a round. Error bars are one standard deviation over trained networks."""

from collections.abc import Sequence
from typing import Any

from collabdm.report.figures import (
    COLOURS,
    DASHES,
    GREY,
    MARKERS,
    figure,
    finish,
    logarithmic_bytes,
    style_of,
    unit_of,
)
from collabdm.report.rounds import EXTRA, PARTS, RoundFiles
from collabdm.scoring.evaluation import Score

MOST_NUMBERED = 20  # classes of a confusion matrix with numbers in its cells


def accuracy_against_bytes(rounds: Sequence[RoundFiles]) -> Any | None:
    """Plot accuracy against bytes sent; None if no score has bytes.

    Sets made from what sites sent are points; random real images and all the data are lines.
    """
    several = len(rounds) > 1
    series = [
        (score, files.largest_upload(score.what), _label(files, score, several))
        for files in rounds
        for score in files.scores
    ]
    sent = [(score, upload, label) for score, upload, label in series if upload]
    if not sent:
        return None

    not_sent = [(score, label) for score, upload, label in series if upload is None]
    lines = [(s, label) for s, label in not_sent if s.what.startswith(("random", "all"))]
    unit, size = unit_of(max(upload for _, upload, _ in sent))

    def draw(axes: Any) -> None:
        for i, (score, upload, label) in enumerate(sent):
            mean, std = 100 * score.mean, 100 * score.std
            axes.errorbar(upload / size, mean, std, ls="", label=label, **style_of(i))

        for i, (score, label) in enumerate(lines):
            axes.axhline(100 * score.mean, color=GREY, ls=DASHES[i % 3], lw=1, label=label)

        axes.set_ylabel("accuracy, %")
        logarithmic_bytes(axes, unit)
        finish(axes)

    return figure(draw, 3.2 + 0.11 * len(series))


def _label(files: RoundFiles, score: Score, several: bool) -> str:
    if several:
        return f"{files.name}: {score.what}"

    networks = {other.network for other in files.scores}
    return f"{score.what}, {score.network}" if len(networks) > 1 else score.what


def accuracy_by_step(files: RoundFiles) -> Any | None:
    """Plot accuracy during the server's refinement, with random real images as a line."""
    curve = files.curve
    if len(curve) < 2:
        return None

    steps, scores = zip(*curve, strict=True)
    random = [score for score in files.scores if score.what.startswith("random")]
    random = [score for score in random if score.network == scores[0].network]

    def draw(axes: Any) -> None:
        means, stds = [100 * s.mean for s in scores], [100 * s.std for s in scores]
        axes.errorbar(steps, means, stds, label=scores[0].what, **style_of(0))

        for i, score in enumerate(random):
            axes.axhline(100 * score.mean, color=GREY, ls=DASHES[i % 2], lw=1, label=score.what)

        axes.set(xlabel="steps of the refinement", ylabel="accuracy, %")
        finish(axes)

    return figure(draw)


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
        for colour, part in zip(COLOURS, parts, strict=False):
            widths = [sizes[part] / size for sizes in sites.values()]
            axes.barh(list(sites), widths, left=left, color=colour, label=part, height=0.7)
            left = [a + b for a, b in zip(left, widths, strict=True)]

        axes.invert_yaxis()
        axes.set_xlabel(f"{unit} sent")
        finish(axes, grid="x")

    return figure(draw, 1.4 + 0.3 * len(sites))


def accuracy_by_class(files: RoundFiles) -> Any | None:
    """Plot the accuracy on each class, for the main set and for random real images."""
    shown = [
        score
        for score in files.scores
        if score.per_class and (score.what == files.method or score.what.startswith("random"))
    ]
    shown = [score for score in shown if score.network == shown[0].network][:3]
    if not shown or files.distilled is None:
        return None

    names = files.distilled.plan.classes

    def draw(axes: Any) -> None:
        for i, score in enumerate(shown):
            values = [100 * v if v is not None else float("nan") for v in score.per_class]
            rows = [y + (i - (len(shown) - 1) / 2) * 0.25 for y in range(len(names))]
            axes.plot(values, rows, ls="", marker=MARKERS[i], color=COLOURS[i], label=score.what)

        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set(xlabel="accuracy, %", xlim=(0, 100))
        finish(axes)

    return figure(draw, 1.4 + 0.28 * len(names))


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

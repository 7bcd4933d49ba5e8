"""Plot the server's refinement: the accuracy along it, and the images as a strip.

Both need the sets after some of its steps, which `simulate --curve` stores.
"""

from collections.abc import Mapping
from typing import Any

from collabdm.documents.outcomes import DistilledSet
from collabdm.images import as_uint8
from collabdm.report.contestants import best_of, is_random
from collabdm.report.figures import INK, STYLE, WIDTH, figure, finish, label_lines
from collabdm.report.palette import GREY, look_of
from collabdm.report.rounds import RoundFiles

MOST_CLASSES, MOST_STEPS = 5, 8  # of a strip


def accuracy_by_step(files: RoundFiles) -> Any | None:
    """Plot accuracy during the server's refinement, with random real images as a line."""
    curve = files.curve
    if len(curve) < 2:
        return None

    steps, scores = zip(*curve, strict=True)
    same = [score for score in files.scores if score.network == scores[0].network]
    random = best_of(score for score in same if is_random(score.what))

    def draw(axes: Any) -> None:
        means, stds = [100 * s.mean for s in scores], [100 * s.std for s in scores]
        axes.errorbar(steps, means, stds, label=scores[0].what, **look_of(scores[0].what).style)

        if random is not None:
            axes.axhline(100 * random.mean, color=GREY, ls="--", lw=1)
        axes.set(xlabel="steps of the refinement", ylabel="accuracy, %")
        axes.margins(0.06)
        label_lines(axes, [(100 * random.mean, random.what)] if random is not None else [])
        finish(axes)

    return figure(draw)


def images_by_step(snapshots: Mapping[int, DistilledSet]) -> Any | None:
    """Draw the first image of some classes, a row for each, after each stored step, a column.

    Returns:
        The figure; None with fewer than two steps, or for rows of a table.
    """
    if len(snapshots) < 2 or next(iter(snapshots.values())).plan.has_rows:
        return None

    import matplotlib
    from matplotlib.figure import Figure

    steps = _spread(sorted(snapshots), MOST_STEPS)
    last = snapshots[steps[-1]].images
    present = [y for y in range(len(last.classes)) if len(last.of_class(y))]
    classes = _spread(present, MOST_CLASSES)
    size = WIDTH / (len(steps) + 0.8)

    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(WIDTH, size * len(classes) + 0.35), layout="constrained")
        grid = drawn.subplots(len(classes), len(steps), squeeze=False)
        for axes, y in zip(grid, classes, strict=True):
            axes[0].set_ylabel(last.classes[y], rotation=0, ha="right", va="center")
            for cell, step in zip(axes, steps, strict=True):
                _draw_image(cell, snapshots[step], y)
        for cell, step in zip(grid[0], steps, strict=True):
            cell.set_title(f"step {step}" if step == steps[0] else str(step), size=9, color=INK)
    return drawn


def _draw_image(axes: Any, distilled: DistilledSet, y: int) -> None:
    images = distilled.images
    pixels = as_uint8(images.images[images.of_class(y)[:1]]).numpy()[0].transpose(1, 2, 0)
    axes.imshow(pixels if pixels.shape[2] == 3 else pixels[:, :, 0], cmap="gray", vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _spread(values: list[int], most: int) -> list[int]:
    """Choose at most `most` values, evenly, with the first and the last.

    >>> _spread([1, 2, 3, 4, 5], 3)
    [1, 3, 5]
    """
    if len(values) <= most:
        return values
    return [values[round(i * (len(values) - 1) / (most - 1))] for i in range(most)]

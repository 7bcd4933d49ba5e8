"""The plots of a report, each as SVG for the page and as SVG and PNG beside it.

The colours are those of M. Okabe and K. Ito, "Color universal design", 2008, which colour-blind people can tell
apart; lines also differ by their markers. Bars and whiskers are one standard deviation over trained networks.
"""

import io
from collections.abc import Callable, Sequence
from typing import Any

from collabdm.report.gathering import OWN, PARTS, Round
from collabdm.scoring.evaluation import Score

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")


MARKERS = "osD^vPX"


INK = "#1b1f24"  # of text and axes; the page replaces it by its own


SIZE = (5.0, 3.2)  # inches; a phone shows it at about its own size


STYLE = {
    "svg.fonttype": "none", "svg.hashsalt": "collabdm", "font.size": 10, "axes.spines.top": False,
    "axes.spines.right": False, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK,
    "xtick.color": INK, "ytick.color": INK, "axes.titlesize": 10, "legend.frameon": False, "legend.fontsize": 9,
    "font.family": "sans-serif", "axes.axisbelow": True,
}  # fmt: skip


Draw = Callable[[Any], None]


def figure(draw: Draw, height: float = SIZE[1]) -> Any:
    """A figure that `draw` fills, given its axes."""
    import matplotlib
    from matplotlib.figure import Figure  # no window, no global state

    with matplotlib.rc_context(STYLE):
        made = Figure(figsize=(SIZE[0], height), layout="constrained")
        draw(made.add_subplot())
    return made


def rendered(made: Any, kind: str) -> bytes:
    """A figure as `svg` or `png`, the same bytes each time."""
    import matplotlib

    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context(STYLE):
        made.savefig(buffer, format=kind, dpi=150, metadata=metadata, transparent=kind == "svg")
    return buffer.getvalue()


def accuracy_against_bytes(rounds: Sequence[Round]) -> Any | None:
    """A point for each set that sites sent for, a line for each that nobody sent; None without scores."""
    points = [(r, s, r.bytes_of(s.what)) for r in rounds for s in r.scores]
    if not any(sent for _, _, sent in points):
        return None

    unit, size = unit_of(max(sent for _, _, sent in points if sent))

    def draw(axes: Any) -> None:
        several = len(rounds) > 1
        lines = 0
        for i, (made, score, most) in enumerate((r, s, b) for r, s, b in points if b):
            label = f"{made.name}: {score.what}" if several else _named(score, made)
            colour, marker = COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]
            axes.errorbar(
                most / size,
                100 * score.mean,
                100 * score.std,
                color=colour,
                marker=marker,
                capsize=3,
                ls="",
                label=label,
            )
        for made, score, sent in points:
            if sent is None and score.what.startswith(("random", "all")):
                label = f"{made.name}: {score.what}" if several else _named(score, made)
                axes.axhline(100 * score.mean, color="#777777", ls=("--", ":", "-.")[lines % 3], lw=1, label=label)
                lines += 1
        axes.set_xscale("log")
        axes.set(xlabel=f"{unit} per site, at most (log)", ylabel="accuracy, %")
        plain_logarithm(axes)
        axes.grid(alpha=0.25)
        legend_below(axes)

    return figure(draw, 3.2 + 0.11 * len(points))


def along_the_refinement(made: Round) -> Any | None:
    """Accuracy at chosen steps of the server, with random real images as a line."""
    if len(made.curve) < 2:
        return None

    def draw(axes: Any) -> None:
        steps, scores = zip(*made.curve, strict=True)
        axes.errorbar(
            steps, [100 * s.mean for s in scores], [100 * s.std for s in scores],
            color=COLOURS[0], marker=MARKERS[0], capsize=3, label=scores[0].what,
        )  # fmt: skip
        network = scores[0].network
        for i, score in enumerate(s for s in made.scores if s.what.startswith("random") and s.network == network):
            axes.axhline(100 * score.mean, color="#777777", ls=("--", ":")[i % 2], lw=1, label=score.what)
        axes.set(xlabel="steps of the refinement", ylabel="accuracy, %")
        axes.grid(alpha=0.25)
        legend_below(axes)

    return figure(draw)


def bytes_by_part(made: Round) -> Any | None:
    """What each site sent, by part."""
    if not made.sent:
        return None

    def draw(axes: Any) -> None:
        left = [0.0] * len(made.sent)
        unit, size = unit_of(max(sum(parts.values()) for parts in made.sent.values()))
        for colour, part in zip(COLOURS, PARTS, strict=False):
            if part == OWN and not any(parts[OWN] for parts in made.sent.values()):
                continue  # CollabDM has none
            width = [parts[part] / size for parts in made.sent.values()]
            axes.barh(list(made.sent), width, left=left, color=colour, label=part, height=0.7)
            left = [a + b for a, b in zip(left, width, strict=True)]
        axes.invert_yaxis()
        axes.set_xlabel(f"{unit} sent")
        axes.grid(alpha=0.25, axis="x")
        legend_below(axes)

    return figure(draw, 1.4 + 0.3 * len(made.sent))


def accuracy_by_class(made: Round) -> Any | None:
    """Accuracy on each class of the main set, beside random real images."""
    shown = [s for s in made.scores if s.per_class and (s.what == made.main or s.what.startswith("random"))]
    shown = [s for s in shown if s.network == shown[0].network][:3]
    if not shown or made.made is None:
        return None
    names = made.made.plan.classes

    def draw(axes: Any) -> None:
        for i, score in enumerate(shown):
            values = [100 * v if v is not None else float("nan") for v in score.per_class]
            rows = [y + (i - (len(shown) - 1) / 2) * 0.25 for y in range(len(names))]
            axes.plot(values, rows, ls="", marker=MARKERS[i], color=COLOURS[i], label=score.what)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set(xlabel="accuracy, %", xlim=(0, 100))
        axes.grid(alpha=0.25)
        legend_below(axes)

    return figure(draw, 1.4 + 0.28 * len(names))


def confusion(made: Round) -> Any | None:
    """How often the images of a class (row) are taken for each class (column), in percent, for the main set."""
    score = next((s for s in made.scores if s.what == made.main and s.confusion), None)
    if score is None or made.made is None:
        return None
    names = made.made.plan.classes
    shares = [[100 * n / max(1, sum(row)) for n in row] for row in score.confusion]

    def draw(axes: Any) -> None:
        axes.imshow(shares, cmap="cividis", vmin=0, vmax=100)
        size = 8 if len(names) <= 10 else 5
        for y, row in enumerate(shares):
            for x, share in enumerate(row):
                if len(names) <= 20:
                    colour = "#ffffff" if share < 55 else "#000000"
                    axes.text(x, y, f"{share:.0f}", ha="center", va="center", size=size, color=colour)
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="taken for", ylabel="class")

    return figure(draw, 4.6)


def _named(score: Score, made: Round) -> str:
    several = len({s.network for s in made.scores}) > 1
    return f"{score.what}, {score.network}" if several else score.what


def unit_of(largest: int) -> tuple[str, float]:
    """A unit of bytes that suits the largest of them."""
    return ("MB", 1e6) if largest >= 1e6 else ("kB", 1e3)


def plain_logarithm(axes: Any) -> None:
    """Ticks at 1, 2 and 5, and room at both ends, on a logarithmic horizontal axis."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    low, high = axes.get_xlim()
    axes.set_xlim(low / 1.3, high * 1.3)


def legend_below(axes: Any) -> None:
    """The legend under the axes, in two columns."""
    axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)

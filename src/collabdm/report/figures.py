"""Draw figures in one common style, and write them as SVG and PNG files.

The colours and markers of methods are in `palette`.
"""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from collabdm.documents.atomic_write import atomic_write

DASHES = ("--", ":", "-.", (0, (5, 1)))

INK = "#1b1f24"  # of text and axes; the page replaces it with its text colour
WIDTH, HEIGHT = 5.0, 3.2  # inches: about the size of a plot on a phone

STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "collabdm",
    "font.size": 10,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.axisbelow": True,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
}


def figure(draw: Callable[[Any], None], height: float = HEIGHT) -> Any:
    """Make a figure with one pair of axes, and call `draw` to fill it."""
    import matplotlib
    from matplotlib.figure import Figure  # without a window or global state

    with matplotlib.rc_context(STYLE):
        drawn = Figure(figsize=(WIDTH, height), layout="constrained")
        draw(drawn.add_subplot())
    return drawn


def rendered(drawn: Any, kind: str) -> bytes:
    """Render a figure as `svg` or `png`. The same figure always gives the same bytes."""
    import matplotlib

    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with matplotlib.rc_context(STYLE):
        drawn.savefig(buffer, format=kind, dpi=150, metadata=metadata, transparent=kind == "svg")
    return buffer.getvalue()


def write_figures(figures: Mapping[str, Any], folder: Path) -> tuple[list[Path], dict[str, str]]:
    """Write figures as SVG and PNG. Returns the files, and the SVG text of each figure by name."""
    paths, svgs = [], {}

    for name, drawn in figures.items():
        svg, png = rendered(drawn, "svg"), rendered(drawn, "png")
        for kind, content in (("svg", svg), ("png", png)):
            paths.append(folder / f"{name}.{kind}")
            atomic_write(paths[-1], content)
        svgs[name] = svg.decode()

    return paths, svgs


def unit_of(largest: int) -> tuple[str, float]:
    """Choose MB or kB for an axis up to `largest` bytes. Returns the unit and its bytes."""
    return ("MB", 1e6) if largest >= 1e6 else ("kB", 1e3)


def logarithmic(axes: Any, label: str) -> None:
    """Draw a logarithmic x axis with ticks at 1, 2 and 5, and a margin that cuts no mark."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.set_xscale("log")
    axes.set_xlabel(label)

    low, high = axes.get_xlim()
    axes.set_xlim(low / 1.3, high * 1.3)
    wide = high / low > 200  # ticks at 2 and 5 would overlap
    axes.xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def logarithmic_bytes(axes: Any, unit: str) -> None:
    """Draw a logarithmic x axis of the bytes that a site sends."""
    logarithmic(axes, f"{unit} per site, at most (log)")


def label_lines(axes: Any, lines: Sequence[tuple[float, str]]) -> None:
    """Label horizontal lines at the right edge; labels of close lines are moved apart.

    Args:
        axes: The axes, with all marks drawn.
        lines: The height and the text of each line.
    """
    low, high = axes.get_ylim()
    apart, last = 0.07 * (high - low), float("-inf")

    for y, text in sorted(lines):
        last = max(y, last + apart)
        place = {"xytext": (1.02, last), "textcoords": ("axes fraction", "data")}
        axes.annotate(
            text, (1, y), xycoords=("axes fraction", "data"), va="center", size=8.5, **place
        )


def finish(axes: Any, grid: str = "both") -> None:
    """Draw grid lines, and the legend below the axes in two columns."""
    axes.grid(alpha=0.25, axis=grid)
    handles, labels = axes.get_legend_handles_labels()
    if labels:
        axes.figure.legend(handles, labels, loc="outside lower center", ncols=2)

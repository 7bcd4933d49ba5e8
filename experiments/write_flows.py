"""Writes the tables of docs/flows.md, and the plots in docs/pictures, from results/flows/*.json.

python experiments/write_flows.py            write them
python experiments/write_flows.py --check    exit with 1 if the page is not up to date
"""

import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from collabdm.report.plots import COLOURS, MARKERS, figure, rendered
from collabdm.whole import write_whole

ROOT = Path(__file__).parents[1]
PAGE, PICTURES, RESULTS = ROOT / "docs" / "flows.md", ROOT / "docs" / "pictures", ROOT / "results" / "flows"
BEGIN, END = "<!-- flows -->\n", "<!-- end of flows -->"
TITLES = {
    "nidd": "5G-NIDD, the real subset: two base stations, blocks of time held out",
    "gtp": "5G core capture (GTP): two site files, blocks of time held out",
    "unsw": "UNSW-NB15, 10 classes: five sites, beta = 0.1",
    "nidd-leaking": "5G-NIDD, the subset, with the leaking columns (as the paper)",
    "nidd-random": "5G-NIDD, the subset, images split at random (as the paper)",
    "nidd-three": "5G-NIDD, the subset, rows of unknown station as a third site",
}
FIGURES = {"nidd-figure3": "Accuracy against images per class: 5G-NIDD, the subset (the paper's Figure 3)"}
GRIDS = {"nidd-table3": "Architectures, IPC 10: 5G-NIDD, the subset (the paper's Table 3)"}
KINDS = ("accuracy", "macro_f1")
FIRST = "held out, class"


def main() -> None:
    """Write the tables, or compare them."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    made = before + BEGIN + "\n".join(tables()) + "\n" + END + after
    if "--check" in sys.argv[1:]:
        if made != text:
            sys.exit(f"{PAGE} is not up to date: run python experiments/write_flows.py")
        return
    PAGE.write_text(made, encoding="utf-8")
    for name, title in FIGURES.items():
        if cells := cells_of(name):
            short = title.partition(":")[0]  # the whole title stands below the plot
            drawn = figure(lambda axes, cells=cells, short=short: draw(axes, cells, short))
            for kind in ("png", "svg"):
                write_whole(PICTURES / f"{name}.{kind}", rendered(drawn, kind))


def cells_of(name: str) -> list[dict[str, Any]]:
    """The cells of a file of results; none where it is not there."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["cells"] if path.exists() else []


def tables() -> Iterator[str]:
    """Lines of Markdown, a table for each file of results."""
    for name, title in (TITLES | FIGURES).items():
        cells = cells_of(name)
        cells = [cell for cell in cells if whole(cells, cell["seed"])]
        if cells:
            yield from table(title, cells)
            if name in FIGURES:
                yield f"\n![{title}](pictures/{name}.png)"
    for name, title in GRIDS.items():
        if cells := cells_of(name):
            yield from grid(title, cells)


def table(title: str, cells: list[dict[str, Any]]) -> Iterator[str]:
    """One experiment: a row for each set, accuracy and macro F1 on every test."""
    tests = list(cells[0]["tests"])
    yield f"\n### {title}\n"
    for test in tests:
        sizes = sorted({cell["tests"][test]["images"] for cell in cells})
        mixed = sorted({cell["tests"][test]["mixed"] for cell in cells})
        yield f"- {test}: {between(sizes)} test images" + (f", {between(mixed)} of them mixed" if mixed[-1] else "")
    columns = [f"{test}: accuracy | macro F1" for test in tests]
    yield f"\n| trained on | images | {' | '.join(columns)} | n |"
    yield "|---|---:|" + "---:|" * (2 * len(tests) + 1)
    for line in dict.fromkeys(cell["line"] for cell in cells):
        own = [cell for cell in cells if cell["line"] == line]
        numbers = [spread([cell["tests"][test][what] for cell in own]) for test in tests for what in KINDS]
        yield f"| {line} | {between(sorted({c['images'] for c in own}))} | {' | '.join(numbers)} | {len(own)} |"


def grid(title: str, cells: list[dict[str, Any]]) -> Iterator[str]:
    """Accuracy, and macro F1 in brackets: a row for each embedding network, a column for each trained one."""
    pairs = [cell["line"].split(" to ") for cell in cells]
    rows, columns = (list(dict.fromkeys(pair[k] for pair in pairs)) for k in (0, 1))
    yield f"\n### {title}\n"
    yield f"Accuracy (macro F1) on: {FIRST}; n = {len({cell['seed'] for cell in cells})}.\n"
    yield f"| embedded by \\ trained | {' | '.join(columns)} |"
    yield "|---|" + "---:|" * len(columns)
    for row in rows:
        found = [[c["tests"][FIRST] for c in cells if c["line"] == f"{row} to {column}"] for column in columns]
        shown = [
            f"{spread([t['accuracy'] for t in own])} ({spread([t['macro_f1'] for t in own])})" if own else "-"
            for own in found
        ]
        yield f"| {row} | {' | '.join(shown)} |"


def draw(axes: Any, cells: list[dict[str, Any]], title: str) -> None:
    """Accuracy against images per class, a line for each kind of set; all the data as a level."""
    lines = [cell["line"].rpartition(", ipc ")[0] for cell in cells if ", ipc " in cell["line"]]
    for i, name in enumerate(dict.fromkeys(lines)):
        stored = sorted({int(c["line"].rpartition(" ")[2]) for c in cells if c["line"].startswith(f"{name}, ipc ")})
        found = [accuracies(cells, f"{name}, ipc {ipc}") for ipc in stored]
        spreads = [statistics.stdev(values) if len(values) > 1 else 0.0 for values in found]
        axes.errorbar(
            stored, [statistics.fmean(values) for values in found], spreads,
            color=COLOURS[i], marker=MARKERS[i], capsize=3, label=name,
        )  # fmt: skip
    if level := accuracies(cells, "all the data"):
        axes.axhline(statistics.fmean(level), color="#777777", ls="--", lw=1, label="all the data")
    axes.set_xscale("log")
    axes.set_xticks((1, 2, 5, 10, 20, 50), ("1", "2", "5", "10", "20", "50"))
    axes.minorticks_off()
    axes.set(xlabel="images per class", ylabel="accuracy, %", title=title)
    axes.grid(alpha=0.25)
    axes.legend()


def accuracies(cells: list[dict[str, Any]], line: str) -> list[float]:
    """Of a line, one for each seed, in per cent."""
    return [100 * cell["tests"][FIRST]["accuracy"] for cell in cells if cell["line"] == line]


def whole(cells: list[dict[str, Any]], seed: int) -> bool:
    """Whether all the lines of a seed are there; a site that is empty in one split has no line of its own."""
    return {"collabdm, ipc 10", "all the data"} <= {cell["line"] for cell in cells if cell["seed"] == seed}


def between(values: list[int]) -> str:
    """One number, or the smallest and the largest."""
    return f"{values[0]:,}" if values[0] == values[-1] else f"{values[0]:,} to {values[-1]:,}"


def spread(values: list[float]) -> str:
    """Mean and standard deviation, in per cent."""
    mean = f"{100 * statistics.fmean(values):.1f}"
    return f"{mean} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else mean


if __name__ == "__main__":
    main()

"""Generate the tables of docs/flows.md from results/flows/*.json.

python experiments/write_flows.py            write them
python experiments/write_flows.py --check    exit with 1 if the page is not up to date
"""

import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE, RESULTS = ROOT / "docs" / "flows.md", ROOT / "results" / "flows"
BEGIN, END = "<!-- flows -->\n", "<!-- end of flows -->"
TITLES = {
    "nidd": "5G-NIDD, the real subset: two base stations, blocks of time held out",
    "gtp": "5G core capture (GTP): two site files, blocks of time held out",
    "unsw": "UNSW-NB15, 10 classes: five sites, beta = 0.1",
    "nidd-leaking": "5G-NIDD, the subset, with the leaking columns (as in the paper)",
    "nidd-random": "5G-NIDD, the subset, images split at random (as in the paper)",
    "nidd-three": "5G-NIDD, the subset, rows of unknown station as a third site",
}
MEASURES = ("accuracy", "macro_f1")
COMPLETE = {"collabdm, ipc 10", "all the data"}  # lines of every seed; a site may be empty

Cell = dict[str, Any]


def main() -> None:
    """Write the tables, or compare them with the page."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    renewed = before + BEGIN + "\n".join(tables()) + "\n" + END + after

    if "--check" not in sys.argv[1:]:
        PAGE.write_text(renewed, encoding="utf-8")
    elif renewed != text:
        sys.exit(f"{PAGE} is not up to date: run python experiments/write_flows.py")


def tables() -> Iterator[str]:
    """Lines of Markdown, a table for each file of results."""
    for name, title in TITLES.items():
        cells = complete_cells(name)
        if cells:
            yield from table(title, cells)


def complete_cells(name: str) -> list[Cell]:
    """The cells of a file of results whose seeds are complete; none without the file."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return []

    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    lines: dict[int, set[str]] = defaultdict(set)
    for cell in cells:
        lines[cell["seed"]].add(cell["line"])

    return [cell for cell in cells if lines[cell["seed"]] >= COMPLETE]


def table(title: str, cells: list[Cell]) -> Iterator[str]:
    """One experiment: a row for each set, accuracy and macro F1 on every test."""
    yield f"\n### {title}\n"
    tests = list(cells[0]["tests"])
    yield from (test_line(test, cells) for test in tests)

    columns = [f"{test}: accuracy | macro F1" for test in tests]
    yield f"\n| trained on | images | {' | '.join(columns)} | n |"
    yield "|---|---:|" + "---:|" * (2 * len(tests) + 1)

    for line in dict.fromkeys(cell["line"] for cell in cells):
        own = [cell for cell in cells if cell["line"] == line]
        numbers = [
            spread([cell["tests"][test][measure] for cell in own])
            for test in tests
            for measure in MEASURES
        ]
        images = between(cell["images"] for cell in own)
        yield f"| {line} | {images} | {' | '.join(numbers)} | {len(own)} |"


def test_line(test: str, cells: list[Cell]) -> str:
    """The number of test images, and of those with rows of several classes."""
    mixed = [cell["tests"][test]["mixed"] for cell in cells]
    images = between(cell["tests"][test]["images"] for cell in cells)
    return f"- {test}: {images} test images" + (
        f", {between(mixed)} of them mixed" if any(mixed) else ""
    )


def between(values: Iterable[int]) -> str:
    """One number, or the smallest and the largest."""
    known = sorted(values)
    smallest, largest = known[0], known[-1]
    return f"{smallest:,}" if smallest == largest else f"{smallest:,} to {largest:,}"


def spread(values: list[float]) -> str:
    """Mean and standard deviation, in percent."""
    mean = f"{100 * statistics.fmean(values):.1f}"
    return f"{mean} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else mean


if __name__ == "__main__":
    main()

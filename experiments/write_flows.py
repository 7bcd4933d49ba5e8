"""Writes the tables of docs/flows.md from results/flows/*.json.

python experiments/write_flows.py            write them
python experiments/write_flows.py --check    exit with 1 if they are not up to date
"""

import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "flows.md"
BEGIN, END = "<!-- flows -->\n", "<!-- end of flows -->"
TITLES = {
    "nidd": "5G-NIDD, the real subset: two base stations, blocks of time held out",
    "gtp": "5G core capture (GTP): two site files, blocks of time held out",
    "unsw": "UNSW-NB15, 10 classes: five sites, beta = 0.1",
    "nidd-leaking": "5G-NIDD, the subset, with the leaking columns (as the paper)",
    "nidd-random": "5G-NIDD, the subset, images split at random (as the paper)",
    "nidd-three": "5G-NIDD, the subset, rows of unknown station as a third site",
}


def main() -> None:
    """Write the tables, or compare them."""
    text = PAGE.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    made = before + BEGIN + "\n".join(tables()) + "\n" + END + after
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(made, encoding="utf-8")
    elif made != text:
        sys.exit(f"{PAGE} is not up to date: run python experiments/write_flows.py")


def tables() -> Iterator[str]:
    """Lines of Markdown, a table for each file of results."""
    for name, title in TITLES.items():
        path = ROOT / "results" / "flows" / f"{name}.json"
        results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"cells": []}
        cells = [cell for cell in results["cells"] if whole(results, cell["seed"])]
        if cells:
            yield from table(title, cells)


def table(title: str, cells: list[dict[str, Any]]) -> Iterator[str]:
    """One experiment: a row for each set, accuracy and macro F1 on every test."""
    tests = list(cells[0]["tests"])
    yield f"\n### {title}\n"
    for test in tests:
        one = cells[0]["tests"][test]
        mixed = f", {one['mixed']:,} of them mixed" if one["mixed"] else ""
        yield f"- {test}: {one['images']:,} test images{mixed}"
    columns = [f"{test}: accuracy | macro F1" for test in tests]
    yield f"\n| trained on | images | {' | '.join(columns)} | n |"
    yield "|---|---:|" + "---:|" * (2 * len(tests) + 1)
    for line in dict.fromkeys(cell["line"] for cell in cells):
        own = [cell for cell in cells if cell["line"] == line]
        numbers = [spread([cell["tests"][test][what] for cell in own]) for test in tests for what in KINDS]
        sizes = sorted({cell["images"] for cell in own})
        size = f"{sizes[0]:,}" if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,}"
        yield f"| {line} | {size} | {' | '.join(numbers)} | {len(own)} |"


KINDS = ("accuracy", "macro_f1")


def whole(results: dict[str, Any], seed: int) -> bool:
    """Whether all the lines of a seed are there; a site that is empty in one split has no line of its own."""
    lines = {cell["line"] for cell in results["cells"] if cell["seed"] == seed}
    return {"collabdm, ipc 10", "all the data"} <= lines


def spread(values: list[float]) -> str:
    """Mean and standard deviation, in per cent."""
    mean = f"{100 * statistics.fmean(values):.1f}"
    return f"{mean} ± {100 * statistics.stdev(values):.1f}" if len(values) > 1 else mean


if __name__ == "__main__":
    main()

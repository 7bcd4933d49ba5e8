"""Generate the tables of docs/flows.md from results/flows/*.json.

python experiments/write_flows.py            write them
python experiments/write_flows.py --check    exit with 1 if the page is not up to date
"""

import json
import statistics
import sys
from collections.abc import Iterator
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
KINDS = ("accuracy", "macro_f1")


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


def cells_of(name: str) -> list[dict[str, Any]]:
    """The cells of a file of results; none where it is not there."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8"))["cells"] if path.exists() else []


def tables() -> Iterator[str]:
    """Lines of Markdown, a table for each file of results."""
    for name, title in TITLES.items():
        cells = cells_of(name)
        cells = [cell for cell in cells if whole(cells, cell["seed"])]
        if cells:
            yield from table(title, cells)


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

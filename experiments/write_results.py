"""docs/results.md and the README's table, written from the results that were measured: never typed by hand.

    python experiments/write_results.py            write them
    python experiments/write_results.py --check    exit 1 if they differ

`results/rounds/*.json` are results.json files of `collabdm simulate`; `results/bytes/*.jsonl` are what
`experiments/bytes.py` wrote.
"""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE, README = ROOT / "results", ROOT / "docs" / "results.md", ROOT / "README.md"
MARK = ("<!-- results -->", "<!-- end of results -->")

Cell = dict[str, Any]


def main() -> None:
    """Write, or check, both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    rounds = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("rounds/*.json"))]
    cells = [json.loads(line) for path in sorted(RESULTS.glob("bytes/*.jsonl")) for line in path.open()]
    wanted = {PAGE: page(rounds, cells), README: readme(README.read_text(), rounds)}
    differ = [path.name for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if check and differ:
        sys.exit(f"{', '.join(differ)} should be what the results say: run `python experiments/write_results.py`")
    for path, text in wanted.items():
        path.write_text(text)


def page(rounds: list[Cell], cells: list[Cell]) -> str:
    """docs/results.md."""
    parts = [
        "# Measured results\n",
        "Written by `python experiments/write_results.py` from the files in `results/`; every file carries its "
        "settings, seed, device and versions. Accuracies are shares of the real test set, in percent, of "
        "ConvNets trained on the set with hard labels; ± is the standard deviation over seeds (each seed is "
        "another split, other networks, other images).\n",
        "## One round, five skewed sites\n",
        round_table(rounds),
        _command(rounds),
        "\n## Accuracy against bytes per site\n",
        "The same bytes of statistics as few wide means or many narrow ones, each seed used once or four "
        "times (replay). `python experiments/bytes.py --data NAME --seed N -o FILE` makes each row.\n",
        *(bytes_table(data, cells) for data in sorted({cell["data"] for cell in cells})),
    ]
    return "\n".join(parts).rstrip() + "\n"


def readme(text: str, rounds: list[Cell]) -> str:
    """The README with its table between the marks renewed."""
    before, _, rest = text.partition(MARK[0])
    _, _, after = rest.partition(MARK[1])
    return f"{before}{MARK[0]}\n{round_table(rounds)}\n{MARK[1]}{after}"


def round_table(rounds: list[Cell]) -> str:
    """A row per method, a column per data set; n seeds each."""
    scores: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    sent: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for result in rounds:
        data = result["experiment"]["data"]
        for score in result["scores"]:
            scores[score["what"]][data][result["experiment"]["seed"]] = 100 * score["mean"]
        for name, made in result["sets"].items():
            sent[name][data].append(max(made["bytes_per_site"].values()))
    columns = sorted({result["experiment"]["data"] for result in rounds})
    lines = [
        "| set | " + " | ".join(f"{data}, % | bytes per site, at most" for data in columns) + " |",
        "|---|" + "---:|---:|" * len(columns),
    ]
    for what in sorted(scores, key=lambda w: standing(scores[w], columns), reverse=True):
        row = []
        for data in columns:
            found = list(scores[what].get(data, {}).values())
            row += [spread(found), _bytes(what, sent[what].get(data, []))]
        lines.append(f"| {what} | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def _bytes(what: str, sent: list[int]) -> str:
    return "pools the data" if what.startswith("central") else f"{max(sent):,}" if sent else "-"


def standing(by_data: dict[str, dict[int, float]], columns: list[str]) -> tuple[float, ...]:
    """What the rows are ordered by: the mean on each data set, the first counting most."""
    return tuple(statistics.fmean(by_data[data].values()) if by_data.get(data) else 0.0 for data in columns)


def bytes_table(data: str, cells: list[Cell]) -> str:
    """A row per budget, a column per (sketch, passes)."""
    grid: dict[tuple[int, int, int, int], list[float]] = defaultdict(list)
    for cell in cells:
        if cell["data"] == data:
            key = (cell["budget"], cell["sketch"] or 0, cell["passes"], cell["steps"])
            grid[key].append(100 * cell["accuracy"])
    columns = sorted({(sketch, passes) for _, sketch, passes, _ in grid}, key=lambda c: (c[0] or 10**9, c[1]))
    head = [f"{f'r = {sketch}' if sketch else 'no sketch'}, {passes} x" for sketch, passes in columns]
    lines = [f"### {data}\n", "| bytes of statistics | " + " | ".join(head) + " |", "|---:|" + "---:|" * len(head)]
    for budget in sorted({key[0] for key in grid}):
        row = []
        for sketch, passes in columns:
            found = [(key[3], values) for key, values in grid.items() if key[:3] == (budget, sketch, passes)]
            row += [f"{spread(values)} (T {steps})" for steps, values in found] or ["not run"]
        lines.append(f"| {budget:,} | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def spread(values: list[float]) -> str:
    """Mean ± standard deviation (n)."""
    if not values:
        return "not run"
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{deviation} (n = {len(values)})"


def _command(rounds: list[Cell]) -> str:
    """How the rounds were made, from what the results say of themselves."""
    settings = sorted({json.dumps(_settings(result), sort_keys=True) for result in rounds})
    devices = sorted({json.dumps(result["compute"], sort_keys=True) for result in rounds})
    versions = sorted({json.dumps(result["versions"], sort_keys=True) for result in rounds})
    seeds = sorted({result["experiment"]["seed"] for result in rounds})
    lines = [f"Seeds {', '.join(map(str, seeds))}. Settings (`collabdm simulate --config`, as TOML or options):\n"]
    lines += [f"```json\n{text}\n```" for text in settings]
    lines += [f"Computed with {text}." for text in devices] + [f"Versions {text}." for text in versions]
    return "\n".join(lines) + "\n"


def _settings(result: Cell) -> Cell:
    return {
        key: value for key, value in result["experiment"].items() if key not in ("seed", "data") and value is not None
    }


if __name__ == "__main__":
    main()

"""Generate docs/results.md and the README's table from the measured results; never edit them by hand.

    python experiments/write_results.py            write them
    python experiments/write_results.py --check    exit 1 if they differ

`results/rounds/*.json` are results.json files of `collabdm simulate`; `results/bytes/*.jsonl` are what
`experiments/bytes.py` wrote; `results/grids/` is a folder of `collabdm reproduce`, with the paper's numbers in it;
`results/examples/*.json` are what the programs in `examples/` wrote.
"""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from collabdm.data.flows.built_in import FIVE_G_NIDD
from collabdm.data.flows.synthetic import PUBLISHED_COUNTS
from collabdm.lab.reproduce.grid_files import SCALES, read_grid
from collabdm.lab.reproduce.grid_results import GridResults
from collabdm.lab.reproduce.grids import Grid, axis_label
from collabdm.planning.settings import read_toml
from collabdm.report.grid_summary import (
    commands,
    provenance_rows,
    read_grids,
    row_costs,
    settings_line,
)

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE, README = ROOT / "results", ROOT / "docs" / "results.md", ROOT / "README.md"
MARK = ("<!-- results -->", "<!-- end of results -->")
SHOWN_ROWS = (  # in the README
    *("central-pae", "collabdm-pae", "localdm-pae", "central", "collabdm", "localdm", "fedd3", "dosfl", "dense"),
    *("fedd3, equal bytes", "fedavg", "random real, pae", "random real"),
)

Cell = dict[str, Any]


def main() -> None:
    """Write, or check, both files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check
    rounds = [json.loads(path.read_text()) for path in sorted(RESULTS.glob("rounds/*.json"))]
    cells = [json.loads(line) for path in sorted(RESULTS.glob("bytes/*.jsonl")) for line in path.open()]
    found = read_grids(RESULTS / "grids")
    wanted = {PAGE: page(rounds, cells, found), README: readme(README.read_text(), found)}
    missing = {(path.stem, scale) for path in ROOT.glob("experiments/*.toml") for scale in SCALES}
    missing -= {(f.grid.name, f.grid.scale) for f in found}
    stale = sorted(missing) + [f.grid.name for f in found if f.grid != grid_of(f)]
    if check and stale:
        sys.exit(f"results/grids should hold the grids of experiments/: `collabdm reproduce … --minutes 0` ({stale})")
    differ = [path.name for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if check and differ:
        sys.exit(f"{', '.join(differ)} should be what the results say: run `python experiments/write_results.py`")
    for path, text in wanted.items():
        path.write_text(text)


def grid_of(found: GridResults) -> Grid:
    """The grid as its TOML file says it now."""
    return read_grid(ROOT / "experiments" / f"{found.grid.name}.toml", found.grid.scale)


def page(rounds: list[Cell], cells: list[Cell], found: list[GridResults]) -> str:
    """docs/results.md."""
    parts = [
        "# Measured results\n",
        "Written by `python experiments/write_results.py` from the files in `results/`; every file records its "
        "settings, seed, device and versions. Accuracies are measured on the real test set, in percent, with ConvNets "
        "trained on the set with hard labels (DENSE and FedAvg produce a network of their own); ± is the standard "
        "deviation over seeds (each seed has a different split, different networks and different images).\n",
        "## One round, five skewed sites\n",
        round_table(rounds),
        _command(rounds),
        "\n## Accuracy against bytes per site\n",
        "The same number of bytes spent on a few wide means or on many narrow ones, with each seed used once or four "
        "times (replay). Each row is produced by `python experiments/bytes.py --data NAME --seed N -o FILE`.\n",
        *(bytes_table(data, cells) for data in sorted({cell["data"] for cell in cells})),
        *grid_pages(found),
        *uses(),
        *table1(),
    ]
    return "\n".join(parts).rstrip() + "\n"


def readme(text: str, found: list[GridResults]) -> str:
    """The README with its table between the marks renewed."""
    (methods,) = (f for f in found if (f.grid.name, f.grid.scale) == ("comparison", "cpu"))
    before, _, rest = text.partition(MARK[0])
    _, _, after = rest.partition(MARK[1])
    return f"{before}{MARK[0]}\n{methods_table(methods)}\n{MARK[1]}{after}"


def methods_table(found: GridResults) -> str:
    """A row per method, a column per data set, where accuracy is drawn against bytes: at the hardest split."""
    places = [sheet | (found.grid.bytes_at or {}) for sheet in found.grid.sheets]
    heads = " | ".join(f"{', '.join(sheet.values())}, %" for sheet in found.grid.sheets)
    lines = [f"| set | {heads} | bytes per site, at most | rounds |", "|---|" + "---:|" * (len(places) + 2)]
    for row in SHOWN_ROWS:
        sent, rounds, _ = row_costs(found, row, places)
        lines.append(f"| {row} | {' | '.join(str(found.entry(row, at)) for at in places)} | {sent} | {rounds} |")
    return "\n".join(lines) + "\n"


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


def spread(values: list[float], digits: int = 1) -> str:
    """Mean ± standard deviation (n)."""
    if not values:
        return "not run"
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{deviation} (n = {len(values)})"


def grid_pages(grids: list[GridResults]) -> Iterator[str]:
    """The paper's tables and figures at the scales that were run."""
    yield "\n## The paper's tables and figures\n"
    yield (
        "Each cell shows our result ± the standard deviation over seeds (number of seeds), then the paper's number and "
        "the difference. The small scale for a CPU is not the paper's measurement: the order of rows can be compared, "
        "the numbers cannot. “Over random” is the mean gain of a row, over its columns, against random real images of "
        "the same storage; “seconds” are the time of all sites one after the other, then of the server, on one core. "
        "`collabdm report results/grids` shows the same results with plots. Missing cells are run by\n"
    )
    yield "<!-- not run: needs published data sets and some hours -->"
    yield "\n".join(["```console", *(f"$ {command.replace('FOLDER', 'results/grids')}" for command in commands(grids))])
    yield "```\n"
    for found in grids:
        yield f"\n### {found.grid.title} ({found.grid.scale} scale)\n"
        text = f" {' '.join(found.grid.text.split())}" if found.done else ""
        yield f"{found.done:,} of {found.all:,} cells have been run.{text}\n"
        if found.done:
            yield f"{settings_line(found.grid)}\n"
            for sheet in found.grid.sheets:
                yield from grid_table(found, sheet)
    yield "| machine | computed in | versions | commit | cells |\n|---|---|---|---|---:|"
    yield "\n".join(f"| {' | '.join(row)} |" for row in provenance_rows(grids)) + "\n"


def grid_table(found: GridResults, sheet: Mapping[str, str]) -> Iterator[str]:
    """A row per line of the grid, a column per combination of the other axes."""
    grid = found.grid
    heads = [axis_label(column) or "accuracy, %" for column in grid.columns]
    yield f"#### {', '.join(sheet.values())}\n" if sheet else ""
    if not any(found.entry(row, sheet | column).n for row in grid.rows for column in grid.columns):
        yield "not run\n"
        return
    costly = ("over random", "bytes per site, at most", "rounds", "seconds, sites / server")
    yield f"| {' | '.join(('trained on', *heads, *costly))} |"
    yield "|---|" + "---:|" * (len(heads) + 4)
    for row in grid.rows:
        places = [{axis: (sheet | column)[axis] for axis in grid.axes} for column in grid.columns]
        above = [gain for at in places if (gain := found.over_random(row, at)) is not None]
        gained = f"{statistics.fmean(above):+.1f}" if above else "-"
        cells = [place(found, row, at) for at in places]
        yield f"| {' | '.join([row, *cells, gained, *row_costs(found, row, places)])} |"
    yield ""


def place(found: GridResults, row: str, at: Mapping[str, str]) -> str:
    """Ours, the paper's, the difference."""
    published, against = found.grid.published(row, at), found.above_paper(row, at)
    paper = "" if published is None else f"; paper {published.accuracy:.1f}"
    return f"{found.entry(row, at)}{paper}" + (f", {against:+.1f}" if against is not None else "")


def table1() -> Iterator[str]:
    """Table 1 by arithmetic: rows of the published table, by 94 in an image."""
    yield "\n## Table 1: images of 5G-NIDD\n"
    yield (
        f"Rows of each label in the published table, {FIVE_G_NIDD.flows} of them in an image of side "
        f"{FIVE_G_NIDD.side}; arithmetic, not a measurement. The paper merges the small classes into “Anomalous”. For "
        "the accuracy of attack detection with a distilled set, see Figure 3 and Table 3 above, and "
        "[flows.md](flows.md).\n"
    )
    yield "| class | rows | images | the paper's |\n|---|---:|---:|---:|"
    images: dict[str, list[int]] = defaultdict(list)
    published = read_toml(ROOT / "experiments" / "shared" / "paper.toml")["table1"]
    for name, rows in PUBLISHED_COUNTS.items():
        images[name if name in published["images"] else "Anomalous"].append(rows)
    for name, counts in images.items():
        made = sum(rows // FIVE_G_NIDD.flows for rows in counts)
        yield f"| {name} | {sum(counts):,} | {made:,} | {published['images'][name]:,} |"


def uses() -> Iterator[str]:
    """What a shared set is for beside training one network: architecture search, continual learning."""
    yield "\n## Uses of a shared set\n"
    yield (
        "Continual learning: a network learns groups of classes one after another and keeps only the set of the "
        "previous groups; accuracy on all classes after the last group. Architecture search: agreement between the "
        "ranking of networks trained on the set and their ranking on the data (rank correlation). These results come "
        "from `examples/continual_learning.py` and `examples/architecture_search.py`.\n"
    )
    yield "| use | data | distilled | random real | n |\n|---|---|---:|---:|---:|"
    for path in sorted(RESULTS.glob("examples/*.json")):
        result = json.loads(path.read_text())
        data = result.get("data") or result["setting"]["data"]
        search = "correlation" in result["runs"][0]
        runs = [run["correlation"] if search else {k: 100 * v[-1] for k, v in run.items()} for run in result["runs"]]
        cells = [f"{spread([run[what] for run in runs], 2 if search else 1)}" for what in ("distilled", "random real")]
        name = "architecture search, rank correlation" if search else "continual learning, accuracy %"
        yield f"| {name} | {data} | {' | '.join(cells)} | {len(runs)} |"


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

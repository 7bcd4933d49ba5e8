"""Generate docs/results.md and the README's tables from the measured results.

    python experiments/write_results.py            write them
    python experiments/write_results.py --check    exit with 1 if they are not up to date

Never edit them by hand. The sources are

    results/rounds/*.json     results.json files of `collabdm simulate`
    results/bytes/*.jsonl     written by `experiments/bytes.py`
    results/grids/            a folder of `collabdm reproduce`, with the paper's numbers in it
    results/examples/*.json   written by the programs in `examples/`
    results/value/*.json      see `value_table.py`
"""

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import value_table

from collabdm.data.flows.built_in import FIVE_G_NIDD
from collabdm.data.flows.synthetic import PUBLISHED_COUNTS
from collabdm.lab.reproduce.grid_files import SCALES, read_grid
from collabdm.lab.reproduce.grid_results import GridResults
from collabdm.lab.reproduce.grids import Grid, axis_label
from collabdm.lab.results import SimulationResults, read_results
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
MARKS = ("<!-- results -->", "<!-- end of results -->")
README_ROWS = (
    *("central-pae", "collabdm-pae", "localdm-pae", "central", "collabdm", "localdm"),
    *("fedd3", "dosfl", "dense", "fedd3, equal bytes", "fedavg"),
    *("random real, pae", "random real"),
)

INTRODUCTION = """\
# Measured results

Written by `python experiments/write_results.py` from the files in `results/`; every file records \
its settings, seed, device and versions. Accuracies are measured on the real test set, in percent, \
with ConvNets trained on the set with hard labels (DENSE and FedAvg produce a network of their \
own); ± is the standard deviation over seeds (each seed has a different split, different networks \
and different images).

## One round, five skewed sites
"""
BYTES = """
## Accuracy against bytes per site

The same number of bytes spent on a few wide means or on many narrow ones, with each seed used \
once or four times (replay). Each row is produced by `python experiments/bytes.py --data NAME \
--seed N -o FILE`.
"""
GRIDS = """
## The paper's tables and figures

Each cell shows our result ± the standard deviation over seeds (number of seeds), then the paper's \
number and the difference. The small scale for a CPU is not the paper's measurement: the order of \
rows can be compared, the numbers cannot. “Over random” is the mean gain of a row, over its \
columns, against random real images of the same storage; “seconds” are the time of all sites one \
after the other, then of the server, on one core. `collabdm report results/grids` shows the same \
results with plots. Missing cells are run by

<!-- not run: needs published data sets and some hours -->"""
USES = """
## Uses of a shared set

Continual learning: a network learns groups of classes one after another and keeps only the set of \
the previous groups; accuracy on all classes after the last group. Architecture search: agreement \
between the ranking of networks trained on the set and their ranking on the data (rank \
correlation). These results come from `examples/continual_learning.py` and \
`examples/architecture_search.py`.
"""
TABLE_1 = f"""
## Table 1: images of 5G-NIDD

Rows of each label in the published table, {FIVE_G_NIDD.flows} of them in an image of side \
{FIVE_G_NIDD.side}; arithmetic, not a measurement. The paper merges the small classes into \
“Anomalous”. For the accuracy of attack detection with a distilled set, see Figure 3 and Table 3 \
above, and [flows.md](flows.md).
"""
COST_COLUMNS = ("over random", "bytes per site, at most", "rounds", "seconds, sites / server")

Document = dict[str, Any]  # of a JSON file without a model of its own


def main() -> None:
    """Write both files, or compare them with the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true")
    check = parser.parse_args().check

    grids = read_grids(RESULTS / "grids")
    if check and (stale := stale_grids(grids)):
        sys.exit(
            "results/grids should contain the grids of experiments/: run `collabdm reproduce … "
            f"--minutes 0` ({stale})"
        )

    texts = {PAGE: page(grids), README: readme(README.read_text(), grids)}
    stale = [p.name for p, text in texts.items() if not p.exists() or p.read_text() != text]
    if check and stale:
        sys.exit(f"{', '.join(stale)} not up to date: run `python experiments/write_results.py`")

    for path, text in texts.items():
        path.write_text(text)


def stale_grids(grids: Sequence[GridResults]) -> list[str]:
    """The grids of experiments/ that are missing, or differ, in the results."""
    known = {(one.grid.name, one.grid.scale) for one in grids}
    wanted = {(path.stem, scale) for path in ROOT.glob("experiments/*.toml") for scale in SCALES}
    missing = [f"{name}, {scale}" for name, scale in sorted(wanted - known)]

    return missing + [one.grid.name for one in grids if one.grid != grid_now(one.grid)]


def grid_now(grid: Grid) -> Grid:
    """The grid according to its TOML file."""
    return read_grid(ROOT / "experiments" / f"{grid.name}.toml", grid.scale)


def page(grids: Sequence[GridResults]) -> str:
    """docs/results.md."""
    rounds = list(read_rounds())
    cells = [
        json.loads(line)
        for path in sorted(RESULTS.glob("bytes/*.jsonl"))
        for line in path.read_text().splitlines()
    ]
    parts = [
        INTRODUCTION,
        round_table(rounds),
        round_settings(rounds),
        BYTES,
        *(bytes_table(data, cells) for data in sorted({cell["data"] for cell in cells})),
        *grid_sections(grids),
        *uses(),
        *table1(),
    ]
    return "\n".join(parts).rstrip() + "\n"


def readme(text: str, grids: Sequence[GridResults]) -> str:
    """The README with new tables between the marks."""
    (methods,) = (one for one in grids if one.grid.slug == "comparison-cpu")
    text = between(text, value_table.MARKS, value_table.value_section(RESULTS / "value"))
    return between(text, MARKS, methods_table(methods))


def between(text: str, marks: tuple[str, str], table: str) -> str:
    """The text with a new table between the marks."""
    before, _, rest = text.partition(marks[0])
    _, _, after = rest.partition(marks[1])
    return f"{before}{marks[0]}\n{table}\n{marks[1]}{after}"


def methods_table(results: GridResults) -> str:
    """A row for each method, a column for each data set, at the hardest split."""
    grid = results.grid
    places = [sheet | (grid.bytes_at or {}) for sheet in grid.sheets]
    heads = [f"{', '.join(sheet.values())}, %" for sheet in grid.sheets]

    columns = ("set", *heads, "bytes per site, at most", "rounds")
    lines = [table_row(columns), "|---|" + "---:|" * (len(places) + 2)]
    for row in README_ROWS:
        costs = row_costs(results, row, places)
        accuracies = (str(results.entry(row, at)) for at in places)
        lines.append(table_row((row, *accuracies, costs.upload, costs.rounds)))

    return "\n".join(lines) + "\n"


def table_row(cells: Sequence[str]) -> str:
    """One line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Mean ± standard deviation (n)."""
    if not values:
        return "not run"

    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{deviation} (n = {len(values)})"


# --- one round -----------------------------------------------------------------------------------


def read_rounds() -> Iterator[SimulationResults]:
    """The simulations in results/rounds."""
    for path in sorted(RESULTS.glob("rounds/*.json")):
        results = read_results(path)
        assert isinstance(results, SimulationResults), path
        yield results


def round_table(rounds: Sequence[SimulationResults]) -> str:
    """A row for each method, a column for each data set, over seeds."""
    scores: dict[str, dict[str, dict[int, float]]] = defaultdict(lambda: defaultdict(dict))
    uploads: dict[tuple[str, str], list[int]] = defaultdict(list)

    for results in rounds:
        for score in (record.score for record in results.scores):
            scores[score.what][results.data][results.experiment.seed] = 100 * score.mean
        for name, record in results.sets.items():
            uploads[name, results.data].append(record.largest_upload or 0)

    columns = sorted({results.data for results in rounds})
    lines = [
        "| set | " + " | ".join(f"{data}, % | bytes per site, at most" for data in columns) + " |",
        "|---|" + "---:|---:|" * len(columns),
    ]
    for what in sorted(scores, key=lambda w: row_means(scores[w], columns), reverse=True):
        cells = [what]
        for data in columns:
            cells.append(spread(list(scores[what].get(data, {}).values())))
            cells.append(_upload(what, uploads.get((what, data), [])))
        lines.append(table_row(cells))

    return "\n".join(lines) + "\n"


def _upload(what: str, uploads: Sequence[int]) -> str:
    if what.startswith("central"):
        return "pools the data"
    return f"{max(uploads):,}" if uploads else "-"


def row_means(by_data: Mapping[str, Mapping[int, float]], columns: Sequence[str]) -> list[float]:
    """The order of rows: by the mean on the first data set, then on the next."""
    return [
        statistics.fmean(by_data[data].values()) if by_data.get(data) else 0.0 for data in columns
    ]


def round_settings(rounds: Sequence[SimulationResults]) -> str:
    """The settings of the rounds, according to their results."""
    settings = sorted({_sorted_json(_settings(results)) for results in rounds})
    devices = sorted({_sorted_json(results.compute.document()) for results in rounds})
    versions = sorted({_sorted_json(results.versions) for results in rounds})
    seeds = sorted({results.experiment.seed for results in rounds})

    lines = [
        f"Seeds {', '.join(map(str, seeds))}. Settings (`collabdm simulate --config`, as TOML or "
        "options):\n",
        *(f"```json\n{text}\n```" for text in settings),
        *(f"Computed with {text}." for text in devices),
        *(f"Versions {text}." for text in versions),
    ]
    return "\n".join(lines) + "\n"


def _settings(results: SimulationResults) -> Document:
    settings = results.experiment.model_dump(mode="json")
    return {k: v for k, v in settings.items() if k not in ("seed", "data") and v is not None}


def _sorted_json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, sort_keys=True)


# --- bytes ---------------------------------------------------------------------------------------


def bytes_table(data: str, cells: Sequence[Document]) -> str:
    """A row for each budget, a column for each (sketch, passes)."""
    accuracies: dict[tuple[int, int, int, int], list[float]] = defaultdict(list)
    for cell in cells:
        if cell["data"] == data:
            key = (cell["budget"], cell["sketch"] or 0, cell["passes"], cell["steps"])
            accuracies[key].append(100 * cell["accuracy"])

    columns = sorted(
        {(sketch, passes) for _, sketch, passes, _ in accuracies},
        key=lambda column: (column[0] or 10**9, column[1]),
    )
    heads = [f"{f'r = {sketch}' if sketch else 'no sketch'}, {n} x" for sketch, n in columns]
    lines = [f"### {data}\n", table_row(("bytes of statistics", *heads))]
    lines.append("|---:|" + "---:|" * len(heads))

    for budget in sorted({key[0] for key in accuracies}):
        row = [f"{budget:,}"]
        for column in columns:
            same = {k[3]: v for k, v in accuracies.items() if k[:3] == (budget, *column)}
            row += [f"{spread(v)} (T {steps})" for steps, v in same.items()] or ["not run"]
        lines.append(table_row(row))

    return "\n".join(lines) + "\n"


# --- grids ---------------------------------------------------------------------------------------


def grid_sections(grids: Sequence[GridResults]) -> Iterator[str]:
    """The paper's tables and figures at both scales."""
    yield GRIDS
    shown = [f"$ {command.replace('FOLDER', 'results/grids')}" for command in commands(grids)]
    yield "\n".join(["```console", *shown])
    yield "```\n"

    for one in grids:
        text = f" {' '.join(one.grid.text.split())}" if one.done else ""
        yield f"\n### {one.grid.title} ({one.grid.scale} scale)\n"
        yield f"{one.done:,} of {one.all:,} cells have been run.{text}\n"
        if one.done:
            yield f"{settings_line(one.grid)}\n"
            for sheet in one.grid.sheets:
                yield from grid_table(one, sheet)

    yield table_row(("machine", "computed in", "versions", "commit", "cells"))
    yield "|---|---|---|---|---:|"
    yield "\n".join(map(table_row, provenance_rows(grids))) + "\n"


def grid_table(results: GridResults, sheet: Mapping[str, str]) -> Iterator[str]:
    """A row for each line of the grid, a column for each combination of the other axes."""
    grid, places = results.grid, results.grid.places(sheet)
    yield f"#### {', '.join(sheet.values())}\n" if sheet else ""

    if not any(results.entry(row, at).n for row in grid.rows for at in places):
        yield "not run\n"
        return

    heads = [axis_label(column) or "accuracy, %" for column in grid.columns]
    yield table_row(("trained on", *heads, *COST_COLUMNS))
    yield "|---|" + "---:|" * (len(heads) + 4)

    for row in grid.rows:
        above = [gain for at in places if (gain := results.over_random(row, at)) is not None]
        gained = f"{statistics.fmean(above):+.1f}" if above else "-"
        cells = [grid_cell(results, row, at) for at in places]
        yield table_row((row, *cells, gained, *row_costs(results, row, places)))

    yield ""


def grid_cell(results: GridResults, row: str, at: Mapping[str, str]) -> str:
    """Our result, the paper's, and the difference."""
    published, gap = results.grid.published(row, at), results.above_paper(row, at)
    paper = "" if published is None else f"; paper {published.accuracy:.1f}"
    difference = "" if gap is None else f", {gap:+.1f}"

    return f"{results.entry(row, at)}{paper}{difference}"


# --- other tables --------------------------------------------------------------------------------


def table1() -> Iterator[str]:
    """Table 1: the images of each class, by arithmetic."""
    yield TABLE_1
    yield "| class | rows | images | the paper's |\n|---|---:|---:|---:|"

    published = read_toml(ROOT / "experiments" / "shared" / "paper.toml")["table1"]["images"]
    rows: dict[str, list[int]] = defaultdict(list)
    for label, count in PUBLISHED_COUNTS.items():
        rows[label if label in published else "Anomalous"].append(count)

    for name, counts in rows.items():
        images = sum(count // FIVE_G_NIDD.flows for count in counts)
        yield f"| {name} | {sum(counts):,} | {images:,} | {published[name]:,} |"


def uses() -> Iterator[str]:
    """Uses other than training one network: architecture search, continual learning."""
    yield USES
    yield "| use | data | distilled | random real | n |\n|---|---|---:|---:|---:|"

    for path in sorted(RESULTS.glob("examples/*.json")):
        document = json.loads(path.read_text())
        runs, data = document["runs"], document.get("data") or document["setting"]["data"]
        if "correlation" in runs[0]:
            name, digits = "architecture search, rank correlation", 2
            values = [run["correlation"] for run in runs]
        else:
            name, digits = "continual learning, accuracy %", 1
            values = [{what: 100 * curve[-1] for what, curve in run.items()} for run in runs]

        sets = ("distilled", "random real")
        cells = [spread([run[what] for run in values], digits) for what in sets]
        yield table_row((name, data, *cells, str(len(runs))))


if __name__ == "__main__":
    main()

"""The paper's comparison at a CPU scale: every method, two skews, with and without a class floor, two data sets.

    python experiments/comparison.py run --minutes 30     run the cells that are missing, cheapest information first
    python experiments/comparison.py table                print the comparison, and what is not run
    python experiments/comparison.py plot                 draw accuracy against bytes

A cell is one method on one split of one data set. Each is a `collabdm simulate` of its own; its line in
`results/comparison/NAME.jsonl` holds settings, scores, bytes, rounds, seconds, compute and versions. Cells that a file
holds already are not repeated. Accuracies are of the full test set.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from collabdm.compute import Compute
from collabdm.experiment import Bench, Experiment, simulate
from collabdm.version import versions

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PICTURE = ROOT / "results" / "comparison", ROOT / "docs" / "pictures" / "comparison.png"
DATA, SEEDS = ("fashion_mnist", "cifar10"), (0, 1, 2)
SPLITS = ((0.1, 0), (0.5, 0), (0.1, 10), (0.5, 10))  # beta, images of each class that every site gets first

#: one scale for all: 5 sites, 500 training images of each class, a ConvNet of width 32, IPC 10
PLAN: dict[str, Any] = {
    "ipc": 10, "batch": 64, "steps": 50, "network": {"name": "ConvNet", "width": 32},
    "local": {"steps": 50, "batch": 64}, "refinement": {"passes": 2},
}  # fmt: skip
SCALE: dict[str, Any] = {"sites": 5, "per_class": 500, "trials": 1, "recipe": "short", "epochs": 100}

_DENSE = {
    "local": {"epochs": 10, "batch": 32}, "epochs": 24, "batch": 64, "learning_rate": 0.05,
    "generator": {"width": 32, "batch": 64, "steps": 8, "learning_rate": 0.01},
}  # fmt: skip
_DOSFL = {"iterations": 200, "learning_rate": 0.01, "batch": 128, "window": 2, "passes": 2, "images": 10}

#: line of the table: the method, and its options
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "collabdm": ("collabdm", {}),
    "localdm": ("localdm", {}),
    "coreset": ("coreset", {}),
    "coreset, random images": ("coreset", {"rule": "random"}),
    "fedd3": ("fedd3", {"iterations": 500}),
    "fedd3, start images": ("fedd3", {"iterations": 0}),
    "dosfl": ("dosfl", _DOSFL),
    "dosfl, start images": ("dosfl", _DOSFL | {"iterations": 0}),
    "dense": ("dense", _DENSE),
    "fedavg": ("fedavg", {"rounds": 10, "local": {"epochs": 2, "batch": 32, "learning_rate": 0.05, "momentum": 0.5}}),
    "rounds-gradients": ("rounds-gradients", {"rounds": 30}),
    "rounds-means": ("rounds-means", {"rounds": 50}),
    "fedd3, equal bytes": ("fedd3", {"iterations": 100, "bytes": 0}),  # 0: the bytes of collabdm, filled in
    "collabdm-pae": ("collabdm-pae", {}),
}

Cell = dict[str, Any]


def main() -> None:
    """One of the three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "table", "plot"))
    parser.add_argument("--minutes", type=float, default=30.0, help="start no cell after so many")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    if options.what == "run":
        torch.set_num_threads(options.threads)
        run(options.minutes, Compute(options.device, "float32"))
    elif options.what == "table":
        print(table(read()))
    else:
        plot(read())


def order() -> Iterator[Cell]:
    """All cells: the hardest split of both sets with one seed first, then more seeds, then the other splits."""
    for split, seeds in ((SPLITS[:1], SEEDS), (SPLITS[1:3], SEEDS[:1]), (SPLITS[1:], SEEDS)):
        for seed in seeds:
            for beta, floor in split:
                for line in METHODS:
                    for data in DATA:
                        yield {"line": line, "data": data, "beta": beta, "class_floor": floor, "seed": seed}


def run(minutes: float, compute: Compute) -> None:
    """Run cells until the time is over."""
    end, kept = time.monotonic() + 60 * minutes, read()
    done = [_name(cell) for cell in kept]
    for cell in order():
        if time.monotonic() > end:
            break
        if _name(cell) in done:
            continue
        settings = settings_of(cell, kept)
        if settings is None:
            continue
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            results = simulate(settings, Bench(Path(folder), compute, clock))
        found = next(iter(results["sets"].values()))
        line = cell | {
            "scores": {score["what"]: score["mean"] for score in results["scores"]},
            "accuracy": results["scores"][0]["mean"], "method": settings.method,
            "bytes_up": found["bytes_per_site"], "bytes_down": found.get("bytes_to_each_site"),
            "rounds": found.get("rounds", 1), "images": found["images"], "seconds": clock.seconds(),
            "experiment": results["experiment"], "compute": asdict(compute), "threads": torch.get_num_threads(),
            "versions": versions(),
        }  # fmt: skip
        path = RESULTS / f"{cell['data']}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(json.dumps(line) + "\n")
        kept.append(line)
        done.append(_name(cell))
        print(*_name(cell), f"{100 * line['accuracy']:.1f} %", f"{sum(line['seconds'].values()):.0f} s", flush=True)


def settings_of(cell: Cell, kept: list[Cell]) -> Experiment | None:
    """The simulation of a cell; none where it needs the bytes of a cell that is not there yet."""
    method, options = METHODS[cell["line"]]
    if options.get("bytes") == 0:
        like = _name(cell | {"line": "collabdm"})
        sent = [max(other["bytes_up"].values()) for other in kept if _name(other) == like]
        if not sent:
            return None
        options = options | {"bytes": sent[0]}
    place = {key: cell[key] for key in ("data", "beta", "class_floor", "seed")}
    plan = PLAN | ({"options": options} if options else {})
    compare = ("random",) if cell["line"] == "collabdm" else ()
    return Experiment(**SCALE, **place, method=method, plan=plan, compare=compare)


class Clock:
    """Progress that sums seconds: at the sites, at the server, in scoring."""

    def __init__(self) -> None:
        self._last, self._spent = time.perf_counter(), defaultdict(float)

    def __call__(self, what: str, done: int, total: int) -> None:
        """Give the time since the last call to what is going on."""
        where = "sites" if what.startswith("site ") else "scoring" if what.startswith("training on") else "server"
        now = time.perf_counter()
        self._spent[where] += now - self._last
        self._last = now

    def seconds(self) -> dict[str, float]:
        """By part; what comes after the last call is scoring."""
        self("training on", 0, 0)
        return {where: round(seconds, 1) for where, seconds in self._spent.items()}


def read() -> list[Cell]:
    """All cells that were run."""
    return [json.loads(line) for path in sorted(RESULTS.glob("*.jsonl")) for line in path.open()]


def _name(cell: Cell) -> tuple[Any, ...]:
    return tuple(cell[key] for key in ("line", "data", "beta", "class_floor", "seed"))


def table(cells: list[Cell]) -> str:
    """A row for each line, a column for each split, one table for each data set; in Markdown."""
    return "\n".join(part for data in DATA for part in _table_of(data, [c for c in cells if c["data"] == data]))


def _table_of(data: str, cells: list[Cell]) -> list[str]:
    grid: dict[str, dict[tuple[float, int], list[float]]] = defaultdict(lambda: defaultdict(list))
    about: dict[str, Cell] = {}
    for cell in cells:
        for what, accuracy in cell["scores"].items():
            row = cell["line"] if what == cell["method"] else what
            if row.startswith("dense, site-"):
                continue
            grid[row][cell["beta"], cell["class_floor"]].append(100 * accuracy)
            about.setdefault(row, cell)
        sites = [value for what, value in cell["scores"].items() if what.startswith("dense, site-")]
        if sites:
            for row, value in (("dense, worst site", min(sites)), ("dense, best site", max(sites))):
                grid[row][cell["beta"], cell["class_floor"]].append(100 * value)
    head = [f"beta {beta}{f', floor {floor}' if floor else ''}" for beta, floor in SPLITS]
    lines = [
        f"\n### {data}\n",
        "| line | " + " | ".join(head) + " | bytes up, at most | rounds | seconds of sites, server |",
        "|---|" + "---:|" * (len(SPLITS) + 3),
    ]
    for row in sorted(grid, key=lambda r: -statistics.fmean(grid[r].get(SPLITS[0]) or [0])):
        lines.append(f"| {row} | " + " | ".join([*(spread(grid[row][s]) for s in SPLITS), *_cost(row, about)]) + " |")
    return lines


def _cost(row: str, about: dict[str, Cell]) -> list[str]:
    cell = about.get(row)
    if cell is None or row != cell["line"]:
        return ["", "", ""]
    seconds = cell["seconds"]
    times = f"{seconds.get('sites', 0):.0f}, {seconds.get('server', 0):.0f}"
    return [f"{max(cell['bytes_up'].values()):,}", str(cell["rounds"]), times]


def spread(values: list[float]) -> str:
    """Mean ± standard deviation (n)."""
    if not values:
        return "not run"
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{deviation} ({len(values)})"


def plot(cells: list[Cell]) -> None:
    """Accuracy against bytes that a site sends, in both data sets, at the hardest split."""
    import matplotlib.pyplot as plt  # slow to import, and needed here only

    figure, axes = plt.subplots(1, len(DATA), figsize=(11, 4.5), layout="constrained")
    for axis, data in zip(axes, DATA, strict=True):
        chosen = [c for c in cells if c["data"] == data and (c["beta"], c["class_floor"]) == SPLITS[0]]
        for number, line in enumerate(METHODS):
            own = [c for c in chosen if c["line"] == line and "start images" not in line]
            if own:
                up = statistics.fmean(max(c["bytes_up"].values()) for c in own)
                found = [100 * c["accuracy"] for c in own]
                error = statistics.stdev(found) if len(found) > 1 else 0.0
                marker = "o" if own[0]["rounds"] == 1 else "s"
                colour = plt.colormaps["tab20"](number)
                axis.errorbar(up, statistics.fmean(found), error, fmt=marker, color=colour, capsize=3, label=line)
        axis.set(xscale="log", xlabel="bytes that a site sends, at most", ylabel="accuracy, %", title=data)
        axis.grid(alpha=0.3)
    axes[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5), title="squares: many rounds")
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()

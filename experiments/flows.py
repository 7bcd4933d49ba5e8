"""Attack detection from tables of flows: the distilled set against LocalDM, sites alone, random images, all the data.

    python experiments/flows.py gtp --data DATA/flows --seeds 5 -o results/flows/gtp.json
    python experiments/flows.py 5gnidd --data FOLDER -o 5gnidd.json        BTS_1.csv and BTS_2.csv, the whole table

A seed is a whole round: plan, sites, server, random draws and trained network are its own. The round of seed 0 goes
through the command line, every step a process that reads files. Every network is tested on the flows held out in
blocks of time, grouped by class and as they come. Cells that the output already holds are not repeated. The paper's
Figure 3 and Table 3 are grids of their own: experiments/figure3.toml and table3.toml.
"""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from collabdm.data.flows.built_in import FIVE_G_NIDD
from collabdm.data.flows.draft import draft
from collabdm.data.flows.schemas import with_changes
from collabdm.data.flows.tables import Reading, read_flows
from collabdm.data.flows.windows import Flows, Windows, windows
from collabdm.data.partition import dirichlet
from collabdm.data.sources import limit
from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.contribution_file import write_contribution
from collabdm.documents.flow_schema import FlowSchema, Number
from collabdm.documents.outcome_files import read_distilled, write_distilled
from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import write_plan
from collabdm.documents.specs import NetworkSpec
from collabdm.images import ImageSet, pool
from collabdm.matching.compute import Compute, choose_compute
from collabdm.matching.embedding import plan_geometry
from collabdm.matching.run_context import RunContext
from collabdm.methods.registry import METHODS
from collabdm.planning.make import plan_for_flows
from collabdm.planning.presets import preset_settings
from collabdm.planning.settings import merge_settings
from collabdm.scoring.confusion import Confusion
from collabdm.scoring.evaluation import random_baselines
from collabdm.scoring.training import RECIPES, Task, Trainer, network_seed, training_set
from collabdm.seeds import Purpose, Stream
from collabdm.version import versions

NETWORK = {"name": "ConvNet", "width": 32, "depth": 3}
RECIPE = RECIPES["short"].model_copy(update={"batch": 64})  # small sets: several steps an epoch
MOST_IMAGES, FEWEST_EPOCHS = 20_000, 5  # a larger set is trained on for fewer epochs
FEWEST_STEPS = 400  # a smaller one for more: every network takes so many steps
SETTINGS: dict[str, Any] = {
    "steps": 60,
    "batch": 64,
    "network": NETWORK,
    "local": {"steps": 30, "batch": 64},
}


@dataclass(frozen=True)
class Case:
    """One experiment: a schema, the tables of the sites (rows of a column's value, if given), and further tests."""

    schema: FlowSchema
    sites: dict[str, tuple[str, tuple[str, str] | None]]
    tests: dict[str, str] = field(default_factory=dict)
    split_over: int | None = None  # the one table is split over so many sites, Dirichlet 0.1
    per_class: int | None = None
    settings: dict[str, Any] = field(default_factory=lambda: SETTINGS)

    @property
    def network(self) -> dict[str, Any]:
        """The network of embeddings, and the one trained."""
        return self.settings["network"]


def gtp(folder: Path, **changes: Any) -> Case:
    """Two site files of a 5G core capture; packets in order of their time."""
    drafted = draft(folder / "5g_gtp_site1.csv.gz", side=16).schema
    schema = with_changes(
        drafted, {"time": "frame.time_relative", "flows": 5, "block": 20} | changes
    )
    sites = {"site-1": ("5g_gtp_site1.csv.gz", None), "site-2": ("5g_gtp_site2.csv.gz", None)}
    return Case(schema, sites, {"published test file": "5g_gtp_test.csv.gz"})


def nidd(folder: Path, **changes: Any) -> Case:
    """The two base stations of the subset of 5G-NIDD; its row number has a name there."""
    small = {"flows": 5, "side": 16, "layout": "rows", "block": 4, "held_out": 4}
    row = Number(name="row_in_bts_csv", low=0.0, high=1e7)
    named = {
        "columns": (row, *FIVE_G_NIDD.columns[1:]),
        "leaking": (row.name, *FIVE_G_NIDD.leaking[1:]),
    }
    schema = with_changes(FIVE_G_NIDD, named | small | changes)
    table = "5gnidd_subset.parquet"
    return Case(schema, {f"station-{k}": (table, ("BaseStation", str(k))) for k in (1, 2)})


def whole_nidd(folder: Path) -> Case:
    """The whole of 5G-NIDD as the paper has it, for whoever has it: a table for each of the two base stations."""
    settings = {"steps": 200, "batch": 512, "network": {"name": "ConvNet", "depth": 4}}
    return Case(
        FIVE_G_NIDD, {f"station-{k}": (f"BTS_{k}.csv", None) for k in (1, 2)}, settings=settings
    )


def nidd_three(folder: Path) -> Case:
    """The same with the rows whose station is not known as a third site: it alone holds the scans."""
    case = nidd(folder)
    return Case(
        case.schema, case.sites | {"unknown": ("5gnidd_subset.parquet", ("BaseStation", "0"))}
    )


def unsw(folder: Path) -> Case:
    """UNSW-NB15: rows in no order of time, so their blocks are as good as random; five sites, Dirichlet 0.1."""
    path = folder / "unsw_nb15_zscored.parquet"
    schema = with_changes(draft(path, "class", 16, ("label",)).schema, {"flows": 5})
    return Case(schema, {"all": (path.name, None)}, split_over=5, per_class=200)


CASES: dict[str, Callable[[Path], Case]] = {
    "gtp": gtp,
    "nidd": nidd,
    "5gnidd": whole_nidd,
    "nidd-three": nidd_three,
    "unsw": unsw,
    "nidd-random": lambda folder: nidd(folder, split="random"),
    "nidd-leaking": lambda folder: nidd(folder, keep_leaking=True, side=20),
    "nidd-long": lambda folder: replace(
        nidd(folder), settings=SETTINGS | {"steps": 240, "batch": 256}
    ),
    "nidd-stream": lambda folder: nidd(folder, grouping="stream"),
    "nidd-packed": lambda folder: nidd(folder, layout="packed"),
    "gtp-leaking": lambda folder: gtp(folder, keep_leaking=True),
}


@dataclass(frozen=True)
class Ground:
    """What one seed works on: what sites hold, and the windows of every test."""

    sites: dict[str, ImageSet]
    tests: dict[str, tuple[ImageSet, int]]  # images, and how many of them are mixed


def ground_of(case: Case, folder: Path, seed: int) -> Ground:
    """Read the tables and group their rows."""
    tables = [flows_of(folder / name, case.schema, where) for name, where in case.sites.values()]
    held = {
        name: windows(flows, case.schema, "train", seed).labelled(case.schema.classes)
        for name, flows in zip(case.sites, tables, strict=True)
    }
    tests = {}
    for grouping in ("class", "stream"):
        grouped = with_changes(case.schema, {"grouping": grouping})
        tests[f"held out, {grouping}"] = together(
            [windows(flows, grouped, "test", seed) for flows in tables], grouped
        )
        for what, name in case.tests.items():
            flows = flows_of(folder / name, case.schema)
            tests[f"{what}, {grouping}"] = together([windows(flows, grouped)], grouped)
    if case.split_over is not None:
        everything = limit(pool(list(held.values())), case.per_class, Stream.of(seed, Purpose.DATA))
        split = dirichlet(everything.labels, len(case.schema.classes), case.split_over, 0.1, seed)
        held = {name: data for name, data in split.sites(everything).items() if len(data)}
    return Ground(held, tests)


@cache
def flows_of(path: Path, schema: FlowSchema, where: tuple[str, str] | None = None) -> Flows:
    """The rows of a table, read once."""
    return read_flows(path, schema, Reading(where))[0]


def together(parts: list[Windows], schema: FlowSchema) -> tuple[ImageSet, int]:
    """The windows of several tables as one test."""
    return pool([part.labelled(schema.classes) for part in parts]), sum(
        part.mixed for part in parts
    )


def plan_with(case: Case, ground: Ground, seed: int, method: str, ipc: int) -> Plan:
    """The plan of one set."""
    own = {"seed": seed, "sites": len(ground.sites), "ipc": ipc}
    settings = merge_settings(preset_settings("best"), case.settings | own)
    return plan_for_flows(case.schema, **METHODS[method].adapt(settings))


def made_here(plan: Plan, ground: Ground, method: str, folder: Path, compute: Compute) -> None:
    """The set of a plan, made in this process."""
    answers = [
        METHODS[method].contribute(plan, data, name, RunContext(compute))
        for name, data in ground.sites.items()
    ]
    for answer in answers:
        write_contribution(answer, folder / f"{answer.site}.safetensors")
    write_distilled(
        METHODS[method].distill(plan, answers, RunContext(compute)),
        folder / "distilled.safetensors",
    )


def made_by_processes(plan: Plan, case: Case, data: Path, folder: Path, precision: str) -> None:
    """The set of a plan, every step a process of its own that starts from files."""

    how = ("--precision", precision, "--threads", "1", "--quiet")

    def process(*arguments: object) -> None:
        subprocess.run([sys.executable, "-m", "collabdm", *map(str, arguments), *how], check=True)

    write_plan(plan, folder / "plan.json")
    sent = []
    for name, (table, where) in case.sites.items():
        sent.append(folder / f"{name}.safetensors")
        rows = ["--rows", "=".join(where)] if where else []
        process(
            "contribute",
            folder / "plan.json",
            "--data",
            data / table,
            "--site",
            name,
            *rows,
            "-o",
            sent[-1],
        )
    process("distill", folder / "plan.json", *sent, "-o", folder / "distilled.safetensors")


@dataclass(frozen=True)
class Cell:
    """One network to be trained: what it is called, what makes the images to train on and what is told of them."""

    line: str
    make: Callable[[], tuple[ImageSet, dict[str, Any]]]


@dataclass(frozen=True)
class Rounds:
    """The sets of one seed; a set that is in the folder is not made again."""

    case: Case
    ground: Ground
    seed: int
    data: Path
    work: Path
    compute: Compute

    def distilled(self, method: str, ipc: int) -> tuple[ImageSet, dict[str, Any]]:
        """The set of a method, and the bytes that sites sent."""
        plan = plan_with(self.case, self.ground, self.seed, method, ipc)
        folder = self.work / f"{self.seed}-{method}-{ipc}-{plan.digest[:8]}"
        walks = self.seed == 0 and method == "collabdm" and self.case.split_over is None
        path = folder / "distilled.safetensors"
        if not path.exists() and walks:
            made_by_processes(plan, self.case, self.data, folder, self.compute.precision)
        elif not path.exists():
            made_here(plan, self.ground, method, folder, self.compute)
        sent = {name: (folder / f"{name}.safetensors").stat().st_size for name in self.ground.sites}
        return training_set(read_distilled(path)), {"bytes_per_site": sent, "by_processes": walks}

    def random(self, ipc: int) -> tuple[ImageSet, dict[str, Any]]:
        """Random real images of the same storage."""
        plan = plan_with(self.case, self.ground, self.seed, "collabdm", ipc)
        return random_baselines(plan, self.everything, self.seed)["random real"], {}

    @property
    def everything(self) -> ImageSet:
        """What all sites hold."""
        return pool(list(self.ground.sites.values()))


def table_of(rounds: Rounds) -> Iterator[Cell]:
    """The set against LocalDM, random images, sites alone and all the data."""
    for ipc in (10, 1):
        yield Cell(f"collabdm, ipc {ipc}", lambda ipc=ipc: rounds.distilled("collabdm", ipc))
    yield Cell("localdm, ipc 10", lambda: rounds.distilled("localdm", 10))
    for ipc in (10, 1):
        yield Cell(f"random real, ipc {ipc}", lambda ipc=ipc: rounds.random(ipc))
    for name, held in rounds.ground.sites.items():
        yield Cell(f"{name} alone", lambda held=held: (held, {}))
    yield Cell("all the data", lambda: (rounds.everything, {}))


def scored(cell: Cell, data: ImageSet, plan: Plan, rounds: Rounds) -> dict[str, Any]:
    """One network trained on a set and tested."""
    spec = NetworkSpec.model_validate(rounds.case.network)
    least = math.ceil(FEWEST_STEPS / math.ceil(len(data) / RECIPE.batch))
    epochs = max(least, FEWEST_EPOCHS, min(RECIPE.epochs, MOST_IMAGES // len(data)))
    recipe = RECIPE.model_copy(update={"epochs": epochs})
    trainer = Trainer(Task(spec, data, plan_geometry(plan), recipe), rounds.compute)
    trainer.train(network_seed(rounds.seed, spec.name, 0))
    found = {}
    for what, (test, mixed) in rounds.ground.tests.items():
        confusion = Confusion.of(test.labels, trainer.logits(test).argmax(1), len(plan.classes))
        found[what] = {
            "accuracy": confusion.accuracy,
            "macro_f1": confusion.macro_f1,
            "images": len(test),
            "mixed": mixed,
        }
    return {"images": len(data), "epochs": epochs, "tests": found}


def main() -> None:
    """Run the cells that are missing; the output is whole after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", help="lines to run, by semicolons; all if not said")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)
    case, compute = CASES[options.case](options.data), choose_compute("cpu", options.precision)
    work = options.output.with_suffix(".rounds")
    cells = json.loads(options.output.read_text())["cells"] if options.output.exists() else []
    for seed in range(options.seeds):
        done = {cell["line"] for cell in cells if cell["seed"] == seed}
        rounds = Rounds(
            case, ground_of(case, options.data, seed), seed, options.data, work, compute
        )
        plan = plan_with(case, rounds.ground, seed, "collabdm", 10)
        for cell in table_of(rounds):
            if cell.line in done or (options.only and cell.line not in options.only.split(";")):
                continue
            data, more = cell.make()
            cells.append(
                {"seed": seed, "line": cell.line} | more | scored(cell, data, plan, rounds)
            )
            made = report(options, rounds, plan, cells)
            atomic_write(options.output, (json.dumps(made, indent=1) + "\n").encode())
            found = {what: round(test["accuracy"], 4) for what, test in cells[-1]["tests"].items()}
            print(options.case, seed, cell.line, found, flush=True)


def report(
    options: argparse.Namespace, rounds: Rounds, plan: Plan, cells: list[dict[str, Any]]
) -> dict[str, Any]:
    """What the output holds: where the numbers come from, and the numbers."""
    fields = {
        k: v for k, v in plan.model_dump(mode="json").items() if k not in ("probe", "flows", "seed")
    }
    return {
        "command": f"python experiments/flows.py {options.case} --data DATA/flows --seeds N "
        f"--precision {options.precision} -o results/flows/{options.case}.json",
        "machine": f"2-core CPU, one thread, {rounds.compute.precision}",
        "versions": versions(),
        "schema": rounds.case.schema.model_dump(mode="json"),
        "sites": {name: data.counts().tolist() for name, data in rounds.ground.sites.items()},
        "plan": fields,
        "recipe": RECIPE.model_dump(),
        "network": rounds.case.network,
        "cells": cells,
    }


if __name__ == "__main__":
    main()

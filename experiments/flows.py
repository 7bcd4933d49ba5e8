"""Attack detection from tables of flows: distilled sets, sites alone, random images, all the data.

    python experiments/flows.py gtp --data DATA/flows --seeds 5 -o results/flows/gtp.json
    python experiments/flows.py 5gnidd --data FOLDER -o 5gnidd.json

`5gnidd` reads the complete tables, BTS_1.csv and BTS_2.csv. Each seed is a complete round with its
own plan, sites, server, random draws and trained network. The round of seed 0 uses the command
line, where every step is a process that reads files. Every network is tested on flows held out in
blocks of time, grouped by class and in their order. Cells that the output contains are not
repeated. Figure 3 and Table 3 of the paper are separate grids: experiments/figure3.toml and
table3.toml.
"""

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from collabdm.data.flows.built_in import FIVE_G_NIDD
from collabdm.data.flows.draft import Choices, draft
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
MOST_IMAGES, FEWEST_EPOCHS = 20_000, 5  # larger sets are trained on for fewer epochs
FEWEST_STEPS = 400  # smaller sets for more epochs: every network takes so many steps
MIX = 0.1  # beta of the Dirichlet split of a single table
SETTINGS: dict[str, Any] = {
    "steps": 60,
    "batch": 64,
    "network": NETWORK,
    "local": {"start": "real", "steps": 30, "batch": 64},
}

Rows = tuple[str, str] | None  # only the rows with this value in this column
Training = tuple[ImageSet, dict[str, Any]]  # images to train on, and facts about them


@dataclass(frozen=True)
class Case:
    """One experiment.

    Attributes:
        schema: the schema of all tables.
        sites: the table of each site, and its rows in it.
        tests: further tables to test on, by label.
        split_over: splits the only table over so many sites.
        per_class: the number of training images of each class; None takes all.
        settings: settings of the plan.
    """

    schema: FlowSchema
    sites: dict[str, tuple[str, Rows]]
    tests: dict[str, str] = field(default_factory=dict)
    split_over: int | None = None
    per_class: int | None = None
    settings: dict[str, Any] = field(default_factory=lambda: SETTINGS)

    @property
    def network(self) -> dict[str, Any]:
        """The network of the embeddings, which is also the one trained."""
        return self.settings["network"]


def gtp(folder: Path, **changes: Any) -> Case:
    """Two site files of a 5G core capture; packets in order of time."""
    drafted = draft(folder / "5g_gtp_site1.csv.gz", Choices(side=16)).schema
    common = {"time": "frame.time_relative", "flows": 5, "block": 20}
    schema = with_changes(drafted, common | changes)
    sites: dict[str, tuple[str, Rows]] = {
        "site-1": ("5g_gtp_site1.csv.gz", None),
        "site-2": ("5g_gtp_site2.csv.gz", None),
    }
    return Case(schema, sites, {"published test file": "5g_gtp_test.csv.gz"})


def nidd(folder: Path, **changes: Any) -> Case:
    """The two base stations of the subset of 5G-NIDD, in which the row number has a name."""
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
    """The complete 5G-NIDD with the paper's settings: one table for each base station."""
    settings = {"steps": 200, "batch": 512, "network": {"name": "ConvNet", "depth": 4}}
    sites: dict[str, tuple[str, Rows]] = {f"station-{k}": (f"BTS_{k}.csv", None) for k in (1, 2)}
    return Case(FIVE_G_NIDD, sites, settings=settings)


def nidd_three(folder: Path) -> Case:
    """The same, with the rows of an unknown station as a third site, the only one with scans."""
    case = nidd(folder)
    unknown = {"unknown": ("5gnidd_subset.parquet", ("BaseStation", "0"))}
    return Case(case.schema, case.sites | unknown)


def unsw(folder: Path) -> Case:
    """UNSW-NB15, whose rows are in no order of time, so that blocks are random; five sites."""
    path = folder / "unsw_nb15_zscored.parquet"
    schema = with_changes(
        draft(path, Choices(label="class", side=16, leave_out=("label",))).schema, {"flows": 5}
    )
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


# --- data --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RoundImages:
    """The images of one seed: those of the sites, and those of every test with its mixed ones."""

    sites: dict[str, ImageSet]
    tests: dict[str, tuple[ImageSet, int]]


def round_images(case: Case, folder: Path, seed: int) -> RoundImages:
    """Read the tables of a case and group their rows.

    Args:
        case: the case.
        folder: the folder of the tables.
        seed: the seed of random splits.

    Returns:
        The images.
    """
    schema = case.schema
    tables = [flows_of(folder / name, schema, rows) for name, rows in case.sites.values()]
    sites = {
        site: windows(flows, schema, "train", seed).labelled(schema.classes)
        for site, flows in zip(case.sites, tables, strict=True)
    }

    tests = {}
    for grouping in ("class", "stream"):
        grouped = with_changes(schema, {"grouping": grouping})
        held_out = [windows(flows, grouped, "test", seed) for flows in tables]
        tests[f"held out, {grouping}"] = together(held_out, grouped)
        for label, name in case.tests.items():
            flows = flows_of(folder / name, schema)
            tests[f"{label}, {grouping}"] = together([windows(flows, grouped)], grouped)

    if case.split_over is not None:
        sites = split_over(sites, case, seed)
    return RoundImages(sites, tests)


def split_over(sites: dict[str, ImageSet], case: Case, seed: int) -> dict[str, ImageSet]:
    """The images of all sites, split over new sites."""
    stream = Stream.of(seed, Purpose.DATA)
    everything = limit(pool(list(sites.values())), case.per_class, stream)
    classes, count = len(case.schema.classes), case.split_over or 1
    split = dirichlet(everything.labels, classes, count, MIX, seed)
    return {name: data for name, data in split.sites(everything).items() if len(data)}


@cache
def flows_of(path: Path, schema: FlowSchema, rows: Rows = None) -> Flows:
    """The rows of a table, read once."""
    return read_flows(path, schema, Reading(rows))[0]


def together(parts: list[Windows], schema: FlowSchema) -> tuple[ImageSet, int]:
    """The windows of several tables as one test, and the number of mixed ones."""
    images = pool([part.labelled(schema.classes) for part in parts])
    return images, sum(part.mixed for part in parts)


# --- distilled sets ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Rounds:
    """The sets of one seed; existing files are used as they are."""

    case: Case
    images: RoundImages
    seed: int
    data: Path
    work: Path
    compute: Compute

    def plan(self, method: str, ipc: int) -> Plan:
        """The plan of one set."""
        own = {"seed": self.seed, "sites": len(self.images.sites), "ipc": ipc}
        settings = merge_settings(preset_settings("real"), self.case.settings | own)
        return plan_for_flows(self.case.schema, **METHODS[method].adapt(settings))

    def distilled(self, method: str, ipc: int) -> Training:
        """The set of a method, and the bytes that sites sent."""
        plan = self.plan(method, ipc)
        folder = self.work / f"{self.seed}-{method}-{ipc}-{plan.digest[:8]}"
        path = folder / "distilled.safetensors"

        whole_tables = self.case.split_over is None
        by_processes = self.seed == 0 and method == "collabdm" and whole_tables
        if not path.exists():
            make = self._by_processes if by_processes else self._in_this_process
            make(plan, method, folder)

        files = {site: folder / f"{site}.safetensors" for site in self.images.sites}
        sent = {site: file.stat().st_size for site, file in files.items()}
        facts = {"bytes_per_site": sent, "by_processes": by_processes}
        return training_set(read_distilled(path)), facts

    def _in_this_process(self, plan: Plan, method: str, folder: Path) -> None:
        run, context = METHODS[method], RunContext(self.compute)
        contributions = [
            run.contribute(plan, data, site, context) for site, data in self.images.sites.items()
        ]
        for contribution in contributions:
            write_contribution(contribution, folder / f"{contribution.site}.safetensors")
        distilled = run.distill(plan, contributions, context)
        write_distilled(distilled, folder / "distilled.safetensors")

    def _by_processes(self, plan: Plan, method: str, folder: Path) -> None:
        """Every step in a process of its own that starts from files."""
        options = ("--precision", self.compute.precision, "--threads", "1", "--quiet")

        def collabdm(*words: object) -> None:
            command = [sys.executable, "-m", "collabdm", *map(str, words), *options]
            subprocess.run(command, check=True)

        write_plan(plan, folder / "plan.json")
        policy = folder / "site.toml"
        policy.write_text("raw_images = true\nsmallest_class = 1\nlargest_ratio = 1000000\n")
        files = []
        for site, (table, rows) in self.case.sites.items():
            files.append(folder / f"{site}.safetensors")
            source = ["--data", self.data / table, *(["--rows", "=".join(rows)] if rows else [])]
            sent = ("--site", site, "--policy", policy, "--public-batches", "-o", files[-1])
            collabdm("contribute", folder / "plan.json", *source, *sent)
        collabdm("distill", folder / "plan.json", *files, "-o", folder / "distilled.safetensors")

    def random(self, ipc: int) -> Training:
        """Random real images of the same storage."""
        plan = self.plan("collabdm", ipc)
        return random_baselines(plan, self.everything, self.seed)["random real"], {}

    @property
    def everything(self) -> ImageSet:
        """The images of all sites."""
        return pool(list(self.images.sites.values()))


# --- cells -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cell:
    """One network: the label of its line, and a function that makes the images to train on."""

    line: str
    make: Callable[[], Training]


def cells_of(rounds: Rounds) -> Iterator[Cell]:
    """Distilled sets, LocalDM, random images, each site alone, and all the data."""
    for ipc in (10, 1):
        yield Cell(f"collabdm, ipc {ipc}", partial(rounds.distilled, "collabdm", ipc))
    yield Cell("localdm, ipc 10", partial(rounds.distilled, "localdm", 10))
    for ipc in (10, 1):
        yield Cell(f"random real, ipc {ipc}", partial(rounds.random, ipc))
    for site, images in rounds.images.sites.items():
        yield Cell(f"{site} alone", lambda images=images: (images, {}))
    yield Cell("all the data", lambda: (rounds.everything, {}))


def scored(data: ImageSet, rounds: Rounds) -> dict[str, Any]:
    """The scores of one network trained on a set."""
    least = math.ceil(FEWEST_STEPS / math.ceil(len(data) / RECIPE.batch))
    epochs = max(least, FEWEST_EPOCHS, min(RECIPE.epochs, MOST_IMAGES // len(data)))
    recipe = RECIPE.model_copy(update={"epochs": epochs})

    spec = NetworkSpec.model_validate(rounds.case.network)
    plan = rounds.plan("collabdm", 10)
    trainer = Trainer(Task(spec, data, plan_geometry(plan), recipe), rounds.compute)
    trainer.train(network_seed(rounds.seed, spec.name, 0))

    scores = {}
    for label, (test, mixed) in rounds.images.tests.items():
        predicted = trainer.logits(test).argmax(1)
        confusion = Confusion.of(test.labels, predicted, len(plan.classes))
        scores[label] = {
            "accuracy": confusion.accuracy,
            "macro_f1": confusion.macro_f1,
            "images": len(test),
            "mixed": mixed,
        }
    return {"images": len(data), "epochs": epochs, "tests": scores}


def report(case: str, rounds: Rounds, cells: list[dict[str, Any]]) -> dict[str, Any]:
    """The content of the output: the origin of the numbers, and the numbers."""
    document = rounds.plan("collabdm", 10).model_dump(mode="json")
    plan = {k: v for k, v in document.items() if k not in ("probe", "flows", "seed")}
    precision = rounds.compute.precision
    return {
        "command": f"python experiments/flows.py {case} --data DATA/flows --seeds N "
        f"--precision {precision} -o results/flows/{case}.json",
        "machine": f"2-core CPU, one thread, {precision}",
        "versions": versions(),
        "schema": rounds.case.schema.model_dump(mode="json"),
        "sites": {name: data.counts().tolist() for name, data in rounds.images.sites.items()},
        "plan": plan,
        "recipe": RECIPE.model_dump(),
        "network": rounds.case.network,
        "cells": cells,
    }


def main() -> None:
    """Run the cells that are missing; the output is complete after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--only", help="lines to run, separated by semicolons; default: all")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)

    case = CASES[options.case](options.data)
    compute = choose_compute("cpu", options.precision)
    work = options.output.with_suffix(".rounds")
    wanted = options.only.split(";") if options.only else None
    cells = json.loads(options.output.read_text())["cells"] if options.output.exists() else []

    for seed in range(options.seeds):
        done = {cell["line"] for cell in cells if cell["seed"] == seed}
        images = round_images(case, options.data, seed)
        rounds = Rounds(case, images, seed, options.data, work, compute)
        for cell in cells_of(rounds):
            if cell.line in done or (wanted and cell.line not in wanted):
                continue

            data, facts = cell.make()
            cells.append({"seed": seed, "line": cell.line} | facts | scored(data, rounds))
            document = json.dumps(report(options.case, rounds, cells), indent=1) + "\n"
            atomic_write(options.output, document.encode())
            tests = cells[-1]["tests"].items()
            accuracies = {label: round(test["accuracy"], 4) for label, test in tests}
            print(options.case, seed, cell.line, accuracies, flush=True)


if __name__ == "__main__":
    main()

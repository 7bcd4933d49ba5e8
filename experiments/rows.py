"""Distilled rows of tables of flows, next to what a station could do instead, judged by trees.

    python experiments/rows.py unsw --data DATA/flows --seeds 5 -o results/flows/rows-unsw.json

Each seed is a round of its own: plan, split over sites, random rows and judges. The lines are the
distilled set, as many random real rows, as many medoids of k-means, every station alone (the mean
of their scores, and the best), the mean of the probabilities of all stations' classifiers (votes),
and all the data pooled. Test rows are blocks of time held out. Lines that the output contains are
not repeated.

The table of UNSW-NB15 contains z-scores. They are undone column by column, so that the smallest
value is 0 and the usual difference of neighbouring values is 1; codes become categories.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from collabdm.data.flows.built_in import FIVE_G_NIDD
from collabdm.data.flows.draft import Choices, draft
from collabdm.data.flows.schemas import with_changes
from collabdm.data.flows.tables import Reading, read_flows
from collabdm.data.flows.windows import windows
from collabdm.data.partition import dirichlet
from collabdm.data.sources import limit
from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.contribution_file import contribution_bytes
from collabdm.documents.flow_schema import Category, Column, FlowSchema, Number
from collabdm.documents.plan import Plan
from collabdm.documents.specs import NetworkSpec
from collabdm.images import ImageSet, pool
from collabdm.matching.embedding import plan_geometry
from collabdm.methods.collabdm import contribute, distill
from collabdm.methods.start_images import random_images
from collabdm.planning.make import plan_for_flows
from collabdm.planning.settings import ROW_NETWORK, network_of, network_settings
from collabdm.scoring.confusion import Confusion
from collabdm.scoring.table_judges import JUDGES, detection_rate, probabilities, trained_judge
from collabdm.scoring.training import RECIPES, Task, Trainer, network_seed
from collabdm.seeds import Purpose, Stream
from collabdm.version import versions

MIX = 0.1  # beta of the Dirichlet split of a single table
SITES = 5  # of that split
PER_CLASS = 1000  # the most training rows of a class
MOST_TESTS = 10_000  # test rows
IPC = 50
RECIPE = RECIPES["short"].model_copy(update={"batch": 64})

Rows = tuple[str, str] | None


@dataclass(frozen=True)
class Case:
    """The schema of all tables, the table of each site with its rows, and the benign class."""

    schema: FlowSchema
    sites: dict[str, tuple[Path, Rows]]
    benign: str
    split: bool = False


def nidd(folder: Path, work: Path) -> Case:
    """The two base stations of the subset of 5G-NIDD."""
    row = Number(name="row_in_bts_csv", low=0.0, high=1e7)
    named = {
        "columns": (row, *FIVE_G_NIDD.columns[1:]),
        "leaking": (row.name, *FIVE_G_NIDD.leaking[1:]),
    }
    schema = with_changes(FIVE_G_NIDD, named | {"form": "rows", "block": 20, "held_out": 4})
    path = folder / "5gnidd_subset.parquet"
    sites: dict[str, tuple[Path, Rows]] = {
        f"station-{k}": (path, ("BaseStation", str(k))) for k in (1, 2)
    }
    return Case(schema, sites, "Benign")


def gtp(folder: Path, work: Path) -> Case:
    """Two site files of a 5G core capture."""
    paths = [folder / f"5g_gtp_site{k}.csv.gz" for k in (1, 2)]
    drafted = draft(paths[0], Choices(rows=True)).schema
    schema = with_changes(drafted, {"time": "frame.time_relative", "form": "rows"})
    return Case(schema, {f"site-{k + 1}": (path, None) for k, path in enumerate(paths)}, "0")


def unsw(folder: Path, work: Path) -> Case:
    """UNSW-NB15 over five sites, with its z-scores undone."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(folder / "unsw_nb15_zscored.parquet")
    columns: list[Column] = []
    undone: dict[str, Any] = {"class": table["class"].cast(pa.string())}
    for name in table.column_names:
        if name in ("label", "class"):
            continue
        found = table[name].to_numpy().astype(np.float64)
        values, codes = np.unique(found, return_inverse=True)
        if name in ("proto", "service", "state"):
            undone[name] = [f"v{code}" for code in codes]
            listed = tuple(f"v{code}" for code in range(len(values)))
            columns.append(Category(name=name, values=listed))
            continue
        counts = (found - values[0]) / _usual_gap(values)
        undone[name] = counts
        high = 10.0 ** math.ceil(math.log10(max(counts.max(), 1.0)))
        columns.append(Number(name=name, low=0.0, high=max(high, 10.0), complete=True))

    path = work / "unsw.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(undone), path)
    classes = tuple(sorted(set(undone["class"].to_pylist())))
    schema = FlowSchema(
        columns=tuple(columns),
        label="class",
        classes=classes,
        flows=1,
        side=8,
        form="rows",
        block=1000,
    )
    return Case(schema, {"all": (path, None)}, "Normal", split=True)


def _usual_gap(values: np.ndarray) -> float:
    """The difference of neighbouring values: the least one, or the median of many."""
    gaps = np.diff(values)
    most = gaps.max() * 1e-7  # smaller gaps are rounding
    return float(np.median(gaps) if len(values) >= 5000 else gaps[gaps > most].min())


CASES: dict[str, Callable[[Path, Path], Case]] = {"unsw": unsw, "nidd": nidd, "gtp": gtp}


# --- one seed ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Split:
    """The training rows of each site, and the test rows."""

    sites: dict[str, ImageSet]
    test: ImageSet

    @property
    def everything(self) -> ImageSet:
        """The rows of all sites."""
        return pool(list(self.sites.values()))


def read_sites(case: Case) -> Split:
    """Read the tables: all training rows of each table, and all test rows."""
    sites, tests = {}, []
    for site, (path, rows) in case.sites.items():
        flows, _ = read_flows(path, case.schema, Reading(rows))
        sites[site] = windows(flows, case.schema, "train").labelled(case.schema.classes)
        tests.append(windows(flows, case.schema, "test").labelled(case.schema.classes))
    return Split(sites, pool(tests))


def split_of(case: Case, read: Split, seed: int) -> Split:
    """Draw the rows of a seed."""
    stream = Stream.of(seed, Purpose.DATA)
    sites = {name: limit(data, PER_CLASS, stream) for name, data in read.sites.items()}
    if case.split:
        (data,) = sites.values()
        split = dirichlet(data.labels, len(data.classes), SITES, MIX, seed)
        sites = {name: own for name, own in split.sites(data).items() if len(own)}

    chosen = Stream.of(0, Purpose.DATA).permutation(len(read.test))[:MOST_TESTS]
    return Split(sites, read.test.subset(chosen))


def overlap(split: Split) -> float:
    """The share of test rows that equal a training row."""
    known = {row.tobytes() for row in split.everything.images.flatten(1).numpy()}
    tests = split.test.images.flatten(1).numpy()
    return sum(row.tobytes() in known for row in tests) / len(tests)


def distilled(case: Case, split: Split, seed: int) -> tuple[ImageSet, dict[str, Any]]:
    """A round with the default settings, and what it took."""
    settings = {"seed": seed, "sites": len(split.sites), "ipc": IPC, "batch": None}
    plan = plan_for_flows(case.schema, **settings)
    start = time.perf_counter()
    sent = [contribute(plan, data, site) for site, data in split.sites.items()]
    middle = time.perf_counter()
    made = distill(plan, sent)
    facts = {
        "bytes_per_site": {one.site: len(contribution_bytes(one)) for one in sent},
        "seconds_sites": middle - start,
        "seconds_server": time.perf_counter() - middle,
    }
    return made.images, facts


def random_rows(case: Case, split: Split, seed: int) -> tuple[ImageSet, dict[str, Any]]:
    """As many random real rows."""
    data, plan = split.everything, plan_for_flows(case.schema, sites=1)
    labels = torch.nonzero(data.counts()).flatten().repeat_interleave(IPC)
    return ImageSet(random_images(plan, data, labels, seed), labels, data.classes), {}


def medoids(case: Case, split: Split, seed: int) -> tuple[ImageSet, dict[str, Any]]:
    """The real rows that are nearest to the centres of k-means."""
    from sklearn.cluster import KMeans

    data, chosen = split.everything, []
    for y in torch.nonzero(data.counts()).flatten().tolist():
        index = data.of_class(y)
        rows = data.images[index].flatten(1)
        if len(index) > IPC:
            centres = KMeans(IPC, n_init=1, random_state=seed).fit(rows.numpy()).cluster_centers_
            index = index[torch.cdist(torch.from_numpy(centres), rows).argmin(1)]
        chosen.append(index)
    return data.subset(torch.cat(chosen)), {}


# --- scores ------------------------------------------------------------------------------------


def network_probabilities(data: ImageSet, test: ImageSet, plan: Plan, seed: int) -> torch.Tensor:
    """Train an MLP, and compute class probabilities."""
    spec: NetworkSpec = network_of(network_settings(ROW_NETWORK))
    epochs = max(5, min(RECIPE.epochs, 60_000 // len(data)))
    recipe = RECIPE.model_copy(update={"epochs": epochs})
    trainer = Trainer(Task(spec, data, plan_geometry(plan), recipe), plan_compute())
    trainer.train(network_seed(seed, spec.name, 0))
    return trainer.logits(test).softmax(1).double()


def plan_compute() -> Any:
    """One thread of the CPU."""
    from collabdm.matching.compute import Compute

    return Compute(compiled=False)


def judged(
    data: ImageSet, test: ImageSet, plan: Plan, seed: int
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the probabilities of every judge that is trained on a set."""
    for name in JUDGES:
        yield name, probabilities(trained_judge(name, data, seed), test)
    yield "MLP", network_probabilities(data, test, plan, seed)


def scores_of(found: torch.Tensor, test: ImageSet, benign: int) -> dict[str, Any]:
    """The scores of class probabilities."""
    confusion = Confusion.of(test.labels, found.argmax(1), len(test.classes))
    recall = confusion.recall
    return {
        "macro_f1": confusion.macro_f1,
        "balanced_accuracy": float(recall[~recall.isnan()].mean()),
        "recall": [round(float(value), 4) for value in recall],
        "detection": detection_rate(1 - found[:, benign], test.labels, benign),
    }


def lines_of(case: Case, split: Split, seed: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the lines of a seed, each with a function that computes its cell."""
    plan = plan_for_flows(case.schema, sites=len(split.sites))
    benign = case.schema.classes.index(case.benign)

    def on_set(make: Callable[[], tuple[ImageSet, dict[str, Any]]]) -> dict[str, Any]:
        data, facts = make()
        judges = judged(data, split.test, plan, seed)
        scores = {name: scores_of(found, split.test, benign) for name, found in judges}
        return {"rows": len(data), "judges": scores} | facts

    def on_sites() -> dict[str, Any]:
        votes: dict[str, Any] = {}
        alone: dict[str, list[dict[str, Any]]] = {}
        for data in split.sites.values():
            if int((data.counts() > 0).sum()) < 2:
                continue  # a station with a single class trains nothing
            for name, found in judged(data, split.test, plan, seed):
                votes[name] = votes.get(name, 0) + found
                alone.setdefault(name, []).append(scores_of(found, split.test, benign))
        together = {name: scores_of(found, split.test, benign) for name, found in votes.items()}
        return {"judges": together, "alone": alone}

    yield "distilled", partial(on_set, partial(distilled, case, split, seed))
    yield "random real rows", partial(on_set, partial(random_rows, case, split, seed))
    yield "medoids of k-means", partial(on_set, partial(medoids, case, split, seed))
    yield "stations: votes", on_sites
    yield "all the data", partial(on_set, lambda: (split.everything, {}))


def main() -> None:
    """Run the lines that are missing; the output is complete after each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)

    case = CASES[options.case](options.data, options.output.with_suffix(".tables"))
    read = read_sites(case)
    output = options.output
    cells = json.loads(output.read_text())["cells"] if output.exists() else []

    for seed in range(options.seeds):
        done = {cell["line"] for cell in cells if cell["seed"] == seed}
        split = split_of(case, read, seed)
        for line, cell in lines_of(case, split, seed):
            if line in done:
                continue
            cells.append({"seed": seed, "line": line} | cell())
            document = {
                "command": f"python experiments/rows.py {options.case} --data DATA/flows "
                f"--seeds N -o results/flows/rows-{options.case}.json",
                "machine": "2-core CPU shared with other work, one thread",
                "versions": versions(),
                "schema": case.schema.model_dump(mode="json"),
                "sites": {name: data.counts().tolist() for name, data in split.sites.items()},
                "test": split.test.counts().tolist(),
                "equal_test_rows": overlap(split),
                "cells": cells,
            }
            atomic_write(output, (json.dumps(document, indent=1) + "\n").encode())
            shown = {k: round(v["macro_f1"], 3) for k, v in cells[-1]["judges"].items()}
            print(options.case, seed, line, shown, flush=True)


if __name__ == "__main__":
    main()

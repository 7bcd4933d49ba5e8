"""Accuracy under differential privacy: epsilon, images per class, and where the noise is added.

    python experiments/privacy.py --data mnist --seed 0 -o results/privacy/dp-mnist-0.jsonl
    python experiments/privacy.py --table results/privacy/dp-*.jsonl

For each epsilon and number of images per class there are two rows: `central`, one site with all
images; and `masked`, five sites whose shares of the noise add up under masks (`Masking.threshold`
5). A sum of masked contributions is the sum of the sites' sums and noise, whatever the split, so
one computation of the clean sums serves every row; the noise is drawn for each. Epsilon 0 stands
for no noise: the same clipped sums, which shows what the noise costs. Rows that the output contains
are not repeated. `--table` writes the mean and the standard deviation over the seeds next to the
published accuracies of NDPDC at epsilon 1.

Reference: T. Zheng, B. Li, "Differentially private dataset condensation", 2023 (NDPDC).
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from collabdm.data.sources import load
from collabdm.documents.contribution import Contribution
from collabdm.documents.plan import Plan
from collabdm.documents.specs import NetworkSpec
from collabdm.images import ImageSet
from collabdm.matching.compute import choose_compute
from collabdm.matching.run_context import RunContext
from collabdm.methods.collabdm import distill
from collabdm.planning.make import plan_for
from collabdm.privacy.gaussian import NoisedSums, add_noise, mechanism_of
from collabdm.privacy.noised_statistics import (
    PrivateSums,
    added_noise,
    as_statistics,
    private_sums,
)
from collabdm.scoring.evaluation import EvaluationConfig, evaluate
from collabdm.scoring.training import RECIPES
from collabdm.version import versions

#: published accuracies of NDPDC in percent, at epsilon 1
NDPDC = {
    ("mnist", 10): 93.1,
    ("mnist", 50): 94.1,
    ("fashion_mnist", 10): 77.7,
    ("fashion_mnist", 50): 78.8,
    ("cifar10", 10): 39.4,
    ("cifar10", 50): 42.3,
}

SITES = 5
NO_NOISE = 0.0  # as epsilon
DELTA = 1e-5


@dataclass(frozen=True)
class Cell:
    """One row: the budget, the images per class, and where the noise is added."""

    epsilon: float
    ipc: int
    setting: str


def cells_left(output: Path, epsilons: list[float], ipcs: list[int]) -> Iterator[Cell]:
    """The cells that the output does not contain, without noise once."""
    lines = output.read_text().splitlines() if output.exists() else []
    done = {(row["epsilon"], row["ipc"], row["setting"]) for row in map(json.loads, lines)}
    for ipc, setting, epsilon in product(ipcs, ("central", "masked"), epsilons):
        known = (epsilon, ipc, setting) in done
        if not known and not (epsilon == NO_NOISE and setting == "masked"):
            yield Cell(epsilon, ipc, setting)


def cell_plan(train: ImageSet, cell: Cell, options: argparse.Namespace) -> Plan:
    """The plan of a cell; without noise, its budget is only a source of the bound."""
    refinement = {
        "passes": options.passes,
        "matching": {"learning_rate": options.learning_rate, "schedule": "cosine"},
    }
    return plan_for(
        train,
        seed=options.seed,
        sites=1,
        ipc=cell.ipc,
        pae=options.pae,
        steps=options.steps,
        sketch=options.sketch or None,
        network=NetworkSpec(width=options.width),
        refinement=refinement,
        privacy={"epsilon": cell.epsilon or 1.0, "delta": DELTA},
    )


def stored_sums(plan: Plan, train: ImageSet, path: Path, context: RunContext) -> PrivateSums:
    """The clean sums of all images, from their file if it exists."""
    if not path.exists():
        computed = private_sums(plan, train, context)
        safetensors.torch.save_file(asdict(computed), path)
    return PrivateSums(**safetensors.torch.load_file(path))


def noised(plan: Plan, clean: PrivateSums, cell: Cell, context: RunContext) -> NoisedSums:
    """The sums and counts that the server learns in a cell."""
    if cell.epsilon == NO_NOISE:
        return NoisedSums(clean.sums, clean.counts)

    full = mechanism_of(plan)
    if cell.setting == "central":
        return add_noise(clean.sums, clean.counts, full, context.random_bytes)

    scale = math.sqrt(1 / SITES)
    share = replace(full, sums=full.sums * scale, counts=full.counts * scale, share=1 / SITES)
    sums, counts = clean.sums / SITES, clean.counts / SITES  # an even split; the sum is the same
    sites = [add_noise(sums, counts, share, context.random_bytes) for _ in range(SITES)]
    return NoisedSums(sum(site.sums for site in sites), sum(site.counts for site in sites))


def record_of(
    plan: Plan, learned: NoisedSums, centres: torch.Tensor, test: ImageSet, context: RunContext
) -> dict[str, Any]:
    """The accuracy of the set that the server distils, with its seconds.

    Args:
        plan: the plan of the cell.
        learned: the sums and counts that the server learns.
        centres: the public centre of each step.
        test: the test images.
        context: device and progress.

    Returns:
        The record.
    """
    none = ImageSet(
        torch.zeros(0, *plan.image.shape, dtype=torch.uint8),
        torch.zeros(0, dtype=torch.int64),
        plan.classes,
    )
    means, noise = as_statistics(plan, learned, centres), added_noise(plan)
    answer = Contribution("site-1", plan.digest, means, none, versions(), noise=noise)

    start = time.perf_counter()
    distilled = distill(plan, [answer], context)
    seconds = time.perf_counter() - start

    config = EvaluationConfig(trials=1, recipe=RECIPES["short"], seed=plan.seed)
    (score,) = evaluate(distilled, test, config, context)
    return {"accuracy": score.mean, "network": score.network, "seconds": round(seconds, 1)}


def settings_of(plan: Plan) -> dict[str, Any]:
    """The settings of a plan that this experiment varies."""
    assert plan.privacy is not None
    return {
        "steps": plan.steps,
        "sketch": plan.sketch,
        "width": plan.network.width,
        "pae": plan.pae,
        "passes": plan.refinement.passes,
        "learning_rate": plan.refinement.matching.learning_rate,
        "clip": plan.privacy.clip,
        "delta": plan.privacy.delta,
    }


def table_of(paths: list[Path]) -> str:
    """The table of all rows in files, in Markdown."""
    rows = [json.loads(line) for path in paths for line in path.read_text().splitlines()]
    varied = ("data", "ipc", "setting", "epsilon", "steps", "width", "passes")
    accuracies: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        accuracies.setdefault(tuple(row[name] for name in varied), []).append(row["accuracy"])

    lines = [
        "| data | IPC | noise | epsilon | T | width | passes | accuracy % | n | NDPDC |",
        "|---|---:|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for key, found in sorted(accuracies.items()):
        data, ipc, setting, epsilon, *settings = key
        deviation = statistics.stdev(found) if len(found) > 1 else 0.0
        accuracy = f"{100 * statistics.fmean(found):.1f} ± {100 * deviation:.1f}"
        published = NDPDC.get((data, ipc), "") if epsilon == 1 else ""
        cells = [data, ipc, setting, epsilon or "none", *settings, accuracy, len(found), published]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def parse_options() -> argparse.Namespace:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--table", type=Path, nargs="+", help="write the table of these files")
    parser.add_argument("--data")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epsilons", type=float, nargs="+", default=[1.0, 10.0, NO_NOISE])
    parser.add_argument("--ipcs", type=int, nargs="+", default=[10, 50])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--sketch", type=int, default=0)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--pae", type=int, default=2)
    parser.add_argument("--passes", type=int, default=40)
    parser.add_argument("--learning-rate", type=float, default=10.0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    if not options.table and (options.data is None or options.output is None):
        parser.error("--data and --output should be given, or --table")
    return options


def main() -> None:
    """Run the cells that are missing, and append one JSON line for each."""
    options = parse_options()
    if options.table:
        print(table_of(options.table))
        return
    if options.threads:
        torch.set_num_threads(options.threads)

    context = RunContext(choose_compute())
    train, test = load(options.data), load(options.data, "test")
    cache = options.output.with_suffix(".sums.safetensors")

    for cell in cells_left(options.output, options.epsilons, options.ipcs):
        plan = cell_plan(train, cell, options)
        clean = stored_sums(plan, train, cache, context)
        learned = noised(plan, clean, cell, context)
        record = record_of(plan, learned, clean.centres, test, context)

        source = {"data": Path(options.data).name, "seed": options.seed}
        software = {"compute": asdict(context.compute), "versions": versions()}
        row = source | asdict(cell) | settings_of(plan) | record | software
        with options.output.open("a") as file:
            file.write(json.dumps(row) + "\n")

        print(f"{source['data']} {cell}: {100 * record['accuracy']:.2f}", flush=True)


if __name__ == "__main__":
    main()

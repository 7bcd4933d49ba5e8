"""Accuracy against bytes per site: sketch width against number of steps, at equal bytes, with and without replay.

    python experiments/bytes.py --data cifar10 --seed 0 -o bytes-cifar10-0.jsonl

One run of the sites at the most steps, without a sketch, serves every cell: a sketch of a mean is the mean
of the sketches, and fewer steps are a prefix. Cells that the output already holds are not repeated.
"""

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch

from collabdm.data.partition import dirichlet
from collabdm.data.sources import load
from collabdm.documents.contribution import Contribution, Statistics
from collabdm.documents.contribution_file import write_contribution
from collabdm.documents.plan import Plan
from collabdm.matching.class_statistics import encode
from collabdm.matching.compute import choose_compute
from collabdm.matching.embedding import sketch_matrix
from collabdm.matching.run_context import RunContext
from collabdm.methods.collabdm import contribute, distill
from collabdm.planning.cost import cost
from collabdm.planning.make import make_plan, plan_for
from collabdm.planning.probe import check_probe
from collabdm.rounds.contributions import read_contribution
from collabdm.scoring.evaluation import EvaluationConfig, evaluate
from collabdm.scoring.training import RECIPES
from collabdm.version import versions

WIDTHS = (None, 512, 128)
BUDGETS = (
    250_000,
    500_000,
    1_000_000,
)  # bytes of statistics, float16, for a site that holds every class
PASSES = (1, 4)


def main() -> None:
    """Run the cells that are missing and append one JSON line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    lines = options.output.read_text().splitlines() if options.output.exists() else []
    done = [(cell["sketch"], cell["steps"], cell["passes"]) for cell in map(json.loads, lines)]
    compute = choose_compute()
    train, test = load(options.data), load(options.data, "test")
    most = max(steps_within(budget, min(w or 2048 for w in WIDTHS)) for budget in BUDGETS)
    whole = plan_for(
        train, seed=options.seed, steps=most, batch=64, wire="float32", local={"steps": 50}
    )
    check_probe(whole)
    sites = dirichlet(train.labels, len(train.classes), 5, 0.1, options.seed).sites(train)
    folder = options.output.with_suffix(".contributions")
    full = []
    for name, data in sites.items():
        path = folder / f"{name}.safetensors"
        if not path.exists():
            write_contribution(contribute(whole, data, name, RunContext(compute)), path)
        full.append(read_contribution(path, whole))
    protocol = EvaluationConfig(
        trials=1, recipe=RECIPES["short"].model_copy(update={"epochs": options.epochs})
    )
    for budget in BUDGETS:
        for width in WIDTHS:
            for passes in PASSES:
                steps = steps_within(budget, width or 2048)
                if (width, steps, passes) in done:
                    continue
                plan = cell_plan(whole, width, steps, passes)
                start = time.perf_counter()
                made = distill(plan, [sketched(c, plan) for c in full], RunContext(compute))
                seconds = time.perf_counter() - start
                (score,) = evaluate(made, test, protocol, RunContext(compute))
                line = {
                    "data": options.data, "seed": options.seed, "budget": budget, "sketch": width, "steps": steps,
                    "passes": passes, "pae": plan.pae, "accuracy": score.mean, "bytes": cost(plan).bytes,
                    "seconds": round(seconds, 1), "epochs": options.epochs, "compute": asdict(compute),
                    "versions": versions(),
                }  # fmt: skip
                with options.output.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                print(
                    f"{options.data} {budget:>9,} r {width} T {steps} passes {passes}: {100 * score.mean:.2f}"
                )


def steps_within(budget: int, width: int, classes: int = 10) -> int:
    """Steps whose float16 statistics fill the budget."""
    return round(budget / (classes * width * 2))


def cell_plan(whole: Plan, sketch: int | None, steps: int, passes: int) -> Plan:
    """The plan of one cell."""
    settings = {name: getattr(whole, name) for name in Plan.model_fields if name != "probe"}
    settings |= {"sketch": sketch, "steps": steps, "wire": "float16"}
    settings["refinement"] = whole.refinement.model_copy(update={"passes": passes})
    return make_plan(settings.pop("classes"), settings.pop("image"), **settings)


def sketched(contribution: Contribution, plan: Plan) -> Contribution:
    """What the site would have sent for the cell's plan."""
    full = contribution.statistics
    means = full.codes[: plan.steps]
    if plan.sketch is not None:
        projections = (
            sketch_matrix(plan.seed, t, means.shape[2], plan.sketch) for t in range(plan.steps)
        )
        means = torch.stack(
            [m @ p for m, p in zip(means, projections, strict=True) if p is not None]
        )
    codes, scales = encode(means, plan.wire)
    statistics = Statistics(
        full.steps[: plan.steps], full.classes, codes, scales, full.batch_counts, full.totals
    )
    return replace(contribution, plan_digest=plan.digest, statistics=statistics)


if __name__ == "__main__":
    main()

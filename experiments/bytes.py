"""Accuracy against bytes per site: sketch width and steps at equal bytes, with and without replay.

    python experiments/bytes.py --data cifar10 --seed 0 -o bytes-cifar10-0.jsonl

One computation of the sites, with the most steps and no sketch, serves every cell: a sketch of a
mean is the mean of the sketches, and fewer steps are a prefix. Cells that the output contains are
not repeated.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from collabdm.data.partition import dirichlet
from collabdm.data.sources import load
from collabdm.documents.contribution import Contribution, Statistics
from collabdm.documents.contribution_file import write_contribution
from collabdm.documents.plan import Plan
from collabdm.images import ImageSet
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
BUDGETS = (250_000, 500_000, 1_000_000)  # bytes of float16 statistics, for a site with all classes
PASSES = (1, 4)
FULL_WIDTH = 2048  # of an embedding without a sketch
SITES, BETA = 5, 0.1


@dataclass(frozen=True)
class Cell:
    """One combination: bytes of statistics, width of the sketch, passes of the server."""

    budget: int
    width: int | None
    passes: int

    @property
    def steps(self) -> int:
        """The steps that fit into the budget."""
        return steps_within(self.budget, self.width or FULL_WIDTH)


def steps_within(budget: int, width: int, classes: int = 10) -> int:
    """The number of steps whose float16 statistics fill the budget."""
    return round(budget / (classes * width * 2))


def cells_left(output: Path) -> Iterator[Cell]:
    """The cells that the output does not contain."""
    lines = output.read_text().splitlines() if output.exists() else []
    done = {(cell["sketch"], cell["steps"], cell["passes"]) for cell in map(json.loads, lines)}
    for budget, width, passes in product(BUDGETS, WIDTHS, PASSES):
        cell = Cell(budget, width, passes)
        if (cell.width, cell.steps, cell.passes) not in done:
            yield cell


def full_plan(train: ImageSet, seed: int) -> Plan:
    """The plan of the most steps, without a sketch and without rounding."""
    narrowest = min(width or FULL_WIDTH for width in WIDTHS)
    steps = max(steps_within(budget, narrowest) for budget in BUDGETS)
    return plan_for(
        train,
        seed=seed,
        steps=steps,
        batch=64,
        wire="float32",
        local={"start": "real", "steps": 50},
    )


def full_contributions(
    plan: Plan, train: ImageSet, folder: Path, context: RunContext
) -> list[Contribution]:
    """The contributions of skewed sites, from their files where these exist.

    Args:
        plan: the plan without a sketch.
        train: the training images.
        folder: the folder of the files.
        context: device and progress.

    Returns:
        The contributions.
    """
    split = dirichlet(train.labels, len(train.classes), SITES, BETA, plan.seed)
    contributions = []
    for name, data in split.sites(train).items():
        path = folder / f"{name}.safetensors"
        if not path.exists():
            write_contribution(contribute(plan, data, name, context), path)
        contributions.append(read_contribution(path, plan))
    return contributions


def cell_plan(full: Plan, cell: Cell) -> Plan:
    """The plan of one cell."""
    settings = {name: getattr(full, name) for name in Plan.model_fields if name != "probe"}
    settings |= {"sketch": cell.width, "steps": cell.steps, "wire": "float16"}
    settings["refinement"] = full.refinement.model_copy(update={"passes": cell.passes})
    return make_plan(settings.pop("classes"), settings.pop("image"), **settings)


def sketched(contribution: Contribution, plan: Plan) -> Contribution:
    """The site's contribution to the plan of a cell."""
    full = contribution.statistics
    means = full.codes[: plan.steps]
    if plan.sketch is not None:
        width = means.shape[2]
        matrices = (sketch_matrix(plan.seed, t, width, plan.sketch) for t in range(plan.steps))
        pairs = zip(means, matrices, strict=True)
        means = torch.stack([mean @ matrix for mean, matrix in pairs if matrix is not None])

    codes, scales = encode(means, plan.wire)
    steps = full.steps[: plan.steps]
    statistics = Statistics(steps, full.classes, codes, scales, full.batch_counts, full.totals)
    return replace(contribution, plan_digest=plan.digest, statistics=statistics)


def record_of(
    cell: Cell,
    plan: Plan,
    contributions: list[Contribution],
    test: ImageSet,
    epochs: int,
    context: RunContext,
) -> dict[str, Any]:
    """The record of one cell: its settings, bytes, accuracy and seconds.

    Args:
        cell: the cell.
        plan: its plan.
        contributions: the contributions without a sketch.
        test: the test images.
        epochs: the epochs of the network that is trained.
        context: device and progress.

    Returns:
        The record.
    """
    start = time.perf_counter()
    distilled = distill(plan, [sketched(each, plan) for each in contributions], context)
    seconds = time.perf_counter() - start

    recipe = RECIPES["short"].model_copy(update={"epochs": epochs})
    (score,) = evaluate(distilled, test, EvaluationConfig(trials=1, recipe=recipe), context)
    return {
        "budget": cell.budget,
        "sketch": cell.width,
        "steps": cell.steps,
        "passes": cell.passes,
        "pae": plan.pae,
        "accuracy": score.mean,
        "bytes": cost(plan).bytes,
        "seconds": round(seconds, 1),
        "epochs": epochs,
    }


def main() -> None:
    """Run the cells that are missing, and append one JSON line for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)

    context = RunContext(choose_compute())
    train, test = load(options.data), load(options.data, "test")
    full = full_plan(train, options.seed)
    check_probe(full)
    folder = options.output.with_suffix(".contributions")
    contributions = full_contributions(full, train, folder, context)

    for cell in cells_left(options.output):
        plan = cell_plan(full, cell)
        record = record_of(cell, plan, contributions, test, options.epochs, context)
        source = {"data": options.data, "seed": options.seed}
        software = {"compute": asdict(context.compute), "versions": versions()}
        with options.output.open("a") as file:
            file.write(json.dumps(source | record | software) + "\n")

        print(
            f"{options.data} {cell.budget:>9,} r {cell.width} T {cell.steps} "
            f"passes {cell.passes}: {100 * record['accuracy']:.2f}"
        )


if __name__ == "__main__":
    main()

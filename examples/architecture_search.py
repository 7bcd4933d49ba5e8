"""Which network is best? Asked of a small set instead of all the data: do the answers agree?

    python examples/architecture_search.py --data digits --ipc 5 --seeds 3 -o results/examples/search.json

Some twenty ConvNets (widths, depths, normalisations, activations, poolings) are trained on a distilled set, on random
real images of the same storage, and on many real images. The rank correlation (Spearman) of their accuracies with those
of the last says how well the small set stands for the data.

References: C. Spearman, "The proof and measurement of association between two things", 1904. B. Zhao, H. Bilen,
"Dataset condensation with distribution matching", WACV 2023.
"""

import argparse
import json
import statistics
from itertools import product
from pathlib import Path
from typing import Any

from scipy.stats import spearmanr

from collabdm import ImageSet, NetworkSpec, Recipe, contribute, distill, load, plan_for
from collabdm.compute import Compute
from collabdm.embedding import Geometry
from collabdm.evaluation import random_baselines
from collabdm.planning import geometry
from collabdm.seeds import Purpose, Stream, derive
from collabdm.sources import limit
from collabdm.training import Task, Trainer, training_set
from collabdm.version import versions


def variants(count: int, widths: tuple[int, ...]) -> list[NetworkSpec]:
    """The first `count` of a grid of ConvNets, the options that matter most varying fastest."""
    grid = product(("average", "max"), ("relu", "sigmoid"), widths, ("instance", "none", "batch"), (2, 1))
    return [
        NetworkSpec(width=width, depth=depth, norm=norm, activation=activation, pooling=pooling)  # type: ignore[arg-type]
        for pooling, activation, width, norm, depth in grid
    ][:count]


def accuracies(
    specs: list[NetworkSpec], data: ImageSet, test: ImageSet, seen: Geometry, recipe: Recipe, seed: int
) -> list[float]:
    """Accuracy of each network trained on `data`."""
    found = []
    for i, spec in enumerate(specs):
        trainer = Trainer(Task(spec, data, seen, recipe), Compute(compiled=False))
        trainer.train(derive(seed, "search", i))
        found.append(trainer.accuracy(test))
    return found


def run(train: ImageSet, test: ImageSet, arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Accuracies of all variants on each set, and rank correlations with those on many real images."""
    specs = variants(arguments.variants, (8, arguments.width))
    settings = {"seed": seed, "sites": 1, "ipc": arguments.ipc, "steps": arguments.steps}
    network = {"width": arguments.width, "depth": 2}
    learning_rate = 10.0 if train.shape[1] >= 16 else 1.0
    refinement = {"passes": 2, "matching": {"learning_rate": learning_rate}}
    local = {"steps": arguments.local_steps}
    plan = plan_for(train, **settings, network=network, refinement=refinement, local=local)
    held = limit(train, arguments.per_class, Stream.of(derive(seed, "held"), Purpose.DATA))
    made = distill(plan, [contribute(plan, held)])
    sets = {"distilled": training_set(made)} | random_baselines(plan, held, seed)
    short = Recipe(epochs=arguments.epochs, learning_rate=0.02, schedule="cosine")
    long = short.model_copy(update={"epochs": arguments.epochs_all})
    best = accuracies(specs, held, test, geometry(plan), long, seed)
    found: dict[str, Any] = {"all the data": best}
    for what, data in sets.items():
        found[what] = accuracies(specs, data, test, geometry(plan), short, seed)
    found["correlation"] = {what: float(spearmanr(found[what], best).statistic) for what in sets}
    return found


def main() -> None:
    """Run all seeds, write the results, print the correlations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path)
    sizes = {"variants": 20, "ipc": 10, "steps": 40, "local-steps": 100, "per-class": 100, "width": 32}
    sizes |= {"epochs": 40, "epochs-all": 20}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    arguments = parser.parse_args()
    train, test = load(arguments.data), load(arguments.data, "test")
    runs = [run(train, test, arguments, seed) for seed in range(arguments.seeds)]
    told = {name: value for name, value in vars(arguments).items() if name != "output"}
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        results = {"setting": told, "runs": runs, "versions": versions()}
        arguments.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    for what in runs[0]["correlation"]:
        found = [one["correlation"][what] for one in runs]
        spread = statistics.stdev(found) if len(found) > 1 else 0.0
        print(f"{what}: rank correlation {statistics.fmean(found):.2f} ± {spread:.2f}, n = {len(found)}")


if __name__ == "__main__":
    main()

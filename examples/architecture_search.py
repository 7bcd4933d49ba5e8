"""Architecture search on a distilled set: does it rank networks as all the data does?

    python examples/architecture_search.py --data digits --ipc 5 --seeds 3 -o search.json

Some twenty ConvNets (widths, depths, normalisations, activations, poolings) are trained on a
distilled set, on random real images of the same storage, and on all the real images, `per-class` of
each class, that the set was distilled from. The rank correlation (Spearman) of their accuracies
with those on all the real images measures how well the small set replaces them.

References: C. Spearman, "The proof and measurement of association between two things", 1904. B.
Zhao, H. Bilen, "Dataset condensation with distribution matching", WACV 2023.
"""

import argparse
from itertools import product
from typing import Any

from over_seeds import compute_of, over_seeds, parse_arguments, plan_of_one_site, with_spread
from scipy.stats import spearmanr

from collabdm import ImageSet, NetworkSpec, Recipe, RunContext, contribute, distill, load
from collabdm.data.sources import limit
from collabdm.matching.embedding import plan_geometry
from collabdm.scoring.evaluation import random_baselines
from collabdm.scoring.training import Task, Trainer, training_set
from collabdm.seeds import Purpose, Stream, derive

SIZES = {
    "variants": 20,
    "ipc": 10,
    "pae": 1,
    "steps": 40,
    "local-steps": 100,
    "per-class": 100,
    "width": 32,
    "widest": 24,
    "epochs": 80,
    "epochs-all": 20,
    "test-per-class": 1000,
}
ALL = "all the data"
NORMS, ACTIVATIONS, POOLINGS = (
    ("instance", "none", "batch"),
    ("relu", "sigmoid"),
    ("average", "max"),
)


def variants(count: int, widths: tuple[int, ...], depths: tuple[int, ...]) -> list[NetworkSpec]:
    """ConvNets of a grid, the same for every seed.

    Args:
        count: the number of networks.
        widths: the numbers of filters in the grid.
        depths: the numbers of blocks in the grid.

    Returns:
        The networks, in the order of the grid.
    """
    fields = ("width", "depth", "norm", "activation", "pooling")
    grid = list(product(widths, depths, NORMS, ACTIVATIONS, POOLINGS))
    chosen = Stream.of(0, Purpose.DATA).permutation(len(grid)).tolist()[:count]
    return [
        NetworkSpec.model_validate(dict(zip(fields, grid[i], strict=True))) for i in sorted(chosen)
    ]


def run(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Accuracies of all variants on each set, and rank correlations with those on all the data."""
    train, test = load(arguments.data), load(arguments.data, "test")
    real = limit(train, arguments.per_class, Stream.of(derive(seed, "held"), Purpose.DATA))
    test = limit(test, arguments.test_per_class, Stream.of(derive(seed, "test"), Purpose.DATA))

    plan = plan_of_one_site(train, arguments, seed)
    context = RunContext(compute_of(arguments))
    distilled = distill(plan, [contribute(plan, real, context=context)], context)
    sets = {ALL: real, "distilled": training_set(distilled)} | random_baselines(plan, real, seed)

    depths = (3, 2, 1) if train.shape[1] >= 16 else (2, 1)
    specs = variants(arguments.variants, (8, arguments.widest), depths)
    compute, geometry = compute_of(arguments, compiled=False), plan_geometry(plan)

    def accuracies(data: ImageSet, epochs: int) -> list[float]:
        recipe = Recipe(epochs=epochs, learning_rate=0.02, schedule="cosine", batch=64)
        values = []
        for i, spec in enumerate(specs):
            trainer = Trainer(Task(spec, data, geometry, recipe), compute)
            trainer.train(derive(seed, "search", i))
            values.append(trainer.accuracy(test))
        return values

    results: dict[str, Any] = {}
    for name, data in sets.items():
        epochs = arguments.epochs_all if name == ALL else arguments.epochs
        results[name] = accuracies(data, epochs)

    reference = results[ALL]
    results["correlation"] = {
        name: float(spearmanr(results[name], reference).statistic) for name in sets if name != ALL
    }
    return results


def main() -> None:
    """Run all seeds, write the results, print the correlations."""
    arguments = parse_arguments(__doc__, SIZES)
    runs = over_seeds(arguments, run)
    for name in runs[0]["correlation"]:
        correlations = [results["correlation"][name] for results in runs]
        print(f"{name}: rank correlation {with_spread(correlations, '.2f')}")


if __name__ == "__main__":
    main()

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

from over_seeds import agreed, arguments_of, compute_of, over_seeds, with_spread
from scipy.stats import spearmanr

from collabdm import ImageSet, NetworkSpec, Recipe, contribute, distill, load
from collabdm.data.sources import limit
from collabdm.matching.embedding import Geometry, plan_geometry
from collabdm.matching.run_context import RunContext
from collabdm.scoring.evaluation import random_baselines
from collabdm.scoring.training import Task, Trainer, training_set
from collabdm.seeds import Purpose, Stream, derive

SIZES = {
    "variants": 20, "ipc": 10, "pae": 1, "steps": 40, "local-steps": 100, "per-class": 100,
    "width": 32, "widest": 24,
    "epochs": 80, "epochs-all": 20, "test-per-class": 1000,
}  # fmt: skip
ALL = "all the data"


def variants(count: int, widths: tuple[int, ...], depths: tuple[int, ...]) -> list[NetworkSpec]:
    """`count` ConvNets of a grid, always the same ones."""
    grid = list(
        product(
            widths, depths, ("instance", "none", "batch"), ("relu", "sigmoid"), ("average", "max")
        )
    )
    chosen = Stream.of(0, Purpose.DATA).permutation(len(grid)).tolist()[:count]
    return [
        NetworkSpec(width=width, depth=depth, norm=norm, activation=activation, pooling=pooling)  # type: ignore[arg-type]
        for width, depth, norm, activation, pooling in (grid[i] for i in sorted(chosen))
    ]


def run(arguments: argparse.Namespace, seed: int) -> dict[str, Any]:
    """Accuracies of all variants on each set, and rank correlations with those on all the data."""
    train, test = load(arguments.data), load(arguments.data, "test")
    held = limit(train, arguments.per_class, Stream.of(derive(seed, "held"), Purpose.DATA))
    test = limit(test, arguments.test_per_class, Stream.of(derive(seed, "test"), Purpose.DATA))
    plan = agreed(train, arguments, seed)
    how = RunContext(compute_of(arguments))
    made = distill(plan, [contribute(plan, held, run=how)], run=how)
    specs = variants(
        arguments.variants, (8, arguments.widest), (3, 2, 1) if train.shape[1] >= 16 else (2, 1)
    )
    sets = {ALL: held, "distilled": training_set(made)} | random_baselines(plan, held, seed)

    def accuracies(data: ImageSet, epochs: int, seen: Geometry) -> list[float]:
        recipe = Recipe(epochs=epochs, learning_rate=0.02, schedule="cosine", batch=64)
        found = []
        for i, spec in enumerate(specs):
            trainer = Trainer(Task(spec, data, seen, recipe), compute_of(arguments, compiled=False))
            trainer.train(derive(seed, "search", i))
            found.append(trainer.accuracy(test))
        return found

    found: dict[str, Any] = {
        what: accuracies(
            data, arguments.epochs_all if what == ALL else arguments.epochs, plan_geometry(plan)
        )
        for what, data in sets.items()
    }
    found["correlation"] = {
        what: float(spearmanr(found[what], found[ALL]).statistic) for what in sets if what != ALL
    }
    return found


def main() -> None:
    """Run all seeds, write the results, print the correlations."""
    arguments = arguments_of(__doc__, SIZES)
    runs = over_seeds(arguments, run)
    for what in runs[0]["correlation"]:
        print(
            f"{what}: rank correlation "
            f"{with_spread([found['correlation'][what] for found in runs], '.2f')}"
        )


if __name__ == "__main__":
    main()

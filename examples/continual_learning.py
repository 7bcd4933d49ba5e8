"""Class-incremental learning with memories of the same bytes: distilled images against random real
ones.

    python examples/continual_learning.py --data digits --ipc 2 --seeds 5 -o continual.json

The classes come in groups. After each group a new network is trained on the real images of that
group and on the memories of all groups before, and tested on all classes seen so far. A memory is
`ipc` images of each class, stored as uint8 in any case; with `--pae 2` each stored image holds four
small ones, and random real images are kept both ways. Because the memories are few, each is
repeated until its class weighs as much as a new class.

Reference: B. Zhao, H. Bilen, "Dataset condensation with distribution matching", WACV 2023. There
networks are trained on the memories alone; here also on the real images of the newest group.
"""

import argparse

import torch
from over_seeds import agreed, arguments_of, compute_of, over_seeds, with_spread

from collabdm import ImageSet, Plan, Recipe, contribute, distill, load, training_set
from collabdm.data.sources import limit
from collabdm.images import as_float, pool
from collabdm.matching.embedding import plan_geometry
from collabdm.matching.run_context import RunContext
from collabdm.scoring.evaluation import random_baselines
from collabdm.scoring.training import Task, Trainer
from collabdm.seeds import Purpose, Stream, derive

SIZES = {
    "groups": 5,
    "ipc": 10,
    "pae": 1,
    "steps": 40,
    "local-steps": 100,
    "per-class": 100,
    "epochs": 20,
    "width": 32,
}


def part(data: ImageSet, classes: list[int]) -> ImageSet:
    """The images of some classes; labels and class names stay those of all."""
    return data.subset(torch.nonzero(torch.isin(data.labels, torch.tensor(classes))).flatten())


def memories(plan: Plan, real: ImageSet, run: RunContext, seed: int) -> dict[str, ImageSet]:
    """What may be kept of a group's images, ready to train on."""
    made = distill(plan, [contribute(plan, real, context=run)], context=run, allow_missing=True)
    return {"distilled": training_set(made)} | random_baselines(plan, real, seed)


def together(new: ImageSet, kept: list[ImageSet], per_class: int) -> ImageSet:
    """A group's real images and what was kept of those before, every class with about the same
    weight.
    """
    again = [one for one in kept for _ in range(max(1, per_class // int(one.counts().max())))]
    return pool([ImageSet(as_float(one.images), one.labels, one.classes) for one in (new, *again)])


def run(arguments: argparse.Namespace, seed: int) -> dict[str, list[float]]:
    """Accuracy on all classes seen so far, after each group, for every kind of memory."""
    train, test = load(arguments.data), load(arguments.data, "test")
    plan, compute = agreed(train, arguments, seed), compute_of(arguments)
    order = Stream.of(seed, Purpose.DATA).permutation(len(train.classes)).tolist()
    size = len(order) // arguments.groups
    recipe = Recipe(epochs=arguments.epochs, learning_rate=0.02, schedule="cosine")
    kept: dict[str, list[ImageSet]] = {}
    found: dict[str, list[float]] = {}
    first = 0.0
    for group in range(arguments.groups):
        own = order[group * size : (group + 1) * size]
        new = limit(
            part(train, own),
            arguments.per_class,
            Stream.of(derive(seed, "group", group), Purpose.DATA),
        )
        seen = part(test, order[: (group + 1) * size])
        for what, sets in (kept or {"": []}).items():
            data = together(new, sets, arguments.per_class)
            trainer = Trainer(Task(plan.network, data, plan_geometry(plan), recipe), compute)
            trainer.train(derive(seed, "network", group))
            first = trainer.accuracy(seen) if not kept else first
            if kept:
                found.setdefault(what, [first]).append(trainer.accuracy(seen))
        if group < arguments.groups - 1:
            for what, memory in memories(
                plan, new, RunContext(compute), derive(seed, "memory", group)
            ).items():
                kept.setdefault(what, []).append(memory)
    return found


def main() -> None:
    """Run all seeds, write the results, print the last accuracies."""
    arguments = arguments_of(__doc__, SIZES)
    runs = over_seeds(arguments, run)
    for what in runs[0]:
        print(
            f"{what}: {with_spread([100 * found[what][-1] for found in runs], '.1f')} % "
            "on all classes"
        )


if __name__ == "__main__":
    main()

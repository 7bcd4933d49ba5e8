"""Class-incremental learning: distilled against random real images as memories of the same bytes.

    python examples/continual_learning.py --data digits --ipc 2 --seeds 5 -o continual.json

The classes come in groups. After each group a new network is trained on the real images of that
group and on the memories of all groups before, and tested on all classes so far. A memory is `ipc`
images of each class, stored as uint8; with `--pae 2` each stored image contains four small ones,
and random real images are stored both ways. Because the memories are few, each is repeated until
its class weighs as much as a new class.

Reference: B. Zhao, H. Bilen, "Dataset condensation with distribution matching", WACV 2023. There
networks are trained on the memories alone; here also on the real images of the newest group.
"""

import argparse

import torch
from over_seeds import compute_of, over_seeds, parse_arguments, plan_of_one_site, with_spread

from collabdm import (
    ImageSet,
    Plan,
    Recipe,
    RunContext,
    contribute,
    distill,
    load,
    training_set,
)
from collabdm.data.sources import limit
from collabdm.images import as_float, pool
from collabdm.matching.embedding import plan_geometry
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


def of_classes(data: ImageSet, classes: list[int]) -> ImageSet:
    """The images of some classes; labels and class names remain those of all."""
    return data.subset(torch.nonzero(torch.isin(data.labels, torch.tensor(classes))).flatten())


def group_memories(
    plan: Plan, real: ImageSet, context: RunContext, seed: int
) -> dict[str, ImageSet]:
    """The memories of a group, ready to train on.

    Args:
        plan: the plan of the distillation.
        real: the group's real images.
        context: where to compute.
        seed: the seed of the random images.

    Returns:
        The memory of each kind: distilled, and random real images.
    """
    contribution = contribute(plan, real, context=context)
    distilled = distill(plan, [contribution], context, allow_missing=True)
    return {"distilled": training_set(distilled)} | random_baselines(plan, real, seed)


def with_memories(new: ImageSet, memories: list[ImageSet], per_class: int) -> ImageSet:
    """A group's real images and repeated memories, so that all classes weigh about the same."""
    repeated = [
        memory
        for memory in memories
        for _ in range(max(1, per_class // int(memory.counts().max())))
    ]
    sets = (new, *repeated)
    return pool([ImageSet(as_float(data.images), data.labels, data.classes) for data in sets])


def run(arguments: argparse.Namespace, seed: int) -> dict[str, list[float]]:
    """The accuracy on all classes so far, after each group, for every kind of memory."""
    train, test = load(arguments.data), load(arguments.data, "test")
    plan, compute = plan_of_one_site(train, arguments, seed), compute_of(arguments)
    recipe = Recipe(epochs=arguments.epochs, learning_rate=0.02, schedule="cosine")
    order = Stream.of(seed, Purpose.DATA).permutation(len(train.classes)).tolist()
    size = len(order) // arguments.groups

    def accuracy(group: int, data: ImageSet) -> float:
        trainer = Trainer(Task(plan.network, data, plan_geometry(plan), recipe), compute)
        trainer.train(derive(seed, "network", group))
        return trainer.accuracy(of_classes(test, order[: (group + 1) * size]))

    def real_images(group: int) -> ImageSet:
        stream = Stream.of(derive(seed, "group", group), Purpose.DATA)
        own = of_classes(train, order[group * size : (group + 1) * size])
        return limit(own, arguments.per_class, stream)

    new = real_images(0)
    first = accuracy(0, with_memories(new, [], arguments.per_class))
    memories: dict[str, list[ImageSet]] = {}
    accuracies: dict[str, list[float]] = {}

    for group in range(1, arguments.groups):
        memory_seed = derive(seed, "memory", group - 1)
        for kind, memory in group_memories(plan, new, RunContext(compute), memory_seed).items():
            memories.setdefault(kind, []).append(memory)

        new = real_images(group)
        for kind, sets in memories.items():
            data = with_memories(new, sets, arguments.per_class)
            accuracies.setdefault(kind, [first]).append(accuracy(group, data))

    return accuracies


def main() -> None:
    """Run all seeds, write the results, print the last accuracies."""
    arguments = parse_arguments(__doc__, SIZES)
    runs = over_seeds(arguments, run)
    for kind in runs[0]:
        last = [100 * accuracies[kind][-1] for accuracies in runs]
        print(f"{kind}: {with_spread(last, '.1f')} % on all classes")


if __name__ == "__main__":
    main()

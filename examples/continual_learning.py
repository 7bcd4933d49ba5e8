"""Class-incremental learning with memories of the same bytes: distilled images against random real ones.

    python examples/continual_learning.py --data digits --ipc 2 --seeds 5 -o results/examples/continual.json

The classes come in groups. After each group a new network is trained on the real images of that group and on the
memories of all groups before, and tested on all classes seen so far. A memory is `ipc` images of each class, stored as
uint8 in both cases. Because the memories are few, each is repeated until its class weighs as much as a new class.

Reference: B. Zhao, H. Bilen, "Dataset condensation with distribution matching", WACV 2023. There networks are trained
on the memories alone; here also on the real images of the newest group.
"""

import argparse
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from collabdm import ImageSet, NetworkSpec, Plan, Recipe, contribute, distill, load, plan_for
from collabdm.compute import Compute
from collabdm.images import pool
from collabdm.methods import METHODS
from collabdm.methods.localdm import random_images
from collabdm.planning import geometry
from collabdm.seeds import Purpose, Stream, derive
from collabdm.sources import limit
from collabdm.training import Task, Trainer
from collabdm.version import versions


@dataclass(frozen=True)
class Setting:
    """The sizes of the comparison."""

    groups: int
    ipc: int
    steps: int
    local_steps: int
    per_class: int
    epochs: int
    width: int


def part(data: ImageSet, classes: list[int]) -> ImageSet:
    """The images of some classes; labels and class names stay those of all."""
    return data.subset(torch.nonzero(torch.isin(data.labels, torch.tensor(classes))).flatten())


def distilled_memory(plan: Plan, real: ImageSet) -> ImageSet:
    """What one holder of a group's images keeps of them."""
    return distill(plan, [contribute(plan, real)], allow_missing=True).images


def random_memory(plan: Plan, real: ImageSet, seed: int) -> ImageSet:
    """As many real images."""
    labels = torch.nonzero(real.counts()).flatten().repeat_interleave(plan.ipc)
    return ImageSet(random_images(plan, real, labels, seed), labels, plan.classes)


def run(train: ImageSet, test: ImageSet, setting: Setting, seed: int) -> dict[str, list[float]]:
    """Accuracy on all classes seen so far, after each group, for both memories."""
    network = {"width": setting.width, "depth": 3 if train.shape[1] >= 16 else 2}
    settings = {"seed": seed, "sites": 1, "ipc": setting.ipc, "steps": setting.steps, "pae": 1, "network": network}
    refinement = {"passes": 2, "matching": {"learning_rate": 10.0 if train.shape[1] >= 16 else 1.0}}
    local = {"steps": setting.local_steps}
    plan = plan_for(train, **METHODS["collabdm"].adapt(settings | {"refinement": refinement, "local": local}))
    order = Stream.of(seed, Purpose.DATA).permutation(len(train.classes)).tolist()
    size = len(order) // setting.groups
    recipe = Recipe(epochs=setting.epochs, learning_rate=0.02, schedule="cosine")
    accuracies: dict[str, list[float]] = {"distilled": [], "random real": []}
    memories: dict[str, list[ImageSet]] = {"distilled": [], "random real": []}
    for group in range(setting.groups):
        own = order[group * size : (group + 1) * size]
        new = limit(part(train, own), setting.per_class, Stream.of(derive(seed, "group", group), Purpose.DATA))
        seen = part(test, order[: (group + 1) * size])
        for what, kept in memories.items():
            again = max(1, setting.per_class // setting.ipc)
            trainer = Trainer(Task(plan.network, pool([new, *kept * again]), geometry(plan), recipe), Compute())
            trainer.train(derive(seed, "network", group))
            accuracies[what].append(trainer.accuracy(seen))
        memories["distilled"].append(distilled_memory(plan, new))
        memories["random real"].append(random_memory(plan, new, derive(seed, "memory", group)))
    return accuracies


def main() -> None:
    """Run all seeds, write the results, print the last accuracies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="digits")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path)
    sizes = {"groups": 5, "ipc": 10, "steps": 40, "local-steps": 100, "per-class": 100, "epochs": 20, "width": 32}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    arguments = parser.parse_args()
    setting = Setting(**{name: getattr(arguments, name) for name in Setting.__dataclass_fields__})
    train, test = load(arguments.data), load(arguments.data, "test")
    runs = [run(train, test, setting, seed) for seed in range(arguments.seeds)]
    results: dict[str, Any] = {"data": arguments.data, "setting": vars(setting), "runs": runs, "versions": versions()}
    results["network"] = NetworkSpec(width=setting.width).name
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    for what in runs[0]:
        last = [100 * accuracies[what][-1] for accuracies in runs]
        spread = statistics.stdev(last) if len(last) > 1 else 0.0
        print(f"{what}: {statistics.fmean(last):.1f} ± {spread:.1f} % on all classes, n = {len(last)}")


if __name__ == "__main__":
    main()

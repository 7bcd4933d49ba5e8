"""How good a set is: the accuracy of networks trained on it, on real test images.

    accuracy = mean over (network, trial) of  1/n sum_i [argmax_y f(x_i) = y_i]

Every trial starts from its own seed, the same for all sets, so sets are compared on equal networks.
Beside a distilled set stand random real images of the same storage: ipc of each class, and for a set with
pae also pae^2 times as many reduced ones. Larger sets of real images (a site's, or all) are trained on for
as many steps as the distilled set, and every image at least 30 times.

Reference: B. Zhao, H. Bilen, "Dataset condensation with distribution matching", WACV 2023 (protocol).
"""

import math
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from collabdm.documents.outcomes import DistilledSet
from collabdm.documents.plan import Plan
from collabdm.documents.specs import NetworkSpec
from collabdm.images import ImageSet, Normalisation
from collabdm.matching.compute import Compute
from collabdm.matching.embedding import Geometry, plan_geometry
from collabdm.matching.run_context import RunContext
from collabdm.methods.localdm import random_images
from collabdm.progress import Progress, Stage
from collabdm.scoring.confusion import Confusion
from collabdm.scoring.training import Recipe, Task, Trainer, logits_of, network_seed, training_set
from collabdm.seeds import derive

FEWEST_EPOCHS = 30


MOST_CLASSES = 100  # of a confusion matrix that is kept


@dataclass(frozen=True)
class Score:
    """Accuracies (shares of 1) of networks trained on one set, in order of trials.

    `confusion` counts test images over all networks: a row for each class, a column for each answer; empty where
    there are more than `MOST_CLASSES` classes, and in results that were made before it was kept.
    """

    what: str
    network: str
    accuracies: tuple[float, ...]
    images: int
    confusion: tuple[tuple[int, ...], ...] = ()

    @property
    def n(self) -> int:
        """Number of networks."""
        return len(self.accuracies)

    @property
    def mean(self) -> float:
        """Mean accuracy."""
        return statistics.fmean(self.accuracies)

    @property
    def std(self) -> float:
        """Standard deviation over the networks (n - 1); 0 for one."""
        return statistics.stdev(self.accuracies) if self.n > 1 else 0.0

    @property
    def per_class(self) -> tuple[float | None, ...]:
        """Accuracy on the test images of each class; None where there are none."""
        return tuple(row[y] / sum(row) if sum(row) else None for y, row in enumerate(self.confusion))

    def document(self) -> dict[str, Any]:
        """As it stands in results."""
        return asdict(self) | {"mean": self.mean, "std": self.std, "n": self.n, "per_class": self.per_class}

    @classmethod
    def read(cls, item: dict[str, Any]) -> "Score":
        """From what stands in results, older ones included."""
        confusion = tuple(map(tuple, item.get("confusion", ())))
        return cls(item["what"], item["network"], tuple(item["accuracies"]), item["images"], confusion)


@dataclass(frozen=True)
class EvaluationConfig:
    """How sets are scored: the networks, trials of each, the recipe, and the seed of the trials."""

    networks: tuple[NetworkSpec, ...] = (NetworkSpec(),)
    trials: int = 5
    recipe: Recipe = Recipe()
    seed: int = 0


def for_as_many_steps(protocol: EvaluationConfig, distilled: int, images: int) -> EvaluationConfig:
    """The protocol for a larger set of real images: as many steps as a distilled set of that many images takes,
    and every image at least `FEWEST_EPOCHS` times.
    """
    recipe = protocol.recipe
    steps = recipe.epochs * math.ceil(distilled / recipe.batch)
    epochs = max(math.ceil(steps / math.ceil(images / recipe.batch)), FEWEST_EPOCHS)
    return replace(protocol, recipe=recipe.model_copy(update={"epochs": min(epochs, recipe.epochs)}))


def score(
    name: str,
    data: ImageSet,
    test: ImageSet,
    geometry: Geometry,
    config: EvaluationConfig,
    context: RunContext = RunContext(),
) -> list[Score]:
    """Train every network `trials` times on a set of images, and test it.

    Args:
        name: the name of the set in the results.
        data: the images to train on.
        test: the images to test on.
        geometry: the inputs of the networks.
        config: networks, trials, recipe and seed.
        context: device and progress.

    Returns:
        One score per network.
    """
    total = config.trials * config.recipe.epochs

    def on_epoch(epochs: int) -> None:
        context.report(Progress(Stage.TRAINING, epochs, total, subject=name))

    scores = []
    for spec in config.networks:
        trainer = Trainer(Task(spec, data, geometry, config.recipe), context.compute, config.trials)
        accuracies, counts = [], torch.zeros(geometry.classes, geometry.classes, dtype=torch.int64)

        seeds = [network_seed(config.seed, spec.name, trial) for trial in range(config.trials)]
        for _ in trainer.train_each(seeds, on_epoch):
            predicted = trainer.logits(test).argmax(1)
            confusion = Confusion.of(test.labels, predicted, geometry.classes)
            accuracies.append(confusion.accuracy)
            counts += confusion.counts

        kept = tuple(map(tuple, counts.tolist())) if geometry.classes <= MOST_CLASSES else ()
        scores.append(Score(name, spec.name, tuple(accuracies), len(data), kept))
    return scores


def evaluate(
    distilled: DistilledSet,
    test: ImageSet,
    config: EvaluationConfig = EvaluationConfig(),
    context: RunContext = RunContext(),
) -> list[Score]:
    """The scores of a distilled set.

    Args:
        distilled: the set.
        test: test images of the plan's classes.
        config: networks, trials, recipe and seed.
        context: device and progress.

    Returns:
        One score per network.
    """
    geometry = plan_geometry(distilled.plan)
    return score(distilled.method, training_set(distilled), test, geometry, config, context)


def accuracy_of(
    predictor: Callable[[torch.Tensor], torch.Tensor], test: ImageSet, normalisation: Normalisation, compute: Compute
) -> float:
    """Share of the test images whose largest logit is their class."""
    answers = logits_of(predictor, test.images, normalisation, compute).argmax(1)
    return Confusion.of(test.labels, answers, len(test.classes)).accuracy


def random_baselines(plan: Plan, real: ImageSet, seed: int) -> dict[str, ImageSet]:
    """Sets of random real images of the storage of the plan's set, ready to train on.

    `random real` has ipc of each class; with pae, `random real, pae` has pae^2 times as many, reduced
    and enlarged again.
    """
    labels = torch.nonzero(real.counts()).flatten().repeat_interleave(plan.ipc)
    own = derive(seed, "random")
    whole = plan.model_copy(update={"pae": 1})
    baselines = {"random real": ImageSet(random_images(whole, real, labels, own), labels, plan.classes)}
    if plan.pae > 1:
        packed = ImageSet(random_images(plan, real, labels, own), labels, plan.classes)
        baselines["random real, pae"] = training_set(DistilledSet(packed, plan, {}, "random"))
    return baselines

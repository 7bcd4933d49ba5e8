"""Evaluate a set: train networks on it, and measure their accuracy on real test images.

    accuracy = mean over (network, trial) of  1/n sum_i [argmax_y f(x_i) = y_i]

x_1 .. x_n are the test images, y_i their classes, and f(x_i) the logits of a trained network, whose
largest entry is the prediction. Every trial has its own seed, the same for all sets, so sets are
compared on equal networks. A distilled set is compared with random real images of the same storage:
ipc of each class and, for a set with pae, also pae^2 times as many reduced images. Training on a
larger set of real images (a site's data, or all data) takes as many steps as on the distilled set,
but at least 30 epochs and at most those of the recipe.

Reference: B. Zhao, H. Bilen, "Dataset condensation with distribution matching", WACV 2023 (the
protocol).

Rows of a table are also judged by the classifiers that are usual there (`scoring.table_judges`).
"""

import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int64
from torch import Tensor

from collabdm.documents.outcomes import DistilledSet
from collabdm.documents.plan import Plan
from collabdm.documents.specs import NetworkSpec
from collabdm.images import ImageSet, Normalisation
from collabdm.matching.compute import Compute
from collabdm.matching.embedding import Geometry, plan_geometry
from collabdm.matching.run_context import RunContext
from collabdm.methods.start_images import random_images
from collabdm.progress import Progress, Stage
from collabdm.scoring.confusion import Confusion
from collabdm.scoring.table_judges import JUDGES, detection, probabilities, trained_judge
from collabdm.scoring.training import Recipe, Task, Trainer, logits_of, network_seed, training_set
from collabdm.scoring.trials import Trials
from collabdm.seeds import derive

FEWEST_EPOCHS = 30  # the fewest epochs on a larger set of real images
MOST_CLASSES = 100  # the most classes of a stored confusion matrix


@dataclass(frozen=True)
class EvaluationConfig:
    """How sets are scored: networks, trials per network, recipe, and seed of the trials."""

    networks: tuple[NetworkSpec, ...] = (NetworkSpec(),)
    trials: int = 5
    recipe: Recipe = Recipe()
    seed: int = 0


@dataclass(frozen=True)
class Score:
    """The accuracies of networks trained on one set.

    Attributes:
        what: the name of the set.
        network: the name of the networks.
        accuracies: the accuracy of each trial, in 0 .. 1.
        images: the number of images of the set.
        confusion: the number of test images, summed over all networks, with a row for each class
            and a column for each prediction; empty if there are more than `MOST_CLASSES` classes,
            and in older results.
        macro_f1: the macro F1 of all trials together; for sets of rows only, like the next two.
        balanced_accuracy: the mean accuracy of the classes, over all trials.
        detection: the mean share of the attacks that are detected at one false alarm in a hundred
            benign rows; None without a benign class (`table_judges.benign_class`).
    """

    what: str
    network: str
    accuracies: tuple[float, ...]
    images: int
    confusion: tuple[tuple[int, ...], ...] = ()
    macro_f1: float | None = None
    balanced_accuracy: float | None = None
    detection: float | None = None

    def __repr__(self) -> str:
        """Describe the score in one line."""
        spread = f" +- {100 * self.std:.1f}" if self.n > 1 else ""
        return (
            f"Score({self.what}, {self.network}: {100 * self.mean:.1f}{spread} %, n = {self.n}, "
            f"{self.images:,} images)"
        )

    @property
    def n(self) -> int:
        """The number of trained networks."""
        return len(self.accuracies)

    @property
    def mean(self) -> float:
        """The mean accuracy."""
        return statistics.fmean(self.accuracies)

    @property
    def std(self) -> float:
        """The standard deviation over the networks, with n - 1; 0 for a single network."""
        return statistics.stdev(self.accuracies) if self.n > 1 else 0.0

    @property
    def per_class(self) -> tuple[float | None, ...]:
        """The accuracy on the test images of each class; None for a class without test images."""
        return tuple(
            row[y] / sum(row) if sum(row) else None for y, row in enumerate(self.confusion)
        )


def evaluate(
    distilled: DistilledSet,
    test: ImageSet,
    config: EvaluationConfig = EvaluationConfig(),
    context: RunContext = RunContext(),
) -> list[Score]:
    """Compute the scores of a distilled set.

    Args:
        distilled: the set.
        test: test images of the plan's classes.
        config: networks, trials, recipe and seed.
        context: device, progress and checkpoints.

    Returns:
        One score per network.
    """
    geometry = plan_geometry(distilled.plan)
    return score(distilled.method, training_set(distilled), test, geometry, config, context)


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
        context: device, progress and checkpoints.

    Returns:
        One score per network.
    """
    total = config.trials * config.recipe.epochs
    as_rows = geometry.shape[-1] == 1

    def on_epoch(epochs: int) -> None:
        context.report(Progress(Stage.TRAINING, epochs, total, subject=name))

    scores = []
    for number, spec in enumerate(config.networks):
        trainer = Trainer(Task(spec, data, geometry, config.recipe), context.compute, config.trials)
        own = context.part(f"{name}/{number}")
        trials = Trials(geometry.classes, config.trials, trainer.together, own)

        seeds = [network_seed(config.seed, spec.name, trial) for trial in range(config.trials)]
        finished = len(trials.accuracies)
        for _ in trainer.train_each(seeds, on_epoch, trials.training, finished):
            logits = trainer.logits(test)
            confusion = Confusion.of(test.labels, logits.argmax(1), geometry.classes)
            detected = detection(logits.softmax(1).double(), test) if as_rows else None
            trials.add(confusion, detected)

        found = Score(name, spec.name, tuple(trials.accuracies), len(data), _stored(trials.counts))
        scores.append(_measured(found, trials.counts, trials.detections) if as_rows else found)

    return scores + (_judged(name, data, test, config) if as_rows else [])


def _stored(counts: Int64[Tensor, "classes classes"]) -> tuple[tuple[int, ...], ...]:
    """Return a confusion matrix as it is stored; empty if it is large."""
    return tuple(map(tuple, counts.tolist())) if len(counts) <= MOST_CLASSES else ()


def _measured(
    score: Score, counts: Int64[Tensor, "classes classes"], detections: list[float]
) -> Score:
    """Add the measures of rows, from the confusion matrix and detection rates of all trials."""
    confusion = Confusion(counts)
    return replace(
        score,
        macro_f1=confusion.macro_f1,
        balanced_accuracy=confusion.balanced_accuracy,
        detection=statistics.fmean(detections) if detections else None,
    )


def _judged(name: str, data: ImageSet, test: ImageSet, config: EvaluationConfig) -> list[Score]:
    """Score a set of rows by the classifiers that are usual for tables; see `score`."""
    scores = []
    for judge in JUDGES:
        found = [
            probabilities(trained_judge(judge, data, trial), test)
            for trial in range(config.trials if judge == "random forest" else 1)
        ]
        counts = [Confusion.of(test.labels, p.argmax(1), len(test.classes)) for p in found]
        total = torch.stack([confusion.counts for confusion in counts]).sum(0)
        accuracies = tuple(confusion.accuracy for confusion in counts)
        rates = [rate for p in found if (rate := detection(p, test)) is not None]

        plain = Score(name, judge, accuracies, len(data), _stored(total))
        scores.append(_measured(plain, total, rates))
    return scores


def accuracy_of(
    predictor: Callable[[Tensor], Tensor],
    test: ImageSet,
    normalisation: Normalisation,
    compute: Compute,
) -> float:
    """Compute the share of the test images whose largest logit belongs to their class.

    Args:
        predictor: a function from images in network units to logits.
        test: the test images.
        normalisation: the map from pixels to network units.
        compute: the device of the predictor.

    Returns:
        The accuracy, in 0 .. 1.
    """
    predicted = logits_of(predictor, test.images, normalisation, compute).argmax(1)
    return Confusion.of(test.labels, predicted, len(test.classes)).accuracy


def for_as_many_steps(config: EvaluationConfig, distilled: int, images: int) -> EvaluationConfig:
    """Adapt an evaluation to a larger set of real images, with the same number of steps.

    Args:
        config: the evaluation of the distilled set.
        distilled: the number of images of that set; with pae, of its small images.
        images: the number of real images.

    Returns:
        The evaluation with the number of epochs that takes as many steps, but at least
        `FEWEST_EPOCHS` epochs and at most those of the recipe.
    """
    recipe = config.recipe
    steps = recipe.epochs * math.ceil(distilled / recipe.batch)
    epochs = max(math.ceil(steps / math.ceil(images / recipe.batch)), FEWEST_EPOCHS)

    shortened = recipe.model_copy(update={"epochs": min(epochs, recipe.epochs)})
    return replace(config, recipe=shortened)


def random_baselines(plan: Plan, real: ImageSet, seed: int) -> dict[str, ImageSet]:
    """Draw random real images with the same storage as the plan's set, ready to train on.

    Args:
        plan: the plan of the distilled set.
        real: the real images to draw from.
        seed: the seed of the evaluation.

    Returns:
        `random real`, ipc images of each class; with pae also `random real, pae`, pae^2 times as
        many images, reduced and enlarged again.
    """
    labels = torch.nonzero(real.counts()).flatten().repeat_interleave(plan.ipc)
    own_seed = derive(seed, "random")

    unpacked = plan.model_copy(update={"pae": 1})
    images = random_images(unpacked, real, labels, own_seed)
    baselines = {"random real": ImageSet(images, labels, plan.classes)}

    if plan.pae > 1:
        packed = ImageSet(random_images(plan, real, labels, own_seed), labels, plan.classes)
        baselines["random real, pae"] = training_set(DistilledSet(packed, plan, {}, "random"))
    return baselines

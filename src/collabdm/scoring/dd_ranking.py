"""Compute the DD-Ranking scores of a set, which discount the effect of labels and augmentation.

The accuracies (in 0 .. 1) are of networks trained on all the data, on the distilled set, and on
random real images of the same storage:

    HLR = all - distilled        hard label recovery: the accuracy still missing
    IOR = distilled - random     improvement over random, with the same recipe
    LRS = (e^a - e^-1) / (e - e^-1),   a = w IOR - (1 - w) HLR
    ARS = (e^b - e^-1) / (e - e^-1),   b = w IOR_augmented + (1 - w) IOR_plain

LRS is the label-robust score and ARS the augmentation-robust score, both in 0 .. 1. The weight w is
1/2. A set that is no better than random images has ARS .269. As in the reference package, scores
are computed for every trial, and their mean and standard deviation are reported.

For each set, the reference package selects the best of five learning rates, and the best of the
last epochs, on the test set. Here all sets are trained with one recipe and tested once, at its end.

Reference: Z. Li et al., "DD-Ranking: rethinking the evaluation of dataset distillation", 2025
(arXiv:2505.13300). The formulas were compared with `LabelRobustScoreHard` and
`AugmentationRobustScore` of its package, ddranking.
"""

import math
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from collabdm.documents.outcomes import DistilledSet
from collabdm.images import ImageSet
from collabdm.matching.embedding import plan_geometry
from collabdm.matching.run_context import RunContext
from collabdm.scoring.evaluation import EvaluationConfig, for_as_many_steps, random_baselines, score
from collabdm.scoring.training import training_set


@dataclass(frozen=True)
class Robustness:
    """The DD-Ranking scores of a set, as means over (network, trial).

    Attributes:
        hlr: Hard label recovery, a difference of accuracies.
        ior: Improvement over random, a difference of accuracies.
        lrs: Label-robust score, in 0 .. 1.
        ars: Augmentation-robust score, in 0 .. 1.
        std: The standard deviation of each score.
        n: The number of trials.
        accuracies: The mean accuracies that the scores were computed from.
    """

    hlr: float
    ior: float
    lrs: float
    ars: float
    std: dict[str, float]
    n: int
    accuracies: dict[str, float]


def label_robust_score(
    everything: float, distilled: float, random: float, weight: float = 0.5
) -> float:
    """Compute LRS from three accuracies (in 0 .. 1).

    Args:
        everything: Accuracy of training on all the data.
        distilled: Accuracy of training on the distilled set.
        random: Accuracy of training on random real images.
        weight: w, the weight of IOR.

    >>> round(label_robust_score(0.8, 0.5, 0.3), 4)
    0.2482
    """
    return _scaled(weight * (distilled - random) - (1 - weight) * (everything - distilled))


def augmentation_robust_score(augmented: float, plain: float, weight: float = 0.5) -> float:
    """Compute ARS from the improvements over random images.

    Args:
        augmented: IOR with augmentation.
        plain: IOR without augmentation.
        weight: w, the weight of `augmented`.

    >>> round(augmentation_robust_score(0.0, 0.0), 4)
    0.2689
    """
    return _scaled(weight * augmented + (1 - weight) * plain)


def _scaled(value: float) -> float:
    return (math.exp(value) - math.exp(-1)) / (math.e - math.exp(-1))


def robustness(
    distilled: DistilledSet,
    real: ImageSet,
    test: ImageSet,
    config: EvaluationConfig,
    context: RunContext = RunContext(),
) -> Robustness:
    """Compute the scores of a set, always with hard labels.

    Training on all the data takes as many steps as on the set (see `evaluation`), so HLR refers to
    the accuracy that this recipe reaches, not to the best possible accuracy.

    Args:
        distilled: The set.
        real: All the training data.
        test: Test images.
        config: Networks, trials, recipe and seed.
        context: Device and progress.

    Returns:
        The scores, over all networks and trials.
    """
    data, plan = training_set(distilled), distilled.plan
    baselines = random_baselines(plan, real, config.seed)
    random = list(baselines.values())[-1]  # as many images as the set
    accuracies: dict[str, list[float]] = {}

    def train(what: str, images: ImageSet, own: EvaluationConfig) -> None:
        scores = score(what, images, test, plan_geometry(plan), own, context)
        accuracies[what] = [accuracy for each in scores for accuracy in each.accuracies]

    for name, augment in (("augmented", True), ("plain", False)):
        changes = {"augment": augment, "cutmix": augment and config.recipe.cutmix}
        own = replace(config, recipe=config.recipe.model_copy(update=changes))
        for what, images in (("distilled", data), ("random", random)):
            train(f"{what}, {name}", images, own)

    train("all the data", real, for_as_many_steps(config, len(data), len(real)))
    return from_accuracies(accuracies, "augmented" if config.recipe.augment else "plain")


def from_accuracies(accuracies: dict[str, list[float]], headline: str) -> Robustness:
    """Compute the scores from the accuracies of every trial.

    Args:
        accuracies: The accuracies by name: `all the data`, and `distilled` and `random`, each
            followed by `, augmented` and by `, plain`.
        headline: The recipe for HLR, IOR and LRS: `augmented` or `plain`.
    """
    everything = accuracies["all the data"]
    distilled = accuracies[f"distilled, {headline}"]
    random = accuracies[f"random, {headline}"]
    augmented, plain = (
        _differences(accuracies[f"distilled, {name}"], accuracies[f"random, {name}"])
        for name in ("augmented", "plain")
    )

    values = {
        "hlr": _differences(everything, distilled),
        "ior": _differences(distilled, random),
        "lrs": list(map(label_robust_score, everything, distilled, random)),
        "ars": list(map(augmentation_robust_score, augmented, plain)),
    }
    return Robustness(
        **{name: fmean(trials) for name, trials in values.items()},
        std={name: stdev(trials) if len(trials) > 1 else 0.0 for name, trials in values.items()},
        n=len(distilled),
        accuracies={what: fmean(trials) for what, trials in accuracies.items()},
    )


def _differences(a: list[float], b: list[float]) -> list[float]:
    return [x - y for x, y in zip(a, b, strict=True)]

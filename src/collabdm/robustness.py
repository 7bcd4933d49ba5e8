"""Scores of a set that take away what labels and augmentation add, after DD-Ranking.

With accuracies as shares of 1, of networks trained on all the data, on the distilled set and on random real
images of the same storage:

    HLR   = all - distilled                          hard label recovery: what is still missing
    IOR   = distilled - random                       improvement over random, by the same recipe
    LRS   = (e^a - e^-1) / (e - e^-1),   a = w IOR - (1 - w) HLR
    ARS   = (e^b - e^-1) / (e - e^-1),   b = w IOR_augmented + (1 - w) IOR_plain

LRS is the label-robust score, ARS the augmentation-robust one, both in 0 .. 1; w = 1/2. A set no better than
random images has ARS .269.

Reference: Z. Li et al., "DD-Ranking: rethinking the evaluation of dataset distillation", 2025; the formulas are
those of its package, ddranking (`metrics/hard_label.py`, and its README for ARS).
"""

import math
from dataclasses import dataclass, replace
from statistics import fmean

from collabdm.compute import Compute
from collabdm.evaluation import Progress, Protocol, for_as_many_steps, random_baselines, score
from collabdm.images import ImageSet
from collabdm.planning import geometry
from collabdm.protocol import DistilledSet
from collabdm.training import training_set


@dataclass(frozen=True)
class Robustness:
    """HLR and IOR as differences of shares, LRS and ARS in 0 .. 1, and the mean accuracies that they come from."""

    hlr: float
    ior: float
    lrs: float
    ars: float
    accuracies: dict[str, float]


def label_robust_score(everything: float, distilled: float, random: float, weight: float = 0.5) -> float:
    """LRS from three accuracies (shares of 1).

    >>> round(label_robust_score(0.8, 0.5, 0.3), 4)
    0.2482
    """
    return _scaled(weight * (distilled - random) - (1 - weight) * (everything - distilled))


def augmentation_robust_score(augmented: float, plain: float, weight: float = 0.5) -> float:
    """ARS from the improvements over random images with and without augmentation.

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
    protocol: Protocol,
    compute: Compute = Compute(),
    progress: Progress = lambda what, done, total: None,
) -> Robustness:
    """Both scores of a set, over the networks and trials of `protocol`, hard labels throughout.

    All the data are trained on for as many steps as the set (see `evaluation`): HLR is what this recipe reaches.
    """
    data, plan = training_set(distilled), distilled.plan
    random = list(random_baselines(plan, real, protocol.seed).values())[-1]  # as many images as the set
    sets = {"distilled": data, "random": random}
    means = {}
    for name, augment in (("augmented", True), ("plain", False)):
        recipe = protocol.recipe.model_copy(update={"augment": augment, "cutmix": augment and protocol.recipe.cutmix})
        for what, images in sets.items():
            rule = replace(protocol, recipe=recipe)
            scores = score(f"{what}, {name}", images, test, geometry(plan), rule, compute, progress)
            means[f"{what}, {name}"] = fmean(s.mean for s in scores)
    rule = for_as_many_steps(protocol, len(data), len(real))
    scores = score("all the data", real, test, geometry(plan), rule, compute, progress)
    means["all the data"] = fmean(s.mean for s in scores)
    headline = "augmented" if protocol.recipe.augment else "plain"
    made, drawn = means[f"distilled, {headline}"], means[f"random, {headline}"]
    gains = [means[f"distilled, {name}"] - means[f"random, {name}"] for name in ("augmented", "plain")]
    return Robustness(
        hlr=means["all the data"] - made,
        ior=made - drawn,
        lrs=label_robust_score(means["all the data"], made, drawn),
        ars=augmentation_robust_score(*gains),
        accuracies=means,
    )

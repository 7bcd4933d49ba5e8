"""Scores of a set that take away what labels and augmentation add, after DD-Ranking.

With accuracies as shares of 1, of networks trained on all the data, on the distilled set and on random real
images of the same storage:

    HLR   = all - distilled                          hard label recovery: what is still missing
    IOR   = distilled - random                       improvement over random, by the same recipe
    LRS   = (e^a - e^-1) / (e - e^-1),   a = w IOR - (1 - w) HLR
    ARS   = (e^b - e^-1) / (e - e^-1),   b = w IOR_augmented + (1 - w) IOR_plain

LRS is the label-robust score, ARS the augmentation-robust one, both in 0 .. 1; w = 1/2. A set no better than
random images has ARS .269. As in the package, each trial has its scores, and their mean and spread are told.

The package takes the best of five learning rates and of the last epochs on the test set, for each set by itself; here
all sets are trained by one recipe and tested once, at its end.

Reference: Z. Li et al., "DD-Ranking: rethinking the evaluation of dataset distillation", 2025 (arXiv:2505.13300); the
formulas were compared with its package, ddranking: `LabelRobustScoreHard` and `AugmentationRobustScore`.
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
    """Means over (network, trial), `std` their standard deviations, n their number: HLR and IOR, differences of shares,
    LRS and ARS in 0 .. 1; and the mean accuracies that they come from.
    """

    hlr: float
    ior: float
    lrs: float
    ars: float
    std: dict[str, float]
    n: int
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
    protocol: EvaluationConfig,
    context: RunContext = RunContext(),
) -> Robustness:
    """Both scores of a set, over the networks and trials of `protocol`, hard labels throughout.

    All the data are trained on for as many steps as the set (see `evaluation`): HLR is what this recipe reaches.
    """
    data, plan = training_set(distilled), distilled.plan
    random = list(random_baselines(plan, real, protocol.seed).values())[-1]  # as many images as the set
    found: dict[str, list[float]] = {}

    def train(what: str, images: ImageSet, rule: EvaluationConfig) -> None:
        scores = score(what, images, test, plan_geometry(plan), rule, context)
        found[what] = [accuracy for one in scores for accuracy in one.accuracies]

    for name, augment in (("augmented", True), ("plain", False)):
        recipe = protocol.recipe.model_copy(update={"augment": augment, "cutmix": augment and protocol.recipe.cutmix})
        for what, images in {"distilled": data, "random": random}.items():
            train(f"{what}, {name}", images, replace(protocol, recipe=recipe))
    train("all the data", real, for_as_many_steps(protocol, len(data), len(real)))
    return from_accuracies(found, "augmented" if protocol.recipe.augment else "plain")


def from_accuracies(found: dict[str, list[float]], headline: str) -> Robustness:
    """The scores from the accuracies of every trial; labels are judged by the recipe `headline`."""
    made, drawn = found[f"distilled, {headline}"], found[f"random, {headline}"]
    gains = {n: _differences(found[f"distilled, {n}"], found[f"random, {n}"]) for n in ("augmented", "plain")}
    values = {
        "hlr": _differences(found["all the data"], made),
        "ior": _differences(made, drawn),
        "lrs": [label_robust_score(*trial) for trial in zip(found["all the data"], made, drawn, strict=True)],
        "ars": [augmentation_robust_score(*trial) for trial in zip(gains["augmented"], gains["plain"], strict=True)],
    }
    return Robustness(
        **{name: fmean(each) for name, each in values.items()},
        std={name: stdev(each) if len(each) > 1 else 0.0 for name, each in values.items()},
        n=len(made),
        accuracies={what: fmean(each) for what, each in found.items()},
    )


def _differences(a: list[float], b: list[float]) -> list[float]:
    return [x - y for x, y in zip(a, b, strict=True)]

"""Coreset: every site sends some of its real images, chosen to stand for the rest. What distillation has to beat.

    herding    x_i = argmin_x | mean_{D_k^y} psi - (psi(x) + sum_{j<i} psi(x_j)) / i |     near the class mean, together
    centres    x_i = argmax_x min_{j<i} | psi(x) - psi(x_j) |                              far from each other
    random     drawn without repetition

for each class y that the site holds, over images not chosen before. psi is one random network of the plan, the same
at all sites, without augmentation, scaled to length 1. The first centre is the image nearest the class mean. A class
of fewer images than its share has them again, each repetition moved a little.

References: M. Welling, "Herding dynamical weights to learn", ICML 2009. S.-A. Rebuffi, A. Kolesnikov, G. Sperl,
C. H. Lampert, "iCaRL: incremental classifier and representation learning", CVPR 2017. O. Sener, S. Savarese, "Active
learning for convolutional neural networks: a core-set approach", ICLR 2018.
"""

from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from collabdm.documents.contribution import Contribution
from collabdm.documents.extra_tensors import DeclaredTensors
from collabdm.documents.outcomes import DistilledSet
from collabdm.documents.plan import Plan
from collabdm.images import ImageSet, as_float
from collabdm.matching.networks import Network, build, seed_weights
from collabdm.matching.run_context import RunContext
from collabdm.methods.base import Contributions, answer, balanced_labels, check_answer, plan_options
from collabdm.methods.localdm import jitter, random_images
from collabdm.methods.own_images import OwnImages, declare_images, image_tensors, images_sent, union
from collabdm.progress import Progress, Stage
from collabdm.seeds import Purpose, Stream, derive


class Coreset(OwnImages):
    """Settings: how many images, and the rule that chooses them."""

    rule: Literal["herding", "centres", "random"] = "herding"


def declare(plan: Plan) -> DeclaredTensors:
    """What a site sends: its images and their labels."""
    return declare_images(plan, images_sent(plan, plan_options(plan, Coreset)))


def shows_real_images(plan: Plan) -> bool:
    """Whether images that a site sends are, or begin as, real ones: all are."""
    return True


def contribute(
    plan: Plan, data: ImageSet, site: str = "site-1", context: RunContext = RunContext()
) -> Contribution:
    """One site's choice. Raises DataError or PlanError where data, name or plan do not fit."""
    check_answer(plan, data, site)
    options, seed = plan_options(plan, Coreset), derive(plan.seed, "site", site)
    present = torch.nonzero(data.counts()).flatten().tolist()
    labels = torch.tensor(balanced_labels(images_sent(plan, options), present))
    if options.rule == "random":
        return answer(
            plan, data, site, image_tensors(plan, random_images(plan, data, labels, seed), labels)
        )
    network, choose = first_network(plan).to(context.compute.device), RULES[options.rule]
    chosen, again = [], []
    for done, (y, count) in enumerate(zip(*labels.unique(return_counts=True), strict=True)):
        held = data.of_class(int(y))
        order = held[
            choose(embedded(network, plan, data.subset(held), context), min(int(count), len(held)))
        ]
        places = torch.arange(int(count))
        chosen.append(order[places % len(order)])
        again.append(places >= len(order))
        context.report(Progress(Stage.SELECTION, done + 1, len(present)))
    moved = torch.nonzero(torch.cat(again)).flatten()
    images = jitter(
        plan, as_float(data.images[torch.cat(chosen)]), moved, Stream.of(seed, Purpose.LOCAL_START)
    )
    return answer(plan, data, site, image_tensors(plan, images, labels))


def distill(
    plan: Plan,
    contributions: Contributions,
    context: RunContext = RunContext(),
    allow_missing: bool = False,
) -> DistilledSet:
    """The union of the sites' images, by class. Raises DocumentError as CollabDM does."""
    return union(plan, contributions, declare(plan), allow_missing)


def first_network(plan: Plan) -> Network:
    """psi, and a classifier that is not used."""
    network = build(plan.network, plan.image.shape, len(plan.classes))
    seed_weights(network, Stream.of(derive(plan.seed, "coreset"), Purpose.NETWORK))
    return network.requires_grad_(False).eval()


def embedded(
    network: Network, plan: Plan, data: ImageSet, context: RunContext
) -> Float32[Tensor, "n D"]:
    """psi of every image, of length 1."""
    parts = []
    for pixels in data.images.split(context.compute.images_per_pass(gradients=False)):
        with context.compute.autocast():
            values = network.embed(
                plan.image.normalisation.apply(pixels.to(context.compute.device))
            )
        parts.append(values.float().cpu())
    return torch.nn.functional.normalize(torch.cat(parts))


def herding(values: Float32[Tensor, "n D"], count: int) -> Int64[Tensor, " count"]:
    """Positions whose mean, with each one more, comes as near to the mean of all as can be."""
    mean, total, chosen = (
        values.mean(0),
        torch.zeros(values.shape[1]),
        torch.zeros(count, dtype=torch.int64),
    )
    free = torch.ones(len(values), dtype=torch.bool)
    for i in range(count):
        apart = (mean - (values + total) / (i + 1)).norm(dim=1)
        chosen[i] = torch.where(free, apart, torch.inf).argmin()
        free[chosen[i]] = False
        total += values[chosen[i]]
    return chosen


def centres(values: Float32[Tensor, "n D"], count: int) -> Int64[Tensor, " count"]:
    """Positions each of which is the farthest from those before; the first is the nearest to the mean of all."""
    chosen = torch.zeros(count, dtype=torch.int64)
    chosen[0] = (values - values.mean(0)).norm(dim=1).argmin()
    apart = torch.full((len(values),), torch.inf)
    for i in range(1, count):
        apart = torch.minimum(apart, (values - values[chosen[i - 1]]).norm(dim=1))
        apart[
            chosen[:i]
        ] = -1  # equal images are at no distance, but one that is chosen is not chosen again
        chosen[i] = apart.argmax()
    return chosen


RULES: dict[str, Callable[[Float32[Tensor, "n D"], int], Int64[Tensor, " count"]]] = {
    "herding": herding,
    "centres": centres,
}

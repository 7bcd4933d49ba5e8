"""Coreset: every site sends real images that represent its data, a baseline for distillation.

    herding   x_i = argmin_x | mean_{D_k^y} psi - (psi(x) + sum_{j<i} psi(x_j)) / i |
              the mean of the images is near the class mean
    centres   x_i = argmax_x min_{j<i} | psi(x) - psi(x_j) |
              the images are far from each other
    random    images are drawn without repetition

Images are chosen one by one for each class y of site k. D_k^y are the site's images of the class,
and x ranges over those that were not chosen before. psi is the embedding, scaled to length 1 and
without augmentation, of a random network that is the same at all sites. The first centre is the
image nearest to the class mean. A class with fewer images than its share repeats them, and each
repetition is moved a little.

References: M. Welling, "Herding dynamical weights to learn", ICML 2009. S.-A. Rebuffi,
A. Kolesnikov, G. Sperl, C. H. Lampert, "iCaRL: incremental classifier and representation learning",
CVPR 2017. O. Sener, S. Savarese, "Active learning for convolutional neural networks: a core-set
approach", ICLR 2018.
"""

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64
from torch import Tensor

from collabdm.documents.contribution import Contribution
from collabdm.documents.extra_tensors import DeclaredTensors
from collabdm.documents.outcomes import DistilledSet
from collabdm.documents.plan import Plan
from collabdm.images import ImageSet, as_float
from collabdm.matching.networks import Network, build, seed_weights
from collabdm.matching.run_context import RunContext
from collabdm.methods.base import (
    Contributions,
    answer,
    check_answer,
    plan_options,
    site_seed,
)
from collabdm.methods.own_images import (
    OwnImages,
    balanced_labels,
    declare_images,
    image_tensors,
    images_sent,
    union,
)
from collabdm.methods.start_images import jitter, random_images
from collabdm.progress import Progress, Stage
from collabdm.seeds import Purpose, Stream, derive

Rule = Callable[[Float32[Tensor, "n D"], int], Int64[Tensor, " count"]]


class Coreset(OwnImages):
    """The options: the number of images, and the rule that chooses them."""

    rule: Literal["herding", "centres", "random"] = "herding"


def declare(plan: Plan) -> DeclaredTensors:
    """Declare the extra tensors: images and their labels."""
    return declare_images(plan, images_sent(plan, plan_options(plan, Coreset)))


def shows_real_images(plan: Plan) -> bool:
    """Return True: every image sent is a real image."""
    return True


def contribute(
    plan: Plan, data: ImageSet, site: str = "site-1", context: RunContext = RunContext()
) -> Contribution:
    """Choose the images that represent a site.

    Args:
        plan: the plan, with method coreset.
        data: the site's images, of the plan's classes and shape.
        site: the site's name.
        context: device and progress.

    Returns:
        The contribution.

    Raises:
        DataError: the data does not fit the plan.
        PlanError: the name is not in the plan, or the plan asks for statistics or local images.
    """
    check_answer(plan, data, site)
    options, seed = plan_options(plan, Coreset), site_seed(plan, site, context)

    present = torch.nonzero(data.counts()).flatten().tolist()
    labels = torch.tensor(balanced_labels(images_sent(plan, options), present))

    if options.rule == "random":
        images = random_images(plan, data, labels, seed)
    else:
        chosen, repeated = _choose(plan, data, labels, RULES[options.rule], context)
        stream = Stream.of(seed, Purpose.LOCAL_START)
        images = jitter(plan, as_float(data.images[chosen]), repeated, stream)

    return answer(plan, data, site, image_tensors(plan, images, labels))


def distill(
    plan: Plan,
    contributions: Contributions,
    context: RunContext = RunContext(),
    allow_missing: bool = False,
) -> DistilledSet:
    """Unite the sites' images, sorted by class.

    Args:
        plan: the plan, with method coreset.
        contributions: the contributions, in any order.
        context: not used.
        allow_missing: accept a round in which a class is missing at every site.

    Returns:
        The set.

    Raises:
        DocumentError: a contribution does not answer the plan, or a class is missing and
            `allow_missing` is False.
    """
    return union(plan, contributions, declare(plan), allow_missing)


def herding(values: Float32[Tensor, "n D"], count: int) -> Int64[Tensor, " count"]:
    """Choose positions one by one, so that the mean of the chosen values is nearest to the mean."""
    mean, total = values.mean(0), torch.zeros(values.shape[1])
    chosen = torch.zeros(count, dtype=torch.int64)
    free = torch.ones(len(values), dtype=torch.bool)

    for i in range(count):
        distances = (mean - (values + total) / (i + 1)).norm(dim=1)
        chosen[i] = torch.where(free, distances, torch.inf).argmin()
        free[chosen[i]] = False
        total += values[chosen[i]]

    return chosen


def centres(values: Float32[Tensor, "n D"], count: int) -> Int64[Tensor, " count"]:
    """Choose positions, each farthest from the earlier ones; the first is nearest to the mean."""
    chosen = torch.zeros(count, dtype=torch.int64)
    chosen[0] = (values - values.mean(0)).norm(dim=1).argmin()
    distances = torch.full((len(values),), torch.inf)

    for i in range(1, count):
        distances = torch.minimum(distances, (values - values[chosen[i - 1]]).norm(dim=1))
        distances[chosen[:i]] = -1  # equal images have distance 0, and may still be chosen
        chosen[i] = distances.argmax()

    return chosen


RULES: dict[str, Rule] = {"herding": herding, "centres": centres}


def _choose(
    plan: Plan, data: ImageSet, labels: Int64[Tensor, " k"], rule: Rule, context: RunContext
) -> tuple[Int64[Tensor, " k"], Int64[Tensor, " m"]]:
    """Choose images by a rule; return their positions, and which of these repeat an image."""
    network = _embedding_network(plan).to(context.compute.device)
    classes, counts = labels.unique(return_counts=True)
    chosen, repeated = [], []

    for done, (y, count) in enumerate(zip(classes.tolist(), counts.tolist(), strict=True)):
        members = data.of_class(y)
        values = _embedded(network, plan, data.subset(members), context)
        order = members[rule(values, min(count, len(members)))]

        places = torch.arange(count)
        chosen.append(order[places % len(order)])
        repeated.append(places >= len(order))
        context.report(Progress(Stage.SELECTION, done + 1, len(classes)))

    return torch.cat(chosen), torch.nonzero(torch.cat(repeated)).flatten()


def _embedding_network(plan: Plan) -> Network:
    """Build psi, the network that is the same at all sites."""
    network = build(plan.network, plan.image.shape, len(plan.classes))
    seed_weights(network, Stream.of(derive(plan.seed, "coreset"), Purpose.NETWORK))
    return network.requires_grad_(False).eval()


def _embedded(
    network: Network, plan: Plan, data: ImageSet, context: RunContext
) -> Float32[Tensor, "n D"]:
    """Embed every image, scaled to length 1."""
    normalisation, device = plan.image.normalisation, context.compute.device
    parts = []

    for pixels in data.images.split(context.compute.images_per_pass(gradients=False)):
        with context.compute.autocast():
            values = network.embed(normalisation.apply(pixels.to(device)))
        parts.append(values.float().cpu())

    return F.normalize(torch.cat(parts))

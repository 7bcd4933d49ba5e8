"""DOSFL: every site distils its data into a few training steps from shared initial weights.

    theta_0    the initial weights, drawn from the plan's seed
    site k     learns the images x_s, labels y_s and rates eta_s of the steps s = 1 .. S,
                   theta_s = theta_{s-1} - eta_s grad CE(theta_{s-1}; x_s, softmax y_s),
               to minimise the cross-entropy  CE(theta_S; real batch),  by backpropagation through
               the unrolled steps
    server     applies all sites' steps in turn to theta_0, or trains a different network on the x_s

`dosfl_steps` defines the steps and how a site learns them.

References: Y. Zhou, G. Pu, X. Ma, X. Li, D. Wu, "Distilled one-shot federated learning", 2020.
Y. Feng, R. Vedantam, J. Kempe, "Embarrassingly simple dataset distillation", 2023 (random truncated
backpropagation through time).
"""

import torch
from torch import Tensor

from collabdm.documents.contribution import Contribution
from collabdm.documents.extra_tensors import DeclaredTensors, TensorSpec
from collabdm.documents.outcomes import DistilledSteps
from collabdm.documents.plan import Plan
from collabdm.errors import DocumentError
from collabdm.images import ImageSet, as_float
from collabdm.matching.compute import Compute
from collabdm.matching.networks import Network
from collabdm.matching.run_context import RunContext
from collabdm.methods.base import (
    Contributions,
    answer,
    check_answer,
    checked_in_order,
    plan_options,
    site_counts,
    site_seed,
    stored_pixels,
)
from collabdm.methods.dosfl_steps import (
    Dosfl,
    StepLearner,
    Steps,
    initial_network,
    steps_sent,
    unroll,
)
from collabdm.version import versions


def declare(plan: Plan) -> DeclaredTensors:
    """Declare the extra tensors: images, labels as logits, and rates of the steps."""
    count, images = steps_sent(plan), plan_options(plan, Dosfl).images
    return {
        "images": TensorSpec(plan.image_dtype, (count, images, *plan.image.shape)),
        "labels": TensorSpec(torch.float32, (count, images, len(plan.classes))),
        "rates": TensorSpec(torch.float32, (count,)),
    }


def shows_real_images(plan: Plan) -> bool:
    """Return whether the images of the steps start from real images."""
    return plan_options(plan, Dosfl).start == "real"


def contribute(
    plan: Plan, data: ImageSet, site: str = "site-1", context: RunContext = RunContext()
) -> Contribution:
    """Learn the training steps of a site.

    Args:
        plan: the plan, with method dosfl.
        data: the site's images, of the plan's classes and shape.
        site: the site's name.
        context: device, progress and checkpoints.

    Returns:
        The contribution.

    Raises:
        DataError: the data does not fit the plan.
        PlanError: the name is not in the plan, or the plan asks for statistics or local images.
    """
    check_answer(plan, data, site)
    steps = StepLearner(plan, data, site_seed(plan, site, context), context).learn()

    pixels = stored_pixels(plan, plan.image.normalisation.invert(steps.images.flatten(0, 1)))
    tensors = {
        "images": pixels.view_as(steps.images),
        "labels": steps.labels,
        "rates": steps.log_rates.exp(),
    }
    return answer(plan, data, site, tensors)


def distill(
    plan: Plan,
    contributions: Contributions,
    context: RunContext = RunContext(),
    allow_missing: bool = False,
) -> DistilledSteps:
    """Combine the steps in turn: the first step of each site, then the second, and so on.

    Args:
        plan: the plan, with method dosfl.
        contributions: the contributions, in any order.
        context: the device; `watch` receives the network after all steps.
        allow_missing: accept a round in which a class is missing at every site.

    Returns:
        The steps.

    Raises:
        DocumentError: a contribution does not answer the plan, a rate is not above 0, or a class is
            missing.
    """
    ordered = checked_in_order(plan, contributions, declare(plan), allow_missing)
    for contribution in ordered:
        smallest = float(contribution.extra_tensors["rates"].min())
        if smallest <= 0:
            raise DocumentError(
                f"contribution of {contribution.site!r}: `parts.rates` should be above 0; "
                f"found {smallest:.3g}"
            )

    def in_turn(name: str) -> Tensor:
        of_sites = [contribution.extra_tensors[name] for contribution in ordered]
        return torch.stack(of_sites, 1).flatten(0, 1)

    images, labels, rates = (in_turn(name) for name in ("images", "labels", "rates"))
    sites = site_counts(plan, ordered)
    outcome = DistilledSteps(images, labels, rates, plan, sites, plan.method, versions())

    context.watch("applied", 0, apply_steps(outcome, context.compute))
    return outcome


def apply_steps(outcome: DistilledSteps, compute: Compute = Compute()) -> Network:
    """Apply all steps to theta_0, and return the network in evaluation mode."""
    plan, device = outcome.plan, compute.device
    network = initial_network(plan).to(device)

    images = torch.stack(
        [plan.image.normalisation.apply(as_float(step)) for step in outcome.images]
    )
    steps = Steps(images.to(device), outcome.labels.to(device), outcome.rates.log().to(device))
    order = [*range(len(outcome.rates))] * plan_options(plan, Dosfl).passes

    with torch.no_grad():
        theta = unroll(network, dict(network.named_parameters()), steps, order)
        for name, parameter in network.named_parameters():
            parameter.copy_(theta[name])

    return network.eval()

"""Gradient matching in many rounds, in the framework of `rounds`.

    round r    the server broadcasts a network theta_r; each site k answers with g_{k,y}, the
               gradient of the cross-entropy CE on a batch of its images of class y; the server
               merges the answers, and updates the synthetic images S by one SGD step on

                   sum_y d(merge_k g_{k,y}, grad_theta CE(S^y))

d(a, b) is the sum of 1 - cos(a_f, b_f) over the filters f of all layers, without biases and scales.
A network is used for `refresh` rounds, and is trained for `updates` SGD steps on S after each.

References: R. Holland et al., "One-shot collaborative data distillation", 2024 (section 4.1).
B. Zhao, K. R. Mopuri, H. Bilen, "Dataset condensation with gradient matching", ICLR 2021.
"""

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from pydantic import Field
from torch import Tensor

from collabdm.checkpoint import Checkpoint
from collabdm.documents.distillation import Matching
from collabdm.documents.frozen_model import FrozenModel, Positive
from collabdm.documents.outcomes import DistilledSet
from collabdm.documents.plan import Plan
from collabdm.errors import PlanError
from collabdm.images import ImageSet
from collabdm.matching.augment import Draws, augment, draw, expand
from collabdm.matching.networks import Network, build, seed_weights
from collabdm.matching.run_context import RunContext
from collabdm.methods.base import Traffic, plan_options
from collabdm.methods.local_training import restore_training, training_tensors
from collabdm.methods.rounds import RoundSites
from collabdm.progress import Progress, Stage
from collabdm.seeds import Purpose, Stream

UPDATE_MOMENTUM = 0.5  # the momentum of the network's steps on S

Gradient = list[Tensor]  # one tensor for each parameter


class Gradients(FrozenModel):
    """The options: rounds, optimiser of the images, and training of the networks."""

    rounds: Positive = 100
    matching: Matching = Matching(learning_rate=0.1)
    refresh: Positive = 10
    updates: Annotated[int, Field(ge=0, le=1000)] = 5
    update_rate: Annotated[float, Field(gt=0, le=100)] = 0.01


def run_gradients(
    plan: Plan, sites: dict[str, ImageSet], context: RunContext = RunContext()
) -> tuple[DistilledSet, Traffic]:
    """Run all rounds of gradient matching.

    Args:
        plan: the plan, with method rounds-gradients.
        sites: the images of each site, by name.
        context: device, progress and checkpoints.

    Returns:
        The set, and the traffic of the rounds.

    Raises:
        DataError: a site's data does not fit the plan.
        PlanError: a name or a setting does not fit.
    """
    options, round_sites = plan_options(plan, Gradients), RoundSites.of(plan, sites)
    matching = options.matching
    if matching != Matching(learning_rate=matching.learning_rate, momentum=matching.momentum):
        raise PlanError(
            "`options.matching` should set `learning_rate` and `momentum` alone, because gradients "
            f"are matched by SGD with a constant rate; found {matching}"
        )

    labels, start = round_sites.start(context)
    loop = GradientRounds(round_sites, labels, context)
    images = loop.run(start)

    values = sum(parameter.numel() for parameter in loop.network.parameters())
    return round_sites.outcome(images, labels), round_sites.traffic(options.rounds, values)


class GradientRounds:
    """The server of gradient matching, and the answers that it collects from the sites."""

    def __init__(self, sites: RoundSites, labels: Int64[Tensor, " n"], context: RunContext) -> None:
        """Build the network.

        Args:
            sites: the plan, with method rounds-gradients, and the sites' data.
            labels: the classes of the synthetic images, ascending.
            context: device, progress and checkpoints.
        """
        plan = sites.plan
        self.sites, self.plan, self.context = sites, plan, context
        self.options = plan_options(plan, Gradients)
        self.device = torch.device(context.compute.device)
        self.labels = labels.repeat_interleave(plan.pae**2)  # one label per small image

        network = build(plan.network, plan.image.shape, len(plan.classes))
        self.network = network.to(self.device)

    def run(self, start: Checkpoint) -> Float[Tensor, "n c h w"]:
        """Run all rounds from `start` on, and return the images in network units, on the CPU."""
        options, matching = self.options, self.options.matching
        images = start.tensors["images"].to(self.device).clone().requires_grad_()
        optimizer = torch.optim.SGD([images], matching.learning_rate, matching.momentum)
        if start.done:
            restore_training(self.network, optimizer, start.tensors)

        for r in range(start.done, options.rounds):
            if r % options.refresh == 0:
                stream = Stream.of(self.plan.seed, Purpose.WEIGHTS, r // options.refresh)
                seed_weights(self.network, stream)

            draws = self._draws(r)
            targets = self.targets(r, draws)
            optimizer.zero_grad()
            self.loss(images, targets, draws).backward()
            optimizer.step()
            self._update_network(images.detach())

            tensors = {"images": images.detach(), **training_tensors(self.network, optimizer)}
            self.context.keep(Checkpoint(r + 1, tensors))
            self.context.report(Progress(Stage.ROUNDS, r + 1, options.rounds))

        return images.detach().cpu()

    def targets(self, r: int, draws: Draws) -> dict[int, Gradient]:
        """Compute the gradient of each class, merged over the sites."""
        shares, batches = self.sites.shares(), self.sites.batches(r)
        merged: dict[int, Gradient] = {}

        for k, (name, data) in enumerate(self.sites.data.items()):
            index = batches[name]
            x = self.plan.image.normalisation.apply(data.images[index].to(self.device))
            answer = class_gradients(self.network, x, data.labels[index], draws, create_graph=False)

            for y, gradient in answer.items():
                weighted = [shares[k, y].item() * value for value in gradient]
                if y in merged:
                    weighted = [a + b for a, b in zip(merged[y], weighted, strict=True)]
                merged[y] = weighted

        return merged

    def loss(self, images: Tensor, targets: dict[int, Gradient], draws: Draws) -> Tensor:
        """Compute the loss sum_y d(target of y, gradient of the synthetic images of y).

        Args:
            images: the synthetic images, in network units.
            targets: the merged gradient of each class.
            draws: the augmentation of each class.

        Returns:
            The loss, a scalar.
        """
        x = expand(images, self.plan.pae)
        own = class_gradients(self.network, x, self.labels, draws, create_graph=True)
        return torch.stack([gradient_distance(own[y], targets[y]) for y in sorted(own)]).sum()

    def _draws(self, r: int) -> Draws:
        """Draw one augmentation for each class, the same for real and synthetic images."""
        stream = Stream.of(self.plan.seed, Purpose.AUGMENT, r)
        draws = draw(self.plan.augment, len(self.plan.classes), self.plan.image.side, stream)
        return draws.to(self.device)

    def _update_network(self, images: Tensor) -> None:
        """Train the network on the synthetic images."""
        x, labels = expand(images, self.plan.pae), self.labels.to(images.device)
        optimizer = torch.optim.SGD(
            self.network.parameters(), self.options.update_rate, UPDATE_MOMENTUM
        )
        for _ in range(self.options.updates):
            optimizer.zero_grad()
            F.cross_entropy(self.network(x), labels).backward()
            optimizer.step()


def class_gradients(
    network: Network,
    x: Float[Tensor, "n c h w"],
    labels: Int64[Tensor, " n"],
    draws: Draws,
    create_graph: bool,
) -> dict[int, Gradient]:
    """Compute the gradient of the cross-entropy, grad_theta CE, of the images of each class.

    Args:
        network: the network theta.
        x: the images, in network units.
        labels: their classes.
        draws: the augmentation of each class.
        create_graph: whether the gradients are differentiable in x.

    Returns:
        A tensor for each parameter, by class.
    """
    gradients = {}
    for y in labels.unique().tolist():
        own = x[(labels == y).to(x.device)]
        rows = torch.full((len(own),), y, device=x.device)
        loss = F.cross_entropy(network(augment(own, draws.rows(rows))), rows)
        parameters = list(network.parameters())
        gradients[y] = list(torch.autograd.grad(loss, parameters, create_graph=create_graph))
    return gradients


def gradient_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Compute the distance d: the sum of 1 - cos over the filters (rows) of all weights."""
    distances = []
    for left, right in zip(a, b, strict=True):
        if left.ndim > 1:
            cosines = F.cosine_similarity(left.flatten(1), right.flatten(1), eps=1e-6)
            distances.append((1 - cosines).sum())
    return torch.stack(distances).sum()

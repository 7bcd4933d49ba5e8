"""The strawman of section 4.1: distillation in many rounds, with fresh answers of all sites in each.

    round r    the server broadcasts a network theta_r; each site answers Phi_{theta_r} of a batch of each class;
               the server joins the answers, weighted by images held, and moves S one step down its loss

    means      Phi = mean psi_r(x), a network that is never trained.    loss = sum_y |Phi_y - mean_{S^y} psi_r|^2
    gradients  Phi = grad_theta CE over the batch of a class.           loss = sum_y d(Phi_y, grad_theta CE(S^y))
               A network serves `refresh` rounds and makes `updates` SGD steps on S after each.
               d(a, b) = sum over filters of all layers of 1 - cos(a_f, b_f); biases and scales do not count.

In both, S begins as the union of what the sites send first, as the plan's `local` says. With means the outcome is
that of CollabDM with as many steps in one pass, to the rounding of its wire; what one round saves is the traffic.
Networks are counted as sent, since the framework sends them; that random ones can go as seeds is CollabDM's point.

References: R. Holland et al., "One-shot collaborative data distillation", 2024 (section 4.1). B. Zhao, K. R. Mopuri,
H. Bilen, "Dataset condensation with gradient matching", ICLR 2021. B. Zhao, H. Bilen, "Dataset condensation with
distribution matching", WACV 2023.
"""

from collections.abc import Callable, Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from pydantic import Field
from torch import Tensor

from collabdm.checkpoint import Checkpoint
from collabdm.documents.extra_tensors import TensorSpec
from collabdm.documents.frozen_model import FrozenModel, Positive
from collabdm.documents.outcomes import DistilledSet
from collabdm.documents.plan import Matching, Plan
from collabdm.errors import PlanError
from collabdm.images import ImageSet
from collabdm.matching.augment import Draws, augment, draw, expand
from collabdm.matching.embedding import Sampling, StepEmbedding, plan_embedding
from collabdm.matching.loop import Problem, Target, match, start_from
from collabdm.matching.networks import Network, build, seed_weights, skeleton
from collabdm.matching.run_context import RunContext
from collabdm.methods.base import (
    Settings,
    Traffic,
    check_data,
    parse_options,
    plan_options,
    stored_pixels,
)
from collabdm.methods.collabdm import contribute, start_images
from collabdm.methods.local_training import restore_training, training_tensors
from collabdm.progress import Progress, Stage
from collabdm.seeds import Purpose, Stream, derive
from collabdm.version import versions

COUNT_BYTES, VALUE_BYTES = 8, 4


Gradient = list[Tensor]


class Means(FrozenModel):
    """Settings of distribution matching in rounds."""

    rounds: Positive = 100
    matching: Matching = Matching()


class Gradients(FrozenModel):
    """Settings of gradient matching in rounds."""

    rounds: Positive = 100
    matching: Matching = Matching(learning_rate=0.1)
    refresh: Positive = 10
    updates: Annotated[int, Field(ge=0, le=1000)] = 5
    update_rate: Annotated[float, Field(gt=0, le=100)] = 0.01


def in_rounds(method: str, model: type[FrozenModel]) -> Callable[[Settings], Settings]:
    """`Method.adapt` of a method in rounds: no statistics are sent beforehand."""

    def adapt(settings: Settings) -> Settings:
        options = parse_options(settings.get("options"), model).model_dump(mode="json")
        return {"pae": 1} | settings | {"steps": 0, "method": method, "options": options}

    return adapt


def run_means(
    plan: Plan, sites: dict[str, ImageSet], context: RunContext = RunContext()
) -> tuple[DistilledSet, Traffic]:
    """All rounds of distribution matching.

    Args:
        plan: the plan, of method rounds-means.
        sites: the images of each site, by name.
        context: device, progress and checkpoints.

    Returns:
        The set, and the bytes that the rounds cost.

    Raises:
        DataError: a site's data does not fit the plan.
        PlanError: a name or a setting does not fit.
    """
    options, counts = plan_options(plan, Means), check_sites(plan, sites)
    labels, start = _start(plan, sites, counts, context)

    work = options.rounds * (3 * len(labels) * plan.pae**2 + len(sites))
    embedding = plan_embedding(plan, context.compute, work=work)
    samplings = [
        Sampling(derive(plan.seed, "site", name), Purpose.BATCH, plan.batch) for name in sites
    ]
    shares, present = site_shares(plan, counts), counts.sum(0) > 0

    def target(i: int, at_step: StepEmbedding) -> Target:
        answers = [
            at_step.real_means(data, sampling.picks(data, i)).cpu()
            for data, sampling in zip(sites.values(), samplings, strict=True)
        ]
        return Target(weighted_sum(torch.stack(answers), shares), present)

    def on_round(checkpoint: Checkpoint) -> None:
        context.keep(checkpoint)
        context.report(Progress(Stage.ROUNDS, checkpoint.done, options.rounds))

    problem = Problem(embedding, labels, target, lambda i: i, plan.pae)
    images = match(start, problem, options.matching, options.rounds, on_round)
    traffic = round_traffic(plan, sites, options.rounds, embedding.sketched_width)
    return _outcome(plan, images, labels, sites, counts), traffic


def run_gradients(
    plan: Plan, sites: dict[str, ImageSet], context: RunContext = RunContext()
) -> tuple[DistilledSet, Traffic]:
    """All rounds of gradient matching.

    Args:
        plan: the plan, of method rounds-gradients.
        sites: the images of each site, by name.
        context: device, progress and checkpoints.

    Returns:
        The set, and the bytes that the rounds cost.

    Raises:
        DataError: a site's data does not fit the plan.
        PlanError: a name or a setting does not fit.
    """
    options, counts = plan_options(plan, Gradients), check_sites(plan, sites)
    matching = options.matching
    if matching != Matching(learning_rate=matching.learning_rate, momentum=matching.momentum):
        raise PlanError(
            "`options.matching` should set `learning_rate` and `momentum` alone, since gradients are "
            f"matched by SGD with a constant rate; found {matching}"
        )

    labels, start = _start(plan, sites, counts, context)
    loop = GradientRounds(plan, sites, site_shares(plan, counts), labels, context)
    images = loop.run(start)
    values = sum(parameter.numel() for parameter in loop.network.parameters())
    traffic = round_traffic(plan, sites, options.rounds, values)
    return _outcome(plan, images, labels, sites, counts), traffic


def check_sites(plan: Plan, sites: dict[str, ImageSet]) -> Int64[Tensor, "sites classes"]:
    """n_k^y, after a check of names, data and plan.

    Raises:
        DataError: a site's data does not fit the plan.
        PlanError: a name or a setting does not fit.
    """
    for name, data in sites.items():
        plan.check_site(name)
        check_data(plan, data)
    if plan.steps or plan.fraction != 1:
        raise PlanError(
            f"`steps` should be 0 and `fraction` 1 for method {plan.method}; found {plan.steps} and {plan.fraction}"
        )
    return torch.stack([data.counts() for data in sites.values()])


def site_shares(
    plan: Plan, counts: Int64[Tensor, "sites classes"]
) -> Float32[Tensor, "sites classes"]:
    """The weight of each site in each class: by images held, or equal among the sites that hold it."""
    weights = (counts if plan.merging == "weighted" else (counts > 0)).double()
    return (weights / weights.sum(0).clamp_min(1)).float()


def weighted_sum(
    answers: Float32[Tensor, "sites classes values"], shares: Float32[Tensor, "sites classes"]
) -> Float32[Tensor, "classes values"]:
    """The answers of all sites as one."""
    return (answers.double() * shares[:, :, None].double()).sum(0).float()


def round_traffic(plan: Plan, sites: dict[str, ImageSet], rounds: int, values: int) -> Traffic:
    """The bytes of all rounds: networks down; per class a count and an answer up, and the first images.

    Args:
        plan: the plan.
        sites: the images of each site, by name.
        rounds: the number of rounds.
        values: the number of float32 values in the answer for a class.

    Returns:
        The traffic.
    """
    network = skeleton(plan.network, plan.image.shape, len(plan.classes))
    weights = sum(parameter.numel() for parameter in network.parameters())
    down = rounds * VALUE_BYTES * weights

    image = TensorSpec(plan.image_dtype, plan.image.shape).nbytes + COUNT_BYTES
    first_images = plan.local.images_sent * image
    per_class = rounds * (values * VALUE_BYTES + COUNT_BYTES) + first_images
    up = {name: int(torch.count_nonzero(data.counts())) * per_class for name, data in sites.items()}
    return Traffic(rounds, up, dict.fromkeys(sites, down))


def _start(
    plan: Plan,
    sites: dict[str, ImageSet],
    counts: Int64[Tensor, "sites classes"],
    context: RunContext,
) -> tuple[Int64[Tensor, " n"], Checkpoint]:
    """The labels of S and its start: the union of the sites' first images, or the checkpoint."""
    labels = torch.nonzero(counts.sum(0)).flatten().repeat_interleave(plan.ipc)
    if context.resume is not None:
        return labels, context.resume

    local = {
        name: contribute(plan, data, name, context.alone()).images for name, data in sites.items()
    }
    by_name = dict(sorted(zip(sites, counts, strict=True)))
    pixels, labels = start_images(plan, local, by_name)
    return labels, start_from(plan.image.normalisation.apply(pixels))


def _outcome(
    plan: Plan,
    images: Tensor,
    labels: Tensor,
    sites: dict[str, ImageSet],
    counts: Int64[Tensor, "sites classes"],
) -> DistilledSet:
    pixels = plan.image.normalisation.invert(images)
    stored = ImageSet(stored_pixels(plan, pixels), labels, plan.classes)
    by_site = dict(zip(sites, counts.tolist(), strict=True))
    return DistilledSet(stored, plan, by_site, plan.method, versions())


class GradientRounds:
    """The server of gradient matching, and the answers that it collects from the sites."""

    def __init__(
        self,
        plan: Plan,
        sites: dict[str, ImageSet],
        shares: Float32[Tensor, "sites classes"],
        labels: Int64[Tensor, " n"],
        context: RunContext,
    ) -> None:
        """Build the network.

        Args:
            plan: the plan, of method rounds-gradients.
            sites: the images of each site, by name.
            shares: the weight of each site in each class.
            labels: the classes of the synthetic images, ascending.
            context: device, progress and checkpoints.
        """
        self.plan, self.sites, self.shares, self.labels = plan, sites, shares, labels
        self.options, self.context = plan_options(plan, Gradients), context
        self.device = torch.device(context.compute.device)
        network = build(plan.network, plan.image.shape, len(plan.classes))
        self.network = network.to(self.device)

    def run(self, start: Checkpoint) -> Tensor:
        """All rounds from `start` on; the images in network units."""
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
            self._update(images.detach())

            tensors = {"images": images.detach(), **training_tensors(self.network, optimizer)}
            self.context.keep(Checkpoint(r + 1, tensors))
            self.context.report(Progress(Stage.ROUNDS, r + 1, options.rounds))

        return images.detach().cpu()

    def _draws(self, r: int) -> Draws:
        """One augmentation for each class, the same for real and synthetic images."""
        stream = Stream.of(self.plan.seed, Purpose.AUGMENT, r)
        draws = draw(self.plan.augment, len(self.plan.classes), self.plan.image.side, stream)
        return draws.to(self.device)

    def targets(self, r: int, draws: Draws) -> dict[int, Gradient]:
        """Phi_y: the sites' gradients of each class, joined by their shares."""
        joint: dict[int, Gradient] = {}
        for k, (name, data) in enumerate(self.sites.items()):
            seed = derive(self.plan.seed, "site", name)
            index = Sampling(seed, Purpose.BATCH, self.plan.batch).picks(data, r)
            x = self.plan.image.normalisation.apply(data.images[index].to(self.device))
            answer = class_gradients(self.network, x, data.labels[index], draws, create_graph=False)
            for y, gradient in answer.items():
                weighted = [self.shares[k, y].item() * value for value in gradient]
                joint[y] = (
                    [a + b for a, b in zip(joint[y], weighted, strict=True)]
                    if y in joint
                    else weighted
                )
        return joint

    def loss(self, images: Tensor, targets: dict[int, Gradient], draws: Draws) -> Tensor:
        """sum_y d(Phi_y, the gradient of the synthetic images of y)."""
        labels = self.labels.repeat_interleave(self.plan.pae**2)
        own = class_gradients(
            self.network, expand(images, self.plan.pae), labels, draws, create_graph=True
        )
        return torch.stack([gradient_distance(own[y], targets[y]) for y in sorted(own)]).sum()

    def _update(self, images: Tensor) -> None:
        """Step 2 of the framework: the network trains on S."""
        labels = self.labels.repeat_interleave(self.plan.pae**2).to(images.device)
        x = expand(images, self.plan.pae)
        optimiser = torch.optim.SGD(
            self.network.parameters(), self.options.update_rate, momentum=0.5
        )
        for _ in range(self.options.updates):
            optimiser.zero_grad()
            F.cross_entropy(self.network(x), labels).backward()
            optimiser.step()


def class_gradients(
    network: Network,
    x: Float[Tensor, "n c h w"],
    labels: Int64[Tensor, " n"],
    draws: Draws,
    create_graph: bool,
) -> dict[int, Gradient]:
    """grad_theta CE of the images of each class; x in network units."""
    found = {}
    for y in labels.unique().tolist():
        own = x[(labels == y).to(x.device)]
        rows = torch.full((len(own),), y, device=x.device)
        loss = F.cross_entropy(network(augment(own, draws.rows(rows))), rows)
        found[y] = list(
            torch.autograd.grad(loss, list(network.parameters()), create_graph=create_graph)
        )
    return found


def gradient_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """The sum of 1 - cos over the filters (rows) of all weights."""
    distances = []
    for left, right in zip(a, b, strict=True):
        if left.ndim > 1:
            distances.append(
                (1 - F.cosine_similarity(left.flatten(1), right.flatten(1), eps=1e-6)).sum()
            )
    return torch.stack(distances).sum()

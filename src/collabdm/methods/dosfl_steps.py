"""How a site learns the training steps of DOSFL: the options, the unrolled steps and the loop.

A step s consists of images x_s, labels y_s (as logits) and a learning rate eta_s. It updates the
weights theta of a network by the gradient of the cross-entropy CE:

    theta_s = theta_{s-1} - eta_s grad CE(theta_{s-1}; x_s, softmax y_s),   s = 1 .. S
    Adam updates x, y and log eta to minimise  CE(theta_S; real batch)

Three techniques make this work with several sites and many steps:

    soft reset      every iteration starts at theta_0 + sigma N(0, I), where sigma is `reset`,
                    because the steps of other sites will already have changed theta
    random masking  the images of each step are replaced by noise with a small probability, so that
                    no step depends on all the others
    random window   (RaT-BPTT) the S steps are repeated `passes` times, giving L = passes * S
                    steps; the first N ~ U {0 .. L - window} are applied without a graph and the
                    next `window` with one; the rest are skipped. Gradients are clipped to `clip`
                    times the running mean of their norm

If `window` is None and `passes` is 1, this is DOSFL's full unroll.

References: Y. Zhou, G. Pu, X. Ma, X. Li, D. Wu, "Distilled one-shot federated learning", 2020.
Y. Feng, R. Vedantam, J. Kempe, "Embarrassingly simple dataset distillation", 2023 (random truncated
backpropagation through time).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor
from torch.func import functional_call, grad

from collabdm.checkpoint import Checkpoint, optimizer_tensors, restore_optimizer
from collabdm.documents.frozen_model import FrozenModel, LearningRate, Positive
from collabdm.documents.plan import Plan
from collabdm.images import ImageSet
from collabdm.matching.networks import Network, build, seed_weights
from collabdm.matching.run_context import RunContext
from collabdm.methods.base import plan_options
from collabdm.methods.own_images import balanced_labels
from collabdm.methods.start_images import noise_images, random_images
from collabdm.progress import Progress, Stage
from collabdm.seeds import Purpose, Stream, derive

Parameters = dict[str, Tensor]
Share = Annotated[float, Field(ge=0, lt=1)]

LABEL_START = 4.0  # the initial logit of an image's class; the others are 0


class Dosfl(FrozenModel):
    """The options of DOSFL.

    Each site sends `steps` steps of `images` images. If `steps` is None, it sends as many steps as
    it needs to hold its equal share of the set's images.
    """

    steps: Positive | None = None
    images: Positive = 10
    start: Literal["real", "noise"] = "real"
    iterations: Annotated[int, Field(ge=0, le=10**6)] = 1000
    learning_rate: LearningRate = 1e-3
    rate: LearningRate = 0.02
    batch: Positive = 256
    passes: Positive = 1
    window: Positive | None = None
    reset: Annotated[float, Field(ge=0, le=10)] = 0.02
    mask: Share = 0.1
    clip: Annotated[float, Field(gt=0)] = 2.0

    @model_validator(mode="after")
    def _window_fits(self) -> "Dosfl":
        if self.window is None or self.steps is None:
            return self

        length = self.passes * self.steps
        if self.window > length:
            raise ValueError(f"`window` should be at most `passes` times `steps`, {length}")
        return self


@dataclass(frozen=True)
class Steps:
    """S training steps of m images each, in network units (normalised pixels).

    `labels` are logits; `log_rates` is the logarithm of the learning rate of each step.
    """

    images: Float[Tensor, "s m c h w"]
    labels: Float[Tensor, "s m classes"]
    log_rates: Float[Tensor, " s"]

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return the learned tensors."""
        return self.images, self.labels, self.log_rates

    def without_graph(self) -> "Steps":
        """Return the same values as constants, without gradients."""
        return Steps(*(value.detach() for value in self.tensors()))


def steps_sent(plan: Plan) -> int:
    """Return the number S of steps that each site sends."""
    options = plan_options(plan, Dosfl)
    share = math.ceil(plan.ipc * len(plan.classes) / plan.sites)
    return options.steps or math.ceil(share / options.images)


def initial_network(plan: Plan) -> Network:
    """Build the network with the initial weights theta_0, which all sites know."""
    network = build(plan.network, plan.image.shape, len(plan.classes))
    seed_weights(network, Stream.of(derive(plan.seed, "dosfl"), Purpose.NETWORK))
    return network.requires_grad_(False)


def start_steps(plan: Plan, data: ImageSet, seed: int) -> Steps:
    """Create the initial steps from real images or noise, balanced over the site's classes.

    Args:
        plan: the plan, with method dosfl.
        data: the site's images.
        seed: the seed of the site's draws.

    Returns:
        The steps; each step takes every S-th image, so it is balanced too.
    """
    options, count = plan_options(plan, Dosfl), steps_sent(plan)
    present = torch.nonzero(data.counts()).flatten().tolist()
    labels = torch.tensor(balanced_labels(count * options.images, present))

    if options.start == "noise":
        pixels = noise_images(plan, len(labels), Stream.of(seed, Purpose.LOCAL_START))
    else:
        pixels = random_images(plan, data, labels, seed)

    of_step = torch.arange(len(labels)).view(options.images, count).T
    images = plan.image.normalisation.apply(pixels)[of_step]
    logits = LABEL_START * F.one_hot(labels[of_step], len(plan.classes)).float()
    return Steps(images, logits, torch.full((count,), math.log(options.rate)))


def unroll(network: Network, theta: Parameters, steps: Steps, order: Iterable[int]) -> Parameters:
    """Apply training steps to weights; the result is differentiable in `steps`.

    Args:
        network: the network; its own weights are not used.
        theta: the weights before the first step.
        steps: the steps.
        order: the numbers of the steps to apply.

    Returns:
        The weights by name.
    """

    def inner_loss(weights: Parameters, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(network, weights, (x,)), y.softmax(1))

    for s in order:
        gradient = grad(inner_loss)(theta, steps.images[s], steps.labels[s])
        rate = steps.log_rates[s].exp()
        theta = {name: value - rate * gradient[name] for name, value in theta.items()}
    return theta


class StepLearner:
    """The outer loop: a site improves its steps by backpropagation through the unrolled steps."""

    def __init__(self, plan: Plan, data: ImageSet, seed: int, context: RunContext) -> None:
        """Build the network with the initial weights theta_0.

        Args:
            plan: the plan, with method dosfl.
            data: the site's images.
            seed: the seed of the site's draws.
            context: device, progress and checkpoints.
        """
        self.plan, self.data, self.seed, self.context = plan, data, seed, context
        self.options = plan_options(plan, Dosfl)
        self.network = initial_network(plan).to(context.compute.device)
        self._norm = 0.0  # the running mean of the gradient's norm

    def learn(self) -> Steps:
        """Run the remaining iterations, and return the steps on the CPU."""
        options, device = self.options, self.context.compute.device
        start = start_steps(self.plan, self.data, self.seed)
        learned = Steps(*(value.to(device).clone().requires_grad_() for value in start.tensors()))
        optimizer = torch.optim.Adam(learned.tensors(), lr=options.learning_rate)
        done = self._resume(learned, optimizer)

        for i in range(done, options.iterations):
            optimizer.zero_grad()
            self._loss(learned, i).backward()
            self._clip(learned, i)
            optimizer.step()
            self.context.keep(self._checkpoint(i + 1, learned, optimizer))
            self.context.report(Progress(Stage.LEARNED_STEPS, i + 1, options.iterations))

        return Steps(*(value.detach().cpu() for value in learned.tensors()))

    def _loss(self, learned: Steps, i: int) -> Tensor:
        """Compute the outer loss of iteration i, with its real batch, reset, window and masks."""
        options, count = self.options, len(learned.log_rates)
        device = self.context.compute.device
        stream = Stream.of(self.seed, Purpose.LOCAL_BATCH, i)

        index = stream.integers(len(self.data), min(options.batch, len(self.data)))
        x = self.plan.image.normalisation.apply(self.data.images[index]).to(device)
        y = self.data.labels[index].to(device)

        theta = self._reset_weights(stream)
        length = options.passes * count
        window = min(options.window or length, length)
        first = int(stream.integers(length - window + 1, 1))
        visible = masked(learned, options.mask, stream)

        before = [s % count for s in range(first)]
        within = [s % count for s in range(first, first + window)]
        with torch.no_grad():
            theta = unroll(self.network, theta, visible.without_graph(), before)
        theta = unroll(self.network, theta, visible, within)

        return F.cross_entropy(functional_call(self.network, theta, (x,)), y)

    def _reset_weights(self, stream: Stream) -> Parameters:
        """Return theta_0 with added noise, theta_0 + sigma N(0, I)."""
        device, sigma = self.context.compute.device, self.options.reset
        return {
            name: (value + sigma * stream.normals(*value.shape).to(device)).detach()
            for name, value in self.network.named_parameters()
        }

    def _clip(self, learned: Steps, i: int) -> None:
        """Limit the gradients' norm to `clip` times its running mean."""
        gradients = [value.grad for value in learned.tensors() if value.grad is not None]
        norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))

        if i == 0:
            self._norm = norm
        else:
            self._norm = 0.9 * self._norm + 0.1 * min(norm, self.options.clip * self._norm)

        if norm > self.options.clip * self._norm:
            for gradient in gradients:
                gradient.mul_(self.options.clip * self._norm / norm)

    def _checkpoint(self, done: int, learned: Steps, optimizer: torch.optim.Adam) -> Checkpoint:
        names = ("images", "labels", "log_rates")
        tensors = dict(zip(names, (value.detach() for value in learned.tensors()), strict=True))
        tensors["norm"] = torch.tensor(self._norm, dtype=torch.float64)
        return Checkpoint(done, tensors | optimizer_tensors(optimizer))

    def _resume(self, learned: Steps, optimizer: torch.optim.Adam) -> int:
        """Load the context's checkpoint, if any, and return the number of finished iterations."""
        checkpoint = self.context.resume
        if checkpoint is None:
            return 0
        tensors = checkpoint.tensors

        self._norm = float(tensors["norm"])
        with torch.no_grad():
            learned.images.copy_(tensors["images"])
            learned.labels.copy_(tensors["labels"])
            learned.log_rates.copy_(tensors["log_rates"])
        restore_optimizer(optimizer, tensors)
        return checkpoint.done


def masked(steps: Steps, probability: float, stream: Stream) -> Steps:
    """Replace the images of randomly chosen steps with noise.

    Args:
        steps: the steps.
        probability: the probability that the images of a step are replaced.
        stream: the stream of the draws.

    Returns:
        The steps, with unchanged labels and rates.
    """
    hidden = (stream.uniforms(len(steps.log_rates)) < probability).to(steps.images.device)
    noise = stream.normals(*steps.images.shape).to(steps.images)
    images = torch.where(hidden.view(-1, 1, 1, 1, 1), noise, steps.images)
    return Steps(images, steps.labels, steps.log_rates)

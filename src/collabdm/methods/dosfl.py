"""DOSFL: every site distils its data into a few steps of training from weights that all sites know.

    theta_0    drawn from the plan's seed
    site k     steps {x_s, y_s, eta_s}, s = 1 .. S:
                   theta_s = theta_{s-1} - eta_s grad CE(theta_{s-1}; x_s, softmax y_s)
               moved down  CE(theta_S; real batch),  by backpropagation through the unrolled steps
    server     theta_0, then all sites' steps, in turn; or a network of one's own, trained on the x_s as data

Three devices make it work with several sites, and with many steps:

    soft reset       every iteration starts at theta_0 + sigma N(0, I): other sites' steps will have moved theta
    random masking   a step is replaced by noise with a small chance, so that no step relies on all others
    random window    (RaT-BPTT) of the S steps, gone through `passes` times, N ~ U {0 .. length - window} are made
                     without a graph, and `window` more with one; gradients are clipped to twice their mean norm

With `window` null and `passes` 1 it is DOSFL's full unroll. The three kinds of numbers are moved by Adam, eta_s as
its logarithm.

References: Y. Zhou, G. Pu, X. Ma, X. Li, D. Wu, "Distilled one-shot federated learning", 2020. Y. Feng, R. Vedantam,
J. Kempe, "Embarrassingly simple dataset distillation", 2023 (random truncated backpropagation through time).
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
from collabdm.documents.contribution import Contribution
from collabdm.documents.extra_tensors import DeclaredTensors, TensorSpec
from collabdm.documents.frozen_model import FrozenModel, LearningRate, Positive
from collabdm.documents.outcomes import DistilledSteps
from collabdm.documents.plan import Plan
from collabdm.errors import DocumentError
from collabdm.images import ImageSet, as_float, as_uint8
from collabdm.matching.compute import Compute
from collabdm.matching.networks import Network, build, seed_weights
from collabdm.matching.run_context import RunContext
from collabdm.methods.base import (
    Contributions,
    answer,
    balanced_labels,
    check_answer,
    checked_in_order,
    plan_options,
    site_counts,
)
from collabdm.methods.localdm import noise_images, random_images
from collabdm.progress import Progress, Stage
from collabdm.seeds import Purpose, Stream, derive
from collabdm.version import versions

LABEL_START = 4.0  # logit of the class that an image begins with, the others are 0


Parameters = dict[str, Tensor]


Share = Annotated[float, Field(ge=0, lt=1)]


class Dosfl(FrozenModel):
    """Settings. `steps` of `images` at each site; without `steps`, as many as an equal share of the set allows."""

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
        if (
            self.window is not None
            and self.steps is not None
            and self.window > self.passes * self.steps
        ):
            raise ValueError(
                f"`window` should be at most `passes` times `steps`, {self.passes * self.steps}"
            )
        return self


@dataclass(frozen=True)
class Steps:
    """S learned steps of m images (network units), labels as logits, and the logarithms of their rates."""

    images: Float[Tensor, "s m c h w"]
    labels: Float[Tensor, "s m classes"]
    log_rates: Float[Tensor, " s"]

    def tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        """All that is learned."""
        return self.images, self.labels, self.log_rates

    def without_graph(self) -> "Steps":
        """The same numbers, as constants."""
        return Steps(*(value.detach() for value in self.tensors()))


def steps_sent(plan: Plan) -> int:
    """S: how many steps each site sends."""
    options = plan_options(plan, Dosfl)
    share = math.ceil(plan.ipc * len(plan.classes) / plan.sites)
    return options.steps or math.ceil(share / options.images)


def declare(plan: Plan) -> DeclaredTensors:
    """What a site sends: images, labels as logits, and rates of its steps."""
    count, images = steps_sent(plan), plan_options(plan, Dosfl).images
    return {
        "images": TensorSpec(plan.image_dtype, (count, images, *plan.image.shape)),
        "labels": TensorSpec(torch.float32, (count, images, len(plan.classes))),
        "rates": TensorSpec(torch.float32, (count,)),
    }


def shows_real_images(plan: Plan) -> bool:
    """Whether images that a site sends are, or begin as, real ones."""
    return plan_options(plan, Dosfl).start == "real"


def contribute(
    plan: Plan, data: ImageSet, site: str = "site-1", context: RunContext = RunContext()
) -> Contribution:
    """One site's steps. Raises DataError or PlanError where data, name or plan do not fit."""
    check_answer(plan, data, site)
    options, seed = plan_options(plan, Dosfl), derive(plan.seed, "site", site)
    steps = StepLearner(plan, options, data, seed, context).steps()
    pixels = plan.image.normalisation.invert(steps.images.flatten(0, 1))
    images = as_uint8(pixels) if plan.images == "uint8" else pixels
    return answer(
        plan,
        data,
        site,
        {
            "images": images.view_as(steps.images),
            "labels": steps.labels,
            "rates": steps.log_rates.exp(),
        },
    )


def start_steps(plan: Plan, options: Dosfl, data: ImageSet, seed: int) -> Steps:
    """Where a site begins: real images or noise, balanced over the classes held, every step with all of them."""
    count = steps_sent(plan)
    present = torch.nonzero(data.counts()).flatten().tolist()
    labels = torch.tensor(balanced_labels(count * options.images, present))
    noise = options.start == "noise"
    stream = Stream.of(seed, Purpose.LOCAL_START)
    pixels = (
        noise_images(plan, len(labels), stream)
        if noise
        else random_images(plan, data, labels, seed)
    )
    in_turn = (
        torch.arange(len(labels)).view(options.images, count).T
    )  # step s takes every S-th image
    images = plan.image.normalisation.apply(pixels)[in_turn]
    return Steps(
        images,
        LABEL_START * F.one_hot(labels[in_turn], len(plan.classes)).float(),
        torch.full((count,), math.log(options.rate)),
    )


class StepLearner:
    """One site's outer loop."""

    def __init__(
        self, plan: Plan, options: Dosfl, data: ImageSet, seed: int, context: RunContext
    ) -> None:
        self.plan, self.options, self.data, self.seed, self.context = (
            plan,
            options,
            data,
            seed,
            context,
        )
        self.device = context.compute.device
        self.network = first_network(plan).to(self.device)
        self._norm = 0.0  # running mean of the gradient's norm

    def steps(self) -> Steps:
        """All iterations, from the kept state on."""
        start = start_steps(self.plan, self.options, self.data, self.seed)
        learned = Steps(
            *(value.to(self.device).clone().requires_grad_() for value in start.tensors())
        )
        optimizer = torch.optim.Adam(learned.tensors(), lr=self.options.learning_rate)
        done = self._resume(learned, optimizer) if self.context.resume else 0
        for i in range(done, self.options.iterations):
            optimizer.zero_grad()
            self._loss(learned, i).backward()
            self._clip(learned, i)
            optimizer.step()
            self.context.keep(self._state(i + 1, learned, optimizer))
            self.context.report(Progress(Stage.LEARNED_STEPS, i + 1, self.options.iterations))
        return Steps(*(value.detach().cpu() for value in learned.tensors()))

    def _loss(self, learned: Steps, i: int) -> Tensor:
        """The outer loss of iteration i, with its own reset, window, masks and real batch."""
        options, count = self.options, len(learned.log_rates)
        stream = Stream.of(self.seed, Purpose.LOCAL_BATCH, i)
        index = stream.integers(len(self.data), min(options.batch, len(self.data)))
        x = self.plan.image.normalisation.apply(self.data.images[index]).to(self.device)
        y = self.data.labels[index].to(self.device)
        theta = {
            name: (value + options.reset * stream.normals(*value.shape).to(self.device)).detach()
            for name, value in self.network.named_parameters()
        }
        length = options.passes * count
        window = min(options.window or length, length)
        first = int(stream.integers(length - window + 1, 1))
        seen = masked(learned, options.mask, stream)
        with torch.no_grad():
            theta = unroll(
                self.network, theta, seen.without_graph(), [s % count for s in range(first)]
            )
        theta = unroll(self.network, theta, seen, [s % count for s in range(first, first + window)])
        return F.cross_entropy(functional_call(self.network, theta, (x,)), y)

    def _clip(self, learned: Steps, i: int) -> None:
        norm = math.sqrt(
            sum(float(v.grad.square().sum()) for v in learned.tensors() if v.grad is not None)
        )
        self._norm = (
            norm if i == 0 else 0.9 * self._norm + 0.1 * min(norm, self.options.clip * self._norm)
        )
        if norm > self.options.clip * self._norm:
            for value in learned.tensors():
                if value.grad is not None:
                    value.grad.mul_(self.options.clip * self._norm / norm)

    def _state(self, done: int, learned: Steps, optimizer: torch.optim.Adam) -> Checkpoint:
        names = ("images", "labels", "log_rates")
        tensors = dict(zip(names, (value.detach() for value in learned.tensors()), strict=True))
        tensors["norm"] = torch.tensor(self._norm, dtype=torch.float64)
        return Checkpoint(done, tensors | optimizer_tensors(optimizer))

    def _resume(self, learned: Steps, optimizer: torch.optim.Adam) -> int:
        checkpoint = self.context.resume
        assert checkpoint is not None
        tensors = checkpoint.tensors

        self._norm = float(tensors["norm"])
        with torch.no_grad():
            learned.images.copy_(tensors["images"])
            learned.labels.copy_(tensors["labels"])
            learned.log_rates.copy_(tensors["log_rates"])
        restore_optimizer(optimizer, tensors)
        return checkpoint.done


def masked(steps: Steps, chance: float, stream: Stream) -> Steps:
    """The steps with each one's images replaced by noise with the given chance."""
    hidden = (
        (stream.uniforms(len(steps.log_rates)) < chance)
        .view(-1, 1, 1, 1, 1)
        .to(steps.images.device)
    )
    noise = stream.normals(*steps.images.shape).to(steps.images)
    return Steps(torch.where(hidden, noise, steps.images), steps.labels, steps.log_rates)


def unroll(network: Network, theta: Parameters, steps: Steps, order: Iterable[int]) -> Parameters:
    """The weights after the given steps, differentiable in `steps` where a graph is kept."""

    def inner(weights: Parameters, x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(network, weights, (x,)), y.softmax(1))

    for s in order:
        slope = grad(inner)(theta, steps.images[s], steps.labels[s])
        rate = steps.log_rates[s].exp()
        theta = {name: value - rate * slope[name] for name, value in theta.items()}
    return theta


def first_network(plan: Plan) -> Network:
    """theta_0."""
    network = build(plan.network, plan.image.shape, len(plan.classes))
    seed_weights(network, Stream.of(derive(plan.seed, "dosfl"), Purpose.NETWORK))
    return network.requires_grad_(False)


def distill(
    plan: Plan,
    contributions: Contributions,
    context: RunContext = RunContext(),
    allow_missing: bool = False,
) -> DistilledSteps:
    """All sites' steps in turn: each site's first, then each one's second, … Raises DocumentError as CollabDM does.

    `context.watch` receives theta_0 after all of them.
    """
    ordered = checked_in_order(plan, contributions, declare(plan), allow_missing)
    for contribution in ordered:
        if bool((contribution.extra_tensors["rates"] <= 0).any()):
            raise DocumentError(
                f"contribution of {contribution.site!r}: `parts.rates` should be above 0"
            )

    def in_turn(name: str) -> Tensor:
        return torch.stack([c.extra_tensors[name] for c in ordered], 1).flatten(0, 1)

    images, labels, rates = (in_turn(name) for name in ("images", "labels", "rates"))
    made = DistilledSteps(
        images, labels, rates, plan, site_counts(plan, ordered), plan.method, versions()
    )
    context.watch("applied", 0, apply_steps(made, context.compute))
    return made


def apply_steps(made: DistilledSteps, compute: Compute = Compute()) -> Network:
    """The network that the steps lead to from theta_0, in evaluation mode."""
    plan, device = made.plan, compute.device
    network = first_network(plan).to(device)
    images = torch.stack([plan.image.normalisation.apply(as_float(one)) for one in made.images])
    steps = Steps(images.to(device), made.labels.to(device), made.rates.log().to(device))
    passes = plan_options(plan, Dosfl).passes
    with torch.no_grad():
        theta = unroll(
            network, dict(network.named_parameters()), steps, [*range(len(made.rates))] * passes
        )
        for name, parameter in network.named_parameters():
            parameter.copy_(theta[name])
    return network.eval()

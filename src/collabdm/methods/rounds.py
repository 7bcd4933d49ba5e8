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

from collabdm.checkpoint import State
from collabdm.documents.extra_tensors import TensorSpec
from collabdm.documents.frozen_model import FrozenModel, Positive
from collabdm.documents.outcomes import DistilledSet
from collabdm.documents.plan import Matching, Plan
from collabdm.errors import PlanError
from collabdm.images import ImageSet, as_uint8
from collabdm.matching.augment import Draws, augment, draw, expand
from collabdm.matching.embedding import Sampling, plan_embedding
from collabdm.matching.loop import Problem, Target, match
from collabdm.matching.networks import Network, build, seed_weights
from collabdm.matching.weights import load_weights, weights_of
from collabdm.methods.base import Run, Settings, Traffic, check_data, options_of
from collabdm.methods.collabdm import contribute, start_images
from collabdm.seeds import Purpose, Stream, derive
from collabdm.version import versions

COUNT_BYTES, NUMBER_BYTES = 8, 4


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
    """How a method in rounds turns the settings of a plan into its own: no statistics beforehand."""

    def adapt(settings: Settings) -> Settings:
        options = options_of(settings.get("options"), model).model_dump(mode="json")
        return {"pae": 1} | settings | {"steps": 0, "method": method, "options": options}

    return adapt


def converse_means(plan: Plan, sites: dict[str, ImageSet], run: Run = Run()) -> tuple[DistilledSet, Traffic]:
    """All rounds of distribution matching. Raises DataError or PlanError where data, names or plan do not fit."""
    options = options_of(plan.options, Means)
    held = check_round(plan, sites)
    labels, state = _start(plan, sites, held, run)
    embedding = plan_embedding(plan, run.compute, work=options.rounds * (3 * len(labels) * plan.pae**2 + len(sites)))
    samplings = [Sampling(derive(plan.seed, "site", name), Purpose.BATCH, plan.batch) for name in sites]
    present = held.sum(0) > 0

    def target(i: int) -> Target:
        answers = [
            embedding.real_means(data, sampling.picks(data, i)).cpu()
            for data, sampling in zip(sites.values(), samplings, strict=True)
        ]
        return Target(joined(torch.stack(answers), shares_of(plan, held)), present)

    def told(state: State) -> None:
        run.keep(state)
        run.progress("rounds", state.done, options.rounds)

    problem = Problem(embedding, labels, target, lambda i: i, plan.pae)
    images = match(state, problem, options.matching, options.rounds, told)
    number = embedding.sketched_width
    return _outcome(plan, images, labels, sites, held), traffic(plan, sites, options.rounds, number)


def converse_gradients(plan: Plan, sites: dict[str, ImageSet], run: Run = Run()) -> tuple[DistilledSet, Traffic]:
    """All rounds of gradient matching. Raises DataError or PlanError where data, names or plan do not fit."""
    options = options_of(plan.options, Gradients)
    if options.matching != Matching(learning_rate=options.matching.learning_rate, momentum=options.matching.momentum):
        raise PlanError(
            "`options.matching` should say `learning_rate` and `momentum` alone, for gradients are matched by SGD "
            f"with a constant rate; found {options.matching}"
        )
    held = check_round(plan, sites)
    labels, state = _start(plan, sites, held, run)
    loop = GradientRounds(plan, sites, shares_of(plan, held), labels, options, run)
    images = loop.images(state)
    number = sum(value.numel() for value in loop.network.parameters())
    return _outcome(plan, images, labels, sites, held), traffic(plan, sites, options.rounds, number)


def check_round(plan: Plan, sites: dict[str, ImageSet]) -> Int64[Tensor, "sites classes"]:
    """n_k^y, after a check of names, data and plan."""
    for name, data in sites.items():
        plan.check_site(name)
        check_data(plan, data)
    if plan.steps or plan.fraction != 1:
        raise PlanError(
            f"`steps` should be 0 and `fraction` 1 for method {plan.method}; found {plan.steps} and {plan.fraction}"
        )
    return torch.stack([data.counts() for data in sites.values()])


def shares_of(plan: Plan, held: Int64[Tensor, "sites classes"]) -> Float32[Tensor, "sites classes"]:
    """The weight of each site in each class: by images held, or equal among those that hold it."""
    weights = (held if plan.merging == "weighted" else (held > 0)).double()
    return (weights / weights.sum(0).clamp_min(1)).float()


def joined(
    answers: Float32[Tensor, "sites classes numbers"], shares: Float32[Tensor, "sites classes"]
) -> Float32[Tensor, "classes numbers"]:
    """The answers of all sites as one."""
    return (answers.double() * shares[:, :, None].double()).sum(0).float()


def traffic(plan: Plan, sites: dict[str, ImageSet], rounds: int, numbers: int) -> Traffic:
    """Bytes to and fro: networks down, `numbers` and a count for each class held up, and the images sent first."""
    network = build(plan.network, plan.image.shape, len(plan.classes))
    down = rounds * NUMBER_BYTES * sum(value.numel() for value in network.parameters())
    image = TensorSpec(plan.image_dtype, plan.image.shape).nbytes + COUNT_BYTES
    first = plan.local.images_sent * image
    each = rounds * (numbers * NUMBER_BYTES + COUNT_BYTES) + first
    up = {name: int(torch.count_nonzero(data.counts())) * each for name, data in sites.items()}
    return Traffic(rounds, up, dict.fromkeys(sites, down))


def _start(
    plan: Plan, sites: dict[str, ImageSet], held: Int64[Tensor, "sites classes"], run: Run
) -> tuple[Int64[Tensor, " n"], State]:
    """Labels of S, and where it begins: the union of what sites send first, or the kept state."""
    labels = torch.nonzero(held.sum(0)).flatten().repeat_interleave(plan.ipc)
    if run.resume is not None:
        return labels, run.resume
    first = {name: contribute(plan, data, name, Run(run.compute, run.progress)) for name, data in sites.items()}
    counts = dict(zip(sites, held, strict=True))
    pixels, labels = start_images(plan, first, {name: counts[name] for name in sorted(counts)})
    return labels, State(0, plan.image.normalisation.apply(pixels))


def _outcome(
    plan: Plan, images: Tensor, labels: Tensor, sites: dict[str, ImageSet], held: Int64[Tensor, "sites classes"]
) -> DistilledSet:
    pixels = plan.image.normalisation.invert(images)
    stored = ImageSet(as_uint8(pixels) if plan.images == "uint8" else pixels, labels, plan.classes)
    return DistilledSet(stored, plan, dict(zip(sites, held.tolist(), strict=True)), plan.method, versions())


class GradientRounds:
    """The server of gradient matching, and what it asks the sites."""

    def __init__(
        self,
        plan: Plan,
        sites: dict[str, ImageSet],
        shares: Float32[Tensor, "sites classes"],
        labels: Int64[Tensor, " n"],
        options: Gradients,
        run: Run,
    ) -> None:
        self.plan, self.sites, self.shares, self.labels, self.options, self.run = (
            plan,
            sites,
            shares,
            labels,
            options,
            run,
        )
        self.network = build(plan.network, plan.image.shape, len(plan.classes)).to(run.compute.device)

    def images(self, state: State) -> Tensor:
        """S after all rounds, from `state` on; network units."""
        images = state.images.to(self.run.compute.device).clone().requires_grad_()
        matching, done = self.options.matching, state.done
        optimiser = torch.optim.SGD([images], matching.learning_rate, matching.momentum)
        if state.optimiser:
            kept = dict(state.optimiser)
            optimiser.state[images]["momentum_buffer"] = kept.pop("momentum").to(images.device)
            load_weights(self.network, kept)
        for r in range(done, self.options.rounds):
            if r % self.options.refresh == 0:
                seed_weights(self.network, Stream.of(self.plan.seed, Purpose.WEIGHTS, r // self.options.refresh))
            draws = self._draws(r)
            targets = self.targets(r, draws)
            optimiser.zero_grad()
            self.loss(images, targets, draws).backward()
            optimiser.step()
            self._update(images.detach())
            buffer = optimiser.state[images]["momentum_buffer"] if matching.momentum else torch.zeros(0)
            self.run.keep(State(r + 1, images.detach(), {"momentum": buffer, **weights_of(self.network)}))
            self.run.progress("rounds", r + 1, self.options.rounds)
        return images.detach().cpu()

    def _draws(self, r: int) -> Draws:
        """One augmentation for each class, the same for real and synthetic images."""
        stream = Stream.of(self.plan.seed, Purpose.AUGMENT, r)
        draws = draw(self.plan.augment, len(self.plan.classes), self.plan.image.side, stream)
        return draws.to(torch.device(self.run.compute.device))

    def targets(self, r: int, draws: Draws) -> dict[int, Gradient]:
        """Phi_y: the sites' gradients of each class, joined by their shares."""
        joint: dict[int, Gradient] = {}
        for k, (name, data) in enumerate(self.sites.items()):
            seed = derive(self.plan.seed, "site", name)
            index = Sampling(seed, Purpose.BATCH, self.plan.batch).picks(data, r)
            x = self.plan.image.normalisation.apply(data.images[index].to(self.run.compute.device))
            answer = class_gradients(self.network, x, data.labels[index], draws, create_graph=False)
            for y, gradient in answer.items():
                weighted = [self.shares[k, y].item() * value for value in gradient]
                joint[y] = [a + b for a, b in zip(joint[y], weighted, strict=True)] if y in joint else weighted
        return joint

    def loss(self, images: Tensor, targets: dict[int, Gradient], draws: Draws) -> Tensor:
        """sum_y d(Phi_y, the gradient of the synthetic images of y)."""
        labels = self.labels.repeat_interleave(self.plan.pae**2)
        own = class_gradients(self.network, expand(images, self.plan.pae), labels, draws, create_graph=True)
        return torch.stack([gradient_distance(own[y], targets[y]) for y in sorted(own)]).sum()

    def _update(self, images: Tensor) -> None:
        """Step 2 of the framework: the network trains on S."""
        labels = self.labels.repeat_interleave(self.plan.pae**2).to(images.device)
        x = expand(images, self.plan.pae)
        optimiser = torch.optim.SGD(self.network.parameters(), self.options.update_rate, momentum=0.5)
        for _ in range(self.options.updates):
            optimiser.zero_grad()
            F.cross_entropy(self.network(x), labels).backward()
            optimiser.step()


def class_gradients(
    network: Network, x: Float[Tensor, "n c h w"], labels: Int64[Tensor, " n"], draws: Draws, create_graph: bool
) -> dict[int, Gradient]:
    """grad_theta CE of the images of each class; x in network units."""
    found = {}
    for y in labels.unique().tolist():
        own = x[(labels == y).to(x.device)]
        rows = torch.full((len(own),), y, device=x.device)
        loss = F.cross_entropy(network(augment(own, draws.rows(rows))), rows)
        found[y] = list(torch.autograd.grad(loss, list(network.parameters()), create_graph=create_graph))
    return found


def gradient_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """The sum of 1 - cos over the filters (rows) of all weights."""
    distances = []
    for left, right in zip(a, b, strict=True):
        if left.ndim > 1:
            distances.append((1 - F.cosine_similarity(left.flatten(1), right.flatten(1), eps=1e-6)).sum())
    return torch.stack(distances).sum()

"""Distribution matching: the loss, and one loop that moves synthetic images down its gradient.

    L_t = sum_y | mu_t^y - 1/|S^y| sum_{x in S^y} v_t(x) |^2          (the paper's Eq. 3)
          + spread * sum_y | sigma_t^y - std_{x in S^y} v_t(x) |^2    (optional; see fidelity.md)
    S  <- S - eta grad_S L_t                                          (Algorithm 1, lines 13-14)

v_t is the embedding of the step. The targets mu_t are class means of real images: a site computes
them as it goes, the server reads them from the merged statistics. That is the only difference between
the two, so both run this loop. Classes do not interact in the loss, so a step takes one gradient for all of
them, in chunks of whole classes that bound the memory.

References: B. Zhao, H. Bilen, "Dataset condensation with distribution matching", WACV 2023.
R. Holland et al., "One-shot collaborative data distillation", 2024.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from collabdm.checkpoint import State
from collabdm.documents.plan import Matching
from collabdm.matching.augment import expand
from collabdm.matching.embedding import Embedding, class_means, membership
from collabdm.seeds import Purpose, Stream


@dataclass(frozen=True)
class Target:
    """What the synthetic images of a step should match: per class, where `present`."""

    means: Float32[Tensor, "classes r"]
    present: Bool[Tensor, " classes"]
    deviations: Float32[Tensor, "classes r"] | None = None


@dataclass(frozen=True)
class Problem:
    """Synthetic images' labels (ascending), how they are stored (pae), and what they should match.

    `target(i)` is called when `embedding` stands at step `step_of(i)`; `batch` images of each class
    are drawn at iteration i from stream (seed, SERVER, i + 1), all if None.
    """

    embedding: Embedding
    labels: Int64[Tensor, " n"]
    target: Callable[[int], Target]
    step_of: Callable[[int], int]
    pae: int = 1
    batch: int | None = None


def matching_loss(
    means: Float32[Tensor, "classes r"],
    target: Target,
    deviations: Float32[Tensor, "classes r"] | None = None,
    spread: float = 0.0,
) -> Float32[Tensor, ""]:
    """L_t: the sum over present classes of squared distances of means, and of deviations times `spread`."""
    distance = (means - target.means).square().sum(1)
    if deviations is not None and target.deviations is not None:
        distance = distance + spread * (deviations - target.deviations).square().sum(1)
    return (distance * target.present).sum()


def match(
    state: State,
    problem: Problem,
    matching: Matching,
    iterations: int,
    on_step: Callable[[State], None] = lambda state: None,
) -> Float32[Tensor, "n c h w"]:
    """Run the loop from `state` to `iterations`; images are in network units.

    `on_step` sees every state; its tensors change in the next step, so whoever keeps one copies it.
    """
    device = torch.device(problem.embedding.compute.device)
    images = state.images.to(device).clone().requires_grad_()
    optimiser = _optimiser(images, matching, state.optimiser)
    for i in range(state.done, iterations):
        problem.embedding.at(problem.step_of(i))
        target = problem.target(i)
        problem.embedding.retry_on_oom(partial(_set_gradient, images, problem, i, target, matching.spread))
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(matching, i, iterations)
        optimiser.step()
        on_step(State(i + 1, images.detach(), _tensors(optimiser)))
    return images.detach().cpu()


def learning_rate(matching: Matching, i: int, iterations: int) -> float:
    """eta at iteration i: constant, or half a cosine from eta down to 0."""
    if matching.schedule == "constant":
        return matching.learning_rate
    return matching.learning_rate * 0.5 * (1 + math.cos(math.pi * i / iterations))


def _set_gradient(images: Tensor, problem: Problem, i: int, target: Target, spread: float) -> None:
    """The gradient of L_t, in place of any that an attempt without enough memory left behind."""
    images.grad = None
    for chosen in _chunks(problem, i):
        _loss_of(chosen, images, problem, target, spread).backward()


def _loss_of(
    chosen: Int64[Tensor, " m"], images: Tensor, problem: Problem, target: Target, spread: float
) -> Float32[Tensor, ""]:
    embedding, device = problem.embedding, images.device
    classes = embedding.geometry.classes
    labels = problem.labels[chosen].repeat_interleave(problem.pae**2).to(device)
    values = embedding.values(expand(images[chosen.to(device)], problem.pae), labels)
    here = membership(labels, classes).any(0)
    target = Target(target.means.to(device), target.present.to(device) & here, target.deviations)
    means = class_means(values, labels, classes)
    if not spread or target.deviations is None:
        return matching_loss(embedding.sketched(means), target)
    variance = class_means((values - means[labels]).square(), labels, classes)
    deviations = (variance + 1e-12).sqrt()  # the gradient of a root at 0 is infinite
    return matching_loss(embedding.sketched(means), target, deviations, spread)


def _chunks(problem: Problem, i: int) -> Iterator[Int64[Tensor, " m"]]:
    """Positions of the images of iteration i, in groups of whole classes that one pass can take, or one class."""
    stream = Stream.of(problem.embedding.seeds.seed, Purpose.SERVER, i + 1)
    classes = [torch.nonzero(problem.labels == y).flatten() for y in problem.labels.unique()]
    if problem.batch is not None:
        classes = [index[stream.permutation(len(index))[: problem.batch].sort().values] for index in classes]
    each = max(len(index) for index in classes) * problem.pae**2
    groups = math.ceil(len(classes) / max(1, problem.embedding.images_per_pass(gradients=True) // each))
    size = math.ceil(len(classes) / groups)
    for start in range(0, len(classes), size):
        yield torch.cat(classes[start : start + size])


def _optimiser(images: Tensor, matching: Matching, tensors: dict[str, Tensor]) -> torch.optim.Optimizer:
    optimiser: torch.optim.Optimizer
    if matching.optimiser == "sgd":
        optimiser = torch.optim.SGD([images], lr=matching.learning_rate, momentum=matching.momentum)
    else:
        optimiser = torch.optim.Adam([images], lr=matching.learning_rate, betas=(matching.momentum, 0.999))
    if tensors:
        kept = {name: value.clone() for name, value in tensors.items()}
        optimiser.state[images] = {n: v.to(images.device) if v.ndim else v for n, v in kept.items()}
    return optimiser


def _tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    (state,) = optimiser.state.values() or ({},)
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}

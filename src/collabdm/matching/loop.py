"""Distribution matching: the loss, and the loop that minimises it over the synthetic images.

    L_t = sum_y | mu_t^y - 1/|S^y| sum_{x in S^y} v_t(x) |^2          (the paper's Eq. 3)
          + spread * sum_y | sigma_t^y - std_{x in S^y} v_t(x) |^2    (optional)
    S  <- S - eta grad_S L_t                                          (Algorithm 1, lines 13-14)

v_t is the embedding of step t, and S^y are the synthetic images of class y. The targets mu_t are
class means of real images: a site computes them during the loop, whereas the server takes them from
the merged statistics, so both run this loop. Standard deviations sigma_t are available only at a
site. Classes do not interact in the loss, so the gradient of a step is computed in chunks of whole
classes, which bounds the memory.

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

from collabdm.checkpoint import Checkpoint, optimizer_tensors, restore_optimizer
from collabdm.documents.distillation import Matching
from collabdm.matching.augment import expand
from collabdm.matching.embedding import Embedding, StepEmbedding, class_means, membership
from collabdm.seeds import Purpose, Stream


@dataclass(frozen=True)
class Target:
    """The values to match in a step: the class means, and optionally the standard deviations.

    Only classes that are `present` are matched.
    """

    means: Float32[Tensor, "classes r"]
    present: Bool[Tensor, " classes"]
    deviations: Float32[Tensor, "classes r"] | None = None


@dataclass(frozen=True)
class Problem:
    """A matching problem: the labels of the synthetic images, their storage and their targets.

    `labels` ascend; every stored image contains `pae`^2 small images. Iteration i uses the
    embedding of step `step_of(i)`, which is also passed to `target`. At iteration i, `batch` images
    of each class are drawn from the stream (seed, SERVER, i + 1); None uses all images.
    """

    embedding: Embedding
    labels: Int64[Tensor, " n"]
    target: Callable[[int, StepEmbedding], Target]
    step_of: Callable[[int], int]
    pae: int = 1
    batch: int | None = None


def matching_loss(
    means: Float32[Tensor, "classes r"],
    target: Target,
    deviations: Float32[Tensor, "classes r"] | None = None,
    spread: float = 0.0,
) -> Float32[Tensor, ""]:
    """Compute the loss L_t, summed over the present classes.

    It is the squared distance of the class means, plus `spread` times that of the deviations.

    Args:
        means: sketched class means of the synthetic images.
        target: the means and deviations to match.
        deviations: standard deviations of the synthetic images per class, if they are matched too.
        spread: the weight of the deviations.

    Returns:
        The loss, a scalar.
    """
    distance = (means - target.means).square().sum(1)
    if deviations is not None and target.deviations is not None:
        distance = distance + spread * (deviations - target.deviations).square().sum(1)
    return (distance * target.present).sum()


def start_from(images: Float32[Tensor, "n c h w"]) -> Checkpoint:
    """Create the checkpoint from which `match` starts, from images in network units."""
    return Checkpoint(0, {"images": images})


def match(
    start: Checkpoint,
    problem: Problem,
    matching: Matching,
    iterations: int,
    on_step: Callable[[Checkpoint], None] = lambda checkpoint: None,
) -> Float32[Tensor, "n c h w"]:
    """Minimise the loss over the synthetic images, for the given total number of iterations.

    Args:
        start: the images to start from (`start_from`), or the checkpoint of an interrupted run.
        problem: the images' labels and targets.
        matching: optimiser, learning rate and schedule.
        iterations: the total number of iterations.
        on_step: receives a checkpoint after every iteration; the next iteration changes its
            tensors.

    Returns:
        The images in network units, on the CPU.
    """
    device = torch.device(problem.embedding.compute.device)
    images = start.tensors["images"].to(device).clone().requires_grad_()
    optimizer = _optimizer(images, matching)
    restore_optimizer(optimizer, start.tensors)

    for i in range(start.done, iterations):
        embedding = problem.embedding.at(problem.step_of(i))
        target = problem.target(i, embedding)
        set_gradient = partial(
            _set_gradient, images, problem, i, embedding, target, matching.spread
        )
        problem.embedding.retry_on_oom(set_gradient)

        for group in optimizer.param_groups:
            group["lr"] = learning_rate(matching, i, iterations)
        optimizer.step()
        on_step(Checkpoint(i + 1, {"images": images.detach(), **optimizer_tensors(optimizer)}))

    return images.detach().cpu()


def learning_rate(matching: Matching, i: int, iterations: int) -> float:
    """Return the learning rate at iteration i: constant, or falling to 0 along half a cosine.

    Args:
        matching: the learning rate and its schedule.
        i: the iteration, from 0.
        iterations: the total number of iterations.

    Returns:
        The learning rate.
    """
    if matching.schedule == "constant":
        return matching.learning_rate
    return matching.learning_rate * 0.5 * (1 + math.cos(math.pi * i / iterations))


def _set_gradient(
    images: Tensor,
    problem: Problem,
    i: int,
    embedding: StepEmbedding,
    target: Target,
    spread: float,
) -> None:
    """Set the gradient of L_t, discarding the result of an attempt that ran out of memory."""
    images.grad = None
    for chosen in _chunks(problem, i):
        _chunk_loss(chosen, images, problem, embedding, target, spread).backward()


def _chunk_loss(
    chosen: Int64[Tensor, " m"],
    images: Tensor,
    problem: Problem,
    embedding: StepEmbedding,
    target: Target,
    spread: float,
) -> Float32[Tensor, ""]:
    """Compute the loss of the classes whose images are chosen."""
    device, classes = images.device, embedding.family.geometry.classes
    labels = problem.labels[chosen].repeat_interleave(problem.pae**2).to(device)
    values = embedding.values(expand(images[chosen.to(device)], problem.pae), labels)

    in_chunk = membership(labels, classes).any(0)
    target = Target(
        target.means.to(device), target.present.to(device) & in_chunk, target.deviations
    )

    means = class_means(values, labels, classes)
    if not spread or target.deviations is None:
        return matching_loss(embedding.sketched(means), target)

    variance = class_means((values - means[labels]).square(), labels, classes)
    deviations = (variance + 1e-12).sqrt()  # the gradient of a square root is infinite at 0
    return matching_loss(embedding.sketched(means), target, deviations, spread)


def _chunks(problem: Problem, i: int) -> Iterator[Int64[Tensor, " m"]]:
    """Group the images of iteration i by whole classes, so that each group fits into one pass.

    A class that does not fit into one pass is a group by itself.
    """
    stream = Stream.of(problem.embedding.seeds.seed, Purpose.SERVER, i + 1)
    classes = [torch.nonzero(problem.labels == y).flatten() for y in problem.labels.unique()]
    if problem.batch is not None:
        batch = problem.batch
        classes = [index[stream.permutation(len(index))[:batch].sort().values] for index in classes]

    largest = max(len(index) for index in classes) * problem.pae**2
    per_pass = max(1, problem.embedding.images_per_pass(gradients=True) // largest)
    groups = math.ceil(len(classes) / per_pass)
    size = math.ceil(len(classes) / groups)

    for start in range(0, len(classes), size):
        yield torch.cat(classes[start : start + size])


def _optimizer(images: Tensor, matching: Matching) -> torch.optim.Optimizer:
    if matching.optimiser == "sgd":
        return torch.optim.SGD([images], lr=matching.learning_rate, momentum=matching.momentum)
    betas = (matching.momentum, 0.999)
    return torch.optim.Adam([images], lr=matching.learning_rate, betas=betas)

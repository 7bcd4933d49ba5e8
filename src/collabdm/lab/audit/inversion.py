"""Reconstruct the images of a class from its means, by gradient inversion.

    min over x_1 .. x_n in [0, 1]:   n / T  sum_t | m_t - mean_i v_t(x_i) |^2 / V_t  +  w TV(x)

V_t is the variance of the embeddings of single images, so the first term is about 1 where images
are unrelated; the weight w of the total variation falls to 0. Adam moves the pixels, with a rate
that falls along half a cosine; every iteration uses the next few of all T steps.

References: L. Zhu, Z. Liu, S. Han, "Deep leakage from gradients", NeurIPS 2019. J. Geiping et al.,
"Inverting gradients", NeurIPS 2020 (total variation, restarts).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from collabdm.images import ImageSet, as_float
from collabdm.lab.audit.means import embed_all
from collabdm.lab.audit.nearest import distances
from collabdm.matching.embedding import Embedding
from collabdm.seeds import Stream

RATE, TV_WEIGHT, STEPS_AT_ONCE, START_NOISE = 0.05, 1e-3, 8, 0.2


@dataclass(frozen=True)
class Target:
    """What the attacker knows of a class.

    Attributes:
        embedding: the embeddings of the plan.
        steps: the numbers of the steps.
        means: the means sent.
        count: n, the number of images behind each.
        reference: the attacker's own images of the class.
    """

    embedding: Embedding
    steps: list[int]
    means: Float32[Tensor, "T r"]
    count: int
    reference: ImageSet

    def variances(self) -> Float32[Tensor, " T"]:
        """Return V_t, measured on the reference."""
        values = [embed_all(self.embedding, t, self.reference).var(0).sum() for t in self.steps]
        return torch.stack(values).clamp_min(1e-12)


@dataclass(frozen=True)
class Inversion:
    """The images found, and their misfit: the first term of the loss, over all steps."""

    images: Float32[Tensor, "n c h w"]
    misfit: float


def invert(
    target: Target,
    iterations: int,
    stream: Stream,
    on_iteration: Callable[[int], None] = lambda done: None,
) -> Inversion:
    """Reconstruct the images behind the means.

    Args:
        target: the means, and what the attacker knows.
        iterations: the number of iterations.
        stream: the stream of the start, and of the order of the steps.
        on_iteration: receives the number of finished iterations.

    Returns:
        As many images as are behind the means, pixels in 0 .. 1.
    """
    device, variances = torch.device(target.embedding.compute.device), target.variances()
    mean = as_float(target.reference.images).mean(0, keepdim=True)
    noise = START_NOISE * stream.normals(target.count, *mean.shape[1:])
    x = (mean + noise).clamp(0, 1).to(device).requires_grad_()
    labels = target.reference.labels[:1].repeat(target.count).to(device)

    optimizer = torch.optim.Adam([x], lr=RATE)
    batches = _places(len(target.steps), stream)
    for i in range(iterations):
        falling = 0.5 * (1 + math.cos(math.pi * i / iterations))
        optimizer.param_groups[0]["lr"] = RATE * falling
        optimizer.zero_grad()
        (TV_WEIGHT * falling * total_variation(x)).backward()
        _add_gradient(x, labels, target, variances, next(batches))
        optimizer.step()
        with torch.no_grad():
            x.clamp_(0, 1)
        on_iteration(i + 1)

    with torch.no_grad():
        misfit = _add_gradient(x, labels, target, variances, list(range(len(target.steps))))
    return Inversion(x.detach().cpu(), misfit)


def _places(steps: int, stream: Stream) -> Iterator[list[int]]:
    """Yield the steps of each iteration, so that all are used equally often."""
    waiting: list[int] = []
    while True:
        if len(waiting) < min(steps, STEPS_AT_ONCE):
            waiting += stream.permutation(steps).tolist()
        yield waiting[:STEPS_AT_ONCE]
        waiting = waiting[STEPS_AT_ONCE:]


def _add_gradient(
    x: Float32[Tensor, "n c h w"],
    labels: Int64[Tensor, " n"],
    target: Target,
    variances: Float32[Tensor, " T"],
    places: list[int],
) -> float:
    """Add the gradient of the misfit over some steps, where enabled. Returns the misfit."""
    misfit, geometry = 0.0, target.embedding.geometry
    for place in places:
        at = target.embedding.at(target.steps[place])
        values = at.sketched(at.values(geometry.normalisation.apply(x), labels)).mean(0)
        difference = (values - target.means[place].to(x.device)).square().sum()
        loss = target.count * difference / float(variances[place]) / len(places)
        if loss.requires_grad:
            loss.backward()
        misfit += float(loss.detach())
    return misfit


def total_variation(x: Float32[Tensor, "n c h w"]) -> Float32[Tensor, ""]:
    """Sum the total variation over images, averaged over pixels."""
    across, down = (x[..., 1:] - x[..., :-1]).abs(), (x[..., 1:, :] - x[..., :-1, :]).abs()
    return (across.mean((1, 2, 3)) + down.mean((1, 2, 3))).sum()


@dataclass(frozen=True)
class Recovery:
    """How well reconstructions match members and other images.

    Attributes:
        nearest: the position of the nearest reconstruction of each member.
        distances: its distance, in grey levels.
        other_distances: the same for other images.
        recovered: for each member, whether it is the nearest of all images to this reconstruction.
        other_recovered: the same for other images.
    """

    nearest: Int64[Tensor, " n"]
    distances: Float32[Tensor, " n"]
    other_distances: Float32[Tensor, " m"]
    recovered: Tensor
    other_recovered: Tensor


def recovery(found: Float32[Tensor, "k c h w"], members: ImageSet, others: ImageSet) -> Recovery:
    """Compare reconstructions with the members, and with other images of the class."""
    pixels = as_float(torch.cat([members.images, others.images]))
    between, n = distances(pixels, found), len(members)
    values, place = between.min(1)
    first = between.argmin(0)[place] == torch.arange(len(pixels))
    return Recovery(place[:n], values[:n], values[n:], first[:n], first[n:])


def decibels(distance: Float32[Tensor, " n"]) -> Float32[Tensor, " n"]:
    """Convert distances in grey levels to peak signal-to-noise ratios; at most 100 dB."""
    return (-20 * (distance / 255).clamp_min(1e-5).log10()).float()

"""Clip the embedding of every image to a public bound, and sum the clipped ones of each class.

    s_t^y = sum_{x in D^y} clip_C(P_t psi_t(augment_{t,y}(x)) - c_t)
    clip_C(v) = v min(1, C / |v|)

The sketch P_t comes first, so the bound holds for the numbers that are sent. c_t is the mean
embedding of images that a program draws from the plan's seed; it reveals nothing, and most images
are nearer to it than to zero, so a smaller bound C suffices.

Every pass has the same shape, whatever the number of images: rounding in a network can depend on
the shape, and the embedding of an image must not depend on the others. Sums are double precision.

Reference: M. Abadi et al., "Deep learning with differential privacy", CCS 2016 (clipping).
"""

import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from collabdm.images import ImageSet
from collabdm.matching.embedding import StepEmbedding, membership

MOST_PER_PASS = 256  # a site with few images should not embed thousands of copies


@torch.no_grad()
def public_centre(step: StepEmbedding, images: ImageSet) -> Float32[Tensor, " r"]:
    """Compute c_t, the mean embedding of public images."""
    return embed_all(step, images).mean(0)


@torch.no_grad()
def embed_all(step: StepEmbedding, data: ImageSet) -> Float32[Tensor, "n r"]:
    """Compute the sketched embeddings of all images of a small set."""
    everything = torch.arange(len(data))
    size = _pass_size(step)
    return torch.cat([_pass(step, data, chunk, size) for chunk in everything.split(size)])


@torch.no_grad()
def clipped_sums(
    step: StepEmbedding, data: ImageSet, centre: Float32[Tensor, " r"], bound: float
) -> Float64[Tensor, "classes r"]:
    """Sum the clipped embeddings of all images of each class, in passes of bounded size.

    Args:
        step: the embedding of a step.
        data: the images.
        centre: c_t, which is subtracted before clipping.
        bound: C, the largest norm after clipping.

    Returns:
        One sum per class; zeros for a class without images.
    """
    return step.family.retry_on_oom(lambda: _clipped_sums(step, data, centre, bound))


def _clipped_sums(
    step: StepEmbedding, data: ImageSet, centre: Float32[Tensor, " r"], bound: float
) -> Float64[Tensor, "classes r"]:
    classes, size = len(data.classes), _pass_size(step)
    sums = torch.zeros(classes, len(centre), dtype=torch.float64)

    for chunk in torch.arange(len(data)).split(size):
        values = clip(_pass(step, data, chunk, size) - centre, bound)
        sums += membership(data.labels[chunk], classes).double().T @ values

    return sums


def clip(values: Float32[Tensor, "n r"], bound: float) -> Float64[Tensor, "n r"]:
    """Shorten rows that are longer than the bound; a row that is not finite becomes zero."""
    exact = values.double()
    norms = exact.norm(dim=1, keepdim=True)
    clipped = exact * (bound / norms.clamp_min(bound))
    return torch.where(torch.isfinite(norms), clipped, torch.zeros_like(clipped))


def _pass_size(step: StepEmbedding) -> int:
    """Return the number of images in every pass, which does not depend on the data."""
    return min(step.family.images_per_pass(gradients=False), MOST_PER_PASS)


def _pass(
    step: StepEmbedding, data: ImageSet, chunk: Int64[Tensor, " m"], size: int
) -> Float32[Tensor, "m r"]:
    """Embed the images of one pass, padded to `size` images with copies of the first one."""
    device = torch.device(step.family.compute.device)
    index = torch.cat([chunk, chunk[:1].expand(size - len(chunk))])
    pixels, labels = data.images[index].to(device), data.labels[index].to(device)

    x = step.family.geometry.normalisation.apply(pixels)
    return step.sketched(step.values(x, labels))[: len(chunk)].cpu()

"""Images that distillation starts from: random real ones, noise, and slightly moved copies.

With pae (partition and expand), every stored image contains pae^2 small ones.
"""

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from collabdm.documents.plan import Plan
from collabdm.documents.specs import Operation
from collabdm.images import ImageSet, as_float
from collabdm.matching.augment import augment, draw, expand, mosaic
from collabdm.seeds import Purpose, Stream

#: these always change an image; a flip or a shift may not
_JITTER: tuple[Operation, ...] = ("scale", "rotate")
_NOISE = 0.02  # the largest change of a pixel in 0 .. 1, if the plan allows neither


def random_images(
    plan: Plan, data: ImageSet, labels: Int64[Tensor, " n"], seed: int
) -> Float32[Tensor, "n c h w"]:
    """Draw random real images of each class; with pae, pae^2 of them form one stored image.

    Args:
        plan: the plan.
        data: the real images.
        labels: the classes of the images to draw, ascending.
        seed: the seed of the draw.

    Returns:
        Pixels in 0 .. 1. If a small class repeats images, the repetitions are moved a little.
    """
    stream = Stream.of(seed, Purpose.LOCAL_START)
    index = []

    for y, count in zip(*labels.unique(return_counts=True), strict=True):
        members = data.of_class(int(y))
        order = members[stream.permutation(len(members))]
        index.append(order[torch.arange(int(count) * plan.pae**2) % len(members)])

    chosen = torch.cat(index)
    real = jitter(plan, as_float(data.images[chosen]), repetitions(chosen), stream)
    return mosaic(real, plan.pae)


def jitter(
    plan: Plan, images: Float32[Tensor, "n c h w"], at: Int64[Tensor, " m"], stream: Stream
) -> Float32[Tensor, "n c h w"]:
    """Move some images a little, because equal images have equal gradients and would stay equal.

    A plan allows neither scaling nor rotation if positions in an image have a meaning; a little
    noise is then added instead.

    Args:
        plan: the plan, which names the augmentations that its images allow.
        images: pixels in 0 .. 1.
        at: positions of the images to move.
        stream: the stream of the moves.

    Returns:
        All images, those at the given positions moved.
    """
    if len(at) == 0:
        return images

    normalisation = plan.image.normalisation
    allowed = tuple(operation for operation in _JITTER if operation in plan.augment)
    moved = images.clone()

    if allowed:
        draws = draw(allowed, len(at), plan.image.side, stream)
        moved[at] = normalisation.invert(augment(normalisation.apply(images[at]), draws))
    else:
        noise = 2 * stream.uniforms(len(at), *plan.image.shape) - 1
        moved[at] = (images[at] + _NOISE * noise).clamp(0, 1)

    return moved


def jitter_stored(
    plan: Plan, images: Float32[Tensor, "n c h w"], at: Int64[Tensor, " m"], stream: Stream
) -> Float32[Tensor, "n c h w"]:
    """Move some stored images a little, like `jitter`; with pae, each small image moves separately.

    Args:
        plan: the plan.
        images: stored images, pixels in 0 .. 1.
        at: positions of the images to move.
        stream: the stream of the moves.

    Returns:
        All images, those at the given positions moved.
    """
    if plan.pae == 1 or len(at) == 0:
        return jitter(plan, images, at, stream)

    small = expand(images[at], plan.pae)
    every = torch.arange(len(small))
    images = images.clone()
    images[at] = mosaic(jitter(plan, small, every, stream), plan.pae)
    return images


def noise_images(plan: Plan, count: int, stream: Stream) -> Float32[Tensor, "n c h w"]:
    """Draw images of uniform noise.

    Args:
        plan: the plan, which states the shape of images.
        count: the number of images.
        stream: the stream of the noise.

    Returns:
        Pixels in 0 .. 1.
    """
    return stream.uniforms(count, *plan.image.shape)


def repetitions(index: Int64[Tensor, " n"]) -> Int64[Tensor, " m"]:
    """Find the positions of values that occurred earlier."""
    seen: set[int] = set()
    repeated = []

    for position, value in enumerate(index.tolist()):
        if value in seen:
            repeated.append(position)
        seen.add(value)

    return torch.tensor(repeated, dtype=torch.int64)

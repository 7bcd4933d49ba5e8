"""Images that a program draws from the plan's seed: they resemble no data, and reveal none.

A dead-leaves image is covered by discs in front of each other: centres are uniform, radii r have
density r^-3 between `SMALLEST` and half the side, and every disc has one colour. Edges and flat
regions of all sizes give it some of the statistics of photographs. Rows of a table, which are
images of a single pixel, are of uniform noise instead.

Reference: A. B. Lee, D. Mumford, J. Huang, "Occlusion models for natural images", IJCV 2001.
"""

import torch
from jaxtyping import Float32
from torch import Tensor

from collabdm.documents.plan import Plan
from collabdm.images import ImageSet
from collabdm.seeds import Purpose, Stream

PUBLIC_IMAGES = 256
DISCS = 96  # per image; what they leave uncovered is background
SMALLEST = 1.5  # pixels


def public_images(plan: Plan, count: int = PUBLIC_IMAGES) -> ImageSet:
    """Draw public images of a plan's shape; their labels take turns.

    Args:
        plan: the plan, whose seed determines the images.
        count: the number of images.

    Returns:
        The images, in float32.
    """
    stream = Stream.of(plan.seed, Purpose.PUBLIC)
    if plan.has_rows:
        pixels = stream.uniforms(count, *plan.image.shape)
    else:
        pixels = dead_leaves(count, plan.image.shape, stream)
    return ImageSet(pixels, torch.arange(count) % len(plan.classes), plan.classes)


def dead_leaves(
    count: int, shape: tuple[int, int, int], stream: Stream
) -> Float32[Tensor, "n c h w"]:
    """Draw dead-leaves images.

    Args:
        count: the number of images.
        shape: channels, height and width, which are equal.
        stream: the stream of the discs.

    Returns:
        Pixels in 0 .. 1.
    """
    channels, side, _ = shape
    images = stream.uniforms(count, channels)[:, :, None, None].repeat(1, 1, side, side)
    across = torch.arange(side) + 0.5

    for _ in range(DISCS):  # each disc lies in front of the earlier ones
        u = stream.uniforms(count, 3 + channels)
        radius = _radii(u[:, 0], SMALLEST, side / 2)[:, None, None]
        x, y = (side * u[:, 1:3]).unbind(1)
        distance = (across - x[:, None])[:, None, :] ** 2 + (across - y[:, None])[:, :, None] ** 2
        inside = (distance < radius**2)[:, None]
        images = torch.where(inside, u[:, 3:, None, None], images)

    return images


def _radii(u: Float32[Tensor, " n"], smallest: float, largest: float) -> Float32[Tensor, " n"]:
    """Turn uniforms into radii of density r^-3: r^-2 is uniform."""
    return (smallest**-2 + u * (largest**-2 - smallest**-2)) ** -0.5

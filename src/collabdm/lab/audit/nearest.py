"""Recognise members by images that a round releases: those of a contribution, or of the set.

The score of a candidate is its distance to the nearest released image of its class, negative:

    s(x) = - min_i |x - z_i|,    |.| the root mean square over pixels, in grey levels of 0 .. 255

With pae, released images are cut into their small images, and candidates are reduced to the same
size by averaging (`privacy.nearest`).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from collabdm.images import ImageSet, as_float
from collabdm.privacy.nearest import GREY_LEVELS, nearest_images, reduced, small_images

NEAREST = "nearest image"


@dataclass(frozen=True)
class Pair:
    """A released image and the nearest images that the round uses and does not use.

    `released` is its position among the small images; `member` and `other` are positions among the
    candidates; the distances are in grey levels.
    """

    released: int
    member: int
    other: int
    distance: float
    other_distance: float


def nearest_scores(candidates: ImageSet, released: ImageSet, pae: int) -> Float32[Tensor, " m"]:
    """Score candidates by their distance to the nearest released image of their class.

    Args:
        candidates: the images to score.
        released: the images as they are stored.
        pae: the factor of partition and expand.

    Returns:
        The scores; the lowest possible where no image of the class is released.
    """
    small = small_images(released, pae)
    small = ImageSet(as_float(small.images), small.labels, small.classes)
    images = ImageSet(reduced(candidates.images, pae), candidates.labels, candidates.classes)
    return -nearest_images(images, small).distances.clamp_max(GREY_LEVELS)


def nearest_pairs(
    candidates: ImageSet, released: ImageSet, used: Bool[Tensor, " m"], pae: int, most: int
) -> list[Pair]:
    """Find the released images that are nearest to an image that the round uses.

    Args:
        candidates: the candidates of the audit.
        released: the images as they are stored.
        used: whether the round uses each candidate.
        pae: the factor of partition and expand.
        most: the largest number of pairs.

    Returns:
        The pairs, the nearest first.
    """
    small = small_images(released, pae)
    inside, outside = (torch.nonzero(chosen).flatten() for chosen in (used, ~used))
    own = nearest_images(small, candidates.subset(inside), pae)
    other = nearest_images(small, candidates.subset(outside), pae)

    order = own.distances.argsort()[:most].tolist()
    return [
        Pair(
            place,
            int(inside[own.positions[place]]),
            int(outside[other.positions[place]]),
            float(own.distances[place]),
            float(other.distances[place]),
        )
        for place in order
    ]


def distances(
    a: Float32[Tensor, "n c h w"], b: Float32[Tensor, "m c h w"]
) -> Float32[Tensor, "n m"]:
    """Compute the distances of all pairs, in grey levels."""
    exact = "donot_use_mm_for_euclid_dist"
    d = b[0].numel()
    return torch.cdist(a.flatten(1), b.flatten(1), compute_mode=exact) * (GREY_LEVELS / d**0.5)

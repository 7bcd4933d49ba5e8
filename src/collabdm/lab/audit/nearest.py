"""Recognise members by images that a round releases: those of a contribution, or of the set.

The score of a candidate is its distance to the nearest released image of its class, negative:

    s(x) = - min_i |x - z_i|,    |.| the root mean square over pixels, in grey levels of 0 .. 255

With pae, released images are cut into their small images, and candidates are reduced to the same
size by averaging.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64
from torch import Tensor

from collabdm.images import ImageSet, Pixels, as_float

NEAREST = "nearest image"
GREY_LEVELS = 255.0
FARTHEST = -GREY_LEVELS  # the score where no image of the class is released


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


def small_images(images: ImageSet, pae: int) -> ImageSet:
    """Cut each stored image into its pae x pae small images, without enlarging them."""
    n, c, h, w = images.images.shape
    tiles = as_float(images.images).reshape(n, c, pae, h // pae, pae, w // pae)
    tiles = tiles.permute(0, 2, 4, 1, 3, 5).reshape(n * pae**2, c, h // pae, w // pae)
    return ImageSet(tiles.contiguous(), images.labels.repeat_interleave(pae**2), images.classes)


def reduced(images: Pixels, pae: int) -> Float32[Tensor, "n c h w"]:
    """Convert images to float32, reduced pae times by averaging."""
    return F.avg_pool2d(as_float(images), pae) if pae > 1 else as_float(images)


def distances(
    a: Float32[Tensor, "n c h w"], b: Float32[Tensor, "m c h w"]
) -> Float32[Tensor, "n m"]:
    """Compute the distances of all pairs, in grey levels."""
    exact = "donot_use_mm_for_euclid_dist"
    d = a[0].numel() if len(a) else 1
    return torch.cdist(a.flatten(1), b.flatten(1), compute_mode=exact) * (GREY_LEVELS / d**0.5)


def nearest_scores(candidates: ImageSet, released: ImageSet, pae: int) -> Float32[Tensor, " m"]:
    """Score candidates by their distance to the nearest released image of their class.

    Args:
        candidates: the images to score.
        released: the images as they are stored.
        pae: the factor of partition and expand.

    Returns:
        The scores.
    """
    small, scores = small_images(released, pae), torch.full((len(candidates),), FARTHEST)
    for y in range(len(candidates.classes)):
        index, images = candidates.of_class(y), small.images[small.of_class(y)]
        if len(index) and len(images):
            x = reduced(candidates.images[index], pae)
            scores[index] = -distances(x, images).amin(1)
    return scores


def nearest_pairs(
    candidates: ImageSet, released: ImageSet, used: Tensor, pae: int, most: int
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
    small, pairs = small_images(released, pae), []
    for y in range(len(candidates.classes)):
        places = small.of_class(y)
        inside, outside = (_of_class(candidates, y, chosen) for chosen in (used, ~used))
        if not (len(places) and len(inside) and len(outside)):
            continue

        images = small.images[places]
        own = distances(images, reduced(candidates.images[inside], pae)).min(1)
        other = distances(images, reduced(candidates.images[outside], pae)).min(1)
        for i, place in enumerate(places.tolist()):
            at, rest = int(inside[own.indices[i]]), int(outside[other.indices[i]])
            pairs.append(Pair(place, at, rest, float(own.values[i]), float(other.values[i])))

    return sorted(pairs, key=lambda pair: pair.distance)[:most]


def _of_class(images: ImageSet, y: int, chosen: Tensor) -> Int64[Tensor, " n"]:
    """Return the positions of the chosen images of a class."""
    return torch.nonzero((images.labels == y) & chosen).flatten()

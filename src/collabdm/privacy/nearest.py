"""The private image nearest to each image of a document, and the distances among private images.

The distance of two images of d values, in grey levels 0 .. 255, is the root mean square

    |a - b| = sqrt( sum_i (a_i - b_i)^2 / d )

An image that lies much nearer to one private image than private images of its class lie to each
other shows that image. With pae, a stored image is cut into its pae^2 small images, and private
images are reduced to the same size by averaging over areas.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64
from torch import Tensor

from collabdm.images import ImageSet, Pixels, as_float
from collabdm.matching.augment import cut

GREY_LEVELS = 255.0
CHUNK = 2048  # private images compared at a time, which bounds the memory
QUERIES = 512  # images compared with a chunk at a time
SAMPLE = 200  # private images of a class whose nearest other image is searched


@dataclass(frozen=True)
class Nearest:
    """The nearest private image of the same class for each image, and its distance.

    A position is -1, and its distance infinite, where there is no private image of the class.
    """

    positions: Int64[Tensor, " n"]
    distances: Float32[Tensor, " n"]


@dataclass(frozen=True)
class Spacing:
    """The distances of private images of a class from their nearest other image of the class."""

    median: float
    minimum: float


def small_images(images: ImageSet, pae: int) -> ImageSet:
    """Cut each stored image into its pae x pae small images, which keep its label."""
    if pae == 1:
        return images
    labels = images.labels.repeat_interleave(pae**2)
    return ImageSet(cut(images.images, pae), labels, images.classes)


def reduced(images: Pixels, pae: int) -> Float32[Tensor, "n c u v"]:
    """Convert images to float32 in 0 .. 1, reduced pae times by averaging over areas."""
    return F.avg_pool2d(as_float(images), pae) if pae > 1 else as_float(images)


def nearest_images(small: ImageSet, private: ImageSet, pae: int = 1) -> Nearest:
    """Find the nearest private image of the same class for each image.

    Args:
        small: the images, after `small_images`.
        private: the private images, in full size.
        pae: the factor by which private images are reduced.

    Returns:
        Positions in `private`, and distances in grey levels.
    """
    positions = torch.full((len(small),), -1, dtype=torch.int64)
    distances = torch.full((len(small),), torch.inf)

    for y in torch.nonzero(small.counts()).flatten().tolist():
        members = private.of_class(y)
        for queries in small.of_class(y).split(QUERIES):
            images = as_float(small.images[queries]).flatten(1)
            found = _nearest(images, private, members, pae)
            positions[queries], distances[queries] = found.positions, found.distances
    return Nearest(positions, distances)


def spacing(private: ImageSet, y: int, pae: int = 1) -> Spacing | None:
    """Measure how far private images of a class lie from their nearest other image of the class.

    Args:
        private: the private images.
        y: the class.
        pae: the factor by which they are reduced first.

    Returns:
        The median and the minimum over at most `SAMPLE` images, spread evenly over the class; None
        for a class of fewer than two images.
    """
    members = private.of_class(y)
    if len(members) < 2:
        return None

    picked = torch.linspace(0, len(members) - 1, min(SAMPLE, len(members))).round().long()
    images = reduced(private.images[members[picked]], pae).flatten(1)
    distances = _nearest(images, private, members, pae, without=members[picked]).distances
    return Spacing(float(distances.median()), float(distances.min()))


def _nearest(
    images: Float32[Tensor, "n d"],
    private: ImageSet,
    members: Int64[Tensor, " m"],
    pae: int,
    without: Int64[Tensor, " n"] | None = None,
) -> Nearest:
    """Find the nearest of the private images `members`, apart from the image `without`."""
    least = torch.full((len(images),), torch.inf)
    positions = torch.full((len(images),), -1, dtype=torch.int64)

    for at, chunk in _chunks(private, members, pae):
        squares = _squares(images, chunk)
        if without is not None:
            squares[without[:, None] == at[None, :]] = torch.inf
        values, index = squares.min(1)
        nearer = values < least
        least[nearer], positions[nearer] = values[nearer], at[index[nearer]]

    distances = torch.full((len(images),), torch.inf)
    for row in torch.nonzero(positions >= 0).flatten().tolist():  # exact, unlike `_squares`
        found = reduced(private.images[positions[row : row + 1]], pae).flatten()
        distances[row] = GREY_LEVELS * (images[row] - found).square().mean().sqrt()
    return Nearest(positions, distances)


def _chunks(
    private: ImageSet, members: Int64[Tensor, " m"], pae: int
) -> Iterator[tuple[Int64[Tensor, " k"], Float32[Tensor, "k d"]]]:
    """Yield the positions and the reduced pixels of private images, some at a time."""
    for at in members.split(CHUNK):
        if len(at):
            yield at, reduced(private.images[at], pae).flatten(1)


def _squares(
    images: Float32[Tensor, "n d"], chunk: Float32[Tensor, "k d"]
) -> Float32[Tensor, "n k"]:
    """Compute |a - b|^2 = |a|^2 - 2 a.b + |b|^2 of all pairs, after centring for precision."""
    centre = chunk.mean(0)
    a, b = images - centre, chunk - centre
    return a.square().sum(1)[:, None] - 2 * a @ b.T + b.square().sum(1)[None, :]

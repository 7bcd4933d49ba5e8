"""Compare the images of a document with a site's private images, class by class.

`privacy.nearest` defines the distances. A contribution's images are its local images, or the extra
tensors named `images` and `labels` of a method that declares them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from collabdm.documents.contribution import Contribution
from collabdm.images import ImageSet
from collabdm.privacy.nearest import Nearest, Spacing, nearest_images, small_images, spacing


@dataclass(frozen=True)
class ClassComparison:
    """How near the images of a class lie to private images of the class, in grey levels.

    Attributes:
        name: the class.
        images: the number of images, small ones with pae.
        nearest: the smallest distance of an image from a private image.
        median: the median over the images of the distance from the nearest private image.
        spacing: the distances of private images from each other; None for fewer than two images.
    """

    name: str
    images: int
    nearest: float
    median: float
    spacing: Spacing | None


@dataclass(frozen=True)
class Comparison:
    """The images of a document, the nearest private image of each, and a summary of each class."""

    small: ImageSet
    nearest: Nearest
    classes: tuple[ClassComparison, ...]

    @property
    def closest(self) -> ClassComparison:
        """The class with the smallest distance."""
        return min(self.classes, key=lambda one: one.nearest)


def compare(images: ImageSet, private: ImageSet, pae: int) -> Comparison:
    """Compare images with private images of the same classes.

    Args:
        images: the images of a document, as stored; with pae, each contains pae^2 small images.
        private: the private images.
        pae: the plan's `pae`.

    Returns:
        The comparison; its `classes` omit those without private images.
    """
    small = small_images(images, pae)
    nearest = nearest_images(small, private, pae)
    classes = []

    for y in torch.nonzero(small.counts()).flatten().tolist():
        distances = nearest.distances[small.of_class(y)]
        if bool(torch.isfinite(distances).all()):
            least, median = float(distances.min()), float(distances.median())
            of_class = spacing(private, y, pae)
            name = images.classes[y]
            classes.append(ClassComparison(name, len(distances), least, median, of_class))
    return Comparison(small, nearest, tuple(classes))


def sent_images(contribution: Contribution) -> ImageSet:
    """Return all images of a contribution, each with a class; soft labels become the likeliest."""
    pixels = contribution.extra_tensors.get("images")
    labels = contribution.extra_tensors.get("labels")
    if pixels is None or labels is None or pixels.ndim < 4:
        return contribution.images

    hard = labels.argmax(-1) if labels.is_floating_point() else labels
    shape: Sequence[int] = pixels.shape[-3:]
    return ImageSet(pixels.reshape(-1, *shape), hard.flatten(), contribution.images.classes)

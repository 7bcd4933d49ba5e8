"""Averages of groups of similar images, which a site sends for the server to start from.

The images of a class are divided into groups of at least g (`local.average_of`): a set is split at
a quantile of its main direction, again and again, until there are enough groups or a further split
would leave fewer than g images in one,

    X -> { x : <x, v> <= q },  { x : <x, v> > q }        v: first principal direction of X

and the average of each group is sent. An average shows what g similar images have in common, so no
single one can be recognised in it; but it varies as the images of the class do, which noise does
not. A group whose images hardly differ from each other (frames of a film, copies) would have an
average that is nearly one of them, so it is left out. A class without a group, such as one with
fewer than g images, sends none.

References: J. Domingo-Ferrer, J. M. Mateo-Sanz, "Practical data-oriented microaggregation for
statistical disclosure control", IEEE TKDE, 2002; E. Newton, L. Sweeney, B. Malin, "Preserving
privacy by de-identifying face images", IEEE TKDE, 2005 (averages of k faces).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from collabdm.documents.plan import Plan
from collabdm.images import ImageSet, as_float
from collabdm.matching.augment import mosaic
from collabdm.methods.start_images import jitter, repetitions
from collabdm.seeds import Purpose, Stream

#: the least distance (root mean square, of pixels in 0 .. 1) of a group's images from their average
LEAST_SPREAD = 8 / 255

COMPARED_SIDE = 16  # pixels; larger images are compared in this size
POWER_ITERATIONS = 8  # an approximate direction divides a set as well as an exact one


def average_images(
    plan: Plan, data: ImageSet, seed: int
) -> tuple[Float32[Tensor, "n c h w"], Int64[Tensor, " n"]]:
    """Average groups of images of each class; with pae, pae^2 averages form one stored image.

    Args:
        plan: the plan.
        data: the site's images.
        seed: the seed of the order of the groups.

    Returns:
        Pixels in 0 .. 1, and their classes, ascending: `plan.local.images` of each class that has
        a group. If there are too few groups, their averages are repeated, and the repetitions are
        moved a little.
    """
    stream, wanted = Stream.of(seed, Purpose.LOCAL_START), plan.local.images * plan.pae**2
    average_of = plan.local.average_of
    assert average_of is not None  # the plan asks for averages

    made, sent = [torch.zeros(0, *plan.image.shape)], []
    for y in torch.nonzero(data.counts()).flatten().tolist():
        averages = group_averages(as_float(data.images[data.of_class(y)]), wanted, average_of)
        if len(averages) == 0:
            continue

        order = stream.permutation(len(averages))
        index = order[torch.arange(wanted) % len(averages)]
        filled = jitter(plan, averages[index], repetitions(index), stream)
        made.append(mosaic(filled, plan.pae))
        sent.append(y)

    labels = torch.tensor(sent, dtype=torch.int64).repeat_interleave(plan.local.images)
    return torch.cat(made), labels


def group_averages(
    images: Float32[Tensor, "n c h w"], most: int, least: int
) -> Float32[Tensor, "m c h w"]:
    """Average the groups of images, leaving out groups whose images hardly differ.

    Args:
        images: the images of one class.
        most: the largest number of groups.
        least: the fewest images in a group.

    Returns:
        The averages, at most `most`; none if there are fewer than `least` images.
    """
    side = min(images.shape[-1], COMPARED_SIDE)
    points = F.adaptive_avg_pool2d(images, side).flatten(1).double()
    groups = divide(points, min(most, len(images) // least))

    averages = [images[group].mean(0) for group in groups if _spread(images[group]) >= LEAST_SPREAD]
    return torch.stack(averages) if averages else images[:0]


def divide(points: Float64[Tensor, "n d"], parts: int) -> list[Int64[Tensor, " m"]]:
    """Divide points into groups of nearly equal size, each of similar points.

    Args:
        points: the points.
        parts: the number of groups; 0 returns none.

    Returns:
        The positions of the points of each group.
    """
    if parts == 0:
        return []
    if parts == 1:
        return [torch.arange(len(points))]

    left = parts // 2
    order = (points @ _main_direction(points)).argsort(stable=True)
    cut = len(points) * left // parts
    halves = ((order[:cut], left), (order[cut:], parts - left))
    return [half[group] for half, share in halves for group in divide(points[half], share)]


def _main_direction(points: Float64[Tensor, "n d"]) -> Float64[Tensor, " d"]:
    """Approximate the first principal direction, by power iteration from the farthest point."""
    centred = points - points.mean(0)
    direction = centred[centred.square().sum(1).argmax()]

    for _ in range(POWER_ITERATIONS):
        direction = centred.T @ (centred @ direction)
        direction = direction / direction.norm().clamp_min(torch.finfo(direction.dtype).tiny)
    return direction


def _spread(images: Float32[Tensor, "n c h w"]) -> float:
    """Return the root mean square difference between images and their average, for each pixel."""
    return float((images - images.mean(0)).square().mean().sqrt())

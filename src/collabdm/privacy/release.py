"""How many numbers a contribution releases about each class, and which classes are withheld.

A site that takes part in T_k steps sends T_k means of r numbers for class y, and m averages of
groups of its images, if the plan asks for them. They are computed from n_y images of
d = channels x side^2 numbers:

    ratio_y  = (T_k r + m d) / (n_y d)     numbers sent for each number of the class's images
    behind_y = min(n_y, batch)             images behind each mean

The networks are known to everyone, so each number sent is an equation for the pixels of the images.
With as many equations as pixels, an optimiser recovers images from nothing but the means; and a
mean of few images is close to each of them, however few numbers are sent. Sums over several sites
(`plan.masking`) and noise (`plan.privacy`) protect a class whatever its size.

Reference: L. Zhu, Z. Liu, S. Han, "Deep leakage from gradients", NeurIPS 2019 (the same attack, on
gradients).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Int64
from torch import Tensor

from collabdm.documents.plan import Plan
from collabdm.matching.network_size import statistics_width

#: the largest ratio sent by default, at which the attack above recovered no image; at twice this
#: ratio, it recovered a quarter of 20 images (docs/log.md, entry 16)
RELEASE_LIMIT = 0.25

#: the fewest images of a class, and behind each of its means, by default
SMALLEST_CLASS = 20

CLASSES_NAMED = 20  # in an error message


@dataclass(frozen=True)
class ReleaseLimits:
    """The limits of a release: images of a class and behind each mean, and numbers for each one."""

    smallest_class: int = SMALLEST_CLASS
    largest_ratio: float = RELEASE_LIMIT


@dataclass(frozen=True)
class ClassRelease:
    """What a contribution releases about one class.

    Attributes:
        number: the class's position in the plan's classes.
        name: the class's name.
        images: n_y, the images of the class at the site.
        behind: the images behind each mean; equal to `images` if no means are sent.
        ratio: the numbers sent for each number of the class's images.
    """

    number: int
    name: str
    images: int
    behind: int
    ratio: float


@dataclass(frozen=True)
class Withheld:
    """A class that is not sent, and the reason in plain words."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def class_releases(plan: Plan, counts: Int64[Tensor, " classes"], site: str) -> list[ClassRelease]:
    """Compute what a contribution releases about each class that the site has.

    Args:
        plan: the plan.
        counts: the site's number of images of each class.
        site: the site's name, which determines its steps.

    Returns:
        One release for each class with images, in the order of the classes.
    """
    steps = len(plan.steps_of(site))
    numbers_sent = steps * statistics_width(plan)
    batch = plan.batch if steps else None
    releases = []

    for number, images in enumerate(counts.tolist()):
        if images:
            behind = images if batch is None else min(images, batch)
            released = numbers_sent + numbers_in_averages(plan, images)
            ratio = released / (images * numbers_per_image(plan))
            releases.append(ClassRelease(number, plan.classes[number], images, behind, ratio))
    return releases


def numbers_in_averages(plan: Plan, images: int) -> int:
    """Return the numbers in the averages of a class of this many images.

    Averages are reduced by pae, and no group has fewer images than the plan states.
    """
    if plan.local.average_of is None:
        return 0
    averages = min(plan.local.images_sent * plan.pae**2, images // plan.local.average_of)
    return averages * numbers_per_image(plan) // plan.pae**2


def numbers_per_image(plan: Plan) -> int:
    """Return d, the number of values in an image of the plan."""
    channels, height, width = plan.image.shape
    return channels * height * width


def smallest_class_sent(plan: Plan, steps: int) -> int | None:
    """Compute the fewest images with which a class is sent, under the default limits.

    Args:
        plan: the plan.
        steps: the steps that a site takes part in.

    Returns:
        The number of images; None if no class is sent, because a batch of the plan has fewer images
        than must be behind each mean.
    """
    if is_protected(plan):
        return 1
    if steps and plan.batch is not None and plan.batch < SMALLEST_CLASS:
        return None

    statistics = steps * statistics_width(plan)
    return _fewest_images(plan, statistics, RELEASE_LIMIT, SMALLEST_CLASS)


def _fewest_images(plan: Plan, statistics: int, largest_ratio: float, least: int) -> int:
    """Return the fewest images, `least` or more, whose ratio is within a limit.

    More averages are sent of more images, so the number is raised until the averages of that
    number are within the limit too.
    """
    most = largest_ratio * numbers_per_image(plan)  # numbers for each image of the class
    images, needed = 0, least
    while needed > images:
        images = needed
        needed = math.ceil((statistics + numbers_in_averages(plan, images)) / most)
    return images


def numbers_allowed(plan: Plan, images: int) -> int:
    """Return the most numbers of statistics that may be sent about a class of this many images.

    The limit is the default one; the averages of the class take a part of it.
    """
    allowed = math.floor(RELEASE_LIMIT * images * numbers_per_image(plan))
    return allowed - numbers_in_averages(plan, images)


def is_protected(plan: Plan) -> bool:
    """Return whether sums over sites or noise protect every class, so that none is withheld."""
    return plan.masking is not None or plan.privacy is not None


def withheld_classes(
    plan: Plan, releases: Sequence[ClassRelease], limits: ReleaseLimits
) -> list[Withheld]:
    """Find the classes that a site should withhold.

    Args:
        plan: the plan.
        releases: what a contribution would release about each class.
        limits: the site's limits.

    Returns:
        The classes to withhold with their reasons; none if the plan protects every class.
    """
    if is_protected(plan):
        return []
    found = [Withheld(release.name, _reason(plan, release, limits)) for release in releases]
    return [withheld for withheld in found if withheld.reason]


def _reason(plan: Plan, release: ClassRelease, limits: ReleaseLimits) -> str:
    """Return the reasons to withhold a class as a text; empty if there are none."""
    reasons, least = [], limits.smallest_class
    because = ""

    if release.ratio > limits.largest_ratio:
        numbers = round(release.images * release.ratio * numbers_per_image(plan))
        means = numbers - numbers_in_averages(plan, release.images)
        enough = _fewest_images(plan, means, limits.largest_ratio, release.images + 1)
        if enough > least:
            least = enough
            because = (
                f", because the plan sends {release.ratio:.3g} numbers for each number in its "
                f"images; the limit is {limits.largest_ratio:g}"
            )
    if release.images < least:
        reasons.append(
            f"it has {count_images(release.images)}; at least {least:,} are needed{because}"
        )
    if release.behind < min(limits.smallest_class, release.images):
        reasons.append(
            f"each mean would be of {count_images(release.behind)}, the plan's `batch`; at least "
            f"{limits.smallest_class} are needed"
        )
    return ", and ".join(reasons)


def nothing_left(withheld: Sequence[Withheld]) -> str:
    """Describe, for an error message, why every class is withheld and what can be done."""
    named = [f"{one.name} ({one.reason})" for one in withheld[:CLASSES_NAMED]]
    if len(withheld) > CLASSES_NAMED:
        named.append(f"and {len(withheld) - CLASSES_NAMED} more")
    return (
        f"every class would be withheld: {', '.join(named)}. The organiser can make a plan with "
        "fewer steps, a narrower sketch, a larger batch, or masks; a site that accepts the risk "
        "can lower `--smallest-class`, or set `smallest_class` and `largest_ratio` in its policy "
        "file"
    )


def count_images(number: int) -> str:
    """Write a number of images as text.

    >>> count_images(1), count_images(1200)
    ('1 image', '1,200 images')
    """
    return "1 image" if number == 1 else f"{number:,} images"

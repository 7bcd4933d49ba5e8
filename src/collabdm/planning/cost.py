"""Estimate the bytes and the computation that a plan costs a site, from the settings alone.

A contribution with P classes, whose means have r values of c bytes each, has

    steps (P (r c + 4 [int8]) + 8)  +  images (channels side^2 (1 uint8 | 4 float32) + 8)
        +  24 P  +  header

bytes, where `images` is P times the local images of a class. A masked contribution has whole
numbers of b bytes, a check of 8 numbers, and one count per class (two with uniform merging):

    b (steps P r  +  8  +  P | 2 P)  +  header

The computation is measured as the
number of images that pass through the network; a backward pass counts as two forward passes.
"""

import json
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from collabdm.documents.masked_contribution import CHECK_NUMBERS
from collabdm.documents.plan import Plan
from collabdm.documents.specs import WIRE_BYTES
from collabdm.matching.network_size import multiplications, statistics_width
from collabdm.seeds import participants

STEP_BYTES = 8  # the number of a step

LABEL_BYTES = 8  # the label of a local image

#: for each class: its number, its images in a batch and its images at the site
CLASS_BYTES = 24

#: without class names: names and positions of tensors, site, digest, versions
HEADER_BYTES = 1536


@dataclass(frozen=True)
class Cost:
    """Upper bounds on the bytes that one site sends and on its computation.

    Attributes:
        statistics_bytes: bytes of the class means.
        image_bytes: bytes of the pixels of local images.
        file_bytes: bytes of the whole contribution.
        forward_images: images that pass forward through the network.
        multiplications: scalar multiplications in all of these passes.
    """

    statistics_bytes: int
    image_bytes: int
    file_bytes: int
    forward_images: int
    multiplications: float

    @property
    def bytes(self) -> int:
        """Bytes of the class means and of the pixels; the paper counts only these."""
        return self.statistics_bytes + self.image_bytes


@lru_cache
def most_bytes(plan: Plan) -> int:
    """Return the largest size of one site's contribution, reached by a site with every class."""
    return cost(plan).file_bytes


def cost(plan: Plan, images_per_class: int = 1000) -> Cost:
    """Estimate the cost of a plan for a site with `images_per_class` images of every class."""
    classes, local = len(plan.classes), plan.local
    steps = most_steps(plan)

    passed = classes * steps * min(plan.batch or images_per_class, images_per_class)
    if local.method == "dm":
        synthetic = 3 * local.images * plan.pae**2
        passed += classes * local.steps * (min(local.batch, images_per_class) + synthetic)

    images = classes * local.images_sent
    statistics_bytes = steps * _mean_bytes(plan)
    image_bytes = images * _bytes_per_image(plan)
    other_bytes = STEP_BYTES * steps + LABEL_BYTES * images + CLASS_BYTES * classes
    if plan.masking is not None:
        counts = classes if plan.merging == "weighted" else 2 * classes
        other_bytes = plan.masking.bits // 8 * (CHECK_NUMBERS + counts)

    return Cost(
        statistics_bytes=statistics_bytes,
        image_bytes=image_bytes,
        file_bytes=statistics_bytes + image_bytes + other_bytes + _header_bytes(plan),
        forward_images=passed,
        multiplications=passed * multiplications(plan.network, plan.image.shape),
    )


def bytes_per_step(plan: Plan) -> int:
    """Count the bytes of one step: the mean of every class, and the number of the step."""
    return _mean_bytes(plan) + (0 if plan.masking else STEP_BYTES)


def _mean_bytes(plan: Plan) -> int:
    """Count the bytes of the means of every class in one step."""
    if plan.masking is not None:
        return len(plan.classes) * statistics_width(plan) * (plan.masking.bits // 8)
    scale = 4 if plan.wire == "int8" else 0
    return len(plan.classes) * (statistics_width(plan) * WIRE_BYTES[plan.wire] + scale)


def most_steps(plan: Plan) -> int:
    """Return max_k |A_k|, where A_k is the set of steps that site k takes part in."""
    return steps_taken(plan)[-1] if plan.steps else 0


@lru_cache(maxsize=8)
def steps_taken(plan: Plan) -> tuple[int, ...]:
    """Return, for each step, how many steps the busiest site has taken part in so far.

    Every site takes part in all steps unless the plan's `fraction` is below 1.
    """
    if plan.fraction == 1 or plan.site_names is None:
        return tuple(range(1, plan.steps + 1))

    taken: Counter[str] = Counter()
    most = []
    names = sorted(plan.site_names)  # once, not at every step
    for t in range(plan.steps):
        taken.update(participants(plan.seed, t, names, plan.fraction))
        most.append(max(taken.values()))
    return tuple(most)


def _bytes_per_image(plan: Plan) -> int:
    channels, height, width = plan.image.shape
    return channels * height * width * (1 if plan.images == "uint8" else 4)


def _header_bytes(plan: Plan) -> int:
    """Bound the bytes of the header, in which the class names are JSON within JSON."""
    names = json.dumps(json.dumps(plan.classes, ensure_ascii=False), ensure_ascii=False)
    return len(names.encode()) + HEADER_BYTES

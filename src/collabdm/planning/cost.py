"""TODO planning.cost."""

import json
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

from collabdm.documents.plan import Plan
from collabdm.documents.specs import WIRE_BYTES
from collabdm.matching.network_size import multiplications, statistics_width
from collabdm.seeds import participants

STEP_BYTES = 8  # the number of a step


HEADER_BYTES = 1536  # class names apart: names and places of tensors, site, digest, versions


@dataclass(frozen=True)
class Cost:
    """What a site will send and compute at most: if it holds every class, `images_per_class` of each."""

    statistics_bytes: int
    image_bytes: int
    file_bytes: int
    forward_images: int
    multiplications: float

    @property
    def bytes(self) -> int:
        """Bytes of the class means and of the pixels: what the paper counts."""
        return self.statistics_bytes + self.image_bytes


@lru_cache
def most_bytes(plan: Plan) -> int:
    """The most bytes that one site's file can have: that of a site that holds every class."""
    return cost(plan).file_bytes


def cost(plan: Plan, images_per_class: int = 1000) -> Cost:
    """Foretell one site's contribution. A backward pass counts as two forward ones."""
    classes, local = len(plan.classes), plan.local
    steps = most_steps(plan)
    real = classes * steps * min(plan.batch or images_per_class, images_per_class)
    if local.method == "dm":
        synthetic = local.images * plan.pae**2 * 3
        real += classes * local.steps * (min(local.batch, images_per_class) + synthetic)
    sent = classes * (0 if local.method == "none" else local.images)
    statistics, images = steps * (bytes_per_step(plan) - STEP_BYTES), sent * _bytes_per_image(plan)
    return Cost(
        statistics_bytes=statistics,
        image_bytes=images,
        file_bytes=statistics
        + images
        + STEP_BYTES * steps
        + 8 * (sent + 3 * classes)
        + _header_bytes(plan),
        forward_images=real,
        multiplications=real * multiplications(plan.network, plan.image.shape),
    )


def bytes_per_step(plan: Plan) -> int:
    """Bytes of the means of every class, and of the number of the step."""
    mean = statistics_width(plan) * WIRE_BYTES[plan.wire] + (4 if plan.wire == "int8" else 0)
    return len(plan.classes) * mean + STEP_BYTES


def most_steps(plan: Plan) -> int:
    """|A_k| at most: how many steps the site takes part in that takes part in most."""
    return steps_taken(plan)[-1] if plan.steps else 0


def steps_taken(plan: Plan) -> list[int]:
    """After each step, in how many some site has taken part: with `fraction` below 1, not in all."""
    if plan.fraction == 1 or plan.site_names is None:
        return list(range(1, plan.steps + 1))
    taken: Counter[str] = Counter()
    most = []
    for t in range(plan.steps):
        taken.update(participants(plan.seed, t, plan.site_names, plan.fraction))
        most.append(max(taken.values()))
    return most


def _bytes_per_image(plan: Plan) -> int:
    channels, height, width = plan.image.shape
    return channels * height * width * (1 if plan.images == "uint8" else 4)


def _header_bytes(plan: Plan) -> int:
    """The header with the class names, which stand there as JSON in JSON."""
    names = json.dumps(json.dumps(plan.classes, ensure_ascii=False), ensure_ascii=False)
    return len(names.encode()) + HEADER_BYTES

"""Estimate the computing time of a site, on two processor cores, or as measured on this machine.

    seconds = multiplications of the plan / multiplications per second

A site's policy uses the constant rate of two cores, so that its decisions do not depend on the
load. A forecast for people uses the rate that this machine reaches at present, which is measured
with the plan's network for a second; while the work runs, the progress corrects it.

The estimate covers the statistics and the local images. Methods with options of their own have no
estimate.
"""

import time
from dataclasses import replace

import torch

from collabdm.documents.plan import Plan
from collabdm.matching.compute import Compute
from collabdm.matching.embedding import plan_embedding
from collabdm.matching.network_size import multiplications
from collabdm.planning.cost import cost

MULTIPLICATIONS_PER_SECOND = 3e10  # two cores, float32, not compiled
MEASURED_SECONDS = 1.0


def estimated_seconds(plan: Plan, images_per_class: int = 1000) -> float | None:
    """Estimate the longest computing time of a site: the time of a site that has every class.

    Returns None for a plan of a method with options of its own.
    """
    if plan.options is not None:
        return None
    return cost(plan, images_per_class).multiplications / MULTIPLICATIONS_PER_SECOND


def measured_rate(plan: Plan, compute: Compute, seconds: float = MEASURED_SECONDS) -> float:
    """Measure the multiplications per second of the plan's network on this machine, now.

    Args:
        plan: the plan.
        compute: device and precision; networks are not compiled for the measurement.
        seconds: how long to measure.

    Returns:
        The rate, of forward passes.
    """
    embedding = plan_embedding(plan, replace(compute, compiled=False))
    size = embedding.images_per_pass(gradients=False)
    images = torch.zeros(size, *plan.image.shape, device=compute.device)
    embedding.psi(0, images[:1]).cpu()  # the first pass also allocates memory

    passes, start = 0, time.perf_counter()
    while (spent := time.perf_counter() - start) < seconds or not passes:
        embedding.psi(0, images).cpu()
        passes += 1
    return passes * size * multiplications(plan.network, plan.image.shape) / spent


def forecast(plan: Plan, images_per_class: int, compute: Compute) -> str | None:
    """Forecast the computing time of a site on this machine, at its present load.

    Args:
        plan: the plan.
        images_per_class: the images of the largest class.
        compute: device and precision.

    Returns:
        The time as text; None for a plan of a method with options of its own.
    """
    if plan.options is not None:
        return None
    work = cost(plan, images_per_class).multiplications
    return rough_duration(work / measured_rate(plan, compute))


def rough_duration(seconds: float) -> str:
    """Write a duration as text, in a single unit.

    >>> rough_duration(4.0), rough_duration(100.0), rough_duration(1e5)
    ('a few seconds', 'about 2 min', 'about 28 h')
    """
    if seconds < 10:
        return "a few seconds"
    for unit, limit, size in (("s", 90, 1), ("min", 90 * 60, 60)):
        if seconds < limit:
            return f"about {seconds / size:.0f} {unit}"
    return f"about {seconds / 3600:.0f} h"

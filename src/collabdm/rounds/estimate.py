"""Estimate the computing time of a site, on two processor cores.

    seconds = multiplications of the plan / MULTIPLICATIONS_PER_SECOND

The estimate covers the statistics and the local images. Methods with options of their own have no
estimate.
"""

from collabdm.documents.plan import Plan
from collabdm.planning.cost import cost

MULTIPLICATIONS_PER_SECOND = 3e10  # two cores, float32, not compiled


def estimated_seconds(plan: Plan, images_per_class: int = 1000) -> float | None:
    """Estimate the longest computing time of a site: the time of a site that has every class.

    Returns None for a plan of a method with options of its own.
    """
    if plan.options is not None:
        return None
    return cost(plan, images_per_class).multiplications / MULTIPLICATIONS_PER_SECOND


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

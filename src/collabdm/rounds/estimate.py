"""Estimate the computing time of a site, on two processor cores.

    seconds = multiplications of the plan / MULTIPLICATIONS_PER_SECOND

The estimate covers statistics and local images; there is none for methods with their own options.
"""

from collabdm.documents.plan import Plan
from collabdm.planning.cost import cost

MULTIPLICATIONS_PER_SECOND = 3e10  # two cores, float32, not compiled


def estimated_seconds(plan: Plan, images_per_class: int = 1000) -> float | None:
    """Estimate the most seconds that a site with every class computes; None if not possible."""
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

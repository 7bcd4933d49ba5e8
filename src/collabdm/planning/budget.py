"""Choose the steps, sketch and wire type so that each contribution fits a byte budget.

The local images of a contribution take their bytes first; class means take the rest. The choices
follow from measurements (docs/results.md, docs/log.md):

    wire     int8: its error is about a fifteenth of the difference between the mean of a batch of
             64 images and the mean of their class
    sketch   the widest that allows `FEWEST_STEPS` steps: at equal bytes, some tens of wide steps,
             each used several times, are better than hundreds of narrow ones or a handful without
             a sketch, and they cost the site far less computation
    passes   enough for `ITERATIONS` iterations of the server
"""

import math
import re

from collabdm.documents.plan import Plan
from collabdm.errors import PlanError
from collabdm.matching.network_size import statistics_width
from collabdm.planning.cost import bytes_per_step, most_bytes, steps_taken
from collabdm.planning.make import make_plan

FEWEST_STEPS = 40

ITERATIONS = 200

MOST_STEPS = 400

WIDTHS = (None, 1024, 512, 256, 128, 64)  # of the sketch, best first; None: no sketch

_UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}


def read_bytes(text: str, name: str = "budget") -> int:
    """Parse a number of bytes with an optional unit, such as `1MB`.

    >>> read_bytes("1MB"), read_bytes("0.5 MiB"), read_bytes("300k")
    (1000000, 524288, 300000)

    The whole text must match, and bits are not accepted. (`pydantic.ByteSize` accepts bits and
    ignores any text after the first number and unit, so that "1,000" is 1.)

    Raises PlanError if the text is not a positive number of bytes; the message names `name`.
    """
    parts = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*", text)
    unit = parts.group(2).lower() if parts else ""
    unit = unit if unit in _UNITS else f"{unit}b"

    if not parts or unit not in _UNITS or float(parts.group(1)) <= 0:
        raise PlanError(f"`{name}` should be bytes, such as 500kB, 1MB or 2MiB; found {text!r}")
    return int(float(parts.group(1)) * _UNITS[unit])


def choose(plan: Plan, limit: int, keep: set[str]) -> Plan:
    """Choose steps, sketch, wire type and passes, so that no site sends more than `limit` bytes.

    Args:
        plan: a plan whose other settings are final.
        limit: the largest allowed size of a contribution, in bytes.
        keep: names of the fields that the user has set; they are not changed.

    Returns:
        The plan with its new probe.

    Raises:
        PlanError: If even the smallest choice is too large, or the method sends no statistics.
    """
    if plan.options is not None:
        raise PlanError(
            "`budget` should be used with a method that sends statistics; found method "
            f"{plan.method}, which sends none"
        )

    shapes = _shapes(plan, keep)
    best = _best_within(shapes, limit, keep)
    if best is None:
        fewest = {} if "steps" in keep else {"steps": 1}
        least = most_bytes(shapes[-1].model_copy(update=fewest))
        raise PlanError(
            f"`budget` should be at least {least:,} bytes for {len(plan.classes)} classes of "
            f"{plan.image.shape} images; found {limit:,}: send fewer images (`--local-images`) or "
            "none (`--local none`), and do not set steps, sketch and wire"
        )

    if "refinement" not in keep and best.steps:
        passes = max(best.refinement.passes, math.ceil(ITERATIONS / best.steps))
        refinement = best.refinement.model_copy(update={"passes": passes})
        best = best.model_copy(update={"refinement": refinement})

    settings = {name: getattr(best, name) for name in Plan.model_fields if name != "probe"}
    return make_plan(settings.pop("classes"), settings.pop("image"), **settings)


def _shapes(plan: Plan, keep: set[str]) -> list[Plan]:
    """Set the wire type, and return the plan once for each possible sketch, widest first."""
    wire = plan.wire if "wire" in keep or plan.masking is not None else "int8"
    widths: tuple[int | None, ...] = (plan.sketch,)
    if "sketch" not in keep:
        full = statistics_width(plan.model_copy(update={"sketch": None}))
        widths = tuple(width for width in WIDTHS if width is None or width < full)
    return [plan.model_copy(update={"sketch": width, "wire": wire}) for width in widths]


def _best_within(shapes: list[Plan], limit: int, keep: set[str]) -> Plan | None:
    """Choose the first plan in `shapes` for which the limit allows `FEWEST_STEPS` steps.

    If there is none, choose the last one for which it allows any step; None if it allows no step.
    If the user has set the steps, choose the first plan that fits with these.
    """
    best = None
    for shape in shapes:
        steps = shape.steps if "steps" in keep else _steps_within(shape, limit)
        candidate = shape.model_copy(update={"steps": steps})
        if (steps or "steps" in keep) and most_bytes(candidate) <= limit:
            best = candidate
            if steps >= FEWEST_STEPS or "steps" in keep:
                break
    return best


def _steps_within(plan: Plan, limit: int) -> int:
    """Find the most steps, up to `MOST_STEPS`, with which no site exceeds `limit` bytes."""
    most = plan.model_copy(update={"steps": MOST_STEPS})
    fixed = most_bytes(plan.model_copy(update={"steps": 0}))
    affordable = (limit - fixed) // bytes_per_step(plan)
    return sum(taken <= affordable for taken in steps_taken(most))

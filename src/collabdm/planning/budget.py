"""One dial: from the bytes that a site may send to steps, sketch and wire type.

The images a site sends come first; the rest of the bytes goes to statistics. What was measured
(docs/results.md, docs/log.md) makes the rule:

    wire     int8: its error is about a fifteenth of what a batch of 64 images is off the mean of its class
    sketch   the widest that leaves `FEWEST_STEPS` steps: some tens of wide steps, each used several times, are
             better than hundreds of narrow ones at the same bytes, and than a handful of whole ones; and they
             cost the site a fraction of the work
    passes   enough that the server makes `ITERATIONS` in all
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


WIDTHS = (None, 1024, 512, 256, 128, 64)


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
    """A number of bytes as people write it.

    >>> read_bytes("1MB"), read_bytes("0.5 MiB"), read_bytes("300k")
    (1000000, 524288, 300000)
    """
    found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([a-zA-Z]*)\s*", text)
    unit = found.group(2).lower() if found else ""
    unit = unit if unit in _UNITS else f"{unit}b"
    if not found or unit not in _UNITS or float(found.group(1)) <= 0:
        raise PlanError(f"`{name}` should be bytes, such as 500kB, 1MB or 2MiB; found {text!r}")
    return int(float(found.group(1)) * _UNITS[unit])


def choose(plan: Plan, limit: int, keep: set[str]) -> Plan:
    """The plan with steps, sketch and wire type chosen so that no site sends more than `limit` bytes.

    Fields named in `keep` stay as they are. Raises PlanError where even the smallest choice is too large.
    """
    if plan.options is not None:
        raise PlanError(
            f"`budget` should stand where statistics are sent; found method {plan.method}, which sends none"
        )
    wire = plan.wire if "wire" in keep else "int8"
    full = statistics_width(plan.model_copy(update={"sketch": None}))
    widths = (
        (plan.sketch,) if "sketch" in keep else tuple(w for w in WIDTHS if w is None or w < full)
    )
    shapes = [plan.model_copy(update={"sketch": sketch, "wire": wire}) for sketch in widths]
    best = None
    for shape in shapes:
        steps = plan.steps if "steps" in keep else _steps_within(shape, limit)
        candidate = shape.model_copy(update={"steps": steps})
        if (steps or "steps" in keep) and most_bytes(candidate) <= limit:
            best = candidate
            if steps >= FEWEST_STEPS or "steps" in keep:
                break
    if best is None:
        fewest = {} if "steps" in keep else {"steps": 1}
        least = most_bytes(shapes[-1].model_copy(update=fewest))
        raise PlanError(
            f"`budget` should be at least {least:,} bytes for {len(plan.classes)} classes of {plan.image.shape} "
            f"images; found {limit:,}: send fewer images (`--local-images`) or none (`--local none`), and leave "
            "steps, sketch and wire to be chosen"
        )
    if "refinement" not in keep and best.steps:
        passes = max(best.refinement.passes, math.ceil(ITERATIONS / best.steps))
        best = best.model_copy(
            update={"refinement": best.refinement.model_copy(update={"passes": passes})}
        )
    settings = {name: getattr(best, name) for name in Plan.model_fields if name != "probe"}
    return make_plan(settings.pop("classes"), settings.pop("image"), **settings)


def _steps_within(plan: Plan, limit: int) -> int:
    """T: the steps, `MOST_STEPS` at most, after which no site has sent more than `limit`."""
    most = plan.model_copy(update={"steps": MOST_STEPS})
    fixed = most_bytes(plan.model_copy(update={"steps": 0}))
    room = (limit - fixed) // bytes_per_step(plan)
    return sum(taken <= room for taken in steps_taken(most))

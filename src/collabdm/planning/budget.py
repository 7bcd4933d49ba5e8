"""Choose the steps, sketch and wire type so that each contribution fits a budget.

The budget limits the bytes of a contribution, the numbers that it releases about the smallest class
of a site (`privacy.release`), or both. The local images of a contribution take their bytes first;
class means take the rest. The choices follow from measurements (docs/results.md, docs/log.md):

    wire     int8: its error is about a fifteenth of the difference between the mean of a batch of
             64 images and the mean of their class
    sketch   the widest that allows `FEWEST_STEPS` steps: at equal bytes, some tens of wide steps,
             each used several times, are better than hundreds of narrow ones or a handful without
             a sketch, and they cost the site far less computation
    passes   enough for `ITERATIONS` iterations of the server
"""

import math
import re
from dataclasses import dataclass

from collabdm.documents.plan import Plan
from collabdm.errors import PlanError
from collabdm.matching.network_size import statistics_width
from collabdm.planning.cost import bytes_per_step, most_bytes, most_steps, steps_taken
from collabdm.planning.make import make_plan
from collabdm.privacy.release import (
    SMALLEST_CLASS,
    is_protected,
    numbers_allowed,
    smallest_class_sent,
)

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


@dataclass(frozen=True)
class Budget:
    """The limits of a contribution; None imposes no limit.

    Attributes:
        bytes: the most bytes of a contribution.
        smallest_class: the expected images of the smallest class at a site; steps and sketch are
            chosen so that the site sends this class.
    """

    bytes: int | None = None
    smallest_class: int | None = None

    def numbers(self, plan: Plan) -> float:
        """Return the most numbers that a site may send about its smallest class."""
        if self.smallest_class is None or is_protected(plan):
            return math.inf
        return float(numbers_allowed(plan, self.smallest_class))

    def allows(self, plan: Plan) -> bool:
        """Return whether every contribution to a plan is within the budget."""
        within = self.bytes is None or most_bytes(plan) <= self.bytes
        return within and most_steps(plan) * statistics_width(plan) <= self.numbers(plan)

    def affordable_steps(self, plan: Plan) -> float:
        """Return the most steps that a site may take part in, with the other settings unchanged."""
        steps = self.numbers(plan) / statistics_width(plan)
        if self.bytes is not None:
            fixed = most_bytes(plan.model_copy(update={"steps": 0}))
            steps = min(steps, float((self.bytes - fixed) // bytes_per_step(plan)))
        return steps


def choose(plan: Plan, budget: Budget, keep: set[str]) -> Plan:
    """Choose steps, sketch, wire type and passes, so that every contribution is within a budget.

    Args:
        plan: a plan whose other settings are final.
        budget: the limits. Without a limit of bytes, the wire type stays as it is, and there are no
            more steps than in the plan.
        keep: names of the fields that the user has set; they are not changed.

    Returns:
        The plan with its new probe.

    Raises:
        PlanError: If even the smallest choice is too large, or the method sends no statistics.
    """
    if plan.options is not None:
        raise PlanError(
            "`--budget` and `--smallest-site-class` should be used with a method that sends "
            f"statistics; found method {plan.method}, which sends none"
        )
    _check_smallest_class(plan, budget)

    shapes = _shapes(plan, budget, keep)
    best = _best_within(shapes, budget, keep)
    if best is None:
        raise PlanError(_too_small(shapes[-1], budget, keep))

    if "refinement" not in keep and best.steps:
        passes = max(best.refinement.passes, math.ceil(ITERATIONS / best.steps))
        refinement = best.refinement.model_copy(update={"passes": passes})
        best = best.model_copy(update={"refinement": refinement})

    settings = {name: getattr(best, name) for name in Plan.model_fields if name != "probe"}
    return make_plan(settings.pop("classes"), settings.pop("image"), **settings)


def _check_smallest_class(plan: Plan, budget: Budget) -> None:
    """Check that the sites send a class of this size and in this batch. Raises PlanError."""
    expected = budget.smallest_class
    if expected is None or is_protected(plan):
        return
    if expected < SMALLEST_CLASS:
        raise PlanError(
            f"`--smallest-site-class` should be at least {SMALLEST_CLASS}, below which sites "
            f"withhold a class; found {expected}: use masks, or sites with more images"
        )
    if plan.steps and plan.batch is not None and plan.batch < SMALLEST_CLASS:
        raise PlanError(
            f"`batch` should be at least {SMALLEST_CLASS}, or all, so that sites send their "
            f"classes; found {plan.batch}"
        )


def _too_small(smallest: Plan, budget: Budget, keep: set[str]) -> str:
    """Describe why even the smallest plan is not within a budget."""
    fewest = {} if "steps" in keep else {"steps": 1}
    least = smallest.model_copy(update=fewest)

    if budget.bytes is not None and most_bytes(least) > budget.bytes:
        return (
            f"`budget` should be at least {most_bytes(least):,} bytes for {len(least.classes)} "
            f"classes of {least.image.shape} images; found {budget.bytes:,}: send fewer images "
            "(`--local-images`) or none (`--local none`), and do not set steps, sketch and wire"
        )
    needed = smallest_class_sent(least, most_steps(least))
    return (
        f"`--smallest-site-class` should be at least {needed} for {most_steps(least)} steps of "
        f"{statistics_width(least)} numbers; found {budget.smallest_class}: do not set steps and "
        "sketch, or set lower ones"
    )


def _shapes(plan: Plan, budget: Budget, keep: set[str]) -> list[Plan]:
    """Set the wire type, and return the plan once for each possible sketch, widest first."""
    fixed = "wire" in keep or budget.bytes is None or plan.masking is not None
    wire = plan.wire if fixed else "int8"
    widths: tuple[int | None, ...] = (plan.sketch,)
    if "sketch" not in keep:
        full = statistics_width(plan.model_copy(update={"sketch": None}))
        widths = tuple(width for width in WIDTHS if width is None or width < full)
    return [plan.model_copy(update={"sketch": width, "wire": wire}) for width in widths]


def _best_within(shapes: list[Plan], budget: Budget, keep: set[str]) -> Plan | None:
    """Choose the first plan in `shapes` for which the budget allows `FEWEST_STEPS` steps.

    If there is none, choose the last one for which it allows any step; None if it allows no step.
    If the user has set the steps, choose the first plan that fits with these.
    """
    best = None
    for shape in shapes:
        steps = shape.steps if "steps" in keep else _steps_within(shape, budget)
        candidate = shape.model_copy(update={"steps": steps})
        if (steps or "steps" in keep) and budget.allows(candidate):
            best = candidate
            if steps >= FEWEST_STEPS or "steps" in keep:
                break
    return best


def _steps_within(plan: Plan, budget: Budget) -> int:
    """Find the most steps with which every contribution is within a budget."""
    most = plan.steps if budget.bytes is None else MOST_STEPS
    affordable = budget.affordable_steps(plan)
    taken = steps_taken(plan.model_copy(update={"steps": most}))
    return sum(steps <= affordable for steps in taken)

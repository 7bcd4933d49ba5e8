"""Find out whether the learning rate drove a set's pixels to the ends of their range.

Images are refined without a limit and clipped to 0 .. 1 at the end. If the rate is too high, many
pixels are clipped, and the set trains worse. Some are at the ends in real images too, such as the
black ground of digits, so the largest share without a warning depends on the plan's normalisation:

    limit = .2 + 2 P(pixel < 0 or pixel > 1),   pixel ~ N(mean, std^2), averaged over the channels

The constants are those that separate the sets that lost accuracy in docs/log.md, entries 2 and 15.
"""

from math import floor, log10
from statistics import NormalDist, fmean

from collabdm.documents.outcomes import DistilledSet
from collabdm.documents.plan import Plan
from collabdm.images import as_float
from collabdm.methods.base import Outcome

ALWAYS_ALLOWED = 0.2  # share of the pixels
LOWER = 3  # the divisor of a rate that is too high


def saturation(outcome: Outcome) -> float | None:
    """Return the share of a set's pixels at the ends of their range; None if it has no pixels."""
    if not isinstance(outcome, DistilledSet) or not len(outcome.images) or outcome.plan.has_rows:
        return None
    pixels = as_float(outcome.images.images)
    return float(((pixels <= 0) | (pixels >= 1)).float().mean())


def largest_share(plan: Plan) -> float:
    """Return the largest share of pixels at the ends of their range that gets no warning."""
    outside = [
        normal.cdf(0) + 1 - normal.cdf(1)
        for normal in map(NormalDist, plan.image.mean, plan.image.std)
    ]
    return min(1.0, ALWAYS_ALLOWED + 2 * fmean(outside))


def saturation_note(outcome: Outcome) -> str | None:
    """Warn of a set with many clipped pixels, and name the setting to try; None if it has few."""
    share, setting = saturation(outcome), _rate_setting(outcome.plan)
    if share is None or setting is None or share <= (limit := largest_share(outcome.plan)):
        return None

    name, rate = setting
    return (
        f"{share:.0%} of the set's pixels are at the ends of their range, more than the "
        f"{limit:.0%} to be expected: the learning rate is probably too high for these images; "
        f"try `--set {name}={_lower(rate):g}`"
    )


def _rate_setting(plan: Plan) -> tuple[str, float] | None:
    """Return the name and value of the learning rate that moved the images last, if there is one.

    A method with options of its own has its rates there, so that none of these moved its images.
    """
    if plan.options is not None:
        return None
    if plan.refinement.passes and plan.steps:
        return "refinement.matching.learning_rate", plan.refinement.matching.learning_rate
    if plan.local.method == "dm" and plan.local.steps:
        return "local.matching.learning_rate", plan.local.matching.learning_rate
    return None


def _lower(rate: float) -> float:
    """Return about a third of a rate, with one digit."""
    third = rate / LOWER
    return round(third, -floor(log10(third)))

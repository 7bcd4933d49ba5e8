"""Say in plain words what a privacy budget guarantees, for files, cards and reports."""

import math

from collabdm.documents.plan import Plan
from collabdm.documents.protection import Privacy

LARGEST_EXPONENT = 700.0  # of a float


def budget_text(epsilon: float, delta: float) -> str:
    """Write a privacy budget, such as `epsilon 1 at delta 1e-05`."""
    return f"epsilon {epsilon:.4g} at delta {delta:.3g}"


def guarantee(privacy: Privacy) -> str:
    """Write in one sentence what a budget guarantees about each image."""
    factor = math.exp(min(privacy.epsilon, LARGEST_EXPONENT))
    return (
        f"{budget_text(privacy.epsilon, privacy.delta)}: leaving any one image out would change "
        f"the probability of every result by a factor of at most {factor:.3g}, except with "
        f"probability {privacy.delta:.3g}"
    )


def protected_from(plan: Plan) -> str:
    """Write from whom the budget of a plan protects an image, as the end of a sentence."""
    if plan.masking is None:
        return "from everyone who sees the contribution"
    return f"from everyone who sees the sum of at least {plan.masking.threshold} sites"

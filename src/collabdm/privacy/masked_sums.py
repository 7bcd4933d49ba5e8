"""From statistics to masked numbers at a site, and from their sum to merged statistics.

    site      x = round(w L 2^f) modulo 2^bits + mask        w = n_y (weighted) or 1 (uniform)
    server    sum over sites, from which the masks have gone:  mean = sum of w L / sum of w

A class that a site lacks is sent as zeros, so the file does not show which classes the site has.
n_y counts as `Plan.largest_class` at most.

Reference: K. Bonawitz et al., "Practical secure aggregation for privacy-preserving machine
learning", CCS 2017.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from collabdm.documents.contribution import LARGEST_TOTAL, Statistics
from collabdm.documents.masked_contribution import (
    CHECK_NUMBERS,
    MaskedContribution,
    masked_tensors,
    masking_of,
)
from collabdm.documents.plan import Plan
from collabdm.errors import DataError, DocumentError, PlanError
from collabdm.matching.class_statistics import Merged
from collabdm.matching.network_size import statistics_width
from collabdm.privacy.masks import mask, word_type
from collabdm.version import versions

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey


def sum_step(plan: Plan) -> float:
    """Return the step of the fixed point of masked sums of means, 2^-f."""
    return 2.0**-plan.binary_places


def most_images(plan: Plan) -> int:
    """Return the largest number of images of a class that a site counts."""
    return plan.largest_class or LARGEST_TOTAL


# --- a site --------------------------------------------------------------------------------------


def capped_totals(plan: Plan, statistics: Statistics) -> Int64[Tensor, " classes"]:
    """Return a site's number of images of each class, at most `Plan.largest_class`."""
    totals = torch.zeros(len(plan.classes), dtype=torch.int64)
    totals[statistics.classes] = statistics.totals.clamp_max(most_images(plan))
    return totals


def site_sums(plan: Plan, statistics: Statistics) -> Float64[Tensor, "T classes r"]:
    """Return a site's class means times their weights; zeros for the classes that it lacks.

    Raises:
        DataError: a mean is outside the range of the plan.
    """
    masking, means = masking_of(plan), statistics.means()
    largest = float(means.abs().max()) if means.numel() else 0.0
    if not largest <= masking.range:
        raise DataError(
            f"class means should be at most {masking.range:g} in absolute value, `masking.range` "
            f"of the plan; found {largest:.4g}: ask the organiser for a plan with a larger range"
        )

    weight = torch.ones(len(statistics.classes), dtype=torch.float64)
    if plan.merging == "weighted":
        weight = capped_totals(plan, statistics)[statistics.classes].double()

    sums = torch.zeros(len(means), len(plan.classes), means.shape[2], dtype=torch.float64)
    sums[:, statistics.classes] = means.double() * weight[:, None]
    return sums


def site_numbers(plan: Plan, statistics: Statistics) -> np.ndarray:
    """Return what a site masks: all of its numbers in fixed point, in the order of the tensors.

    Raises:
        DataError: a mean is outside the range of the plan.
    """
    return fixed_point(plan, capped_totals(plan, statistics), site_sums(plan, statistics))


def fixed_point(
    plan: Plan, totals: Int64[Tensor, " classes"], values: Float64[Tensor, "T classes r"]
) -> np.ndarray:
    """Write counts and sums in fixed point, in the order of the tensors.

    Args:
        plan: the plan.
        totals: the counts of all classes.
        values: the sums of all steps and classes, within the range of the plan.

    Returns:
        The numbers modulo 2^bits.
    """
    sums = (values * 2.0**plan.binary_places).round().long()
    tensors = {
        "check": torch.zeros(CHECK_NUMBERS, dtype=torch.int64),
        "totals": totals,
        "sites": (totals > 0).long(),
        "sums": sums.flatten(),
    }
    numbers = torch.cat([tensors[name] for name in masked_tensors(plan, sums.shape[2])]).numpy()
    return numbers.astype("<i8").view("<u8").astype(word_type(plan))  # modulo 2^bits


def mask_statistics(
    plan: Plan, site: str, statistics: Statistics, private: "X25519PrivateKey"
) -> MaskedContribution:
    """Mask the statistics of a site.

    Args:
        plan: a plan with masks.
        site: the site's name.
        statistics: its class means, in float32, and counts.
        private: its private key.

    Returns:
        The masked contribution.

    Raises:
        DataError: a mean is outside the range of the plan.
        PlanError: the key of another site in the plan is not valid, or the plan has a privacy
            budget: then `masked_noise` masks the noised sums, before they are turned into means.
    """
    if plan.privacy is not None:
        raise PlanError(
            "`privacy` with masks needs `noised_and_masked`, which masks sums before they become "
            "means; found statistics"
        )
    return _masked(plan, site, site_numbers(plan, statistics), private)


def mask_values(
    plan: Plan,
    site: str,
    totals: Int64[Tensor, " classes"],
    values: Float64[Tensor, "T classes r"],
    private: "X25519PrivateKey",
) -> MaskedContribution:
    """Mask counts and sums, as they are.

    Args:
        plan: a plan with masks.
        site: the site's name.
        totals: the counts of all classes; with noise, they may be negative.
        values: the sums of all steps and classes, within the range of the plan.
        private: the site's private key.

    Returns:
        The masked contribution.

    Raises:
        PlanError: the key of another site in the plan is not valid.
    """
    return _masked(plan, site, fixed_point(plan, totals, values), private)


def _masked(
    plan: Plan, site: str, words: np.ndarray, private: "X25519PrivateKey"
) -> MaskedContribution:
    """Add the mask of a site to its numbers."""
    words = words + mask(plan, site, private, len(words))
    return MaskedContribution(site, plan.digest, as_tensors(plan, words), versions())


def as_tensors(plan: Plan, words: np.ndarray) -> dict[str, Tensor]:
    """Split a vector of masked numbers into the tensors of the document."""
    signed = torch.from_numpy(words.view(words.dtype.str.replace("u", "i")))
    tensors, start = {}, 0
    for name, spec in masked_tensors(plan, statistics_width(plan)).items():
        count = torch.Size(spec.shape).numel()
        tensors[name] = signed[start : start + count].reshape(spec.shape)
        start += count
    return tensors


# --- the server ----------------------------------------------------------------------------------


def add_numbers(plan: Plan, masked: Iterable[MaskedContribution]) -> np.ndarray:
    """Add the numbers of several sites modulo 2^bits; one contribution is in memory at a time."""
    dtype = word_type(plan)
    declared = masked_tensors(plan, statistics_width(plan))
    total = np.zeros(sum(torch.Size(spec.shape).numel() for spec in declared.values()), dtype)

    for contribution in masked:
        flat = [contribution.numbers[name].flatten() for name in declared]
        total += torch.cat(flat).numpy().view(dtype)
    return total


def open_sum(plan: Plan, words: np.ndarray) -> Merged:
    """Read the merged statistics from the sum of all sites, whose masks have cancelled.

    Args:
        plan: the plan.
        words: the sum modulo 2^bits.

    Returns:
        The merged statistics; `totals` are those of all sites, each capped.

    Raises:
        DocumentError: the masks have not cancelled, so nothing can be read from the sum; or a site
            has masked counts beyond the plan's bound.
    """
    tensors = {name: tensor.long() for name, tensor in as_tensors(plan, words).items()}
    if bool(tensors["check"].any()):
        raise DocumentError(
            "the masks of the contributions should cancel; they do not, so the sum stays closed: "
            "a site has used another key than the plan lists for it, or a file was changed"
        )

    totals, most = tensors["totals"], plan.sites * most_images(plan)
    if plan.privacy is not None:  # noise can make a count negative, and of a full class too large
        totals = tensors["totals"] = totals.clamp(1, most)
    if bool(((totals < 0) | (totals > most)).any()):
        raise DocumentError(
            f"the totals of all sites should be 0 .. {most:,}, `sites` times `largest_class`; "
            f"found {totals.tolist()}: a site has masked something else"
        )

    weights = tensors.get("sites", totals)
    sums = tensors["sums"].double() * sum_step(plan)
    means = (sums / weights.clamp_min(1).double()[:, None]).float()
    return Merged(means, (weights > 0).expand(len(means), -1), totals)

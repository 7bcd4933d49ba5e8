"""Noise and masks together: each site adds a share of the noise, and masks its noised sums.

    site      x = round((s + c n + noise) 2^f) modulo 2^bits + mask
    server    sum over sites: the sums and counts of all images, with the noise of all shares

Site k sends the noised sum of the differences s from the public centre c, plus c times its noised
count. Everything after the noise is linear, so the server learns nothing but the sum, of which the
noise of any `threshold` sites satisfies the budget; counts below zero are sent as they are. Sums
are bounded before the noise, which changes no difference between two data sets by more than
before, so that no sum wraps around.

References: K. Bonawitz et al., "Practical secure aggregation for privacy-preserving machine
learning", CCS 2017. P. Kairouz, Z. Liu, T. Steinke, "The distributed discrete Gaussian mechanism
for federated learning with secure aggregation", ICML 2021 (shares of noise under masks).
"""

from typing import TYPE_CHECKING

from collabdm.documents.masked_contribution import MaskedContribution, masking_of
from collabdm.documents.plan import Plan
from collabdm.errors import PlanError
from collabdm.images import ImageSet
from collabdm.matching.run_context import RunContext
from collabdm.privacy.gaussian import Mechanism, add_noise, mechanism_of
from collabdm.privacy.masked_sums import mask_values, most_images
from collabdm.privacy.noised_statistics import PrivateSums, private_sums

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

LARGEST_NORMAL = 9.0  # above the largest value of `gaussian.normals`


def noised_and_masked(
    plan: Plan, data: ImageSet, site: str, private: "X25519PrivateKey", context: RunContext
) -> MaskedContribution:
    """Compute the sums of a site, add its share of the noise once, and mask them.

    Args:
        plan: a plan with masks and a privacy budget.
        data: the site's images.
        site: the site's name.
        private: the site's private key.
        context: device, progress, and the random source of the noise.

    Returns:
        The masked contribution.

    Raises:
        PlanError: the noise does not fit into the range of the masked sums, or the key of another
            site in the plan is not valid.
    """
    mechanism = mechanism_of(plan)
    _headroom(plan, mechanism, centre=0.0)  # before any work
    sums = bounded(plan, private_sums(plan, data, context.part("statistics")), mechanism)

    noised = add_noise(sums.sums, sums.counts, mechanism, context.random_bytes)
    counts = noised.counts.round()
    values = noised.sums + sums.centres[:, None].double() * counts[:, None]
    return mask_values(plan, site, counts.long(), values, private)


def bounded(plan: Plan, sums: PrivateSums, mechanism: Mechanism) -> PrivateSums:
    """Bound sums and counts, so that they fit into the masked range together with the noise.

    Args:
        plan: the plan.
        sums: the sums and counts without noise.
        mechanism: the noise of the site.

    Returns:
        The sums, each limited to the room that is left; usually unchanged.

    Raises:
        PlanError: no room is left.
    """
    room = _headroom(plan, mechanism, float(sums.centres.abs().max()))
    return PrivateSums(
        sums.sums.clamp(-room, room), sums.counts.clamp_max(most_images(plan)), sums.centres
    )


def _headroom(plan: Plan, mechanism: Mechanism, centre: float) -> float:
    """Return the largest sum that fits together with the noise. Raises PlanError if none does."""
    most = most_images(plan)
    largest = most * masking_of(plan).range
    counts = most + LARGEST_NORMAL * mechanism.counts
    room = largest - LARGEST_NORMAL * mechanism.sums - centre * counts

    if room <= 0:
        raise PlanError(
            f"`masking.range` should leave room for the noise; found "
            f"{masking_of(plan).range:g} for {most:,} images of a class: ask the organiser for a "
            "larger `masking.range` or `largest_class`, or for less noise"
        )
    return room

"""The Gaussian mechanism for class sums and counts: sensitivity, noise, and its random source.

For class y, a site releases the sums of the clipped embeddings of all T steps, and the count:

    s_t^y = sum_x clip_C(P_t psi_t(augment(x)) - c_t)        n_y

One image belongs to one class. Adding or removing it changes each of the T sums by at most C and
the count by 1, so with standard deviations sigma_s and sigma_c the scaled vector
(s_1 / sigma_s, ..., s_T / sigma_s, n / sigma_c) changes by at most

    T C^2 / sigma_s^2 + 1 / sigma_c^2 = 1 / z^2

in squared norm: one Gaussian mechanism with noise multiplier z (`accounting`). The count gets the
share q = `count_share` of 1 / z^2:  sigma_c = z / sqrt(q),  sigma_s = z C sqrt(T / (1 - q)).

The noise is drawn in double precision from the operating system's generator, and the sums are then
rounded to a power of two far below sigma: the low bits of a floating-point sum could reveal what
was added to it.

With masks (`plan.masking`), only the sum of at least `threshold` sites is ever seen, and each site
adds noise of variance sigma^2 / threshold.

References: C. Dwork, A. Roth, "The algorithmic foundations of differential privacy", 2014. I.
Mironov, "On significance of the least significant bits for differential privacy", CCS 2012.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from collabdm.documents.plan import Plan
from collabdm.documents.protection import Privacy
from collabdm.errors import PlanError
from collabdm.privacy.accounting import noise_multiplier

RandomBytes = Callable[[int], bytes]  # the number of bytes -> independent uniform bytes

ROUNDING = 24  # binary places of the grid below sigma


@dataclass(frozen=True)
class Mechanism:
    """The noise of one site.

    Attributes:
        multiplier: z, the noise multiplier of the budget.
        sums: the standard deviation of the noise of each number of the sums.
        counts: the standard deviation of the noise of a count.
        share: the share of the budget's variance that the site adds; 1 without masks.
    """

    multiplier: float
    sums: float
    counts: float
    share: float


@dataclass(frozen=True)
class NoisedSums:
    """The sums and counts of all classes of the plan, with noise; a count may be negative."""

    sums: Float64[Tensor, "T classes r"]
    counts: Float64[Tensor, " classes"]


def privacy_of(plan: Plan) -> Privacy:
    """Return the privacy budget of a plan. Raises PlanError if it has none."""
    if plan.privacy is None:
        raise PlanError("`privacy` should be set in the plan; found none")
    return plan.privacy


def mechanism_of(plan: Plan) -> Mechanism:
    """Calibrate the noise of one site. Raises PlanError if the plan has no privacy budget."""
    privacy = privacy_of(plan)
    z, q = noise_multiplier(privacy.epsilon, privacy.delta), privacy.count_share
    share = 1.0 if plan.masking is None else 1 / plan.masking.threshold

    sums = z * privacy.clip * math.sqrt(max(1, plan.steps) / (1 - q))
    counts = z / math.sqrt(q)
    return Mechanism(z, sums * math.sqrt(share), counts * math.sqrt(share), share)


def add_noise(
    sums: Float64[Tensor, "T classes r"],
    counts: Float64[Tensor, " classes"],
    mechanism: Mechanism,
    random_bytes: RandomBytes,
) -> NoisedSums:
    """Add noise to the sums and counts of a site, once.

    Args:
        sums: the sums of clipped embeddings of each step and class; zeros for absent classes.
        counts: the numbers of images of each class.
        mechanism: the noise.
        random_bytes: the random source.

    Returns:
        The noised sums and counts, rounded to their grids.
    """
    drawn = normals(sums.numel() + counts.numel(), random_bytes)
    for_sums, for_counts = drawn.split([sums.numel(), counts.numel()])
    return NoisedSums(
        on_grid(sums + for_sums.view_as(sums) * mechanism.sums, mechanism.sums),
        on_grid(counts + for_counts * mechanism.counts, mechanism.counts),
    )


def normals(count: int, random_bytes: RandomBytes) -> Float64[Tensor, " count"]:
    """Draw standard normals by the Box-Muller transform.

    The uniforms are (k + 1/2) 2^-53 for whole numbers k of 53 bits, so values end at 8.6, which
    only a share of 1e-17 of a normal distribution exceeds.
    """
    pairs = (count + 1) // 2
    words = np.frombuffer(random_bytes(16 * pairs), dtype="<u8")
    u, v = torch.from_numpy(((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53).split(
        pairs
    )

    radius, angle = (-2 * torch.log(u)).sqrt(), 2 * math.pi * v
    return torch.cat([radius * angle.cos(), radius * angle.sin()])[:count]


def on_grid(values: Float64[Tensor, "*n"], sigma: float) -> Float64[Tensor, "*n"]:
    """Round to multiples of a power of two, 2^`ROUNDING` times below the power of two of sigma."""
    step = 2.0 ** (math.floor(math.log2(sigma)) - ROUNDING)
    return (values / step).round() * step

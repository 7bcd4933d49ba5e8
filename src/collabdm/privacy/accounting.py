"""The privacy budget: from (epsilon, delta) to noise, and from several releases to their sum.

A Gaussian mechanism adds noise of standard deviation z to a vector whose L2 sensitivity is 1; z is
the noise multiplier. It is (epsilon, delta)-differentially private for

    delta = Phi(1 / (2 z) - epsilon z) - exp(epsilon) Phi(-1 / (2 z) - epsilon z)

which is exact (Balle & Wang, 2018). Releases of the same data compose into one Gaussian mechanism
with 1 / z^2 = sum_i 1 / z_i^2, also if later releases depend on earlier ones (Dong et al., 2022).

References: C. Dwork, A. Roth, "The algorithmic foundations of differential privacy", 2014. B.
Balle, Y.-X. Wang, "Improving the Gaussian mechanism for differential privacy", ICML 2018. J. Dong,
A. Roth, W. J. Su, "Gaussian differential privacy", JRSS B, 2022.
"""

from collections.abc import Iterable
from functools import lru_cache


@lru_cache
def noise_multiplier(epsilon: float, delta: float) -> float:
    """Return z, the least noise for a budget: the standard deviation for a sensitivity of 1."""
    import dp_accounting

    return float(dp_accounting.get_sigma_gaussian(epsilon, delta))


def composed(multipliers: Iterable[float]) -> float:
    """Return the noise multiplier of several releases of the same data together.

    >>> composed([5.0, 5.0, 5.0, 5.0])
    2.5
    """
    return sum(z**-2 for z in multipliers) ** -0.5


def spent_epsilon(multipliers: Iterable[float], delta: float) -> float:
    """Return the epsilon, at `delta`, of several releases of the same data; 0 for none."""
    import dp_accounting

    released = list(multipliers)
    if not released:
        return 0.0
    return float(dp_accounting.get_epsilon_gaussian(composed(released), delta))

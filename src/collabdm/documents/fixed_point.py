"""Fixed point for sums over sites: how many binary places a masked number has.

A site sends round(w L 2^f) modulo 2^bits, for a mean |L| <= R with a weight w <= W. The sum over K
sites cannot wrap around if

    K (W R 2^f + 1) < 2^(bits - 1)

because rounding adds less than 1 to each term; f is the largest whole number for which this holds.
The sum then has an error of at most K / 2 steps of 2^-f, and the mean over n weights one of
K / (2 n) steps.

Reference: K. Bonawitz et al., "Practical secure aggregation for privacy-preserving machine
learning", CCS 2017 (sums modulo R); docs/format.md, "Masked contribution".
"""

from fractions import Fraction


def binary_places(sites: int, weight: int, largest: float, bits: int) -> int | None:
    """Return f, the number of binary places of a masked sum.

    Args:
        sites: K, the number of sites.
        weight: W, the largest weight of a mean.
        largest: R, the largest absolute value of a mean.
        bits: the size of a masked number.

    Returns:
        The largest whole number f >= 0 without overflow; None if there is none.

    >>> binary_places(5, 100_000, 32.0, 32), binary_places(5, 1, 32.0, 32)
    (7, 23)
    """
    limit, term = Fraction(2 ** (bits - 1), sites) - 1, weight * Fraction(largest)
    fitting = [places for places in range(bits) if term * 2**places < limit]
    return fitting[-1] if fitting else None

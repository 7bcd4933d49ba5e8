"""Compute intervals of differences of accuracy, in percentage points.

    d = mean(a) - mean(b),   s^2 = var(a)/n_a + var(b)/n_b
    interval = d -+ t_{0.975, v} s,   v = s^4 / ((var(a)/n_a)^2/(n_a-1) + (var(b)/n_b)^2/(n_b-1))

a and b are the accuracies of networks trained on two sets. For differences d_1 .. d_n of rounds
with n seeds, the interval is mean(d) -+ t_{0.975, n-1} std(d) / sqrt(n).

Reference: B. L. Welch, "The generalization of Student's problem when several different population
variances are involved", Biometrika 34, 1947.
"""

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

CONFIDENCE = 0.95


class Gap(NamedTuple):
    """A difference in percentage points, with its interval; None as limits without one."""

    points: float
    low: float | None = None
    high: float | None = None

    @property
    def clear(self) -> bool:
        """Whether the interval excludes 0; False without an interval."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def __str__(self) -> str:
        if self.low is None or self.high is None:
            return f"{self.points:+.1f}"
        return f"{self.points:+.1f} ({self.low:+.1f} to {self.high:+.1f})"


def welch(first: Sequence[float], second: Sequence[float]) -> Gap:
    """Compare two samples of accuracies in 0 .. 1.

    Returns:
        The difference of their means; without an interval if a sample has fewer than two
        accuracies, or if neither varies.
    """
    gap = 100 * (statistics.fmean(first) - statistics.fmean(second))
    if min(len(first), len(second)) < 2:
        return Gap(gap)

    parts = [(statistics.variance(sample) / len(sample), len(sample)) for sample in (first, second)]
    total = sum(part for part, _ in parts)
    if not total:
        return Gap(gap)

    freedom = total**2 / sum(part**2 / (n - 1) for part, n in parts)
    return _around(gap, freedom, 100 * math.sqrt(total))


def paired(differences: Sequence[float]) -> Gap:
    """Average differences of accuracies in 0 .. 1, one for each seed.

    Returns:
        Their mean; without an interval if there are fewer than two, or if they do not vary.
    """
    gap, n = 100 * statistics.fmean(differences), len(differences)
    deviation = statistics.stdev(differences) if n > 1 else 0.0
    return _around(gap, float(n - 1), 100 * deviation / math.sqrt(n)) if deviation else Gap(gap)


def _around(gap: float, freedom: float, error: float) -> Gap:
    from scipy.special import stdtrit

    half = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * error
    return Gap(gap, gap - half, gap + half)

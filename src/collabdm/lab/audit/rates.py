"""Measure an attack: AUC and true-positive rates, with 95 % intervals.

An attack gives every candidate a score; members should score higher. The AUC is the probability
that a member scores higher than a non-member, ties counting half:

    AUC = P[s(member) > s(other)] + P[s(member) = s(other)] / 2

The interval of the AUC is a bootstrap over candidates: a candidate's scores in all rounds are drawn
together. The true-positive rate at a false-positive rate f is the largest share of members above
any threshold that at most a share f of the others passes; its interval is that of Clopper and
Pearson, for this threshold.

References: N. Carlini et al., "Membership inference attacks from first principles", S&P 2022 (true
positives at low false-positive rates). C. J. Clopper, E. S. Pearson, "The use of confidence or
fiducial limits", Biometrika 1934.
"""

import torch
from jaxtyping import Bool, Float32, Float64
from torch import Tensor

from collabdm.lab.audit.record import AttackRecord, Estimate
from collabdm.seeds import Purpose, Stream

RESAMPLES = 500
TAIL = 0.025  # of a 95 % interval, on each side


def measure(
    released: str,
    attack: str,
    scores: Float32[Tensor, "rounds m"],
    used: Bool[Tensor, "rounds m"],
    stream: Stream,
) -> AttackRecord:
    """Measure the scores of an attack over all rounds.

    Args:
        released: what is attacked, such as "contribution".
        attack: the name of the attack.
        scores: the score of each candidate in each round.
        used: whether the round uses the candidate.
        stream: the stream of the bootstrap.

    Returns:
        The AUC, and the true-positive rates at 0.1 % and 1 % false positives.
    """
    ranks = Ranking(scores, used)
    m = scores.shape[1]
    draws = [
        torch.bincount((stream.uniforms(m) * m).long(), minlength=m) for _ in range(RESAMPLES)
    ]
    resampled = torch.tensor([ranks.auc(weights.double()) for weights in draws])
    low, high = resampled.quantile(torch.tensor([TAIL, 1 - TAIL])).tolist()

    members, others = int(used.sum()), int((~used).sum())
    auc = ranks.auc(torch.ones(m, dtype=torch.float64))
    return AttackRecord(
        released=released,
        attack=attack,
        members=members,
        non_members=others,
        auc=Estimate(value=auc, low=min(low, auc), high=max(high, auc)),
        tpr_at_01_percent=share_interval(ranks.hits(0.001), members),
        tpr_at_1_percent=share_interval(ranks.hits(0.01), members),
    )


class Ranking:
    """The distinct scores of an attack, in descending order."""

    def __init__(self, scores: Float32[Tensor, "rounds m"], used: Bool[Tensor, "rounds m"]) -> None:
        distinct, place = scores.flatten().unique(return_inverse=True)
        self._place = len(distinct) - 1 - place  # 0 is the highest score
        self._number = len(distinct)
        self._used = used.double()

    def _counts(
        self, weights: Float64[Tensor, " m"]
    ) -> tuple[Float64[Tensor, " scores"], Float64[Tensor, " scores"]]:
        """Count members and others at each distinct score; `weights` repeats candidates."""
        zero = torch.zeros(self._number, dtype=torch.float64)
        members = zero.scatter_add(0, self._place, (self._used * weights).flatten())
        others = zero.scatter_add(0, self._place, ((1 - self._used) * weights).flatten())
        return members, others

    def auc(self, weights: Float64[Tensor, " m"]) -> float:
        """Return the AUC; 0.5 if there are no members, or no others."""
        members, others = self._counts(weights)
        pairs = float(members.sum() * others.sum())
        above = members.cumsum(0) - members / 2
        return float((above * others).sum()) / pairs if pairs else 0.5

    def hits(self, rate: float) -> int:
        """Return the members above the threshold that at most a share `rate` of others passes."""
        members, others = self._counts(torch.ones(self._used.shape[1], dtype=torch.float64))
        allowed = others.cumsum(0) <= rate * others.sum()
        return int((members.cumsum(0) * allowed).max())


def share_interval(hits: int, n: int) -> Estimate:
    """Return hits / n with the interval of Clopper and Pearson."""
    from scipy.stats import beta

    low = float(beta.ppf(TAIL, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - TAIL, hits + 1, n - hits)) if hits < n else 1.0
    return Estimate(value=hits / n, low=low, high=high)


def audit_stream(seed: int) -> Stream:
    """Return the stream of the bootstrap of an audit."""
    return Stream.of(seed, Purpose.BASELINE)

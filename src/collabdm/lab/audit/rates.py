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

RESAMPLES, AT_ONCE = 500, 50
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
    ranking = Ranking(scores, used)
    auc, resampled = ranking.auc(), ranking.resampled_aucs(stream)
    low, high = resampled.quantile(torch.tensor([TAIL, 1 - TAIL], dtype=torch.float64)).tolist()
    members, others = int(used.sum()), int((~used).sum())

    return AttackRecord(
        released=released,
        attack=attack,
        members=members,
        non_members=others,
        auc=Estimate(value=auc, low=min(low, auc), high=max(high, auc)),
        tpr_at_01_percent=share_interval(ranking.hits(0.001), members),
        tpr_at_1_percent=share_interval(ranking.hits(0.01), members),
    )


class Ranking:
    """The distinct scores of an attack, in descending order."""

    def __init__(self, scores: Float32[Tensor, "rounds m"], used: Bool[Tensor, "rounds m"]) -> None:
        distinct, place = scores.flatten().unique(return_inverse=True)
        self._place = len(distinct) - 1 - place  # 0 is the highest score
        self._number = len(distinct)
        self._used = used.double()

    def auc(self) -> float:
        """Return the AUC; 0.5 if there are no members, or no others."""
        return float(self.weighted_aucs(torch.ones(1, self._used.shape[1]))[0])

    def resampled_aucs(self, stream: Stream) -> Float64[Tensor, " resamples"]:
        """Return the AUC of each of `RESAMPLES` samples of the candidates, with replacement."""
        m = self._used.shape[1]
        parts = []
        for _ in range(0, RESAMPLES, AT_ONCE):
            index = (stream.uniforms(AT_ONCE, m) * m).long()
            weights = torch.zeros(AT_ONCE, m).scatter_add(1, index, torch.ones(AT_ONCE, m))
            parts.append(self.weighted_aucs(weights))
        return torch.cat(parts)

    def weighted_aucs(self, weights: Float32[Tensor, "b m"]) -> Float64[Tensor, " b"]:
        """Return one AUC for each row of weights, which repeat the candidates."""
        members, others = self._counts(weights)
        pairs = members.sum(1) * others.sum(1)
        above = members.cumsum(1) - members / 2
        return torch.where(pairs > 0, (above * others).sum(1) / pairs.clamp_min(1), 0.5)

    def hits(self, rate: float) -> int:
        """Return the members above the threshold that at most a share `rate` of others passes."""
        members, others = (counts[0] for counts in self._counts(torch.ones(1, self._used.shape[1])))
        allowed = others.cumsum(0) <= rate * others.sum()
        return int((members.cumsum(0) * allowed).max())

    def _counts(
        self, weights: Float32[Tensor, "b m"]
    ) -> tuple[Float64[Tensor, "b scores"], Float64[Tensor, "b scores"]]:
        """Count members and others at each distinct score."""
        rows = len(weights)
        place = self._place.flatten().expand(rows, -1)
        zero = torch.zeros(rows, self._number, dtype=torch.float64)
        counts = [
            zero.scatter_add(1, place, (chosen * weights[:, None].double()).flatten(1))
            for chosen in (self._used, 1 - self._used)
        ]
        return counts[0], counts[1]


def share_interval(hits: int, n: int) -> Estimate:
    """Return hits / n with the interval of Clopper and Pearson."""
    from scipy.special import betaincinv

    low = float(betaincinv(hits, n - hits + 1, TAIL)) if hits else 0.0
    high = float(betaincinv(hits + 1, n - hits, 1 - TAIL)) if hits < n else 1.0
    return Estimate(value=hits / n, low=low, high=high)


def audit_stream(seed: int) -> Stream:
    """Return the stream of the bootstrap of an audit."""
    return Stream.of(seed, Purpose.BASELINE)

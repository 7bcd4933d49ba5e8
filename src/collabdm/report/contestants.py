"""Tell sets apart by their names: methods, random real images, and other yardsticks.

The methods, and random real images of the same storage, compete for the best result. Each site
alone, all the data and methods on pooled data are yardsticks: they use data that no site shares.
The further networks of a method, such as an ensemble, are variants of it.
"""

from collections.abc import Iterable

from collabdm.methods.registry import METHODS
from collabdm.report.intervals import welch
from collabdm.scoring.evaluation import Score

RANDOM, ALONE, ALL = "random real", " alone", "all the data"


def is_random(name: str) -> bool:
    """Return whether a set consists of random real images."""
    return name.startswith(RANDOM)


def is_baseline(name: str) -> bool:
    """Return whether a set consists of real images: it is not that of a method."""
    return is_random(name) or name == ALL or name.endswith(ALONE)


def is_yardstick(name: str) -> bool:
    """Return whether a set uses data that no site shares: it does not compete."""
    method = METHODS.get(name.partition(",")[0])
    pooled = method is not None and method.pooled
    return pooled or name == ALL or name.endswith(ALONE)


def is_method(name: str) -> bool:
    """Return whether a name is that of a method which competes."""
    return not is_random(name) and not is_yardstick(name) and ", " not in name


def by_network(scores: Iterable[Score]) -> dict[str, list[Score]]:
    """Group scores by their network, the main one first; each set is in a group once.

    Networks of one name and different widths are numbered: `ConvNet`, `ConvNet (2)`.
    """
    groups: dict[str, list[Score]] = {}
    for score in scores:
        names = (score.network, *(f"{score.network} ({k})" for k in range(2, 100)))
        taken = (name for name in names if all(s.what != score.what for s in groups.get(name, ())))
        groups.setdefault(next(taken), []).append(score)
    return groups


def of_first_network(scores: Iterable[Score]) -> list[Score]:
    """Select the scores with the network of the first score, the main one; none without scores."""
    return next(iter(by_network(scores).values()), [])


def best_of(scores: Iterable[Score]) -> Score | None:
    """Return the score with the highest mean accuracy; None without any."""
    return max(scores, key=lambda score: score.mean, default=None)


def ties_with(best: Score, scores: Iterable[Score]) -> list[Score]:
    """List the scores that are not distinguishable from the best, the highest first.

    They follow it in the order of the means, up to the first whose 95 % interval of the difference
    to the best excludes 0, or that has no interval.
    """
    ties = []
    for score in sorted(scores, key=lambda score: -score.mean):
        if score is best:
            continue
        gap = welch(best.accuracies, score.accuracies)
        if gap.low is None or gap.clear:
            break
        ties.append(score)
    return ties

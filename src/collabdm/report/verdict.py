"""State which set is best, and by how much it is above random real images of the same storage.

The difference has a 95 % interval (see `intervals`): over the networks trained on the sets of one
round, or over the seeds of rounds that differ only in their seed. The networks of one round share
its split, so their interval does not include the variation between splits. Where the records do
not suffice for an interval, the verdict names the option that adds what is missing.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from collabdm.documents.canonical_json import canonical_json
from collabdm.lab.results import SimulationResults
from collabdm.report.contestants import best_of, is_method, is_random, of_first_network, ties_with
from collabdm.report.intervals import Gap, paired, welch
from collabdm.report.rounds import RoundFiles
from collabdm.scoring.evaluation import Score


@dataclass(frozen=True)
class Verdict:
    """The verdict of a round, or of rounds with several seeds.

    Attributes:
        lead: Which set is best, and its difference to random real images.
        method: How the interval was computed, or what is missing for it.
        kind: `above`, `below` or `unclear` next to random images; `open` without an interval.
        name: The round, if a page has several.
    """

    lead: str
    method: str
    kind: str
    name: str = ""


def verdict_of(files: RoundFiles) -> Verdict | None:
    """State the verdict of one round; None without scores of methods."""
    scores = of_first_network(files.scores)
    methods = [score for score in scores if is_method(score.what)]
    best, random = best_of(methods), best_of(s for s in scores if is_random(s.what))
    if best is None:
        return None
    if random is None:
        return Verdict(_highest(best, len(methods)), _without_random(files), "open", files.name)

    gap = welch(best.accuracies, random.accuracies)
    against = f"random real images of the same storage ({random.what}, {_percent(random.mean)})"
    if gap.low is None:
        lead = f"{_highest(best, len(methods))} {_distance(gap, against)}"
        return Verdict(lead, _without_interval(best, random), "open", files.name)

    lead = f"{_leader(best, methods)} {_distance(gap, against)} {_meaning(gap)}".strip()
    ties = [score.what for score in ties_with(best, methods)]
    if ties:
        lead += f" Not distinguishable from it: {', '.join(ties)}."
    return Verdict(lead, _method(best, random), _kind(gap), files.name)


def seed_verdicts(rounds: Sequence[RoundFiles]) -> list[Verdict]:
    """State a verdict for each group of rounds that differ only in their seed."""
    groups: dict[str, list[RoundFiles]] = {}
    for files in rounds:
        if isinstance(files.results, SimulationResults):
            settings = files.results.experiment.model_dump(mode="json", exclude={"seed"})
            groups.setdefault(canonical_json(settings), []).append(files)

    verdicts = [_over_seeds(group) for group in groups.values() if len(_seeds(group)) > 1]
    return [verdict for verdict in verdicts if verdict is not None]


def _seeds(group: Sequence[RoundFiles]) -> dict[int, RoundFiles]:
    return {files.experiment.seed: files for files in group if files.experiment is not None}


def _over_seeds(group: Sequence[RoundFiles]) -> Verdict | None:
    """Compare the best method over the seeds with random real images, seed by seed."""
    by_seed = _seeds(group)
    means = [
        {score.what: score.mean for score in of_first_network(files.scores)}
        for files in by_seed.values()
        if files.scores
    ]
    common = set.intersection(*(set(found) for found in means)) if means else set()
    methods, randoms = list(filter(is_method, common)), list(filter(is_random, common))
    if len(means) < 2 or not methods or not randoms:
        return None

    def mean(what: str) -> float:
        return statistics.fmean(found[what] for found in means)

    best, random = max(methods, key=mean), max(randoms, key=mean)
    gap = paired([found[best] - found[random] for found in means])
    against = f"random real images of the same storage ({random}, {_percent(mean(random))})"
    seeds = ", ".join(map(str, sorted(by_seed)))
    method = f"t interval over n = {len(means)} seeds ({seeds}), each with its own split."
    lead = f"{best} has the highest mean of the methods: {_percent(mean(best))}."
    lead += f" {_distance(gap, against)} {_meaning(gap)}"
    name = " + ".join(files.name for files in group)
    return Verdict(lead.strip(), method, _kind(gap), name)


# --- sentences -----------------------------------------------------------------------------------


def _percent(accuracy: float) -> str:
    return f"{100 * accuracy:.1f} %"


def _highest(best: Score, methods: int) -> str:
    place = "reaches" if methods == 1 else "has the highest accuracy of the methods:"
    return f"{best.what} {place} {_percent(best.mean)} (n = {best.n})."


def _leader(best: Score, methods: Sequence[Score]) -> str:
    second = best_of(score for score in methods if score is not best)
    if second is None:
        return f"{best.what} reaches {_percent(best.mean)}."
    clear = welch(best.accuracies, second.accuracies).clear
    place = "is the best" if clear else "has the highest accuracy"
    return f"{best.what} {place} of the methods: {_percent(best.mean)}."


def _distance(gap: Gap, against: str) -> str:
    above = "above" if gap.points > 0 else "below"
    distance = f"{abs(gap.points):.1f} points {above}" if round(gap.points, 1) else "equal to"
    lead = f"This is {distance} {against}"
    if gap.low is None or gap.high is None:
        return f"{lead}."
    return f"{lead}; 95 % interval {gap.low:+.1f} to {gap.high:+.1f}."


def _meaning(gap: Gap) -> str:
    if gap.low is None or gap.clear:
        return ""
    return "The interval contains 0: no difference is shown."


def _kind(gap: Gap) -> str:
    if gap.low is None:
        return "open"
    if not gap.clear:
        return "unclear"
    return "above" if gap.points > 0 else "below"


def _method(best: Score, random: Score) -> str:
    return (
        f"Welch's t interval over the networks trained on each set (n = {best.n} and {random.n}). "
        "They share one split and one seed; to include the variation between splits, "
        "repeat with another `--seed`, and report the folders together."
    )


def _without_interval(best: Score, random: Score) -> str:
    if min(best.n, random.n) > 1:
        return "No interval: all networks of a set have the same accuracy."
    return (
        f"No interval: n = {best.n} and {random.n} networks. `--trials 5` trains five on each set; "
        "a method whose outcome is a network needs rounds with another `--seed`."
    )


def _without_random(files: RoundFiles) -> str:
    if files.experiment is None:
        return "Random real images were not scored: `evaluate --random` adds them."
    compared = ",".join((*files.experiment.compare, "random"))
    return f"Random real images were not scored: `--compare {compared}` adds them."

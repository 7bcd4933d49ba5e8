"""Carry out the attacks on membership and on canaries, over all rounds of an audit."""

from dataclasses import dataclass

import torch
from jaxtyping import Float32
from torch import Tensor

from collabdm.documents.contribution import Statistics
from collabdm.images import ImageSet, pool
from collabdm.lab.audit.canaries import draw_canaries, exposures
from collabdm.lab.audit.candidates import Candidates
from collabdm.lab.audit.losses import LOSS, OFFLINE, loss_scores
from collabdm.lab.audit.means import CALIBRATED, PLAIN, WHITENED, calibrated, mean_scores
from collabdm.lab.audit.nearest import NEAREST, nearest_scores
from collabdm.lab.audit.rates import audit_stream, measure
from collabdm.lab.audit.record import AttackRecord, CanaryRecord
from collabdm.lab.audit.rounds import AuditRound, Rounds, Scores
from collabdm.progress import Stage

CONTRIBUTION, SET = "contribution", "set"


def attack_membership(rounds: Rounds, candidates: Candidates) -> list[AttackRecord]:
    """Attack the membership of all candidates in all rounds.

    Each round is attacked with the others as its shadows; without shadows, scores are not
    calibrated.
    """
    used, stored, statistics = candidates.used, [], []
    for number in range(len(used)):
        name = f"rounds/{number}"
        done = rounds.run(name, candidates.members(number))
        statistics.append(done.contribution.statistics)
        scorer = _Scorer(rounds, name, candidates.images)
        stored.append(rounds.stored(f"{name}/scores", lambda s=scorer, d=done: s.released(d)))  # type: ignore[misc]

    scores = {key: torch.stack([one[key] for one in stored]) for key in stored[0]}
    if rounds.plan.steps:
        scores |= _score_means(rounds, "rounds", statistics, candidates, candidates.images)

    attacks = {
        (CONTRIBUTION, NEAREST): scores.get("sent"),
        (CONTRIBUTION, PLAIN): scores.get("plain"),
        (CONTRIBUTION, WHITENED): scores.get("whitened"),
        (SET, NEAREST): scores["nearest"],
        (SET, LOSS): scores["loss"],
    }
    if rounds.settings.shadows:
        whitened = scores.get("whitened")
        shadowed = None if whitened is None else calibrated(whitened, used)
        attacks[CONTRIBUTION, CALIBRATED] = shadowed
        attacks[SET, OFFLINE] = calibrated(scores["log_odds"], used, online=False)

    stream = audit_stream(rounds.settings.seed)
    return [
        measure(released, attack, values, used, stream)
        for (released, attack), values in sorted(attacks.items(), key=lambda item: item[0][0])
        if values is not None
    ]


def attack_canaries(rounds: Rounds, candidates: Candidates) -> list[CanaryRecord]:
    """Insert canaries into a round, and compute their exposures."""
    canaries = draw_canaries(candidates.reference, rounds.settings)
    members = pool([candidates.members(0), canaries.used()])
    done = rounds.run("canaries", members)

    scorer = _Scorer(rounds, "canaries", canaries.images)
    scores = rounds.stored("canaries/scores", lambda: scorer.released(done))
    found = exposures(SET, LOSS, scores["loss"], canaries)
    if rounds.plan.steps:
        statistics = [done.contribution.statistics]
        means = _score_means(rounds, "canaries", statistics, candidates, canaries.images)
        found = [*exposures(CONTRIBUTION, WHITENED, means["whitened"][0], canaries), *found]
    return found


@dataclass(frozen=True)
class _Scorer:
    """Scores images by what one round releases, apart from the means."""

    rounds: Rounds
    name: str
    images: ImageSet

    def released(self, done: AuditRound) -> Scores:
        """Score by the images sent, the set, and networks trained on the set."""
        settings, pae = self.rounds.settings, self.rounds.plan.pae
        epochs = settings.networks * settings.epochs
        progress = self.rounds.progress(Stage.TRAINING, self.name, epochs)
        compute = self.rounds.context.compute

        losses = loss_scores(done.distilled, self.images, settings, compute, progress)
        scores = {"loss": losses.log_probability, "log_odds": losses.log_odds}
        scores["nearest"] = nearest_scores(self.images, done.distilled.images, pae)
        if len(done.contribution.images):
            scores["sent"] = nearest_scores(self.images, done.contribution.images, pae)
        return scores


def _score_means(
    rounds: Rounds,
    name: str,
    statistics: list[Statistics],
    candidates: Candidates,
    images: ImageSet,
) -> dict[str, Float32[Tensor, "rounds m"]]:
    """Score images by the class means of rounds, or read the stored scores."""
    progress = rounds.progress("attack on the means", name, len(statistics[0].steps))

    def compute() -> Scores:
        plan, device = rounds.plan, rounds.context.compute
        scores = mean_scores(plan, statistics, images, candidates.reference, device, progress)
        return {"plain": scores.plain, "whitened": scores.whitened}

    return rounds.stored(f"{name}/means", compute)

"""Find what audit.png shows: the nearest pairs, and a small class recovered from its means."""

import torch

from collabdm.documents.contribution import Contribution
from collabdm.documents.plan import Plan
from collabdm.images import ImageSet, as_float
from collabdm.lab.audit.candidates import Candidates
from collabdm.lab.audit.inversion import Inversion, Recovery, Target, decibels, invert, recovery
from collabdm.lab.audit.nearest import nearest_pairs
from collabdm.lab.audit.picture import Strip
from collabdm.lab.audit.rates import Ranking
from collabdm.lab.audit.record import PairRecord, ReconstructionRecord
from collabdm.lab.audit.rounds import AuditRound, Rounds
from collabdm.matching.embedding import plan_embedding
from collabdm.privacy.nearest import reduced, small_images
from collabdm.seeds import Purpose, Stream, derive

MOST_PAIRS = 10


def nearest_shown(
    rounds: Rounds, done: AuditRound, candidates: Candidates
) -> tuple[list[PairRecord], list[Strip]]:
    """Find the images of the first round's contribution and set nearest to private ones.

    Args:
        rounds: the rounds of the audit.
        done: what the first round releases.
        candidates: the candidates.

    Returns:
        The pairs, and a strip of the picture for each kind of release that contains images.
    """
    pae, records, strips = rounds.plan.pae, [], []
    releases = {"contribution": done.contribution.images, "set": done.distilled.images}

    for released, images in releases.items():
        if not len(images):
            continue
        pairs = nearest_pairs(candidates.images, images, candidates.used[0], pae, MOST_PAIRS)
        small = small_images(images, pae)
        private = reduced(candidates.images.images, pae)
        rows = [
            as_float(small.images[[pair.released for pair in pairs]]),
            private[[pair.member for pair in pairs]],
            private[[pair.other for pair in pairs]],
        ]
        title = f"{released}: image released, nearest image used, nearest image not used"
        strips.append(Strip(title, rows))
        records += [
            PairRecord(
                released=released,
                label=images.classes[int(small.labels[pair.released])],
                distance=pair.distance,
                other=pair.other_distance,
            )
            for pair in pairs
        ]
    return records, strips


def reconstruct_small(rounds: Rounds, candidates: Candidates) -> tuple[ReconstructionRecord, Strip]:
    """Reconstruct the images of a small class from the means of a site that has only this class.

    Args:
        rounds: the rounds of the audit.
        candidates: the candidates, whose first class is used.

    Returns:
        The results, and a strip of the picture.
    """
    members, others = _small_class(rounds, candidates)
    contribution = rounds.contribution("small", members)
    target = _target(rounds.plan, contribution, members, candidates, rounds)

    settings = rounds.settings
    best: Inversion | None = None
    for restart in range(settings.restarts):
        progress = rounds.progress("reconstruction", f"start {restart + 1}", settings.iterations)
        stream = Stream.of(derive(settings.seed, "restart", restart), Purpose.BASELINE)
        found = invert(target, settings.iterations, stream, progress)
        if best is None or found.misfit < best.misfit:
            best = found

    if best is None:  # `restarts` is at least 1
        raise ValueError("`restarts` should be at least 1")
    compared = recovery(best.images, members, others)
    rows = [as_float(members.images), best.images[compared.nearest]]
    strip = Strip("small class: image used, nearest reconstruction from the means", rows)
    return _record(rounds, len(members), target, best, compared), strip


def _small_class(rounds: Rounds, candidates: Candidates) -> tuple[ImageSet, ImageSet]:
    """Return some members of the first class, and all its images that the round does not use."""
    members = candidates.members(0)
    first = candidates.images.of_class(0)
    others = candidates.images.subset(first[~candidates.used[0][first]])
    return members.subset(members.of_class(0)[: rounds.settings.small_class]), others


def _target(
    plan: Plan,
    contribution: Contribution,
    members: ImageSet,
    candidates: Candidates,
    rounds: Rounds,
) -> Target:
    """Collect what the attacker knows: the means of the first class, and reference images."""
    statistics = contribution.statistics
    place = statistics.classes.tolist().index(0)
    reference = candidates.reference.subset(candidates.reference.of_class(0))
    embedding = plan_embedding(plan, rounds.context.compute)
    means = statistics.means()[:, place]
    return Target(embedding, statistics.steps.tolist(), means, len(members), reference)


def _record(
    rounds: Rounds, n: int, target: Target, found: Inversion, compared: Recovery
) -> ReconstructionRecord:
    """Make the record of a reconstruction."""
    scores = -torch.cat([compared.distances, compared.other_distances])[None].float()
    used = (torch.arange(scores.shape[1]) < n)[None]
    numbers = n * found.images[0].numel()

    return ReconstructionRecord(
        images=n,
        ratio=target.means.numel() / numbers,
        iterations=rounds.settings.iterations,
        restarts=rounds.settings.restarts,
        misfit=found.misfit,
        recovered=float(compared.recovered.double().mean()),
        recovered_others=float(compared.other_recovered.double().mean()),
        auc=Ranking(scores, used).auc(),
        psnr=tuple(decibels(compared.distances).tolist()),
        psnr_others=float(decibels(compared.other_distances).median()),
    )

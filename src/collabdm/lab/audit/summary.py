"""Summarise an audit: the rows of its table, and notes in plain words."""

import math
from collections.abc import Iterator
from statistics import fmean, median

from collabdm.lab.audit.record import AuditRecord, CanaryRecord, Estimate, ReconstructionRecord

ATTACK_COLUMNS = (
    "attack on",
    "by",
    "AUC",
    "true positives at 0.1 %, in %",
    "at 1 % false ones",
    "members + others",
)


def attack_rows(record: AuditRecord) -> list[tuple[str, ...]]:
    """Return a row of text for each attack; AUC .5 and rates equal to f are guesses."""
    return [
        (
            attack.released,
            attack.attack,
            interval(attack.auc, 1.0, 3),
            interval(attack.tpr_at_01_percent, 100.0, 2),
            interval(attack.tpr_at_1_percent, 100.0, 1),
            f"{attack.members:,} + {attack.non_members:,}",
        )
        for attack in record.attacks
    ]


def interval(estimate: Estimate, factor: float, digits: int) -> str:
    """Write an estimate with its interval.

    >>> interval(Estimate(value=0.5, low=0.25, high=0.75), 100.0, 1)
    '50.0 (25.0 to 75.0)'
    """
    value, low, high = (
        f"{factor * number:.{digits}f}" for number in (estimate.value, estimate.low, estimate.high)
    )
    return f"{value} ({low} to {high})"


def notes_of(record: AuditRecord) -> Iterator[str]:
    """Describe canaries, reconstruction and nearest pairs, one sentence each."""
    for released in dict.fromkeys(pair.released for pair in record.pairs):
        pairs = [pair for pair in record.pairs if pair.released == released]
        nearest = min(pairs, key=lambda pair: pair.distance)
        yield (
            f"Nearest images, {released}: {nearest.distance:.1f} grey levels from an image used "
            f"({nearest.label}), and {nearest.other:.1f} from any not used; the medians of the "
            f"{len(pairs)} nearest are {median(pair.distance for pair in pairs):.1f} and "
            f"{median(pair.other for pair in pairs):.1f}."
        )

    yield from map(_canary_note, record.canaries)
    if record.reconstruction is not None:
        yield _reconstruction_note(record.reconstruction)


def _canary_note(canary: CanaryRecord) -> str:
    most = math.log2(canary.alike + 1)
    return (
        f"Canaries ({canary.kind}), {canary.released}: mean exposure "
        f"{fmean(canary.exposures):.2f} of {most:.0f} bits over {len(canary.exposures)} "
        f"by {canary.attack}; 1.44 without a leak."
    )


def _reconstruction_note(found: ReconstructionRecord) -> str:
    return (
        f"A class of {found.images} reconstructed from its means ({found.ratio:.3g} numbers "
        f"released for each one held): {100 * found.recovered:.0f} % recovered "
        f"({100 * found.recovered_others:.0f} % of images not used), median "
        f"{median(found.psnr):.1f} dB ({found.psnr_others:.1f} dB), AUC {found.auc:.3f}."
    )

"""Canaries: images inserted into a round, and how far they stand out among images drawn alike.

There are two kinds: images of uniform noise, and reference images with a wrong label. A canary's
exposure, in bits, compares its score with those of other images drawn alike that the round does not
use:

    exposure = log2(alike + 1) - log2(rank)

Without a leak, ranks are uniform and the mean exposure is about log2(e) = 1.44 bits; the most is
log2(alike + 1).

Reference: N. Carlini et al., "The secret sharer", USENIX Security 2019.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32
from torch import Tensor

from collabdm.images import ImageSet, as_uint8
from collabdm.lab.audit.record import CanaryRecord
from collabdm.lab.audit.settings import AuditSettings
from collabdm.seeds import Purpose, Stream, derive

NOISE, MISLABELLED = "noise", "mislabelled"
ALIKE = 255  # images drawn alike for each kind, so that the largest exposure is 8 bits


@dataclass(frozen=True)
class Canaries:
    """Canaries and the images drawn alike.

    Attributes:
        images: images of both kinds.
        noise: whether each is of noise; the others are mislabelled.
        inserted: whether the round uses each.
    """

    images: ImageSet
    noise: Bool[Tensor, " m"]
    inserted: Bool[Tensor, " m"]

    def used(self) -> ImageSet:
        """Return the inserted images."""
        return self.images.subset(torch.nonzero(self.inserted).flatten())


def draw_canaries(reference: ImageSet, settings: AuditSettings) -> Canaries:
    """Draw the canaries, all with the label of the first class, and `ALIKE` others of each kind.

    Mislabelled images are reference images of the other classes; they are reused, mirrored and then
    moved by a little noise, if the reference is small.
    """
    stream = Stream.of(derive(settings.seed, "canaries"), Purpose.DATA)
    number = settings.canaries + ALIKE
    noise = as_uint8(stream.uniforms(number, *reference.shape))

    wrong = torch.nonzero(reference.labels != 0).flatten()
    order = wrong[stream.permutation(len(wrong))][torch.arange(number) % len(wrong)]
    moved = reference.images[order]
    again = torch.arange(number) >= len(wrong)
    moved[again] = _moved(moved[again], stream)

    labels = torch.zeros(2 * number, dtype=torch.int64)
    images = ImageSet(torch.cat([noise, as_uint8(moved)]), labels, reference.classes)
    inserted = torch.arange(number) < settings.canaries
    return Canaries(images, torch.arange(2 * number) < number, inserted.repeat(2))


def _moved(images: Tensor, stream: Stream) -> Tensor:
    """Mirror images, and add a little noise."""
    noise = 16 * stream.uniforms(*images.shape) - 8
    return (images.flip(3).float() + noise).clamp(0, 255).to(images.dtype)


def exposures(
    released: str, attack: str, scores: Float32[Tensor, " m"], canaries: Canaries
) -> list[CanaryRecord]:
    """Compute the exposures of the canaries of each kind.

    Args:
        released: what is attacked, such as "contribution".
        attack: the name of the attack.
        scores: the score of every image.
        canaries: the images.

    Returns:
        A record for each kind.
    """
    records = []
    for kind, chosen in ((NOISE, canaries.noise), (MISLABELLED, ~canaries.noise)):
        alike = scores[chosen & ~canaries.inserted]
        inserted = scores[chosen & canaries.inserted]
        ranks = [1 + float((alike > s).sum()) + float((alike == s).sum()) / 2 for s in inserted]
        bits = tuple(math.log2((len(alike) + 1) / rank) for rank in ranks)
        records.append(
            CanaryRecord(
                released=released, attack=attack, kind=kind, alike=len(alike), exposures=bits
            )
        )
    return records

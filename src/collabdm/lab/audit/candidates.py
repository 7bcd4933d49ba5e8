"""Divide data into candidates and reference images, and draw the members of each round.

Every round uses half of the candidates of each class. Rounds 2j and 2j + 1 use complementary
halves, so that over all rounds each candidate is used about as often as not.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from collabdm.errors import DataError
from collabdm.images import ImageSet
from collabdm.lab.audit.settings import AuditSettings
from collabdm.seeds import Purpose, Stream, derive


@dataclass(frozen=True)
class Candidates:
    """The images of an audit.

    Attributes:
        images: the candidates, 2N of each class, in the order of the classes.
        reference: the attacker's own images, N of each class.
        used: whether each of the R + 1 rounds uses each candidate.
    """

    images: ImageSet
    reference: ImageSet
    used: Bool[Tensor, "rounds m"]

    def members(self, number: int) -> ImageSet:
        """Return the images that a round uses."""
        return self.images.subset(torch.nonzero(self.used[number]).flatten())


def draw_candidates(data: ImageSet, settings: AuditSettings) -> Candidates:
    """Draw the candidates, the reference and the members of every round.

    Raises DataError if a class has too few images.
    """
    need = 3 * settings.members
    counts = dict(zip(data.classes, data.counts().tolist(), strict=True))
    short = [f"{name} ({count})" for name, count in counts.items() if count < need]
    if short:
        raise DataError(
            f"every class should have {need} images, three times `members`; "
            f"found fewer of {', '.join(short)}: lower `--members`"
        )

    stream = Stream.of(derive(settings.seed, "audit"), Purpose.DATA)
    orders = [data.of_class(y)[stream.permutation(n)] for y, n in enumerate(counts.values())]
    pool = torch.cat([order[: 2 * settings.members] for order in orders])
    own = torch.cat([order[2 * settings.members : need] for order in orders])
    used = _draw_rounds(len(counts), settings, stream)
    return Candidates(data.subset(pool), data.subset(own), used)


def _draw_rounds(classes: int, settings: AuditSettings, stream: Stream) -> Bool[Tensor, "rounds m"]:
    """Draw half of the candidates of each class for every even round; odd rounds use the rest."""
    rounds: list[Tensor] = []
    for number in range(settings.shadows + 1):
        if number % 2:
            rounds.append(~rounds[-1])
            continue

        halves = []
        for _ in range(classes):
            half = torch.zeros(2 * settings.members, dtype=torch.bool)
            half[stream.permutation(len(half))[: settings.members]] = True
            halves.append(half)
        rounds.append(torch.cat(halves))

    return torch.stack(rounds)

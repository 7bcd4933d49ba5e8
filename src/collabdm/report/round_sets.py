"""Read the images of all methods of a round, and the sets along the refinement.

distilled.safetensors            the set of the round
METHOD/distilled.safetensors     the set of a compared method, or METHOD/steps.safetensors
curve/*.safetensors              the images after steps of the refinement (`simulate --curve`)
"""

from dataclasses import dataclass
from pathlib import Path

from collabdm.documents.outcomes import DistilledSet, DistilledSteps
from collabdm.documents.plan import Plan
from collabdm.errors import DocumentError
from collabdm.images import ImageSet
from collabdm.lab.curves import Curve
from collabdm.lab.results import Results, SimulationResults
from collabdm.scoring.outcomes import OUTCOME_KINDS


@dataclass(frozen=True)
class ShownSet:
    """The images of one method, with the plan that they belong to."""

    name: str
    images: ImageSet
    plan: Plan

    @property
    def rows(self) -> bool:
        """Whether the set contains rows of a table, which are no pictures."""
        return self.plan.has_rows


def read_sets(
    folder: Path, distilled: DistilledSet | None, results: Results | None
) -> tuple[ShownSet, ...]:
    """Read the images of the round's own method and of the compared methods.

    Args:
        folder: The folder of the round.
        distilled: The set of the round, if it has one.
        results: Its results, which name the compared methods.

    Returns:
        The sets that exist, that of the round first.
    """
    sets = []
    if distilled is not None:
        sets.append(ShownSet(distilled.method, distilled.images, distilled.plan))
    else:
        sets += _read(folder)

    for name in results.sets if isinstance(results, SimulationResults) else ():
        sets += _read(folder / name)
    return tuple(sets)


def _read(folder: Path) -> list[ShownSet]:
    for kind in (OUTCOME_KINDS[DistilledSet], OUTCOME_KINDS[DistilledSteps]):
        try:
            outcome = kind.read(folder / kind.file)
        except DocumentError:  # there is none of this kind
            continue
        images = kind.images(outcome)
        return [] if images is None else [ShownSet(outcome.method, images, outcome.plan)]
    return []


def read_snapshots(
    folder: Path, distilled: DistilledSet | None, results: Results | None
) -> dict[int, DistilledSet]:
    """Read the sets along the refinement by step; empty unless `--curve` was used.

    Args:
        folder: The folder of the round.
        distilled: The finished set.
        results: The results of the simulation.

    Returns:
        The sets whose images are stored.
    """
    if distilled is None or not isinstance(results, SimulationResults):
        return {}
    return Curve(distilled.plan, folder / "curve", results.experiment.curve).sets(distilled)

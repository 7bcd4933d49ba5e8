"""Accuracy along the refinement: the server's images are kept at chosen steps and scored afterwards.

    S_i after i of  passes * T  steps,   i = 1 and then evenly up to the last

The images of a chosen step lie in the folder curve/ of a simulation; one that is stopped and goes on finds
those it made.
"""

from dataclasses import dataclass
from pathlib import Path

from collabdm.checkpoint import Checkpoint
from collabdm.documents.outcomes import DistilledSet
from collabdm.documents.plan import Plan
from collabdm.images import ImageSet
from collabdm.methods.base import stored_pixels
from collabdm.rounds.resumable import read_checkpoint, write_checkpoint


def chosen_steps(iterations: int, points: int) -> list[int]:
    """The first step, and `points` evenly up to the last; none where nothing is refined.

    >>> chosen_steps(40, 4)
    [1, 10, 20, 30, 40]
    """
    if not iterations or not points:
        return []
    return sorted({1, *(max(1, round(iterations * i / points)) for i in range(1, points + 1))})


@dataclass(frozen=True)
class Curve:
    """The chosen steps of one plan's refinement, and the folder where their images lie."""

    plan: Plan
    folder: Path
    points: int

    @property
    def steps(self) -> list[int]:
        """The chosen steps."""
        return chosen_steps(self.plan.refinement.passes * self.plan.steps, self.points)

    def keep(self, checkpoint: Checkpoint) -> None:
        """Store the images of a checkpoint whose step is chosen."""
        if checkpoint.done in self.steps:
            images = {"images": checkpoint.tensors["images"]}
            path = self._place(checkpoint.done)
            write_checkpoint(Checkpoint(checkpoint.done, images), self.plan.digest, path)

    def sets(self, made: DistilledSet) -> dict[int, DistilledSet]:
        """The set as it was after each chosen step whose images are there; `made` is the final one."""
        found = {step: read_checkpoint(self._place(step), self.plan.digest) for step in self.steps}
        return {step: self._set(made, stored) for step, stored in found.items() if stored is not None}

    def _place(self, step: int) -> Path:
        return self.folder / f"{step:06d}.safetensors"

    def _set(self, made: DistilledSet, checkpoint: Checkpoint) -> DistilledSet:
        pixels = self.plan.image.normalisation.invert(checkpoint.tensors["images"])
        images = stored_pixels(self.plan, pixels)
        labels, classes = made.images.labels, made.images.classes
        return DistilledSet(ImageSet(images, labels, classes), self.plan, made.sites, made.method, made.versions)

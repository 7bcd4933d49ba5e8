"""Store the server's images after chosen steps of the refinement, to score them afterwards.

    S_i after i of  passes * T  steps,   i = 1, and then evenly up to the last

S_i are the server's images after step i, and T is the number of steps of the plan. The images of a
chosen step are stored in the folder curve/ of a simulation; an interrupted simulation keeps the
images that it has stored when it resumes.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from collabdm.checkpoint import Checkpoint
from collabdm.documents.outcomes import DistilledSet
from collabdm.documents.plan import Plan
from collabdm.images import ImageSet
from collabdm.methods.base import stored_pixels
from collabdm.rounds.resumable import read_state, write_state


def chosen_steps(iterations: int, points: int) -> list[int]:
    """Choose step 1 and `points` evenly spaced steps up to the last; empty if either number is 0.

    >>> chosen_steps(40, 4)
    [1, 10, 20, 30, 40]
    """
    if not iterations or not points:
        return []
    return sorted({1, *(max(1, round(iterations * i / points)) for i in range(1, points + 1))})


@dataclass(frozen=True)
class Curve:
    """The chosen steps of a plan's refinement, and the folder of their images."""

    plan: Plan
    folder: Path
    points: int

    @property
    def steps(self) -> list[int]:
        """The chosen steps."""
        return chosen_steps(self.plan.refinement.passes * self.plan.steps, self.points)

    def keep(self, checkpoint: Checkpoint) -> None:
        """Store the images of a checkpoint if its step is chosen; serves as `RunContext.keep`."""
        if checkpoint.done in self.steps:
            images = {"images": checkpoint.tensors["images"]}
            path = self._path(checkpoint.done)
            write_state({"": Checkpoint(checkpoint.done, images)}, self.plan.digest, path)

    def sets(self, final: DistilledSet) -> dict[int, DistilledSet]:
        """Return, by step, the sets after the chosen steps whose images are stored.

        `final` is the finished set; the sets differ from it only in their images.
        """
        stored = {step: read_state(self._path(step), self.plan.digest) for step in self.steps}
        return {
            step: self._set(final, state.parts[""])
            for step, state in stored.items()
            if state is not None
        }

    def _path(self, step: int) -> Path:
        return self.folder / f"{step:06d}.safetensors"

    def _set(self, final: DistilledSet, checkpoint: Checkpoint) -> DistilledSet:
        """Build the set after a step: the final set, with the images of that step."""
        pixels = self.plan.image.normalisation.invert(checkpoint.tensors["images"])
        images = stored_pixels(self.plan, pixels)
        labelled = ImageSet(images, final.images.labels, final.images.classes)
        return replace(final, images=labelled, plan=self.plan)

"""Progress events: the stage of the work, the steps that are done, and the site or set concerned.

Long computations report events to a callback. Programs should read the fields of an event; its
label is only for people.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    """The stages of a round and its evaluation. Methods in other packages may name their own."""

    READING = "reading flows"
    LOCAL_DISTILLATION = "local distillation"
    LOCAL_TRAINING = "local training"
    SELECTION = "choosing images"
    INDUCING_POINTS = "kernel inducing points"
    LEARNED_STEPS = "learning steps"
    STATISTICS = "statistics"
    REFINEMENT = "refinement"
    ENSEMBLE_DISTILLATION = "distillation of the ensemble"
    ROUNDS = "rounds"
    TRAINING = "training"


@dataclass(frozen=True)
class Progress:
    """A progress event: `done` of `total` steps of a stage are complete.

    `site` is the name of the site that does the work, and `subject` the name of the set that a
    network is trained on; each is None if it does not apply.
    """

    stage: str
    done: int
    total: int
    site: str | None = None
    subject: str | None = None

    @property
    def label(self) -> str:
        """A description of the event for people, without its numbers.

        >>> Progress(Stage.STATISTICS, 3, 10, site="north").label
        'north: statistics'
        >>> Progress(Stage.TRAINING, 3, 10, subject="random real").label
        'training on random real'
        """
        text = str(self.stage) if self.subject is None else f"{self.stage} on {self.subject}"
        return text if self.site is None else f"{self.site}: {text}"


Report = Callable[[Progress], None]


def silent(event: Progress) -> None:
    """Ignore an event."""

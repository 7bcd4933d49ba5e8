"""Progress events: the stage of the work, how far it has come, and the site or the set concerned.

Long work reports events to a function that it is given. Whoever receives them reads the fields; the
wording of the text is for people alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    """The stages of a round and of its evaluation. A method of another package may name its own."""

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
    """`done` of `total` steps of a stage, at `site` where a site does the work, on `subject` if
    named.
    """

    stage: str
    done: int
    total: int
    site: str | None = None
    subject: str | None = None

    @property
    def label(self) -> str:
        """The event without its numbers, for people.

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

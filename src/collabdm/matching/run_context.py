"""The surroundings of long work: its device, progress, checkpoints and intermediate predictors."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from collabdm.checkpoint import Checkpoint
from collabdm.matching.compute import Compute
from collabdm.progress import Progress, Report, silent

Predictor = Callable[[Tensor], Tensor]  # images in network units -> logits
Watch = Callable[[str, int, Predictor], None]  # the predictor's name, its epoch or 0, itself


def discard(checkpoint: Checkpoint) -> None:
    """Store nothing."""


def unwatched(name: str, epoch: int, predictor: Predictor) -> None:
    """Evaluate nothing."""


@dataclass(frozen=True)
class RunContext:
    """The surroundings of a computation, which do not change its result.

    `resume` is the checkpoint to continue from; `keep` receives a checkpoint after every iteration,
    and must copy the tensors that it stores, since the next iteration changes them. `watch`
    receives predictors that a method passes through on its way (an ensemble, a network after each
    epoch), to evaluate them.
    """

    compute: Compute = Compute()
    report: Report = silent
    resume: Checkpoint | None = None
    keep: Callable[[Checkpoint], None] = discard
    watch: Watch = unwatched

    def at_site(self, site: str) -> "RunContext":
        """The same context, whose progress events carry the name of a site."""

        def report(event: Progress) -> None:
            self.report(replace(event, site=site))

        return replace(self, report=report)

    def alone(self) -> "RunContext":
        """The same device and progress, without checkpoints: for a part of a larger computation."""
        return RunContext(self.compute, self.report)

"""The context of a long computation: device, progress, checkpoints, intermediate predictors."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from torch import Tensor

from collabdm.checkpoint import Checkpoint
from collabdm.matching.compute import Compute
from collabdm.progress import Progress, Report, silent

Predictor = Callable[[Tensor], Tensor]  # images in network units -> logits
Watch = Callable[[str, int, Predictor], None]  # (name, epoch or 0, predictor)


def discard(checkpoint: Checkpoint) -> None:
    """Discard a checkpoint."""


def unwatched(name: str, epoch: int, predictor: Predictor) -> None:
    """Ignore an intermediate predictor."""


@dataclass(frozen=True)
class RunContext:
    """How a computation runs: settings that, apart from `site_seed`, do not change its result.

    `site_seed` is the seed of a site's own draws: its batches, local networks and local start. None
    derives it from the plan and the site's name, so that anyone can repeat the draws.

    `resume` is the checkpoint to continue from, and `parts` contains those of the other loops of
    the work by name, which `part` makes available. `keep` receives a checkpoint after every
    iteration, and must copy the tensors that it stores, since the next iteration changes them.
    `watch` receives the intermediate predictors of a method (an ensemble, a network after some
    epochs), to evaluate them. `random_bytes` is the source of the noise of differential privacy,
    which nobody may predict; only experiments replace it.
    """

    compute: Compute = Compute()
    report: Report = silent
    resume: Checkpoint | None = None
    parts: Mapping[str, Checkpoint] = field(default_factory=dict)
    keep: Callable[[Checkpoint], None] = discard
    watch: Watch = unwatched
    site_seed: int | None = None
    random_bytes: Callable[[int], bytes] = os.urandom

    def at_site(self, site: str) -> "RunContext":
        """Return the same context, with the name of a site in its progress events."""

        def report(event: Progress) -> None:
            self.report(replace(event, site=site))

        return replace(self, report=report)

    def part(self, name: str) -> "RunContext":
        """Return the context of one loop out of several, with checkpoints of its own."""

        def keep(checkpoint: Checkpoint) -> None:
            inner = f"/{checkpoint.part}" if checkpoint.part else ""
            self.keep(replace(checkpoint, part=name + inner))

        inside = f"{name}/"
        parts = {
            key.removeprefix(inside): checkpoint
            for key, checkpoint in self.parts.items()
            if key.startswith(inside)
        }
        return replace(self, resume=self.parts.get(name), parts=parts, keep=keep)

    def alone(self) -> "RunContext":
        """Return a context without checkpoints, for a part of a larger computation."""
        return RunContext(
            self.compute, self.report, site_seed=self.site_seed, random_bytes=self.random_bytes
        )

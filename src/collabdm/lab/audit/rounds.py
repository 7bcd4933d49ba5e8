"""Run the rounds of an audit, and store their scores, so that an interrupted audit resumes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
from torch import Tensor

from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.contribution import Contribution
from collabdm.documents.outcomes import DistilledSet
from collabdm.documents.plan import Plan
from collabdm.images import ImageSet
from collabdm.lab.audit.settings import AuditSettings
from collabdm.lab.simulate import MethodRound
from collabdm.matching.run_context import RunContext
from collabdm.methods.registry import one_round_method
from collabdm.progress import Progress

Scores = dict[str, Tensor]


@dataclass(frozen=True)
class AuditRound:
    """What a round releases: the contribution of its only site, and the distilled set."""

    contribution: Contribution
    distilled: DistilledSet


@dataclass(frozen=True)
class Rounds:
    """The rounds of an audit.

    Attributes:
        plan: the plan of all rounds.
        settings: the size of the audit.
        folder: the folder of the audit.
        context: device and progress.
    """

    plan: Plan
    settings: AuditSettings
    folder: Path
    context: RunContext

    def run(self, name: str, members: ImageSet) -> AuditRound:
        """Run a round in the folder of this name, or read its files."""
        round_ = self._round(name, members)
        outcome = round_.outcome(self._context(name))
        if not isinstance(outcome, DistilledSet):  # `check_plan` has refused such plans
            raise TypeError(f"expected a distilled set, not {type(outcome).__name__}")
        return AuditRound(self.contribution(name, members), outcome)

    def contribution(self, name: str, members: ImageSet) -> Contribution:
        """Compute the contribution of a round only, or read its file."""
        return self._round(name, members).contribution(self._site, self._context(name))

    def stored(self, name: str, compute: Callable[[], Scores]) -> Scores:
        """Return the scores in the file of this name, after computing them if it is absent."""
        path = self.folder / f"{name}.safetensors"
        if path.exists():
            return safetensors.torch.load(path.read_bytes())
        scores = compute()
        atomic_write(path, safetensors.torch.save(scores))
        return scores

    def progress(self, stage: str, name: str, total: int) -> Callable[[int], None]:
        """Return a callback that reports the finished steps of a stage."""
        return lambda done: self.context.report(Progress(stage, done, total, site=name))

    @property
    def _site(self) -> str:
        return self.plan.site_names[0] if self.plan.site_names else "site-1"

    def _round(self, name: str, members: ImageSet) -> MethodRound:
        method = one_round_method(self.plan)
        return MethodRound(self.plan, method, {self._site: members}, self.folder / name)

    def _context(self, name: str) -> RunContext:
        return self.context.alone().at_site(name)

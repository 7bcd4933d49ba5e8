"""Run an audit: the rounds, all attacks, and their results in one folder.

    settings.json                  the settings, and digests of plan and data
    rounds/NUMBER/                 the files of each round, and its scores
    canaries/, small/              the rounds of the canaries and of the small class
    audit.json, audit.png          the results

In every round a single site has all the data, which is the worst case for its images. The limits
that a site sets for itself do not apply. An interrupted audit resumes: rounds and scores that the
folder contains are used as they are.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.outcomes import DistilledSet
from collabdm.documents.plan import Plan
from collabdm.errors import DocumentError, PlanError
from collabdm.images import ImageSet
from collabdm.lab.audit.attacks import attack_canaries, attack_membership
from collabdm.lab.audit.candidates import draw_candidates
from collabdm.lab.audit.picture import write_strips
from collabdm.lab.audit.record import PICTURE_NAME, AuditRecord, write_record
from collabdm.lab.audit.rounds import Rounds
from collabdm.lab.audit.settings import AuditSettings
from collabdm.lab.audit.shown import nearest_shown, reconstruct_small
from collabdm.lab.results import ComputeRecord, read_json
from collabdm.matching.run_context import RunContext
from collabdm.methods.base import check_data
from collabdm.methods.registry import one_round_method
from collabdm.rounds.exchange import data_digest
from collabdm.version import versions


@dataclass(frozen=True)
class Subject:
    """What is audited.

    Attributes:
        plan: the plan of the rounds.
        data: the auditor's images.
        name: the name of the data.
        command: the command that repeats the audit.
    """

    plan: Plan
    data: ImageSet
    name: str
    command: str = ""


def audit(
    subject: Subject,
    settings: AuditSettings,
    folder: Path,
    context: RunContext = RunContext(),
) -> AuditRecord:
    """Audit a plan, or resume its audit.

    Args:
        subject: the plan and the data.
        settings: the size of the audit.
        folder: where the results are written.
        context: device and progress.

    Returns:
        The contents of audit.json.

    Raises:
        CollabDMError: the plan, the data or the folder do not suit an audit.
    """
    check_plan(subject.plan)
    check_data(subject.plan, subject.data)
    candidates = draw_candidates(subject.data, settings)
    _claim(subject, settings, folder)

    rounds = Rounds(subject.plan, settings, folder, context)
    attacks = attack_membership(rounds, candidates)
    canaries = attack_canaries(rounds, candidates) if settings.canaries else []

    pairs, strips = nearest_shown(rounds, rounds.run("rounds/0", candidates.members(0)), candidates)
    small = None
    if settings.small_class and subject.plan.steps:
        small, strip = reconstruct_small(rounds, candidates)
        strips = [*strips, strip]

    record = AuditRecord(
        plan=subject.plan.digest,
        method=subject.plan.method,
        data=subject.name,
        data_digest=data_digest(subject.data),
        settings=settings,
        command=subject.command,
        attacks=tuple(attacks),
        canaries=tuple(canaries),
        reconstruction=small,
        pairs=tuple(pairs),
        compute=ComputeRecord.of(context.compute),
        versions=versions(),
    )
    write_strips(strips, folder / PICTURE_NAME)
    write_record(record, folder)
    return record


def check_plan(plan: Plan) -> None:
    """Check that rounds of the plan can be audited. Raises PlanError."""
    if one_round_method(plan).outcome is not DistilledSet:
        raise PlanError(
            f"`method` should be one that returns a distilled set; found {plan.method}: "
            "audit another plan"
        )
    if plan.masking is not None:
        raise PlanError(
            "`masking` should be absent, because a masked contribution reveals only its sum with "
            "the others: audit the plan without it, on the data of all sites"
        )


def _claim(subject: Subject, settings: AuditSettings, folder: Path) -> None:
    """Write settings.json. Raises DocumentError if the folder belongs to another audit."""
    path = folder / "settings.json"
    identity = {
        "plan": subject.plan.digest,
        "data": data_digest(subject.data),
        "settings": settings.model_dump(mode="json"),
    }
    if path.exists() and read_json(path) != identity:
        raise DocumentError(
            f"{folder} should be empty or contain this audit; found another: choose another "
            "folder, or empty this one"
        )
    atomic_write(path, (json.dumps(identity, indent=2) + "\n").encode())

"""Audit a plan, and print its table of attacks."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from collabdm.cli.console import Bars, console, table
from collabdm.cli.running import load_for_plan
from collabdm.data.selection import Selection
from collabdm.documents.frozen_model import validation_message
from collabdm.documents.plan_file import read_plan
from collabdm.errors import PlanError
from collabdm.lab.audit.audit import Subject, audit, check_plan
from collabdm.lab.audit.record import PICTURE_NAME, RECORD_NAME
from collabdm.lab.audit.settings import AuditSettings
from collabdm.lab.audit.summary import ATTACK_COLUMNS, attack_rows, notes_of
from collabdm.matching.compute import Compute
from collabdm.matching.run_context import RunContext
from collabdm.rounds.exchange import DataSource


def run_audit(
    plan_path: Path,
    source: DataSource,
    options: Mapping[str, Any],
    output: Path,
    compute: Compute,
) -> None:
    """Audit a plan, and print the results and the names of the files.

    Args:
        plan_path: the file of the plan.
        source: the auditor's data.
        options: the values of `AuditSettings`, and `quiet`.
        output: the folder of the audit; if it contains an interrupted audit, that one resumes.
        compute: where to compute.

    Raises:
        CollabDMError: the plan, the settings, the data or the folder do not suit an audit.
    """
    settings = audit_settings(options)
    plan = read_plan(plan_path)
    check_plan(plan)
    data = load_for_plan(plan, source)

    subject = Subject(plan, data, source.location, _command(plan_path, source, settings, output))
    with Bars(options["quiet"]) as bars:
        record = audit(subject, settings, output, RunContext(compute, bars))

    title = f"Attacks on {plan.method}, {source.location}: share and 95 % interval"
    console.print(table(title, ATTACK_COLUMNS, attack_rows(record)))
    for note in notes_of(record):
        console.print(note, markup=False, highlight=False)
    console.print(f"in {output}: {RECORD_NAME}, {PICTURE_NAME}")


def audit_settings(options: Mapping[str, Any]) -> AuditSettings:
    """Read the settings from options. Raises PlanError."""
    try:
        return AuditSettings(**{name: options[name] for name in AuditSettings.model_fields})
    except ValidationError as error:
        raise PlanError(validation_message(error)) from error


def _selection_words(selection: Selection) -> list[str]:
    """Write the options about the reading of pictures."""
    words = ["--label-column", selection.label_column] if selection.label_column else []
    words += ["--image-column", selection.image_column] if selection.image_column else []
    if selection.class_names:
        quoted = (f'"{name}"' if "," in name else name for name in selection.class_names)
        words += ["--class-names", ",".join(quoted)]
    return words + (["--skip-unreadable"] if selection.skip_unreadable else [])


def _command(plan: Path, source: DataSource, settings: AuditSettings, output: Path) -> str:
    """Write the command that repeats the audit."""
    words = ["collabdm", "audit", plan.name, "--data", source.location]
    words += ["--resize"] if source.resize else []
    words += ["--rows", source.rows] if source.rows else []
    words += _selection_words(source.selection)
    defaults = AuditSettings()
    for name, value in settings:
        if value != getattr(defaults, name):
            words += [f"--{name.replace('_', '-')}", str(value)]
    return shlex.join([*words, "-o", output.name])

"""Build plans from options, and summarise schemas of flows, for the organiser's commands."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from collabdm.cli.console import console, notes, table
from collabdm.cli.running import check_output
from collabdm.data.flows.chunks import some
from collabdm.data.flows.draft import Draft
from collabdm.data.selection import read_selection
from collabdm.documents.flow_schema import FlowSchema
from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import write_plan
from collabdm.errors import PlanError
from collabdm.planning.budget import Budget, choose, read_bytes
from collabdm.planning.masking import masking_summary, with_masking_defaults
from collabdm.planning.option_values import option_settings
from collabdm.planning.overrides import plan_fields, read_overrides
from collabdm.planning.presets import preset_settings
from collabdm.planning.private import PRIVATE_DEFAULTS, has_budget
from collabdm.planning.settings import (
    ReferenceReading,
    collect,
    in_form,
    merge_settings,
    new_plan,
    override,
    read_plan_config,
)
from collabdm.rounds.inspect import summary

MOST_CLASSES = 50  # in a line

TELLING = 0.98  # the score from which a column that is used deserves a look


def plan_of(options: Mapping[str, Any]) -> Plan:
    """Build the plan that the options of `plan` describe.

    Raises PlanError or DataError; the message says what to change.
    """
    options_set, overrides = collect(
        lambda: option_settings(options),
        lambda: read_overrides(options["assignments"] or (), plan_fields()),
    )
    if options["masked_for"] and options["sites"] is not None:
        raise PlanError(
            "either `--sites` or `--masked-for` should be given; found both: the keys name the "
            "sites"
        )

    written_preset, written = read_plan_config(options["config"])
    chosen = override(merge_settings(written, options_set), overrides)
    if options["form"] is not None:
        chosen = in_form(chosen, options["form"])
    defaults = preset_settings(options["preset"] or written_preset)

    if has_budget(chosen):
        defaults = merge_settings(defaults, PRIVATE_DEFAULTS)
    settings = merge_settings(defaults, with_masking_defaults(chosen))
    reading = ReferenceReading(
        read_selection(
            options["label_column"],
            options["image_column"],
            options["class_names"],
            skip_unreadable=options["skip_unreadable"],
        ),
        notes.print,
    )
    plan = new_plan(options["data"], options["classes"], options["image_size"], settings, reading)

    limit = options["budget"]
    budget = Budget(None if limit is None else read_bytes(limit), options["smallest_site_class"])
    return plan if budget == Budget() else choose(plan, budget, keep=set(chosen))


def make_plan_file(options: Mapping[str, Any], output: Path) -> None:
    """Build the plan that the options of `plan` describe, write it and print its summary.

    Raises CollabDMError if the options do not fit, or the file cannot be written.
    """
    plan = plan_of(options)
    check_output(output)
    write_plan(plan, output)
    console.print(f"{output}: {summary(plan)}")
    console.print(classes_line(plan), soft_wrap=True)
    if plan.masking is not None:
        console.print(masking_summary(plan), soft_wrap=True)


def classes_line(plan: Plan) -> str:
    """List the classes of a plan, and the rules for its pictures if they are set."""
    others = len(plan.classes) - MOST_CLASSES
    shown = ", ".join(plan.classes[:MOST_CLASSES]) + (f" and {others} more" if others > 0 else "")
    line = f"{len(plan.classes)} classes: {shown}"
    if plan.pictures is None:
        return line
    rules = plan.pictures
    return f"{line}\npictures: ground {rules.ground}, range {rules.range or '8 bits'}, {rules.fit}"


def _use(score: float) -> str:
    """Describe a column that is used; a high score is a reason to look at it."""
    return "yes; predicts the label alone: check why" if score >= TELLING else "yes"


def print_draft(drafted: Draft) -> None:
    """Print the columns of a sample, and its issues when it is read with the drafted schema."""
    if not drafted.columns:
        return

    rows = [
        (
            column.name,
            column.kind,
            f"{100 * column.missing:.1f}",
            "-" if math.isnan(column.score) else f"{100 * column.score:.1f}",
            column.reason or _use(column.score),
        )
        for column in drafted.columns
    ]
    title = f"Columns; alone: balanced accuracy of one column (chance {100 * drafted.chance:.1f} %)"
    heads = ("column", "type", "missing %", "alone %", "used")
    console.print(table(title, heads, rows))

    console.print(f"read back with the schema: {drafted.tally.rows:,} rows")
    for line in drafted.tally.lines():
        console.print(line, soft_wrap=True)


def schema_summary(schema: FlowSchema, drafted: Draft) -> str:
    """Summarise a schema of flows in five lines: its size, classes and omitted columns."""
    action = "kept" if schema.keep_leaking else "left out"
    leaking = [name or "(no name)" for name in schema.leaking]
    left_out = [name or "(no name)" for name in drafted.left_out]
    size = f"{schema.flows} rows per image of side {schema.side}"
    if schema.as_rows:
        size = f"{schema.width} encoded values per row"
    return (
        f"{len(schema.features)} features, {size}\n"
        f"label: {schema.label}\n"
        f"classes: {', '.join(schema.classes)}\n"
        f"columns that reveal the label, {action}: {some(leaking) or 'none'}\n"
        f"columns left out, for other reasons: {some(left_out) or 'none'}"
    )

"""Build an Experiment from TOML files, presets and the options of `simulate`.

If several sources set a field, the last one takes precedence:

    preset  <  configuration file  <  options  <  `--set`
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from collabdm.data.selection import class_names
from collabdm.documents.flow_schema import FlowSchema
from collabdm.documents.frozen_model import validation_message
from collabdm.documents.plan import Plan
from collabdm.errors import PlanError
from collabdm.lab.experiment import DERIVED_PLAN_FIELDS, Experiment
from collabdm.methods.registry import find_method
from collabdm.planning.make import for_rows
from collabdm.planning.option_values import without_none
from collabdm.planning.overrides import Fields, field_types
from collabdm.planning.presets import preset_settings
from collabdm.planning.private import PRIVATE_DEFAULTS, has_budget
from collabdm.planning.settings import (
    ROW_NETWORK,
    Settings,
    flows_of,
    list_of,
    merge_settings,
    network_list,
    override,
    plan_settings,
    read_toml,
)


def experiment_fields() -> Fields:
    """Return the fields of an Experiment that a user can set; its plan's are `plan.FIELD`."""
    types = field_types(Experiment) | field_types(Plan, "plan.")
    types["beta"] = Annotated[float, Field(ge=0)] | None  # 0 means no skew, as in a file
    del types["plan"]

    reason = "the simulation derives it from its own settings and the data"
    fixed = {f"plan.{name}": reason for name in sorted(DERIVED_PLAN_FIELDS)}
    return Fields(types, unchecked=("plan.options",), fixed=fixed)


def simulation(
    config: Path | None,
    preset: str | None,
    options: Settings,
    plan: Settings,
    overrides: Settings | None = None,
) -> Experiment:
    """Build an Experiment from a configuration file, a preset and options.

    Args:
        config: a TOML file with fields of an Experiment.
        preset: name of a preset; None uses the one in `config`, or else `best`.
        options: fields of an Experiment, which replace those in `config`.
        plan: fields of a Plan, which replace those in `config`.
        overrides: fields of an Experiment, which replace all others.

    Returns:
        The experiment, with the settings of its plan.

    Raises:
        PlanError: A setting is missing or invalid; the message names it.
    """
    settings = read_toml(config)
    written_preset, written_plan = settings.pop("preset", "best"), settings.pop("plan", {})
    if not isinstance(written_plan, dict):
        raise PlanError(f"`plan` should be a table of settings, [plan]; found {written_plan!r}")

    defaults = dict(preset_settings(str(preset or written_preset)))
    method = without_none(method=defaults.pop("method", None))
    rest = dict(overrides or {})
    chosen = override(merge_settings(written_plan, plan), rest.pop("plan", {}))
    if has_budget(chosen):
        defaults = merge_settings(defaults, PRIVATE_DEFAULTS)
        settings = {"compare": ("random",)} | settings  # LocalDM would send images without noise
    plan = merge_settings(plan_settings(defaults), chosen)
    settings = override(settings | options, rest) | {"plan": plan}

    if "data" not in settings:
        raise PlanError("`--data` should name the data, here or in the configuration; found none")
    if "method" in settings:
        find_method(str(settings["method"]))
    if "flows" in settings:  # no pae: a quarter of an image of traffic shows too little
        method = method or {"method": "collabdm"}
    return experiment_of(method | settings)


def experiment_of(settings: Settings) -> Experiment:
    """Build an Experiment from settings. Raises PlanError if a setting is missing or invalid."""
    settings = settings | {"plan": plan_settings(settings.get("plan", {}))}
    if "flows" in settings:
        settings["flows"] = flows_of(settings["flows"])
        if isinstance(settings["flows"], FlowSchema) and settings["flows"].as_rows:
            plan = for_rows(settings["plan"], settings["flows"])
            settings = {"networks": (ROW_NETWORK,)} | settings | {"plan": plan}
    if settings.get("beta") == 0:  # TOML has no null
        settings["beta"] = None
    lists = {"networks": network_list, "compare": list_of, "class_names": class_names}
    for key, split in lists.items():
        if isinstance(settings.get(key), str):
            settings[key] = split(settings[key])

    try:
        return Experiment(**settings)
    except ValidationError as error:
        raise PlanError(validation_message(error)) from error

"""Settings as a person says them (options, TOML files, presets) turned into settings of a Plan or an Experiment.

Presets fill what is not said: `paper`, the settings of the paper (departures in docs/fidelity.md), `best`, the best
that was measured (docs/log.md holds what was tried), and one for each system that the paper compares with, `fedd3`,
`dosfl` and `dense`: the method and the settings that its own authors published (docs/methods.md).
"""

from pathlib import Path

from pydantic import ValidationError

from collabdm.documents.frozen_model import validation_message
from collabdm.errors import PlanError
from collabdm.lab.experiment import Experiment
from collabdm.planning.presets import preset_settings
from collabdm.planning.settings import (
    Settings,
    flows_of,
    given,
    list_of,
    merge_settings,
    network_list,
    plan_settings,
    read_toml,
)


def simulation(config: Path | None, preset: str | None, options: Settings, plan: Settings) -> Experiment:
    """An Experiment from a TOML file and from options, which win; `plan` holds the options of the plan."""
    said = read_toml(config)
    written_preset, written = said.pop("preset", "best"), said.pop("plan", {})
    if not isinstance(written, dict):
        raise PlanError(f"`plan` should be a table of settings, [plan]; found {written!r}")
    said |= options
    if "data" not in said:
        raise PlanError("`--data` should name the data, here or in the configuration; found nothing")
    filled = dict(preset_settings(str(preset or written_preset)))
    method = given(method=filled.pop("method", None))
    if "flows" in said:
        method = method or {"method": "collabdm"}  # a quarter of an image of traffic shows too little
    return experiment_of(method | said | {"plan": merge_settings(merge_settings(filled, written), plan)})


def experiment_of(settings: Settings) -> Experiment:
    """An Experiment from settings. Raises PlanError, naming what should change."""
    settings = settings | {"plan": plan_settings(settings.get("plan", {}))}
    if "flows" in settings:
        settings["flows"] = flows_of(settings["flows"])
    if settings.get("beta") == 0:  # TOML has no word for nothing
        settings["beta"] = None
    for key, split in (("networks", network_list), ("compare", list_of)):
        if isinstance(settings.get(key), str):
            settings[key] = split(settings[key])
    try:
        return Experiment(**settings)
    except ValidationError as error:
        raise PlanError(validation_message(error)) from error

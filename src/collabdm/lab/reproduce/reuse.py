"""Reuse the contributions, or the whole set, of an earlier cell.

A site's contribution depends neither on what the server does with it nor on how sets are scored.
Cells that differ only in `merging`, `refinement` or the recipe therefore share contributions, and
cells that differ only in the scoring share the set: exactly, not approximately.
"""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from collabdm.documents.contribution_file import write_contribution
from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import read_plan
from collabdm.lab.experiment import Experiment
from collabdm.planning.make import with_rates
from collabdm.rounds.contributions import read_contribution

SCORING_SETTINGS = (  # of an Experiment
    *("networks", "trials", "recipe", "epochs", "learning_rate"),
    *("compare", "curve", "test_per_class"),
)

SERVER_SETTINGS = ("merging", "refinement")  # of a Plan


def site_settings(experiment: Experiment) -> dict[str, Any]:
    """Return the settings that the sites' contributions depend on."""
    settings = experiment.model_dump(mode="json")
    plan = {key: value for key, value in settings["plan"].items() if key not in SERVER_SETTINGS}

    return {k: v for k, v in settings.items() if k not in SCORING_SETTINGS} | {"plan": plan}


def take_over(source: Path, other: Experiment, place: Path, experiment: Experiment) -> None:
    """Copy contributions to a new cell's folder, and also the set if the plan is the same.

    The simulation reads them only if they belong to its own plan, so a wrong file has no effect.

    Args:
        source: The folder of the cell that ran.
        other: The settings of the cell that ran.
        place: The folder of the new cell.
        experiment: The settings of the new cell.
    """
    old = read_plan(source / "plan.json")
    plan = _with_server_settings(old, experiment)

    for path in sorted((source / "contributions").glob("*.safetensors")):
        contribution = replace(read_contribution(path, old), plan_digest=plan.digest)
        write_contribution(contribution, place / "contributions" / path.name)

    if plan == old and experiment.curve in (0, other.curve):
        for path in source.glob("distilled.safetensors"):
            shutil.copy(path, place)
        if (source / "curve").is_dir():
            shutil.copytree(source / "curve", place / "curve", dirs_exist_ok=True)


def _with_server_settings(plan: Plan, experiment: Experiment) -> Plan:
    defaults = {name: Plan.model_fields[name].default for name in SERVER_SETTINGS}
    settings = with_rates(experiment.plan, plan.image.shape)
    chosen = {name: settings[name] for name in SERVER_SETTINGS if name in settings}

    try:
        return Plan.model_validate(plan.model_dump() | defaults | chosen)
    except ValidationError:  # the simulation reports what is wrong with them
        return plan

"""Show how a round was made, and how to repeat it."""

import json
import shlex
from typing import Any

import tomli_w

from collabdm.documents.outcomes import DistilledSet
from collabdm.lab.experiment import Experiment
from collabdm.privacy.wording import guarantee
from collabdm.report.html import Table
from collabdm.report.rounds import RoundFiles


def provenance(files: RoundFiles) -> Table:
    """Make the table of the plan, the device and the versions behind the results."""
    distilled, results, audit = files.distilled, files.results, files.audit
    rows = []

    if distilled is not None:
        plan = distilled.plan
        rows += [("plan", plan.digest), ("method", distilled.method)]
        rows += [("seed, steps, ipc", f"{plan.seed}, {plan.steps}, {plan.ipc}")]
        rows += [("privacy of each image", guarantee(plan.privacy))] if plan.privacy else []

    if results is not None:
        rows.append(("computed on", _listed(results.compute.document())))

    if audit is not None:
        rows += [("plan audited", audit.plan), ("audit", audit.command)]
        rows.append(("audited on", _listed(audit.compute.document())))

    sources = [source.versions for source in (results, distilled, audit) if source is not None]
    versions = sources[0] if sources else {}
    return Table(("what", "value"), [*rows, ("versions", _listed(versions))])


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)


def repeat_command(files: RoundFiles) -> str:
    """Write the command that repeats a simulation from its settings."""
    return f"collabdm simulate --config experiment.toml -o {shlex.quote(files.name)}"


def plan_json(distilled: DistilledSet) -> str:
    """Format the plan as JSON, for people to read and copy."""
    document = distilled.plan.model_dump(mode="json")
    return json.dumps(document, indent=1, ensure_ascii=False)


def settings_toml(experiment: Experiment) -> str:
    """Write the settings of a simulation as a TOML file that repeats it."""
    words = {"batch": "all", "sketch": "none"}  # TOML has no null
    settings = experiment.model_dump(mode="json")
    plan = {
        key: words.get(key) if value is None else value for key, value in settings["plan"].items()
    }

    settings |= {"preset": "none", "beta": experiment.beta or 0, "plan": plan}
    return tomli_w.dumps(_without_none(settings))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value

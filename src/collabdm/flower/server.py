"""The ServerApp: send the plan, collect the contributions, and make the set or leave the files.

Settings of a run (`flwr run … --run-config '…'`):

    plan="/srv/plan.json"      the plan; absolute, since Flower runs the server in a folder of its own
    folder="/srv/round"        where everything is kept; the same folder goes on with the sites that are missing
    distill=true               make the set here; else `collabdm distill` makes it from the files
    nodes="north=1234,…"       the node of each site, as `flwr supernode list` numbers it; else first come, first kept
    allow-missing=false        go without classes that no site has
    device="auto"  precision="auto"  threads=0

It fails, with nothing lost, where the quorum is not reached.
"""

import logging
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import read_plan
from collabdm.errors import PlanError
from collabdm.flower.collecting import Clock, Collected, CollectionError, collect, contribution_path
from collabdm.matching.compute import choose_compute
from collabdm.matching.run_context import RunContext
from collabdm.methods.registry import method_of, one_round_method
from collabdm.planning.probe import check_probe
from collabdm.rounds.contributions import ContributionFiles
from collabdm.rounds.exchange import distill_files
from collabdm.scoring.outcomes import KINDS, read_kept

logger = logging.getLogger("flwr.collabdm")


app = ServerApp()


@app.main()  # type: ignore[untyped-decorator]
def main(grid: Grid, context: Context) -> None:
    """One round."""
    serve(grid, context.run_config, Clock(time.monotonic, time.sleep))


def serve(grid: Grid, config: Mapping[str, Any], clock: Clock) -> Collected:
    """One round, by its settings. Raises CollabDMError."""
    plan, folder = read_plan(_place(config, "plan")), _place(config, "folder")
    one_round_method(plan)
    check_probe(plan)
    outcome = collect(plan, folder, grid, clock, _nodes(str(config.get("nodes", "")), plan))
    if outcome.state == "too few":
        raise CollectionError(f"{outcome}\nwhat came is kept in {folder}: run again to go on with the others")
    logger.info("%s", outcome)
    if config.get("distill", True) and not _is_made(plan, folder, outcome):
        if (threads := int(config.get("threads", 0))) > 0:
            torch.set_num_threads(threads)
        compute = choose_compute(str(config.get("device", "auto")), str(config.get("precision", "auto")))
        files = ContributionFiles(plan, [contribution_path(folder, site) for site in outcome.came])
        distill_files(
            plan, files, outcome_path(plan, folder), RunContext(compute), bool(config.get("allow-missing", False))
        )
        logger.info("%s is made", outcome_path(plan, folder))
    return outcome


def outcome_path(plan: Plan, folder: Path) -> Path:
    """Where the outcome of a round is: most often distilled.safetensors, by what its method gives."""
    return folder / KINDS[method_of(plan).outcome].file


def _is_made(plan: Plan, folder: Path, outcome: Collected) -> bool:
    """Whether the outcome of just these sites is there already."""
    made = read_kept(method_of(plan), plan, folder)
    return made is not None and set(made.sites) == set(outcome.came)


def _nodes(text: str, plan: Plan) -> dict[str, int]:
    """The node of each site, from SITE=NODE,SITE=NODE. Raises PlanError."""
    bound = {}
    for pair in filter(None, (pair.strip() for pair in text.split(","))):
        found = re.fullmatch(r"([^=\s]+)=([0-9]{1,20})", pair)
        if found is None or found[1] in bound:
            raise PlanError(f"`nodes` of the run should be SITE=NODE,SITE=NODE, each site once; found {pair!r}")
        plan.check_site(found[1])
        bound[found[1]] = int(found[2])
    if len(set(bound.values())) < len(bound):
        raise PlanError(f"`nodes` of the run should name each node once; found {text!r}")
    return bound


def _place(config: Mapping[str, Any], name: str) -> Path:
    path = Path(str(config.get(name, "")))
    if not path.is_absolute():
        raise PlanError(f"`{name}` of the run should be an absolute path; found {str(config.get(name, ''))!r}")
    return path

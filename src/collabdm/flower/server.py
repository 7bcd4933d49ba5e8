"""The ServerApp, which sends the plan, collects the contributions and computes the outcome.

Settings of a run (`flwr run … --run-config '…'`):

    plan="/srv/plan.json"      the plan; an absolute path, since Flower runs in its own folder
    folder="/srv/round"        the folder of the round; if it exists, the round is resumed
    distill=true               compute the outcome; if false, leave the files for
                               `collabdm distill`
    nodes="north=1234,…"       the node of each site, by its number in `flwr supernode list`;
                               for other sites, the first answer in their name counts
    allow-missing=false        accept a round in which a class is missing at every site
    device="auto"  precision="auto"  threads=0

The log contains a comparison of the sites (`rounds.site_table`). To leave a flagged site out, run
`collabdm distill --exclude SITE` with the files of the folder.

If sites are missing from a round with masks, they are declared missing, and the remaining sites are
asked to unmask their sum (`unmasking`). If their operators answer by file, the round goes on when
it is run again.

A round fails if too few sites contribute; the contributions that arrived remain in the folder.
"""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from collabdm.documents.outcomes import contributing_sites
from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import read_plan
from collabdm.flower.collecting import Clock, Collected, CollectionError, collect, contribution_path
from collabdm.flower.settings import RunSettings, parse_settings
from collabdm.flower.telemetry import switch_off_telemetry
from collabdm.flower.unmasking import PlanFolder, declared_missing, unmask
from collabdm.matching.run_context import RunContext
from collabdm.methods.registry import method_of, one_round_method
from collabdm.planning.probe import check_probe
from collabdm.rounds.exchange import distill_files, round_files
from collabdm.rounds.site_table import compare_sites
from collabdm.scoring.outcomes import OUTCOME_KINDS, find_outcome

switch_off_telemetry()

logger = logging.getLogger("flwr.collabdm")
app = ServerApp()


@app.main()  # type: ignore[untyped-decorator]
def main(grid: Grid, context: Context) -> None:
    """Run one round; Flower calls this function when it starts the ServerApp."""
    serve(grid, context.run_config, Clock(time.monotonic, time.sleep))


def serve(grid: Grid, config: Mapping[str, Any], clock: Clock) -> Collected:
    """Run one round with given settings and a given clock.

    Args:
        grid: Flower's connection to the nodes.
        config: the settings of the run.
        clock: the clock that measures the plan's deadline.

    Returns:
        The result of the collection.

    Raises:
        CollabDMError: the settings, the plan, the folder or the machine does not fit, or too few
            sites contributed.
    """
    settings = parse_settings(RunSettings, config, "run")
    plan, folder = read_plan(settings.plan), settings.folder
    one_round_method(plan)
    for site in settings.nodes:
        plan.check_site(site)
    check_probe(plan)
    context = RunContext(settings.choose())

    declared = frozenset(declared_missing(plan, folder))
    collected = collect(plan, folder, grid, clock, settings.nodes, declared)
    if collected.state == "too few":
        raise CollectionError(
            f"{collected}\nthe contributions that arrived are in {folder}: "
            "run again with this folder to ask the other sites"
        )
    logger.info("%s", collected)

    paths = [contribution_path(folder, site) for site in collected.came]
    if plan.masking is not None and collected.missing:
        paths += unmask(collected, PlanFolder(plan, folder), grid, clock, settings.nodes)

    files = round_files(plan, paths)
    for line in compare_sites(plan, files).lines():
        logger.info("%s", line)

    if settings.distill and not _has_outcome(plan, folder, collected):
        output = outcome_path(plan, folder)
        distill_files(plan, files, output, context, settings.allow_missing)
        logger.info("%s is written", output)
    return collected


def outcome_path(plan: Plan, folder: Path) -> Path:
    """Return the path of a round's outcome; the name of the file depends on the method."""
    return folder / OUTCOME_KINDS[method_of(plan).outcome].file


def _has_outcome(plan: Plan, folder: Path, collected: Collected) -> bool:
    """Return whether the folder contains the outcome of exactly the sites that contributed."""
    outcome = find_outcome(method_of(plan), plan, folder)
    return outcome is not None and set(contributing_sites(outcome.sites)) == set(collected.came)

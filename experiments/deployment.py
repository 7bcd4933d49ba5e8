"""The cost of a round over Flower: time, memory and bytes, by size of contribution and by sites.

    PYTHONPATH=tests/support python experiments/deployment.py sizes -o results/deploy/sizes.json
    PYTHONPATH=tests/support python experiments/deployment.py sites -o results/deploy/sites.json

`sizes`: real processes, a SuperLink and two SuperNodes in network namespaces (needs root), with TLS
and node keys; from `flwr run` to collection.json. `sites`: the server's own code with many sites,
whose nodes answer from a file in the same process: it collects, then checks and merges from disk.
Each line of the second table comes from a separate process.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from command import OPEN as OPEN_FILE
from deployed import Deployment, Namespaces, deployment, peaks, wait_for
from fashion import COMPUTE, a_plan, private_data, sent, write_given
from in_process import InProcess, Node, saying
from tiny import OPEN

from collabdm.data.sources import load
from collabdm.documents.contribution_file import contribution_bytes
from collabdm.documents.plan import Plan
from collabdm.flower.collecting import collect, contribution_path
from collabdm.matching.class_statistics import merge_in_order
from collabdm.matching.compute import Compute
from collabdm.matching.network_size import statistics_width
from collabdm.matching.run_context import RunContext
from collabdm.rounds.contributions import ContributionFiles, read_contribution
from collabdm.rounds.exchange import Site, contribute_file, prepare_site
from collabdm.version import versions

STEPS = (1, 10, 100)  # of 1 MB each
SITES_AND_STEPS = ((2, 1), (10, 1), (50, 1), (2, 10), (2, 100))
TWO = ("east", "west")

Measurement = Callable[[], list[dict[str, Any]]]


def heavy_plan(root: Path, sites: tuple[str, ...], steps: int) -> Plan:
    """A plan of 1 MB per step and of little work: the means of 10 classes, float32, no images.

    Args:
        root: the folder of the experiment; the data of two sites is written there.
        sites: the names of the sites.
        steps: the number of steps.

    Returns:
        The plan.
    """
    images = private_data(root, {name: range(10) for name in TWO})
    return a_plan(
        images,
        sites,
        local={"method": "none"},
        steps=steps,
        network={"width": 128, "depth": 1},
        wire="float32",
        batch=1,
        pae=1,
    )


# --- sizes: between processes ------------------------------------------------------------------


def rounds_of_one_size(root: Path, steps: int, repeats: int) -> list[dict[str, Any]]:
    """Rounds with contributions of one size, one after another between the same processes.

    Args:
        root: the folder of the experiment.
        steps: the size, in steps of 1 MB.
        repeats: the number of rounds.

    Returns:
        A record of each round.
    """
    plan, network = heavy_plan(root, TWO, steps), Namespaces()
    given = write_given(plan, root)

    with deployment(root, network) as deployed:
        deployed.start_server()
        deployed.register(*TWO)
        for site in TWO:
            config = {"data": root / f"{site}.npz", "device": "cpu", "precision": "float32"}
            deployed.start_node(site, policy=OPEN_FILE[1], **config)
        wait_for(lambda: deployed.online() == len(TWO))
        return [one_round(deployed, network, given, root / f"round-{k}") for k in range(repeats)]


def one_round(
    deployed: Deployment, network: Namespaces, given: Path, folder: Path
) -> dict[str, Any]:
    """One collection: its time, the peak memory of every program, the traffic of one site.

    Args:
        deployed: the processes.
        network: the network.
        given: the plan.
        folder: the folder of the round.

    Returns:
        The record: bytes, seconds, MB.
    """
    before, start, peak = network.carried(TWO[0]), time.monotonic(), dict[str, float]()
    deployed.run(plan=str(given), folder=str(folder), distill=False, **COMPUTE)

    while not (folder / "collection.json").exists():
        for name in ("superlink", *TWO):
            for program, megabytes in peaks(deployed.processes[name].pid).items():
                peak[program] = max(peak.get(program, 0.0), megabytes)
        time.sleep(0.2)

    seconds = time.monotonic() - start
    after = network.carried(TWO[0])
    up, down = (now - then for now, then in zip(after, before, strict=True))
    size = len(sent(folder)[TWO[0]])
    return {"file": size, "seconds": round(seconds, 1), "up": up, "down": down, "peak MB": peak}


# --- sites: the server's own code --------------------------------------------------------------


def write_answers(root: Path, plan: Plan) -> dict[str, Path]:
    """Write a contribution of every site: that of the first, under every name."""
    path, sites = root / "one.part1", plan.site_names or ()
    prepared = prepare_site(plan, load(str(root / "east.npz")), Site(sites[0], OPEN))
    contribute_file(prepared, path, RunContext(Compute()))
    contribution = read_contribution(path, plan)

    paths = {}
    for site in sites:
        paths[site] = root / f"{site}.answer"
        paths[site].write_bytes(contribution_bytes(replace(contribution, site=site)))
    return paths


def from_disk(site: str, path: Path) -> Node:
    """A node that reads its answer when it is asked."""
    return lambda message: saying(site, path.read_bytes())(message)


def round_of_many_sites(root: Path, sites: int, steps: int) -> dict[str, Any]:
    """Collect from sites in this process, then check and merge from disk.

    Args:
        root: the folder of the experiment.
        sites: the number of sites.
        steps: the size of a contribution, in steps of 1 MB.

    Returns:
        The record: bytes, seconds, MB.
    """
    plan = heavy_plan(root, tuple(f"site-{k}" for k in range(sites)), steps)
    paths = write_answers(root, plan)
    nodes = {100 + k: from_disk(site, path) for k, (site, path) in enumerate(paths.items())}
    grid = InProcess(nodes)

    Path("/proc/self/clear_refs").write_text("5")  # resets the peak: the answers needed more
    start, folder = peak_mb(), root / "round"
    collect_s, after_collect = timed(lambda: collect(plan, folder, grid, grid.hours.clock))
    merge_s, after_merge = timed(lambda: merge(plan, folder))
    return {
        "sites": sites,
        "file": next(iter(paths.values())).stat().st_size,
        "start MB": start,
        "collect s": collect_s,
        "collect MB": after_collect - start,
        "merge s": merge_s,
        "merge MB": after_merge - start,
    }


def merge(plan: Plan, folder: Path) -> None:
    """Check and merge the contributions in a folder, as `distill` does before it refines."""
    paths = [contribution_path(folder, name) for name in plan.site_names or ()]
    files = ContributionFiles(plan, paths)
    statistics = (contribution.statistics for contribution in files.values())
    width = statistics_width(plan)
    merge_in_order(statistics, width, plan.steps, len(plan.classes), plan.merging)


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """The seconds of an action, and the peak memory of this process in MB."""
    start = time.perf_counter()
    action()
    return round(time.perf_counter() - start, 3), peak_mb()


def peak_mb() -> float:
    """The peak memory of this process in MB, since it was reset."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1000


# --- the command -------------------------------------------------------------------------------


def in_new_process(sites: int, steps: int) -> dict[str, Any]:
    """One line of the second table, measured in a new process."""
    command = [sys.executable, __file__, "one", "--sites", str(sites), "--steps", str(steps)]
    process = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(process.stdout.splitlines()[-1])


def measurements(table: str, repeats: int) -> Mapping[str, Measurement]:
    """The lines of a table, `sizes` or `sites`, as functions that measure them."""

    def sizes(steps: int) -> list[dict[str, Any]]:
        with tempfile.TemporaryDirectory() as folder:
            return rounds_of_one_size(Path(folder), steps, repeats)

    def sites(count: int, steps: int) -> list[dict[str, Any]]:
        return [in_new_process(count, steps) for _ in range(repeats)]

    if table == "sizes":
        return {f"{steps} MB": partial(sizes, steps) for steps in STEPS}
    return {
        f"{count} sites, {steps} MB": partial(sites, count, steps)
        for count, steps in SITES_AND_STEPS
    }


def main() -> None:
    """Measure, and write each line when it is complete."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=("sizes", "sites", "one"))
    parser.add_argument("--sites", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, default=Path("deployment.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)

    if options.table == "one":
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(round_of_many_sites(Path(folder), options.sites, options.steps)))
        return

    records: dict[str, Any] = {"versions": versions()}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for name, measure in measurements(options.table, options.repeats).items():
        records[name] = measure()
        print(name, records[name], flush=True)
        options.output.write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""What a round over Flower costs: time, memory and bytes against the size of a contribution and the number of sites.

    PYTHONPATH=tests python experiments/deployment.py sizes -o results/deploy/sizes.json
    PYTHONPATH=tests python experiments/deployment.py sites -o results/deploy/sites.json

`sizes`: real processes, a SuperLink and two SuperNodes in network namespaces (needs root), TLS and node keys; from
`flwr run` to collection.json. `sites`: the server's own code with many sites, nodes that answer from a file in its own
process: collecting, then checking and merging from the disk. Each line of the second is a process of its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from deployed import Deployment, Namespaces, deployment, peaks, wait_for
from fashion import COMPUTE, a_plan, private_data, sent, write_given
from in_process import InProcess, Node, saying

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
MANY = ((2, 1), (10, 1), (50, 1), (2, 10), (2, 100))  # sites, steps
TWO = ("east", "west")


def heavy_plan(root: Path, sites: tuple[str, ...], steps: int) -> Plan:
    """Means of 10 classes by 25,088 numbers at each step, float32, no images: a megabyte a step, little to compute."""
    images = private_data(root, {name: range(10) for name in TWO})
    settings = {
        "steps": steps,
        "network": {"width": 128, "depth": 1},
        "wire": "float32",
        "batch": 1,
        "pae": 1,
    }
    return a_plan(images, sites, local={"method": "none"}, **settings)


# --- sizes: between processes ------------------------------------------------------------------------


def of_one_size(root: Path, steps: int, repeats: int) -> list[dict[str, Any]]:
    """Rounds with contributions of one size, one after another between the same processes."""
    plan, network = heavy_plan(root, TWO, steps), Namespaces()
    given = write_given(plan, root)
    with deployment(root, network) as deployed:
        deployed.start_server()
        deployed.register(*TWO)
        for site in TWO:
            own = {"data": root / f"{site}.npz", "device": "cpu", "precision": "float32"}
            deployed.start_node(site, **own)
        wait_for(lambda: deployed.online() == len(TWO))
        return [one_round(deployed, network, given, root / f"round-{k}") for k in range(repeats)]


def one_round(
    deployed: Deployment, network: Namespaces, given: Path, folder: Path
) -> dict[str, Any]:
    """One collection: seconds, the most memory of every program, and what one site's link carried."""
    before, start, peak = network.carried(TWO[0]), time.monotonic(), dict[str, float]()
    deployed.run(plan=str(given), folder=str(folder), distill=False, **COMPUTE)
    while not (folder / "collection.json").exists():
        for name in ("superlink", *TWO):
            for program, most in peaks(deployed.processes[name].pid).items():
                peak[program] = max(peak.get(program, 0.0), most)
        time.sleep(0.2)
    seconds = time.monotonic() - start
    up, down = (now - then for now, then in zip(network.carried(TWO[0]), before, strict=True))
    came = len(sent(folder)[TWO[0]])
    return {"file": came, "seconds": round(seconds, 1), "up": up, "down": down, "peak MB": peak}


# --- sites: the server's own code ----------------------------------------------------------------------


def write_answers(root: Path, plan: Plan) -> dict[str, Path]:
    """A contribution of every site: that of one, under every name."""
    path = root / "one.part1"
    first = (plan.site_names or ())[0]
    contribute_file(
        prepare_site(plan, load(str(root / "east.npz")), Site(first)), path, RunContext(Compute())
    )
    made = read_contribution(path, plan)
    found = {}
    for name in plan.site_names or ():
        found[name] = root / f"{name}.answer"
        found[name].write_bytes(contribution_bytes(replace(made, site=name)))
    return found


def from_disk(site: str, path: Path) -> Node:
    """A node that reads its answer when it is asked."""
    return lambda message: saying(site, path.read_bytes())(message)


def of_many_sites(root: Path, sites: int, steps: int) -> dict[str, Any]:
    """Collect from sites in this process, then check and merge from the disk."""
    plan = heavy_plan(root, tuple(f"site-{k}" for k in range(sites)), steps)
    files = write_answers(root, plan)
    grid = InProcess(
        {100 + k: from_disk(site, path) for k, (site, path) in enumerate(files.items())}
    )
    Path("/proc/self/clear_refs").write_text(
        "5"
    )  # the peak begins anew: making the answers took more
    start, folder = peak_mb(), root / "round"
    collected, after = timed(lambda: collect(plan, folder, grid, grid.hours.clock))
    merged, last = timed(lambda: merge(plan, folder))
    return {
        "sites": sites, "file": next(iter(files.values())).stat().st_size, "start MB": start,
        "collect s": collected, "collect MB": after - start, "merge s": merged, "merge MB": last - start,
    }  # fmt: skip


def merge(plan: Plan, folder: Path) -> None:
    """Check and merge what is in a folder, as `distill` does before it refines."""
    files = ContributionFiles(
        plan, [contribution_path(folder, name) for name in plan.site_names or ()]
    )
    statistics = (contribution.statistics for contribution in files.values())
    merge_in_order(statistics, statistics_width(plan), plan.steps, len(plan.classes), plan.merging)


def timed(do: Callable[[], object]) -> tuple[float, float]:
    """Seconds that something took, and the most memory of this process until then."""
    start = time.perf_counter()
    do()
    return round(time.perf_counter() - start, 3), peak_mb()


def peak_mb() -> float:
    """The most memory of this process since the peak began."""
    (line,) = [
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM")
    ]
    return int(line.split()[1]) / 1000


# --- the command -------------------------------------------------------------------------------------


def in_new_process(sites: int, steps: int) -> dict[str, Any]:
    """One line of the second table."""
    command = [sys.executable, __file__, "one", "--sites", str(sites), "--steps", str(steps)]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(ran.stdout.splitlines()[-1])


def lines(what: str, repeats: int) -> Mapping[str, Callable[[], list[dict[str, Any]]]]:
    """What is measured, by name."""

    def sizes(steps: int) -> list[dict[str, Any]]:
        with tempfile.TemporaryDirectory() as folder:
            return of_one_size(Path(folder), steps, repeats)

    if what == "sizes":
        return {f"{steps} MB": lambda steps=steps: sizes(steps) for steps in STEPS}
    return {
        f"{sites} sites, {steps} MB": lambda one=(sites, steps): [
            in_new_process(*one) for _ in range(repeats)
        ]
        for sites, steps in MANY
    }


def main() -> None:
    """Measure, and write every line as it comes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("sizes", "sites", "one"))
    parser.add_argument("--sites", type=int, default=2)
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("-o", "--output", type=Path, default=Path("deployment.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.what == "one":
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(of_many_sites(Path(folder), options.sites, options.steps)))
        return
    found: dict[str, Any] = {"versions": versions()}
    options.output.parent.mkdir(parents=True, exist_ok=True)
    for name, measure in lines(options.what, options.repeats).items():
        found[name] = measure()
        print(name, found[name], flush=True)
        options.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

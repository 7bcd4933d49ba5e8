"""Faults between real processes: a round whose sites, nodes, network or server fail.

    PYTHONPATH=tests/support python experiments/faults.py -o results/deploy/faults.json

A SuperLink and one SuperNode for each site, in network namespaces with separate addresses (needs
root), with TLS and node keys; Fashion-MNIST. Three rounds:

    answers         sites that answer wrongly
    interruptions   programs, nodes and links that are interrupted at work
    server          a server that is killed after two of four sites have answered, and then a quorum
                    that is not reached in time

Seconds count from `flwr run`. `--part` runs one of the rounds alone.
"""

import argparse
import json
import signal
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from command import OPEN as OPEN_FILE
from deployed import Deployment, Namespaces, deployment, peaks, wait_for
from fashion import COMPUTE, a_plan, private_data, sent, write_given
from tiny import OPEN

from collabdm.data.sources import load
from collabdm.documents.plan import Plan
from collabdm.flower.collecting import contribution_path
from collabdm.flower.server import outcome_path
from collabdm.matching.compute import Compute
from collabdm.matching.run_context import RunContext
from collabdm.rounds.contributions import (
    ContributionFiles,
    contribution_limit,
    read_contribution,
)
from collabdm.rounds.exchange import Site, contribute_file, distill_files, prepare_site
from collabdm.version import versions

FAULTY = Path(__file__).parents[1] / "tests" / "rounds" / "faulty"

#: lines of the server's log that are recorded contain one of these
RECORDED = (
    *(" contributed ", "did not contribute", "failed, Flower's", "two nodes", " answers as "),
    *("answered twice", "collection ", " is written"),
)
CUT, DOWN = 40.0, 90.0  # seconds that a link is cut, and a node is down
LONGEST_RUN = 900.0  # seconds
STALL = 20.0  # seconds without a look: another process has stopped this machine
SETTLE = 100.0  # seconds until a run that was ended is forgotten
ATTEMPTS = 5

WRONG_ANSWERS: dict[str, dict[str, str]] = {  # the configuration of each site
    "honest": {},
    "raises": {"fault": "raises"},
    "refuses": {"data": "/data/none.npz"},
    "garbage": {"fault": "garbage"},
    "nan": {"fault": "given"},
    "another-plan": {"fault": "given"},
    "too-large": {"fault": "too large"},
    "twin": {},
}
INTERRUPTED = ("cut", "honest", "killed", "node-killed")
FOUR = ("a", "b", "c", "d")
SLOW = ("c", "d")  # of the four: they wait for a file


class MachineStalledError(Exception):
    """This machine did not run for a while, so that no times can be measured."""


@dataclass
class Step:
    """An action that is taken once, as soon as its condition is met."""

    label: str
    condition: Callable[[], bool]
    action: Callable[[], None]


@dataclass
class Recording:
    """The events of a run and their times, and the peak memory of the server's processes."""

    deployed: Deployment
    folder: Path
    start: float = 0.0
    events: list[tuple[float, str]] = field(default_factory=list)
    peak: dict[str, float] = field(default_factory=dict)
    _position: int = 0  # in the log

    def add(self, text: str) -> None:
        """Record an event that happens now."""
        self.events.append((round(time.monotonic() - self.start, 1), text))
        print(*self.events[-1], flush=True)

    def seconds_since(self, text: str) -> float:
        """Seconds since an event; negative if it has not happened."""
        times = [when for when, event in self.events if event == text]
        return time.monotonic() - self.start - times[0] if times else -1.0

    def run(self, plan: Path, steps: list[Step], ended: Callable[[], bool]) -> None:
        """Record one run.

        Args:
            plan: the plan.
            steps: actions during the run.
            ended: whether the run has ended.

        Raises:
            MachineStalledError: this machine did not run for a while.
        """
        self.start, self._position = time.monotonic(), 0
        log = self.deployed.folder / "run.log"
        log.unlink(missing_ok=True)
        self.deployed.start_run(plan=str(plan), folder=str(self.folder), **COMPUTE)

        while not ended():
            assert time.monotonic() < self.start + LONGEST_RUN, "the run should have ended"
            last_look = time.monotonic()
            for step in [step for step in steps if step.condition()]:
                steps.remove(step)
                step.action()
                self.add(step.label)

            self._read(log)
            time.sleep(0.3)
            stalled = time.monotonic() - last_look
            if stalled > STALL:
                raise MachineStalledError(f"this machine did not run for {stalled:.0f} s")

        self._read(log)
        if "run" in self.deployed.processes:
            self.deployed.stop("run")

    def _read(self, log: Path) -> None:
        """Record new lines of the log, and the memory."""
        text = log.read_text()[self._position :] if log.exists() else ""
        complete = text[: text.rfind("\n") + 1]
        self._position += len(complete)

        for line in complete.splitlines():
            if any(words in line for words in RECORDED):
                self.add(line.strip()[:220])

        for program, megabytes in peaks(self.deployed.processes["superlink"].pid).items():
            self.peak[program] = max(self.peak.get(program, 0.0), megabytes)

    def result(self, as_files: bool) -> dict[str, Any]:
        """The record of a run, and whether it gave the bytes of the round by files."""
        return {
            "events": self.events,
            "outcome": collection_of(self.folder),
            "same as by files": as_files,
            "peak MB": self.peak,
        }


def undisturbed(
    deployed: Deployment, root: Path, perform: Callable[[Recording], None]
) -> Recording:
    """The recording of a run during which this machine did not stall; repeated if it does.

    Args:
        deployed: the processes.
        root: the folder of the experiment.
        perform: performs a run and records it.

    Returns:
        The recording.

    Raises:
        MachineStalledError: this machine stalled every time.
    """
    for k in range(ATTEMPTS):
        recording = Recording(deployed, root / f"round-{k}")
        try:
            perform(recording)
            return recording
        except MachineStalledError as error:
            print(error, flush=True)
            deployed.stop("run")
            deployed.kill_program("superlink")
            time.sleep(SETTLE)
            for path in (*root.glob("go-*"), *root.glob("kept-*/*")):
                path.unlink()
    raise MachineStalledError("this machine stalls too often")


# --- the round by files ------------------------------------------------------------------------


def write_one(plan: Plan, root: Path, site: str, output: Path) -> None:
    """Write one site's contribution to a plan."""
    prepared = prepare_site(plan, load(str(root / f"{site}.npz")), Site(site, OPEN))
    contribute_file(prepared, output, RunContext(Compute()))


def by_file(plan: Plan, root: Path, sites: tuple[str, ...]) -> Path:
    """The folder of the same round by files, of the given sites."""
    folder = root / f"by-file-{plan.digest[:8]}"
    for site in sites:
        write_one(plan, root, site, contribution_path(folder, site))

    files = ContributionFiles(plan, [contribution_path(folder, site) for site in sites])
    distill_files(plan, files, outcome_path(plan, folder), RunContext(Compute()))
    return folder


def same(plan: Plan, folder: Path, expected: Path) -> bool:
    """Whether two rounds have the same contributions and outcome, to the byte."""
    first, second = (outcome_path(plan, place).read_bytes() for place in (folder, expected))
    return sent(folder) == sent(expected) and first == second


def write_invalid(plan: Plan, other: Plan, root: Path) -> dict[str, dict[str, str]]:
    """Write a contribution with NaN and one to another plan; returns the sites' configuration."""
    of_other, with_nan = root / "other.part1", root / "nan.part1"
    write_one(other, root, "another-plan", of_other)
    write_one(plan, root, "nan", with_nan)

    content = bytearray(with_nan.read_bytes())
    codes = read_contribution(with_nan, plan).statistics.codes.numpy().tobytes()
    start = bytes(content).index(codes)
    content[start : start + 2] = b"\xff\xff"  # NaN in float16
    with_nan.write_bytes(content)
    return {"nan": {"sends": str(with_nan)}, "another-plan": {"sends": str(of_other)}}


# --- processes ---------------------------------------------------------------------------------


def start(deployed: Deployment, root: Path, configs: dict[str, dict[str, str]]) -> None:
    """Start the server and a node for each site, and wait until all are online."""
    deployed.start_server()
    deployed.register(*configs)
    for site, config in configs.items():
        start_node(deployed, root, site, config)
    wait_for(lambda: deployed.online() == len(configs), 300)


def start_node(deployed: Deployment, root: Path, site: str, config: dict[str, str]) -> None:
    """Start a node.

    Args:
        deployed: the processes.
        root: the folder of the experiment, with the site's data.
        site: the site.
        config: its own settings, which replace the common ones.
    """
    common = {
        "data": root / f"{site}.npz",
        "folder": root / f"kept-{site}",
        "until": root / f"go-{site}",
        "policy": OPEN_FILE[1],
        "device": "cpu",
        "precision": "float32",
    }
    deployed.start_node(site, **common | config)


def works(root: Path, site: str) -> bool:
    """Whether a site that waits has begun to work."""
    return (root / f"kept-{site}" / "works").exists()


def collection_of(folder: Path) -> dict[str, Any]:
    """The result of a collection; empty while it runs."""
    path = folder / "collection.json"
    return json.loads(path.read_text()) if path.exists() else {}


# --- the three rounds --------------------------------------------------------------------------


def answers(root: Path) -> dict[str, Any]:
    """Sites that answer wrongly, and honest ones; two nodes answer as `twin`."""
    images = private_data(root, {name: range(10) for name in (*WRONG_ANSWERS, "twin-2")})
    plan = a_plan(images, tuple(WRONG_ANSWERS), collection={"quorum": 2, "deadline": 300})
    given = write_given(plan, root)
    expected = by_file(plan, root, ("honest", "twin"))

    invalid = write_invalid(plan, a_plan(images, tuple(WRONG_ANSWERS), seed=1), root)
    configs = {site: config | invalid.get(site, {}) for site, config in WRONG_ANSWERS.items()}
    configs["twin-2"] = {"site": "twin", "fault": "waits"}
    configs["stranger"] = {"data": str(root / "twin-2.npz")}

    def perform(recording: Recording) -> None:
        label = "`twin` has contributed: the second node of that name continues"
        folder = recording.folder
        step = Step(label, lambda: "twin" in sent(folder), (root / "go-twin-2").touch)
        recording.run(given, [step], outcome_path(plan, folder).exists)

    with deployment(root, Namespaces(), FAULTY) as deployed:
        start(deployed, root, configs)
        recording = undisturbed(deployed, root, perform)

    limit = contribution_limit(plan)
    sizes = {"limit": limit, "too large": limit + 300_000_000}
    return recording.result(same(plan, recording.folder, expected)) | sizes


def interruptions(root: Path) -> dict[str, Any]:
    """A program, a node and a link that are interrupted while their sites work."""
    images = private_data(root, {name: range(10) for name in INTERRUPTED})
    plan = a_plan(images, INTERRUPTED)
    given = write_given(plan, root)
    expected = by_file(plan, root, INTERRUPTED)
    network, waits = Namespaces(), {"fault": "waits"}

    def perform(recording: Recording) -> None:
        network.link("cut", "up")
        if "node-killed" not in deployed.processes:
            start_node(deployed, root, "node-killed", waits)
        steps = interrupting_steps(recording, root, network)
        recording.run(given, steps, outcome_path(plan, recording.folder).exists)

    with deployment(root, network, FAULTY) as deployed:
        start(deployed, root, {site: {} if site == "honest" else waits for site in INTERRUPTED})
        recording = undisturbed(deployed, root, perform)
    return recording.result(same(plan, recording.folder, expected))


def interrupting_steps(recording: Recording, root: Path, network: Namespaces) -> list[Step]:
    """The interruptions of sites at work.

    Args:
        recording: the run.
        root: the folder of the experiment.
        network: the network.

    Returns:
        The steps, in any order.
    """
    deployed = recording.deployed
    node_killed, link_cut = "the node of `node-killed` is killed", "the link of `cut` is cut"

    def kill_program() -> None:
        (root / "go-killed").touch()
        deployed.kill_program("killed")

    def kill_node() -> None:
        (root / "go-node-killed").touch()
        deployed.stop("node-killed", signal.SIGKILL)

    def cut_link() -> None:
        network.link("cut", "down")
        (root / "go-cut").touch()

    return [
        Step("the program of `killed` is killed", lambda: works(root, "killed"), kill_program),
        Step(node_killed, lambda: works(root, "node-killed"), kill_node),
        Step(
            "the node of `node-killed` starts again",
            lambda: recording.seconds_since(node_killed) >= DOWN,
            lambda: start_node(deployed, root, "node-killed", {"fault": "waits"}),
        ),
        Step(link_cut, lambda: works(root, "cut"), cut_link),
        Step(
            "the link of `cut` is restored",
            lambda: recording.seconds_since(link_cut) >= CUT,
            lambda: network.link("cut", "up"),
        ),
    ]


def server(root: Path) -> dict[str, Any]:
    """The server is killed after two of four answers; then, with another plan, two are too few."""
    images = private_data(root, {name: range(10) for name in FOUR})
    plan = a_plan(images, FOUR)
    few = a_plan(images, FOUR, seed=5, collection={"quorum": 3, "deadline": 90})

    with deployment(root, Namespaces(), FAULTY) as deployed:
        start(deployed, root, four_configs())
        return {
            "server killed": server_killed(deployed, root, plan),
            "no quorum": without_quorum(deployed, root, few),
        }


def four_configs() -> dict[str, dict[str, str]]:
    """The configuration of four sites, of which two wait."""
    return {site: {"fault": "waits"} if site in SLOW else {} for site in FOUR}


def server_killed(deployed: Deployment, root: Path, plan: Plan) -> dict[str, Any]:
    """The server is killed after two answers, and the round is run again with the same folder."""
    given, folder = write_given(plan, root), root / "killed"

    def two_answered() -> bool:
        return len(sent(folder)) == 2 and all(works(root, site) for site in SLOW)

    first = Recording(deployed, folder)
    first.run(given, [], two_answered)
    stored = sent(folder)
    deployed.stop("superlink", signal.SIGKILL)
    collection = collection_of(folder)

    for site in SLOW:
        (root / f"go-{site}").touch()
    for site in FOUR:  # without `--database` the server has lost their keys, and they exit
        deployed.stop(site)
    start(deployed, root, four_configs())

    second = Recording(deployed, folder)
    second.run(given, [], outcome_path(plan, folder).exists)
    untouched = all(sent(folder)[site] == content for site, content in stored.items())
    as_files = same(plan, folder, by_file(plan, root, FOUR))
    return {
        "kept": sorted(stored),
        "events": first.events,
        "outcome": collection,
        "again": second.result(as_files) | {"first two untouched": untouched},
    }


def without_quorum(deployed: Deployment, root: Path, plan: Plan) -> dict[str, Any]:
    """Two of four answer in time; the others answer in a second run."""
    given, folder = write_given(plan, root), root / "few"
    for site in SLOW:
        (root / f"go-{site}").unlink()
    first = Recording(deployed, folder)
    first.run(given, [], lambda: bool(collection_of(folder)))
    collection, stored = collection_of(folder), sorted(sent(folder))

    for site in SLOW:
        (root / f"go-{site}").touch()
    second = Recording(deployed, folder)
    second.run(given, [], outcome_path(plan, folder).exists)
    expected = by_file(plan, root, tuple(collection_of(folder)["came"]))
    return {
        "kept": stored,
        "outcome": collection,
        "events": first.events,
        "again": second.result(same(plan, folder, expected)),
    }


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "answers": answers,
    "interruptions": interruptions,
    "server": server,
}


def main() -> None:
    """Run the parts and write their records."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--part", choices=PARTS, action="append")
    options = parser.parse_args()
    torch.set_num_threads(1)

    records = json.loads(options.output.read_text()) if options.output.exists() else {}
    records |= {"compute": asdict(Compute()), "versions": versions()}
    for name in options.part or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            records[name] = PARTS[name](Path(folder))
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(records, indent=1) + "\n")


if __name__ == "__main__":
    main()

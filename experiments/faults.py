"""Faults between real processes: what becomes of a round when sites, nodes, the network and the server fail.

    PYTHONPATH=tests python experiments/faults.py -o results/deploy/faults.json

A SuperLink and one SuperNode for each site, in network namespaces with addresses of their own (needs root), TLS and
node keys, Fashion-MNIST. Three rounds: sites that answer wrongly; programs, nodes and links that are interrupted while
they work; a server that is killed after two of four sites answered, and then a quorum that is not reached in time.
Seconds count from `flwr run`. `--part` tries one of them alone.
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
from deployed import Deployment, Namespaces, deployment, peaks, wait_for
from fashion import COMPUTE, a_plan, private_data, sent, write_given

from collabdm.data.sources import load
from collabdm.documents.plan import Plan
from collabdm.flower.collecting import contribution_path
from collabdm.flower.server import outcome_path
from collabdm.matching.compute import Compute
from collabdm.matching.run_context import RunContext
from collabdm.rounds.contributions import ContributionFiles, contribution_limit, read_contribution
from collabdm.rounds.exchange import Site, contribute_file, distill_files, prepare_site
from collabdm.version import versions

FAULTY = Path(__file__).parents[1] / "tests" / "faulty"
TOLD = (
    " came",
    "failed,",
    "that counts",
    "two nodes",
    "says that",
    "answered twice",
    "collection ",
    "is made",
)
CUT, DOWN = 40.0, 90.0  # seconds: of a link, of a node
ANSWERS = {  # each site's configuration
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


@dataclass
class Step:
    """What is done once, as soon as something holds."""

    what: str
    when: Callable[[], bool]
    do: Callable[[], None]


class StoodStillError(Exception):
    """Somebody else stopped all processes."""


@dataclass
class Story:
    """What happened, and when."""

    deployed: Deployment
    folder: Path
    start: float = 0.0
    events: list[tuple[float, str]] = field(default_factory=list)
    peak: dict[str, float] = field(default_factory=dict)
    _read: int = 0

    def say(self, text: str) -> None:
        """Note what happened, now."""
        self.events.append((round(time.monotonic() - self.start, 1), text))
        print(*self.events[-1], flush=True)

    def seconds_since(self, text: str) -> float:
        """Seconds since an event; less than nothing while it has not happened."""
        at = [when for when, what in self.events if what == text]
        return time.monotonic() - self.start - at[0] if at else -1.0

    def tell(self, plan: Path, steps: list[Step], end: Callable[[], bool]) -> None:
        """One run, from its start until `end` holds."""
        self.start, self._read = time.monotonic(), 0
        log = self.deployed.folder / "run.log"
        log.unlink(missing_ok=True)
        settings = {"plan": str(plan), "folder": str(self.folder), **COMPUTE}
        self.deployed.start_run(**settings)
        while not end():
            assert time.monotonic() < self.start + 900, "the run should have ended"
            looked = time.monotonic()
            for step in [step for step in steps if step.when()]:
                steps.remove(step)
                step.do()
                self.say(step.what)
            self._listen(log)
            time.sleep(0.3)
            if (stood := time.monotonic() - looked) > 20:
                raise StoodStillError(
                    f"this machine stood still for {stood:.0f} s: nothing can be said of faults"
                )
        self._listen(log)
        if "run" in self.deployed.processes:
            self.deployed.stop("run")

    def _listen(self, log: Path) -> None:
        text = log.read_text()[self._read :] if log.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            if any(word in line for word in TOLD):
                self.say(line.strip()[:220])
        for name, most in peaks(self.deployed.processes["superlink"].pid).items():
            self.peak[name] = max(self.peak.get(name, 0.0), most)


def undisturbed(deployed: Deployment, root: Path, tell: Callable[[Story], None]) -> Story:
    """A story during which this machine did not stand still: as often as it does, the run begins again."""
    for k in range(5):
        story = Story(deployed, root / f"round-{k}")
        try:
            tell(story)
            return story
        except StoodStillError as error:
            print(error, flush=True)
            deployed.stop("run")
            deployed.kill_program("superlink")
            time.sleep(
                100
            )  # until the programs of the nodes and what Flower knows of them are settled
            for left in (*root.glob("go-*"), *root.glob("kept-*/*")):
                left.unlink()
    raise StoodStillError("this machine stands still too often")


def by_file(plan: Plan, root: Path, sites: tuple[str, ...]) -> Path:
    """The same round by files, of those sites."""
    folder = root / f"by-file-{plan.digest[:8]}"
    bench = RunContext(Compute())
    for site in sites:
        contribute_file(
            prepare_site(plan, load(str(root / f"{site}.npz")), Site(site)),
            contribution_path(folder, site),
            bench,
        )
    files = ContributionFiles(plan, [contribution_path(folder, site) for site in sites])
    distill_files(plan, files, outcome_path(plan, folder), bench)
    return folder


def same(plan: Plan, round_: Path, expected: Path) -> bool:
    """Whether a round by Flower has the contributions and the outcome of the files, to the byte."""
    outcomes = [outcome_path(plan, folder).read_bytes() for folder in (round_, expected)]
    return sent(round_) == sent(expected) and outcomes[0] == outcomes[1]


def write_wrong(plan: Plan, other: Plan, root: Path) -> dict[str, dict[str, str]]:
    """Contributions that should not count: one with NaN, one to another plan."""
    bench = RunContext(Compute())
    contribute_file(
        prepare_site(other, load(str(root / "another-plan.npz")), Site("another-plan")),
        root / "other.part1",
        bench,
    )
    contribute_file(
        prepare_site(plan, load(str(root / "nan.npz")), Site("nan")), root / "nan.part1", bench
    )
    content = bytearray((root / "nan.part1").read_bytes())
    codes = read_contribution(root / "nan.part1", plan).statistics.codes.numpy().tobytes()
    at = bytes(content).index(codes)
    content[at : at + 2] = b"\xff\xff"  # NaN in float16
    (root / "nan.part1").write_bytes(content)
    return {
        "nan": {"sends": str(root / "nan.part1")},
        "another-plan": {"sends": str(root / "other.part1")},
    }


def start(deployed: Deployment, root: Path, configs: dict[str, dict[str, str]]) -> None:
    """Start the server and a node for each site, and wait until all are there."""
    deployed.start_server()
    deployed.register(*configs)
    for name, more in configs.items():
        start_node(deployed, root, name, more)
    wait_for(lambda: deployed.online() == len(configs), 300)


def start_node(deployed: Deployment, root: Path, name: str, more: dict[str, str]) -> None:
    """Start a node, again if it was killed."""
    own = {
        "data": root / f"{name}.npz",
        "folder": root / f"kept-{name}",
        "until": root / f"go-{name}",
    }
    deployed.start_node(name, **own | {"device": "cpu", "precision": "float32"} | more)


def outcome_of(folder: Path) -> dict[str, Any]:
    """How a collection ended; nothing while it has not."""
    path = folder / "collection.json"
    return json.loads(path.read_text()) if path.exists() else {}


def of_answers(root: Path) -> dict[str, Any]:
    """Sites that answer wrongly, each in its own way, beside an honest one; two nodes say that they are `twin`."""
    images = private_data(root, {name: range(10) for name in (*ANSWERS, "twin-2")})
    plan = a_plan(images, tuple(ANSWERS), collection={"quorum": 2, "deadline": 300})
    given = write_given(plan, root)
    expected = by_file(plan, root, ("honest", "twin"))
    wrong = write_wrong(plan, a_plan(images, tuple(ANSWERS), seed=1), root)
    configs = {name: config | wrong.get(name, {}) for name, config in ANSWERS.items()}
    configs |= {
        "twin-2": {"site": "twin", "fault": "waits"},
        "stranger": {"data": str(root / "twin-2.npz")},
    }
    with deployment(root, Namespaces(), FAULTY) as deployed:
        start(deployed, root, configs)

        def tell(story: Story) -> None:
            came = "`twin` has come: the second node of that name goes on"
            step = Step(came, lambda: "twin" in sent(story.folder), (root / "go-twin-2").touch)
            story.tell(given, [step], lambda: made(plan, story.folder))

        story = undisturbed(deployed, root, tell)
        limit = contribution_limit(plan)
        sizes = {"limit": limit, "too large": limit + 300_000_000}
        return told(story, same(plan, story.folder, expected)) | sizes


def of_interruptions(root: Path) -> dict[str, Any]:
    """A program, a node and a link that are interrupted while their sites work."""
    images = private_data(root, {name: range(10) for name in INTERRUPTED})
    plan = a_plan(images, INTERRUPTED)
    given = write_given(plan, root)
    expected = by_file(plan, root, INTERRUPTED)
    network = Namespaces()
    with deployment(root, network, FAULTY) as deployed:
        start(
            deployed,
            root,
            {name: {} if name == "honest" else {"fault": "waits"} for name in INTERRUPTED},
        )

        def tell(story: Story) -> None:
            network.link("cut", "up")
            if "node-killed" not in deployed.processes:
                start_node(deployed, root, "node-killed", {"fault": "waits"})
            story.tell(given, steps_of(story, root, network), lambda: made(plan, story.folder))

        story = undisturbed(deployed, root, tell)
        return told(story, same(plan, story.folder, expected))


def told(story: Story, as_files: bool) -> dict[str, Any]:
    """What a run came to."""
    outcome = outcome_of(story.folder)
    return {
        "events": story.events,
        "outcome": outcome,
        "same as by files": as_files,
        "peak MB": story.peak,
    }


def made(plan: Plan, folder: Path) -> bool:
    """Whether a run has ended with an outcome."""
    return outcome_path(plan, folder).exists()


def steps_of(story: Story, root: Path, network: Namespaces) -> list[Step]:
    """What is done to the sites while they work."""
    deployed = story.deployed

    def works(site: str) -> Callable[[], bool]:
        return (root / f"kept-{site}" / "works").exists

    def kill_program() -> None:
        (root / "go-killed").touch()
        deployed.kill_program("killed")

    def kill_node() -> None:
        (root / "go-node-killed").touch()
        deployed.stop("node-killed", signal.SIGKILL)

    def cut() -> None:
        network.link("cut", "down")
        (root / "go-cut").touch()

    def after(text: str, seconds: float) -> Callable[[], bool]:
        return lambda: story.seconds_since(text) >= seconds

    return [
        Step("the program of `killed` is killed", works("killed"), kill_program),
        Step("the node of `node-killed` is killed", works("node-killed"), kill_node),
        Step(
            "the node of `node-killed` starts again",
            after("the node of `node-killed` is killed", DOWN),
            lambda: start_node(deployed, root, "node-killed", {"fault": "waits"}),
        ),
        Step("the link of `cut` is cut", works("cut"), cut),
        Step(
            "the link of `cut` is mended",
            after("the link of `cut` is cut", CUT),
            lambda: network.link("cut", "up"),
        ),
    ]


def of_four_sites(root: Path) -> dict[str, Any]:
    """The server is killed after two of four answered; then, with another plan, two of four are too few."""
    images = private_data(root, {name: range(10) for name in FOUR})
    found: dict[str, Any] = {}
    with deployment(root, Namespaces(), FAULTY) as deployed:
        start(deployed, root, {name: {"fault": "waits"} if name in "cd" else {} for name in FOUR})
        plan = a_plan(images, FOUR)
        given, folder = write_given(plan, root), root / "killed"
        story = Story(deployed, folder)
        story.tell(
            given,
            [],
            lambda: (
                len(sent(folder)) == 2
                and all((root / f"kept-{n}" / "works").exists() for n in "cd")
            ),
        )
        kept = sent(folder)
        deployed.stop("superlink", signal.SIGKILL)
        found["server killed"] = {
            "kept": sorted(kept),
            "events": story.events,
            "outcome": outcome_of(folder),
        }
        for name in "cd":
            (root / f"go-{name}").touch()
        for (
            name
        ) in FOUR:  # they end by themselves: a server without `--database` has forgotten their keys
            deployed.stop(name)
        start(deployed, root, {name: {"fault": "waits"} if name in "cd" else {} for name in FOUR})
        again = Story(deployed, folder)
        again.tell(given, [], lambda: made(plan, folder))
        untouched = all(sent(folder)[name] == content for name, content in kept.items())
        as_files = same(plan, folder, by_file(plan, root, FOUR))
        found["server killed"]["again"] = told(again, as_files) | {"first two untouched": untouched}
        found["no quorum"] = without_quorum(
            deployed, root, a_plan(images, FOUR, seed=5, collection={"quorum": 3, "deadline": 90})
        )
    return found


def without_quorum(deployed: Deployment, root: Path, plan: Plan) -> dict[str, Any]:
    """Two of four answer in time; afterwards the others do."""
    given, folder = write_given(plan, root), root / "few"
    for name in "cd":
        (root / f"go-{name}").unlink()
    story = Story(deployed, folder)
    story.tell(given, [], lambda: bool(outcome_of(folder)))
    outcome, kept = outcome_of(folder), sorted(sent(folder))
    for name in "cd":
        (root / f"go-{name}").touch()
    again = Story(deployed, folder)
    again.tell(given, [], lambda: made(plan, folder))
    expected = by_file(plan, root, tuple(outcome_of(folder)["came"]))
    return {
        "kept": kept, "outcome": outcome, "events": story.events,
        "again": told(again, same(plan, folder, expected)),
    }  # fmt: skip


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "answers": of_answers,
    "interruptions": of_interruptions,
    "server": of_four_sites,
}


def main() -> None:
    """Try all, and write what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--part", choices=PARTS, action="append")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = json.loads(options.output.read_text()) if options.output.exists() else {}
    found |= {"compute": asdict(Compute()), "versions": versions()}
    for name in options.part or PARTS:
        with tempfile.TemporaryDirectory() as folder:
            found[name] = PARTS[name](Path(folder))
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()

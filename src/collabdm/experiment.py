"""A whole round simulated on one machine: split, every site, the server, the scores.

    data -> partition -> {site: Contribution} -> DistilledSet -> scores

Everything lies in one folder: experiment.json, partition.json, and for each method plan.json,
contributions/ and distilled.safetensors, the files that real sites would exchange; results.json holds the
scores. What is already there and belongs to the same experiment is not made again, so a stopped
simulation goes on where it stood.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from collabdm.compute import Compute
from collabdm.errors import DocumentError, PlanError
from collabdm.evaluation import Protocol, Score, evaluate, random_baselines, score
from collabdm.files import (
    read_contribution,
    read_distilled,
    read_state,
    write_contribution,
    write_distilled,
    write_plan,
    write_state,
)
from collabdm.images import ImageSet, pool
from collabdm.matching import State
from collabdm.methods import METHODS, Method
from collabdm.methods.collabdm import Run
from collabdm.networks import NetworkSpec
from collabdm.partition import Partition, by_column, dirichlet, iid
from collabdm.planning import geometry, plan_for
from collabdm.protocol import DistilledSet, Part, Plan, canonical_json
from collabdm.seeds import Purpose, Stream
from collabdm.sources import column_values, limit, load
from collabdm.training import RECIPES
from collabdm.version import versions
from collabdm.whole import write_whole

STATE_EVERY_SECONDS = 20.0

Progress = Callable[[str, int, int], None]


class Experiment(Part):
    """One simulated round and how it is scored. `plan` holds settings of `Plan`; `beta=None` splits IID.

    `compare` names further lines of the table: other methods, `sites` (each alone), `random`, `all`.
    """

    data: str
    method: str = "collabdm-pae"
    sites: Annotated[int, Field(ge=1, le=100_000)] = 5
    beta: Annotated[float, Field(gt=0)] | None = 0.1
    class_floor: Annotated[int, Field(ge=0)] = 0
    site_column: str | None = None
    partition: str | None = None
    per_class: Annotated[int, Field(ge=1)] | None = None
    plan: dict[str, Any] = Field(default_factory=dict)
    networks: tuple[str, ...] = ("ConvNet",)
    trials: Annotated[int, Field(ge=1, le=10_000)] = 5
    recipe: Literal["paper", "short"] = "paper"
    epochs: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] = 0
    compare: tuple[str, ...] = ("random",)

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON: what the results of the experiment are filed under."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()

    def protocol(self) -> Protocol:
        """How its sets are scored."""
        recipe = RECIPES[self.recipe]
        if self.epochs is not None:
            recipe = recipe.model_copy(update={"epochs": self.epochs})
        plain = NetworkSpec(**self.plan.get("network", {}))
        specs = tuple(plain if name == plain.name else NetworkSpec(name=name) for name in self.networks)
        return Protocol(specs, self.trials, recipe, self.seed)


@dataclass(frozen=True)
class Bench:
    """Where a simulation runs and who watches it."""

    folder: Path
    compute: Compute = Compute()
    progress: Progress = lambda what, done, total: None


def simulate(experiment: Experiment, bench: Bench) -> dict[str, Any]:
    """Run an experiment, or go on with it; returns what results.json holds. Raises CollabDMError."""
    names = {experiment.method, *experiment.compare} - {"sites", "random", "all"}
    unknown = sorted(names - set(METHODS))
    if unknown:
        raise PlanError(f"`method` should be one of {', '.join(METHODS)}; found {', '.join(unknown)}")
    _claim(experiment, bench.folder)
    train, test = load(experiment.data), load(experiment.data, "test")
    train = limit(train, experiment.per_class, Stream.of(experiment.seed, Purpose.DATA))
    split = split_of(experiment, train, bench.folder)
    sites = {name: held for name, held in split.sites(train).items() if len(held)}
    ledger = _Ledger(experiment, bench)
    chosen = [experiment.method, *(name for name in experiment.compare if name in METHODS)]
    for name in chosen:
        folder = bench.folder if name == experiment.method else bench.folder / name
        distilled = make_set(experiment, METHODS[name], sites, train, replace(bench, folder=folder))
        ledger.sets[name] = _describe(distilled, folder)
        if name == experiment.method:
            plan = distilled.plan
        ledger.score(name, lambda d=distilled: evaluate(d, test, ledger.protocol, bench.compute, bench.progress))
    _score_baselines(experiment, plan, sites, test, ledger)
    return ledger.write(complete=True)


def split_of(experiment: Experiment, train: ImageSet, folder: Path) -> Partition:
    """The split that the experiment asks for, kept in partition.json and replayed from there."""
    if experiment.partition is not None:
        return Partition.load(Path(experiment.partition))
    if experiment.site_column is not None:
        if experiment.per_class is not None:
            raise PlanError("`per_class` should not stand beside `site_column`: leave one out")
        split = by_column(column_values(experiment.data, experiment.site_column))
    elif experiment.beta is None:
        split = iid(len(train), experiment.sites, experiment.seed)
    else:
        split = dirichlet(
            train.labels,
            len(train.classes),
            experiment.sites,
            experiment.beta,
            experiment.seed,
            experiment.class_floor,
        )
    split.save(folder / "partition.json")
    return split


def make_set(
    experiment: Experiment, method: Method, sites: dict[str, ImageSet], train: ImageSet, bench: Bench
) -> DistilledSet:
    """One method's set, through the files that sites would send; finished files are not made again."""
    settings = {"seed": experiment.seed, "sites": len(sites)} | experiment.plan
    plan = plan_for(train, **method.adapt(settings))
    held = {"all": train} if method.pooled else sites
    path = bench.folder / "distilled.safetensors"
    write_plan(plan, bench.folder / "plan.json")
    if path.exists() and _is_of(path, plan):
        return read_distilled(path)
    contributions = []
    for number, (name, data) in enumerate(held.items()):
        file = bench.folder / "contributions" / f"{name}.safetensors"
        with Stopping(file, plan.digest + name, bench, f"site {number + 1} of {len(held)}: ") as run:
            if not _answers(file, plan):
                write_contribution(method.contribute(plan, data, name, run), file)
        contributions.append(read_contribution(file, plan))
    with Stopping(path, plan.digest, bench) as run:
        distilled = replace(method.distill(plan, contributions, run), method=method.name)
    write_distilled(distilled, path)
    return distilled


class Stopping:
    """Keeps the state of a long part beside its output while it runs, so that it can be stopped and resumed."""

    def __init__(self, output: Path, identity: str, bench: Bench, prefix: str = "") -> None:
        self._path = output.parent / f".{output.name}.state"
        self._identity, self._bench, self._prefix = identity, bench, prefix
        self._last = time.monotonic()

    def __enter__(self) -> Run:
        bench = self._bench
        resume = read_state(self._path, self._identity)
        return Run(bench.compute, lambda what, *at: bench.progress(self._prefix + what, *at), resume, self._keep)

    def _keep(self, state: State) -> None:
        if time.monotonic() - self._last > STATE_EVERY_SECONDS:
            write_state(state, self._identity, self._path)
            self._last = time.monotonic()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self._path.unlink(missing_ok=True)


class _Ledger:
    """The scores made so far, on disk after each."""

    def __init__(self, experiment: Experiment, bench: Bench) -> None:
        self.experiment, self.bench, self.protocol = experiment, bench, experiment.protocol()
        self.path = bench.folder / "results.json"
        self.sets: dict[str, dict[str, Any]] = {}
        self.scores: dict[str, list[Score]] = {}
        if self.path.exists():
            for item in json.loads(self.path.read_text())["scores"]:
                kept = Score(item["what"], item["network"], tuple(item["accuracies"]), item["images"])
                self.scores.setdefault(kept.what, []).append(kept)

    def score(self, what: str, make: Callable[[], list[Score]]) -> None:
        if what not in self.scores:
            self.scores[what] = make()
            self.write()

    def write(self, complete: bool = False) -> dict[str, Any]:
        scores = [asdict(s) | {"mean": s.mean, "std": s.std, "n": s.n} for group in self.scores.values() for s in group]
        results = {
            "experiment": self.experiment.model_dump(mode="json"),
            "digest": self.experiment.digest,
            "complete": complete,
            "compute": asdict(self.bench.compute),
            "versions": versions(),
            "sets": self.sets,
            "scores": scores,
        }
        write_whole(self.path, (json.dumps(results, indent=2) + "\n").encode())
        return results


def _score_baselines(
    experiment: Experiment, plan: Plan, sites: dict[str, ImageSet], test: ImageSet, ledger: _Ledger
) -> None:
    seen, bench = geometry(plan), ledger.bench

    def trained(what: str, data: ImageSet) -> None:
        ledger.score(what, lambda: score(what, data, test, seen, ledger.protocol, bench.compute, bench.progress))

    if "random" in experiment.compare:
        for what, data in random_baselines(plan, pool(list(sites.values())), experiment.seed).items():
            trained(what, data)
    if "sites" in experiment.compare:
        for name, data in sites.items():
            trained(f"{name} alone", data)
    if "all" in experiment.compare:
        trained("all the data", pool(list(sites.values())))


def _claim(experiment: Experiment, folder: Path) -> None:
    """Take a folder for an experiment, or refuse one that holds another's results."""
    path = folder / "experiment.json"
    if path.exists():
        found = json.loads(path.read_text())
        if found.get("digest") != experiment.digest:
            raise DocumentError(
                f"{folder} should be empty or hold this experiment; found another one: choose another folder"
            )
    content = {"digest": experiment.digest, "experiment": experiment.model_dump(mode="json")}
    write_whole(path, (json.dumps(content, indent=2) + "\n").encode())


def _describe(distilled: DistilledSet, folder: Path) -> dict[str, Any]:
    sent = {p.stem: p.stat().st_size for p in sorted((folder / "contributions").glob("*.safetensors"))}
    return {
        "plan": distilled.plan.digest,
        "bytes_per_site": sent,
        "bytes": (folder / "distilled.safetensors").stat().st_size,
        "images": len(distilled.images),
        "sites": distilled.sites,
    }


def _answers(path: Path, plan: Plan) -> bool:
    try:
        read_contribution(path, plan)
    except DocumentError:
        return False
    return True


def _is_of(path: Path, plan: Plan) -> bool:
    try:
        return read_distilled(path).plan == plan
    except DocumentError:
        return False

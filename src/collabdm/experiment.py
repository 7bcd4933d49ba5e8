"""A whole round simulated on one machine: split, every site, the server, the scores.

    data -> partition -> {site: Contribution} -> outcome -> scores

Everything lies in one folder: experiment.json, partition.json, and for each method plan.json,
contributions/ and the outcome (most often distilled.safetensors), the files that real sites would exchange;
results.json holds the scores. What is already there and belongs to the same experiment is not made again, so a stopped
simulation goes on where it stood. Settings and data are checked first, before anything is written.
"""

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, ValidationError, field_validator, model_serializer, model_validator

from collabdm.compute import Compute
from collabdm.curves import Curve
from collabdm.errors import DataError, DocumentError, PlanError
from collabdm.evaluation import Protocol, evaluate, for_as_many_steps, random_baselines, score
from collabdm.files import (
    read_contribution,
    read_state,
    write_contribution,
    write_plan,
    write_state,
)
from collabdm.flows.schema import FlowSchema
from collabdm.flows.stations import Stations, stations
from collabdm.images import ImageSet, pool
from collabdm.ledger import Ledger, read_json
from collabdm.matching import State
from collabdm.methods import METHODS, Method, Outcome
from collabdm.methods.collabdm import Run, Watch, unwatched
from collabdm.outcomes import (
    KINDS,
    Watched,
    describe_outcome,
    kind_of,
    read_kept,
    write_traffic,
)
from collabdm.partition import Partition, by_column, dirichlet, iid
from collabdm.planning import describe, geometry, network_of, networks_of, plan_for, plan_for_flows, with_rates
from collabdm.protocol import DistilledSet, ImageSpec, Part, Plan, canonical_json
from collabdm.seeds import SEED_LIMIT, Purpose, Stream
from collabdm.sources import column_values, fit_classes, limit, load
from collabdm.training import RECIPES
from collabdm.whole import write_whole

STATE_EVERY_SECONDS = 20.0
OF_THE_SIMULATION = {
    "classes",
    "flows",
    "image",
    "method",
    "probe",
    "site_names",
    "sites",
}  # fields of a Plan that it fills
LINES = ("random", "sites", "all")  # of the table of results, beside the methods

Progress = Callable[[str, int, int], None]


class Experiment(Part):
    """One simulated round and how it is scored. `plan` holds settings of `Plan`; `beta=None` splits IID;
    `side` resizes the images first.

    `compare` names further lines of the table: other methods, `sites` (each alone), `random`, `all`. `curve` points
    along the refinement are scored too, by the first network. With `flows`, `data` is a table of that schema, or the
    tables of the sites by commas. `test_per_class` takes so many test images of each class, the same for every seed.
    `epochs` and `learning_rate` replace the recipe's own.
    """

    data: str
    method: str = "collabdm-pae"
    sites: Annotated[int, Field(ge=1, le=100_000)] = 5
    beta: Annotated[float, Field(gt=0)] | None = 0.1
    class_floor: Annotated[int, Field(ge=0)] = 0
    site_column: str | None = None
    partition: str | None = None
    per_class: Annotated[int, Field(ge=1)] | None = None
    side: Annotated[int, Field(ge=8, le=128)] | None = None
    plan: dict[str, Any] = Field(default_factory=dict)
    networks: tuple[str, ...] = ("ConvNet",)
    trials: Annotated[int, Field(ge=1, le=10_000)] = 5
    recipe: Literal["paper", "short", "strong"] = "paper"
    epochs: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=SEED_LIMIT)] = 0
    compare: tuple[str, ...] = ("localdm", "random", "sites")
    curve: Annotated[int, Field(ge=0, le=1000)] = 0
    flows: FlowSchema | None = None
    test_per_class: Annotated[int, Field(ge=1)] | None = None
    learning_rate: Annotated[float, Field(gt=0, le=100)] | None = None

    @model_serializer(mode="wrap")
    def _without_what_is_absent(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        later = ("curve", "flows", "test_per_class", "learning_rate")  # older digests stay
        return {k: v for k, v in handler(self).items() if v or k not in later}

    @field_validator("plan")
    @classmethod
    def _by_name(cls, plan: dict[str, Any]) -> dict[str, Any]:
        return _sorted(plan)

    @model_validator(mode="after")
    def _parts_agree(self) -> "Experiment":
        if self.method not in METHODS:
            raise ValueError(f"`method` should be one of {', '.join(METHODS)}; found {self.method!r}")
        if unknown := sorted(set(self.compare) - set(METHODS) - set(LINES)):
            raise ValueError(
                f"`compare` should be of {', '.join((*LINES, *METHODS))}; found {', '.join(map(repr, unknown))}"
            )
        if fixed := sorted(set(self.plan) & OF_THE_SIMULATION):
            raise ValueError(f"`plan` should leave {', '.join(fixed)} to the simulation")
        if self.site_column is not None and (self.per_class is not None or self.partition is not None):
            raise ValueError("`site_column` should stand without `per_class` and `partition`; found both")
        if self.class_floor and (self.beta is None or self.site_column is not None or self.partition is not None):
            raise ValueError("`class_floor` belongs to the Dirichlet split, that of `beta`; found another split")
        if self.flows is not None and self.side is not None:
            raise ValueError("`side` should be left to the schema of flows; found both")
        return self

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON: what the results of the experiment are filed under."""
        return hashlib.sha256(canonical_json(self.model_dump(mode="json")).encode()).hexdigest()

    def protocol(self) -> Protocol:
        """How its sets are scored."""
        own = {"epochs": self.epochs, "learning_rate": self.learning_rate}
        recipe = RECIPES[self.recipe].model_copy(update={k: v for k, v in own.items() if v is not None})
        specs = networks_of(self.networks, network_of(self.plan.get("network", {})))
        return Protocol(specs, self.trials, recipe, self.seed)


@dataclass(frozen=True)
class Bench:
    """Where a simulation runs and who watches it."""

    folder: Path
    compute: Compute = Compute()
    progress: Progress = lambda what, done, total: None


def simulate(experiment: Experiment, bench: Bench) -> dict[str, Any]:
    """Run an experiment, or go on with it; returns what results.json holds. Raises CollabDMError."""
    protocol = experiment.protocol()
    train, test, split = data_of(experiment)
    test = limit(test, experiment.test_per_class, Stream.of(0, Purpose.DATA))
    _check(experiment, train, test)
    split = split or split_of(experiment, train)
    sites = {name: held for name, held in split.sites(train).items() if len(held)}
    chosen = dict.fromkeys([experiment.method, *(name for name in experiment.compare if name in METHODS)])
    plans = {name: plan_of(experiment, METHODS[name], sites, train) for name in chosen}
    _check_sites(plans[experiment.method], split, train)
    _claim(experiment, {"data": data_digest(train, test), "partition": _digest_of(split)}, bench.folder)
    split.save(bench.folder / "partition.json")
    ledger = Ledger(bench.folder / "results.json", experiment.model_dump(mode="json"), experiment.digest, bench.compute)
    first = replace(protocol, networks=protocol.networks[:1])
    for name, plan in plans.items():
        folder = bench.folder if name == experiment.method else bench.folder / name
        held = {"all": train} if METHODS[name].pooled else sites
        curve = Curve(plan, folder / "curve", experiment.curve if name == experiment.method else 0)
        watched = Watched(folder / "watched.json", plan, test, bench.compute)
        made = make_outcome(plan, METHODS[name], held, replace(bench, folder=folder), Onlookers(curve.keep, watched))
        ledger.sets[name] = describe_outcome(made, folder)
        ledger.score(name, partial(kind_of(made).score, made, test, protocol, bench.compute, bench.progress))
        for line in watched.scores(name):
            ledger.score(line.what, partial(list, [line]))
        if isinstance(made, DistilledSet):
            ledger.draw(curve, made, lambda earlier: evaluate(earlier, test, first, bench.compute, bench.progress))
    _score_baselines(experiment, plans[experiment.method], sites, test, ledger, bench)
    return ledger.write(complete=True)


def data_of(experiment: Experiment) -> Stations:
    """Training and test images, and their split where tables of flows say it."""
    if experiment.flows is None:
        train, test = (load(experiment.data, split, side=experiment.side) for split in ("train", "test"))
        found = Stations(train, fit_classes(test, train.classes), None)
    else:
        found = stations(experiment.data, experiment.flows, experiment.site_column, experiment.seed)
        if found.split is not None and (experiment.per_class is not None or experiment.partition is not None):
            raise PlanError("tables of several sites should stand without `per_class` and `partition`; found both")
    return found._replace(train=limit(found.train, experiment.per_class, Stream.of(experiment.seed, Purpose.DATA)))


def split_of(experiment: Experiment, train: ImageSet) -> Partition:
    """The split that the experiment asks for."""
    if experiment.partition is not None:
        return Partition.load(Path(experiment.partition))
    if experiment.site_column is not None:
        return by_column(column_values(experiment.data, experiment.site_column))
    if experiment.beta is None:
        return iid(len(train), experiment.sites, experiment.seed)
    return dirichlet(
        train.labels, len(train.classes), experiment.sites, experiment.beta, experiment.seed, experiment.class_floor
    )


def plan_of(experiment: Experiment, method: Method, sites: dict[str, ImageSet], train: ImageSet) -> Plan:
    """The plan of one method: the experiment's settings as the method adapts them; `options` are its first method's."""
    settings: dict[str, Any] = {"seed": experiment.seed, "sites": len(sites)}
    if experiment.plan.get("fraction", 1) != 1:
        settings["site_names"] = tuple(sites)
    said = {k: v for k, v in experiment.plan.items() if k != "options" or method.name == experiment.method}
    settings = method.adapt(settings | said)
    if experiment.flows is not None:
        return plan_for_flows(experiment.flows, **settings)
    return plan_for(train, **with_rates(settings, train.shape[-1]))


@dataclass(frozen=True)
class Onlookers:
    """Who looks at a long part on its way: at every state of its loop, and at predictors that it shows."""

    states: Callable[[State], None] = lambda state: None
    predictors: Watch = unwatched


def make_outcome(
    plan: Plan, method: Method, held: dict[str, ImageSet], bench: Bench, onlookers: Onlookers = Onlookers()
) -> Outcome:
    """One method's outcome, through the files that sites would send; finished files are not made again."""
    kind = KINDS[method.outcome]
    path = bench.folder / kind.file
    write_plan(plan, bench.folder / "plan.json")
    kept = read_kept(method, plan, bench.folder)
    if kept is not None:
        return kept
    made: Outcome
    if method.converse is not None:
        with Stopping(path, plan.digest, bench, onlookers=onlookers) as run:
            made, traffic = method.converse(plan, held, run)
            write_traffic(traffic, bench.folder)
            kind.write(made, path)
        return made
    contributions = []
    for number, (name, data) in enumerate(held.items()):
        file = bench.folder / "contributions" / f"{name}.safetensors"
        with Stopping(file, plan.digest + name, bench, f"site {number + 1} of {len(held)}: ") as run:
            if not _answers(file, plan):
                write_contribution(method.contribute(plan, data, name, run), file)
        contributions.append(read_contribution(file, plan))
    with Stopping(path, plan.digest, bench, onlookers=onlookers) as run:
        made = replace(method.distill(plan, contributions, run), method=method.name)
        kind.write(made, path)
    return made


class Stopping:
    """Keeps the state of a long part beside its output while it runs, so that it can be stopped and resumed."""

    def __init__(
        self, output: Path, identity: str, bench: Bench, prefix: str = "", onlookers: Onlookers = Onlookers()
    ) -> None:
        self._path = output.parent / f".{output.name}.state"
        self._identity, self._bench, self._prefix, self._onlookers = identity, bench, prefix, onlookers
        self._last = time.monotonic()

    def __enter__(self) -> Run:
        bench = self._bench
        resume = read_state(self._path, self._identity)
        return Run(
            bench.compute,
            lambda what, *at: bench.progress(self._prefix + what, *at),
            resume,
            self._keep,
            self._onlookers.predictors,
        )

    def _keep(self, state: State) -> None:
        self._onlookers.states(state)
        if time.monotonic() - self._last > STATE_EVERY_SECONDS:
            write_state(state, self._identity, self._path)
            self._last = time.monotonic()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self._path.unlink(missing_ok=True)


def _score_baselines(
    experiment: Experiment, plan: Plan, sites: dict[str, ImageSet], test: ImageSet, ledger: Ledger, bench: Bench
) -> None:
    seen, protocol = geometry(plan), experiment.protocol()
    everything = pool(list(sites.values()))
    stored = int(torch.count_nonzero(everything.counts())) * plan.ipc * plan.pae**2

    def trained(what: str, data: ImageSet) -> None:
        rule = for_as_many_steps(protocol, stored, len(data))
        ledger.score(what, lambda: score(what, data, test, seen, rule, bench.compute, bench.progress))

    if "random" in experiment.compare:
        for what, data in random_baselines(plan, everything, experiment.seed).items():
            trained(what, data)
    if "sites" in experiment.compare:
        for name, data in sites.items():
            trained(f"{name} alone", data)
    if "all" in experiment.compare:
        trained("all the data", everything)


def _sorted(settings: dict[str, Any]) -> dict[str, Any]:
    """The same settings in alphabetical order, whatever order they were said in."""
    return {key: _sorted(value) if isinstance(value, dict) else value for key, value in sorted(settings.items())}


def data_digest(*sets: ImageSet) -> str:
    """SHA-256 of images and labels: tells a run that is resumed whether its data changed."""
    digest = hashlib.sha256()
    for data in sets:
        digest.update(data.labels.numpy().tobytes())
        for start in range(0, len(data), 4096):
            digest.update(data.images[start : start + 4096].numpy().tobytes())
    return digest.hexdigest()


def _digest_of(split: Partition) -> str:
    content = [[name, index.tolist()] for name, index in zip(split.names, split.index, strict=True)]
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()


def _check(experiment: Experiment, train: ImageSet, test: ImageSet) -> None:
    """Refuse settings and data that do not go together, before any work."""
    if train.shape != test.shape:
        raise DataError(f"training and test images should have one shape; found {train.shape} and {test.shape}")
    channels, side, _ = train.shape
    try:
        image = ImageSpec(channels=channels, side=side, mean=(0.0,) * channels, std=(1.0,) * channels)
        rest = {"classes": train.classes, "image": image, "sites": 1, "site_names": ("all",)}
        Plan.model_validate(experiment.plan | rest)
    except ValidationError as error:
        raise PlanError(f"in the plan: {describe(error)}") from error


def _check_sites(plan: Plan, split: Partition, train: ImageSet) -> None:
    """Refuse a split with a site that may not be named so, or with a class that no site has."""
    counts = split.counts(train)
    for name, held in zip(split.names, counts.sum(1).tolist(), strict=True):
        if held and plan.site_names is None:
            plan.check_site(name)
    missing = [name for name, held in zip(plan.classes, counts.sum(0).tolist(), strict=True) if not held]
    if missing:
        raise DataError(
            f"every class should be at some site; no site has {', '.join(missing)}: leave those classes out"
        )


def _claim(experiment: Experiment, found_in: dict[str, str], folder: Path) -> None:
    """Take a folder for an experiment, or refuse one that holds the results of another, or of other data."""
    path = folder / "experiment.json"
    identity = {"digest": experiment.digest} | found_in
    kept = read_json(path)
    changed = [name for name in identity if name in kept and kept[name] != identity[name]]
    if path.exists() and ("digest" not in kept or changed):
        what = "another one" if "digest" not in kept or "digest" in changed else f"one with another {changed[0]}"
        raise DocumentError(
            f"{folder} should be empty or hold this experiment; found {what}: choose another folder, or empty this one"
        )
    content = identity | {"experiment": experiment.model_dump(mode="json")}
    write_whole(path, (json.dumps(content, indent=2) + "\n").encode())


def _answers(path: Path, plan: Plan) -> bool:
    try:
        read_contribution(path, plan)
    except DocumentError:
        return False
    return True

"""A whole round simulated on one machine: split, every site, the server, the scores.

    data -> partition -> {site: Contribution} -> outcome -> scores

Everything lies in one folder: experiment.json, partition.json, and for each method plan.json,
contributions/ and the outcome (most often distilled.safetensors), the files that real sites would exchange;
results.json holds the scores. What is already there and belongs to the same experiment is not made again, so a stopped
simulation goes on where it stood. Settings and data are checked first, before anything is written.
"""

import hashlib
import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from collabdm.data.flows.stations import Stations, stations
from collabdm.data.partition import Partition, by_column, dirichlet, iid
from collabdm.data.sources import column_values, fit_classes, limit, load
from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.canonical_json import canonical_json
from collabdm.documents.contribution import Contribution
from collabdm.documents.contribution_file import write_contribution
from collabdm.documents.frozen_model import validation_message
from collabdm.documents.outcomes import DistilledSet
from collabdm.documents.plan import ImageSpec, Plan
from collabdm.documents.plan_file import write_plan
from collabdm.errors import DataError, DocumentError, PlanError
from collabdm.images import ImageSet, pool
from collabdm.lab.curves import Curve
from collabdm.lab.experiment import Experiment
from collabdm.lab.results import SimulationResults, read_json
from collabdm.lab.results_file import ResultsFile
from collabdm.lab.watched import Watched, describe_outcome, write_traffic
from collabdm.matching.embedding import plan_geometry
from collabdm.matching.run_context import RunContext
from collabdm.methods.base import Method, Outcome
from collabdm.methods.registry import METHODS
from collabdm.planning.make import plan_for, plan_for_flows, with_rates
from collabdm.rounds.contributions import read_contribution
from collabdm.rounds.exchange import data_digest
from collabdm.rounds.resumable import ResumableRun
from collabdm.scoring.evaluation import (
    EvaluationConfig,
    evaluate,
    for_as_many_steps,
    random_baselines,
    score,
)
from collabdm.scoring.outcomes import OUTCOME_KINDS, find_outcome, kind_of
from collabdm.seeds import Purpose, Stream


def simulate(experiment: Experiment, folder: Path, context: RunContext = RunContext()) -> SimulationResults:
    """Run an experiment, or continue it.

    Args:
        experiment: the data, its split, the methods and the evaluation.
        folder: the folder of the round; empty, or of the same experiment.
        context: device and progress.

    Returns:
        The contents of results.json.

    Raises:
        CollabDMError: settings, data or folder do not fit.
    """
    config = experiment.evaluation()
    train, test, split = data_of(experiment)
    test = limit(test, experiment.test_per_class, Stream.of(0, Purpose.DATA))
    _check(experiment, train, test)

    split = split or split_of(experiment, train)
    sites = {name: data for name, data in split.sites(train).items() if len(data)}
    compared = (name for name in experiment.compare if name in METHODS)
    names = dict.fromkeys([experiment.method, *compared])
    plans = {name: plan_of(experiment, METHODS[name], sites, train) for name in names}
    _check_sites(plans[experiment.method], split, train)

    digests = {"data": data_digest(train, test), "partition": _digest_of(split)}
    _claim(experiment, digests, folder)
    split.save(folder / "partition.json")
    results = ResultsFile(folder / "results.json", experiment, context.compute)

    for name, plan in plans.items():
        main = name == experiment.method
        held = {"all": train} if METHODS[name].pooled else sites
        own_folder = folder if main else folder / name
        points = experiment.curve if main else 0
        _run_method(plan, METHODS[name], held, _Scoring(test, config, results, points), own_folder, context)

    _score_baselines(experiment, plans[experiment.method], sites, test, results, context)
    return results.write(complete=True)


@dataclass(frozen=True)
class _Scoring:
    """The evaluation of a method's outcome: test images, networks, the results, points of the curve."""

    test: ImageSet
    config: EvaluationConfig
    results: ResultsFile
    points: int


def _run_method(
    plan: Plan,
    method: Method,
    sites: dict[str, ImageSet],
    scoring: _Scoring,
    folder: Path,
    context: RunContext,
) -> None:
    """Compute a method's outcome, and score it, its curve and the predictors on its way."""
    test, config, results = scoring.test, scoring.config, scoring.results
    curve = Curve(plan, folder / "curve", scoring.points)
    watched = Watched(folder / "watched.json", plan, test, context.compute)

    observed = replace(context, keep=curve.keep, watch=watched)
    outcome = make_outcome(plan, method, sites, folder, observed)

    results.sets[method.name] = describe_outcome(outcome, folder)
    results.score(method.name, partial(kind_of(outcome).score, outcome, test, config, context))
    for line in watched.scores(method.name):
        results.score(line.what, partial(list, [line]))

    if isinstance(outcome, DistilledSet):
        first = replace(config, networks=config.networks[:1])
        results.draw(curve, outcome, lambda earlier: evaluate(earlier, test, first, context))


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


def make_outcome(plan: Plan, method: Method, sites: dict[str, ImageSet], folder: Path, context: RunContext) -> Outcome:
    """One method's outcome, through the files that sites would send; finished files are kept.

    Args:
        plan: the plan.
        method: its method.
        sites: the images of each site, by name.
        folder: the folder of plan, contributions and outcome.
        context: device and progress; `keep` and `watch` receive the server's checkpoints and predictors.

    Returns:
        The outcome.
    """
    kind = OUTCOME_KINDS[method.outcome]
    path = folder / kind.file
    write_plan(plan, folder / "plan.json")
    finished = find_outcome(method, plan, folder)
    if finished is not None:
        return finished

    outcome: Outcome
    if method.run_rounds is not None:
        with ResumableRun(path, plan.digest, context) as run:
            outcome, traffic = method.run_rounds(plan, sites, run)
            write_traffic(traffic, folder)
            kind.write(outcome, path)
        return outcome

    contributions = [_contribution(plan, method, name, data, folder, context) for name, data in sites.items()]
    with ResumableRun(path, plan.digest, context) as run:
        outcome = replace(method.distill(plan, contributions, run), method=method.name)
        kind.write(outcome, path)
    return outcome


def _contribution(
    plan: Plan, method: Method, site: str, data: ImageSet, folder: Path, context: RunContext
) -> Contribution:
    """One site's contribution, read from its file, which is written first if it is not there."""
    file = folder / "contributions" / f"{site}.safetensors"
    try:
        return read_contribution(file, plan)
    except DocumentError:  # not there, or of another plan
        pass

    at_site = context.alone().at_site(site)
    with ResumableRun(file, plan.digest + site, at_site) as run:
        write_contribution(method.contribute(plan, data, site, run), file)
    return read_contribution(file, plan)


def _score_baselines(
    experiment: Experiment,
    plan: Plan,
    sites: dict[str, ImageSet],
    test: ImageSet,
    results: ResultsFile,
    context: RunContext,
) -> None:
    """Score networks trained on random real images, on each site's data, and on all of it."""
    geometry, config = plan_geometry(plan), experiment.evaluation()
    everything = pool(list(sites.values()))
    stored = int(torch.count_nonzero(everything.counts())) * plan.ipc * plan.pae**2

    def score_line(name: str, data: ImageSet) -> None:
        longer = for_as_many_steps(config, stored, len(data))
        results.score(name, lambda: score(name, data, test, geometry, longer, context))

    if "random" in experiment.compare:
        for name, data in random_baselines(plan, everything, experiment.seed).items():
            score_line(name, data)
    if "sites" in experiment.compare:
        for site, data in sites.items():
            score_line(f"{site} alone", data)
    if "all" in experiment.compare:
        score_line("all the data", everything)


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
        raise PlanError(f"in the plan: {validation_message(error)}") from error


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
    atomic_write(path, (json.dumps(content, indent=2) + "\n").encode())

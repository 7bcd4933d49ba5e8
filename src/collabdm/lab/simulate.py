"""Simulate a whole round on one machine: the split, all sites, the server and the scores.

    data -> split -> {site: Contribution} -> outcome -> scores

Everything is written to one folder, in the files that real sites would exchange:

    experiment.json                       the settings, and digests of the data and the split
    partition.json                        the split
    plan.json, contributions/, distilled.safetensors        the round of the experiment's method
    METHOD/plan.json, METHOD/contributions/, ...            the round of each compared method
    results.json                          the scores

A method with a different outcome writes steps.safetensors or model.safetensors instead of
distilled.safetensors. An interrupted simulation resumes: files and scores of the same experiment
are used as they are. Settings and data are checked before anything is written.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from collabdm.documents.atomic_write import atomic_write
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
from collabdm.lab.round_data import RoundData, load_round_data
from collabdm.lab.watched import Watched, describe_outcome, write_traffic
from collabdm.matching.embedding import plan_geometry
from collabdm.matching.run_context import RunContext
from collabdm.methods.base import Method, Outcome, RunRounds
from collabdm.methods.registry import METHODS
from collabdm.planning.make import plan_for, plan_for_flows, with_rates
from collabdm.planning.private import with_private_defaults
from collabdm.rounds.contributions import read_contribution
from collabdm.rounds.resumable import ResumableRun, discard_state
from collabdm.scoring.evaluation import (
    EvaluationConfig,
    Score,
    evaluate,
    for_as_many_steps,
    random_baselines,
    score,
)
from collabdm.scoring.outcomes import OUTCOME_KINDS, find_outcome, kind_of


def simulate(
    experiment: Experiment,
    folder: Path,
    context: RunContext = RunContext(),
    note: Callable[[str], None] = lambda line: None,
) -> SimulationResults:
    """Run an experiment, or resume it.

    Args:
        experiment: the data, its split, the methods and the evaluation.
        folder: the folder of the round, which is empty or contains the same experiment.
        context: device and progress.
        note: receives the lines of the tallies of pictures.

    Returns:
        The contents of results.json.

    Raises:
        CollabDMError: the settings, the data or the folder do not suit the experiment.
    """
    config = experiment.evaluation()
    data = load_round_data(experiment)
    for use, tally in zip(("training", "test"), data.tallies, strict=False):
        heading, *others = tally.lines()
        for line in (f"{use} data, {heading}", *others):
            note(line)
    plans = _plans_of(experiment, data)

    _claim(experiment, data, folder)
    data.split.save(folder / "partition.json")
    results = ResultsFile(folder / "results.json", experiment, context.compute)

    identity = json.dumps([experiment.digest, data.digests])
    with ResumableRun(results.path, identity, context, at_once=True) as run:
        scorer = _Scorer(config, data.test, results, run)
        for name, plan in plans.items():
            first = name == experiment.method
            sites = {"all": data.train} if METHODS[name].pooled else data.sites
            own_folder = folder if first else folder / name
            round_ = MethodRound(plan, METHODS[name], sites, own_folder, identity)
            scorer.score_method(round_, experiment.curve if first else 0)

        scorer.score_baselines(experiment.compare, plans[experiment.method], data.sites)
        return results.write(complete=True)


def _plans_of(experiment: Experiment, data: RoundData) -> dict[str, Plan]:
    """Make the plan of each method, the experiment's own first, and check it against the data."""
    _check_plan_settings(experiment, data.train)
    compared = [name for name in experiment.compare if name in METHODS]
    names = dict.fromkeys([experiment.method, *compared])

    plans = {name: plan_of(experiment, METHODS[name], data) for name in names}
    _check_sites(plans[experiment.method], data)
    return plans


def plan_of(experiment: Experiment, method: Method, data: RoundData) -> Plan:
    """Make the plan of one method, from the experiment's settings as the method adapts them.

    Args:
        experiment: the experiment; `options` in its plan belong to its own method only.
        method: the method.
        data: the data and the split.

    Returns:
        The plan.

    Raises:
        PlanError: the settings do not fit the method or the data.
    """
    settings: dict[str, Any] = {"seed": experiment.seed, "sites": len(data.sites)}
    if experiment.plan.get("fraction", 1) != 1:
        settings["site_names"] = tuple(data.sites)

    settings |= experiment.plan
    if method.name != experiment.method:
        settings.pop("options", None)
    settings = method.adapt(settings)

    if experiment.flows is not None:
        return plan_for_flows(experiment.flows, **settings)
    return plan_for(data.train, **with_rates(settings, data.train.shape))


# --- one method --------------------------------------------------------------------------------


@dataclass(frozen=True)
class MethodRound:
    """One method's round.

    Attributes:
        plan: its plan.
        method: the method.
        sites: the sites' images by name.
        folder: the folder of its files.
        identity: a text that is different for other data or another split.
    """

    plan: Plan
    method: Method
    sites: dict[str, ImageSet]
    folder: Path
    identity: str = ""

    def outcome(self, context: RunContext) -> Outcome:
        """Run the method, and return its outcome; a finished outcome in the folder is reused.

        A one-shot method first computes the contribution of each site; existing ones are reused.

        Args:
            context: device and progress; `keep` and `watch` receive the server's checkpoints and
                predictors.

        Returns:
            The outcome, which is also written to a file.
        """
        write_plan(self.plan, self.folder / "plan.json")
        finished = find_outcome(self.method, self.plan, self.folder)
        if finished is not None:
            discard_state(self.folder / OUTCOME_KINDS[self.method.outcome].file)
            return finished
        if self.method.run_rounds is not None:
            return self._run_rounds(self.method.run_rounds, context)

        contributions = [self.contribution(site, context) for site in self.sites]
        kind = OUTCOME_KINDS[self.method.outcome]
        path = self.folder / kind.file
        with ResumableRun(path, self.plan.digest + self.identity, context) as run:
            outcome = self.method.distill(self.plan, contributions, run)
            outcome = replace(outcome, method=self.method.name)
            kind.write(outcome, path)
        return outcome

    def _run_rounds(self, run_rounds: RunRounds, context: RunContext) -> Outcome:
        """Compute the outcome of a method with several rounds, and write a file of its traffic."""
        kind = OUTCOME_KINDS[self.method.outcome]
        path = self.folder / kind.file
        with ResumableRun(path, self.plan.digest + self.identity, context) as run:
            outcome, traffic = run_rounds(self.plan, self.sites, run)
            write_traffic(traffic, self.folder)
            kind.write(outcome, path)
        return outcome

    def contribution(self, site: str, context: RunContext) -> Contribution:
        """Read one site's contribution from its file, after computing it if necessary."""
        path = self.folder / "contributions" / f"{site}.safetensors"
        try:
            contribution = read_contribution(path, self.plan)
        except DocumentError:  # absent, damaged, or of a different plan
            pass
        else:
            discard_state(path)
            return contribution

        at_site = context.alone().at_site(site)
        with ResumableRun(path, self.plan.digest + site + self.identity, at_site) as run:
            contribution = self.method.contribute(self.plan, self.sites[site], site, run)
            write_contribution(contribution, path)
        return read_contribution(path, self.plan)


# --- scores ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Scorer:
    """Scores sets on the test images and adds the scores to the results."""

    config: EvaluationConfig
    test: ImageSet
    results: ResultsFile
    context: RunContext

    def score_method(self, round_: MethodRound, points: int) -> None:
        """Compute a method's outcome; score it, its predictors and `points` refinement steps."""
        name, plan, folder = round_.method.name, round_.plan, round_.folder
        curve = Curve(plan, folder / "curve", points)
        watched = Watched(folder / "watched.json", plan, self.test, self.context.compute)
        alone = self.context.alone()
        outcome = round_.outcome(replace(alone, keep=curve.keep, watch=watched))

        self.results.sets[name] = describe_outcome(outcome, folder)
        measure = kind_of(outcome).score
        self.results.score(name, partial(measure, outcome, self.test, self.config), self.context)
        for predictor in watched.scores(name):
            self.results.score(predictor.what, partial(_known, predictor), self.context)

        if isinstance(outcome, DistilledSet):
            self.results.draw(curve, outcome, self._score_point, self.context)

    def score_baselines(
        self, wanted: tuple[str, ...], plan: Plan, sites: dict[str, ImageSet]
    ) -> None:
        """Score networks trained on random real images, on each site's images, and on all the data.

        Args:
            wanted: the names of the baselines, out of `lab.experiment.BASELINES`.
            plan: the plan of the set that they are compared with.
            sites: the images of each site.
        """
        everything = pool(list(sites.values()))
        present = int(torch.count_nonzero(everything.counts()))
        distilled = present * plan.ipc * plan.pae**2

        sets: dict[str, ImageSet] = {}
        if "random" in wanted:
            sets |= random_baselines(plan, everything, self.config.seed)
        if "sites" in wanted:
            sets |= {f"{site} alone": images for site, images in sites.items()}
        if "all" in wanted:
            sets["all the data"] = everything

        geometry = plan_geometry(plan)
        for name, images in sets.items():
            config = for_as_many_steps(self.config, distilled, len(images))
            measure = partial(score, name, images, self.test, geometry, config)
            self.results.score(name, measure, self.context)

    def _score_point(self, earlier: DistilledSet, context: RunContext) -> list[Score]:
        """Score an intermediate set of the refinement, with the first network."""
        first = replace(self.config, networks=self.config.networks[:1])
        return evaluate(earlier, self.test, first, context)


def _known(score: Score, context: RunContext) -> list[Score]:
    """Return a score that was measured during the round."""
    return [score]


# --- checks ------------------------------------------------------------------------------------


def _check_plan_settings(experiment: Experiment, train: ImageSet) -> None:
    """Check the experiment's plan settings against the images, with a placeholder mean and std.

    The bound of a privacy budget, which depends on the images' size, is a placeholder too.
    """
    channels, side, _ = train.shape
    try:
        mean, std = (0.0,) * channels, (1.0,) * channels
        image = ImageSpec(channels=channels, side=side, mean=mean, std=std)
        rest = {"classes": train.classes, "image": image, "sites": 1, "site_names": ("all",)}
        if experiment.flows is not None:
            rest |= {"flows": experiment.flows}
        settings = with_private_defaults(experiment.plan)
        if isinstance(privacy := settings.get("privacy"), dict):
            settings["privacy"] = {"clip": 1.0} | privacy
        Plan.model_validate(settings | rest)
    except ValidationError as error:
        raise PlanError(f"in the plan: {validation_message(error)}") from error


def _check_sites(plan: Plan, data: RoundData) -> None:
    """Check the names of the sites, and that each class is present at some site."""
    if plan.site_names is None:
        for name in data.sites:
            plan.check_site(name)

    totals = data.split.counts(data.train).sum(0).tolist()
    missing = [name for name, total in zip(plan.classes, totals, strict=True) if not total]
    if missing:
        raise DataError(
            f"every class should be at some site; no site has {', '.join(missing)}: "
            "leave those classes out"
        )


def _claim(experiment: Experiment, data: RoundData, folder: Path) -> None:
    """Write experiment.json. Raises DocumentError if the folder has different settings or data."""
    path = folder / "experiment.json"
    identity = {"digest": experiment.digest} | data.digests
    stored = read_json(path)
    changed = [name for name in identity if name in stored and stored[name] != identity[name]]

    if path.exists() and ("digest" not in stored or changed):
        other = "digest" not in stored or "digest" in changed
        found = "another experiment" if other else f"the same with another {changed[0]}"
        raise DocumentError(
            f"{folder} should be empty or contain this experiment; found {found}: "
            "choose another folder, or empty this one"
        )

    content = identity | {"experiment": experiment.model_dump(mode="json")}
    atomic_write(path, (json.dumps(content, indent=2) + "\n").encode())

"""Evaluate a distilled set: read the real images, compute the scores, write the results."""

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

from collabdm.cli.console import Bars, console
from collabdm.cli.running import load_for_plan, load_tallied_for_plan
from collabdm.cli.scores import print_scores
from collabdm.documents.outcomes import DistilledSet
from collabdm.errors import DataError
from collabdm.images import ImageSet
from collabdm.lab.results import (
    ComputeRecord,
    EvaluationResults,
    RobustnessRecord,
    ScoreRecord,
    write_results,
)
from collabdm.matching.compute import Compute
from collabdm.matching.embedding import plan_geometry
from collabdm.matching.run_context import RunContext
from collabdm.rounds.exchange import DataSource, data_digest
from collabdm.rounds.resumable import ResumableRun, unfinished_path
from collabdm.scoring.dd_ranking import Robustness, robustness
from collabdm.scoring.evaluation import (
    EvaluationConfig,
    Score,
    evaluate,
    for_as_many_steps,
    random_baselines,
    score,
)
from collabdm.version import versions


@dataclass(frozen=True)
class Request:
    """The options of `evaluate`.

    Attributes:
        path: the file of the distilled set.
        distilled: the set in that file.
        source: the real data.
        config: networks, trials, recipe and seed.
        compute: where to train.
        random: whether to score random real images that take the same storage as well.
        robust: whether to compute the robustness scores of the DD-Ranking benchmark as well.
        alone: names and locations of other real images to train on as well, such as a site's own.
    """

    path: Path
    distilled: DistilledSet
    source: DataSource
    config: EvaluationConfig
    compute: Compute
    random: bool
    robust: bool
    alone: tuple[tuple[str, str], ...] = ()


def read_named(text: str) -> tuple[str, str]:
    """Split NAME=DATA.

    Raises:
        DataError: one of the two is missing.
    """
    name, equals, location = (part.strip() for part in text.partition("="))
    if not (name and equals and location):
        raise DataError(
            f"`--alone` should be NAME=DATA; found {text!r}: write a name for the results before "
            "the data, such as `--alone north=north/pictures`"
        )
    return name, location


def run_evaluation(request: Request, output: Path | None, quiet: bool) -> None:
    """Evaluate a set, print its scores and write them.

    Args:
        request: what to evaluate.
        output: a JSON file for the results; None writes no file.
        quiet: whether to hide the progress bars.

    Raises:
        DataError: If the real images do not fit the plan, or a split is missing.
    """
    plan = request.distilled.plan
    test, tally = load_tallied_for_plan(plan, request.source, "test")
    training = _training_images(request) if request.random or request.robust else None

    alone = {
        f"{name} alone": load_for_plan(plan, replace(request.source, location=location))
        for name, location in request.alone
    }

    sets = [test, *([] if training is None else [training]), *alone.values()]
    identity = _identity(request, data_digest(*sets))
    kept = output or unfinished_path(identity)

    with (
        Bars(quiet) as bars,
        ResumableRun(kept, identity, RunContext(request.compute, bars)) as context,
    ):
        scores = evaluate(request.distilled, test, request.config, context)
        robust = None
        if training is not None and request.robust:
            robust = robustness(request.distilled, training, test, request.config, context)
        if training is not None and request.random:
            scores += _random_scores(request, training, test, context)
        for name, images in alone.items():
            scores += _score_alone(request, name, images, test, context)

        results = _results(request, scores, robust)
        if tally is not None:
            results = results.model_copy(update={"tally": tally.json()})
        if output is not None:
            write_results(results, output)

    title = f"Accuracy on {request.source.location}, {len(test):,} test images"
    print_scores(title, results, with_bytes=False)
    if robust is not None:
        console.print(_robustness_line(robust))


def _identity(request: Request, data: str) -> str:
    """Describe everything that determines the scores; `data` is the digest of the real images."""
    config = request.config
    networks = [spec.model_dump(mode="json") for spec in config.networks]
    settings = [networks, config.trials, config.recipe.model_dump(mode="json"), config.seed]
    names = [name for name, _ in request.alone]
    distilled = hashlib.sha256(request.path.read_bytes()).hexdigest()
    return json.dumps([distilled, data, settings, request.random, request.robust, names])


def _training_images(request: Request) -> ImageSet:
    try:
        return load_for_plan(request.distilled.plan, request.source)
    except DataError as error:
        raise DataError(
            f"{error}. Random real images are drawn from it: `--no-random` omits them"
        ) from error


def _random_scores(
    request: Request, training: ImageSet, test: ImageSet, context: RunContext
) -> list[Score]:
    """Score random real images that take the same storage as the distilled set."""
    plan, config = request.distilled.plan, request.config
    scores: list[Score] = []
    for name, images in random_baselines(plan, training, config.seed).items():
        scores += score(name, images, test, plan_geometry(plan), config, context)
    return scores


def _score_alone(
    request: Request, name: str, images: ImageSet, test: ImageSet, context: RunContext
) -> list[Score]:
    """Score real images that were not distilled, with as many training steps as the set takes."""
    plan = request.distilled.plan
    distilled = len(request.distilled.images) * plan.pae**2
    config = for_as_many_steps(request.config, distilled, len(images))
    return score(name, images, test, plan_geometry(plan), config, context)


def _results(request: Request, scores: list[Score], robust: Robustness | None) -> EvaluationResults:
    """Collect the scores and the settings that they depend on."""
    return EvaluationResults(
        set=str(request.path),
        plan=request.distilled.plan.digest,
        data=request.source.location,
        seed=request.config.seed,
        bytes=request.path.stat().st_size,
        versions=versions(),
        recipe=request.config.recipe.model_dump(),
        compute=ComputeRecord.of(request.compute),
        scores=tuple(map(ScoreRecord.of, scores)),
        robustness=None if robust is None else RobustnessRecord.of(robust),
    )


def _robustness_line(scores: Robustness) -> str:
    return (
        f"label-robust score {scores.lrs:.3f} ± {scores.std['lrs']:.3f}, "
        f"augmentation-robust score {scores.ars:.3f} ± {scores.std['ars']:.3f}, n = {scores.n} "
        f"({100 * scores.hlr:.2f} points below training on all the data, "
        f"{100 * scores.ior:.2f} above random images)"
    )

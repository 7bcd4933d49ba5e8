"""TODO scoring.outcomes."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collabdm.documents.outcome_files import (
    read_distilled,
    read_steps,
    write_distilled,
    write_steps,
)
from collabdm.documents.outcomes import DistilledModel, DistilledSet, DistilledSteps
from collabdm.documents.plan import Plan
from collabdm.errors import DocumentError
from collabdm.images import ImageSet
from collabdm.matching.embedding import plan_geometry
from collabdm.matching.run_context import RunContext
from collabdm.matching.weights import trained_network
from collabdm.methods.base import Method, Outcome
from collabdm.scoring.distilled_model_file import read_distilled_model, write_distilled_model
from collabdm.scoring.evaluation import EvaluationConfig, Score, accuracy_of, evaluate, score

Scoring = Callable[[Any, ImageSet, EvaluationConfig, RunContext], list[Score]]


@dataclass(frozen=True)
class Kind:
    """How one kind of outcome is kept and used; `images` is what can be shown of it."""

    file: str
    write: Callable[[Any, Path], None]
    read: Callable[[Path], Any]
    score: Scoring
    images: Callable[[Any], ImageSet | None]


def _score_steps(made: DistilledSteps, test: ImageSet, config: EvaluationConfig, context: RunContext) -> list[Score]:
    geometry = plan_geometry(made.plan)
    return score(made.method, made.as_set(), test, geometry, config, context)


def _score_model(made: DistilledModel, test: ImageSet, config: EvaluationConfig, context: RunContext) -> list[Score]:
    network = trained_network(made).to(context.compute.device)
    normalisation = made.plan.image.normalisation
    accuracy = accuracy_of(network, test, normalisation, context.compute)
    return [Score(made.method, made.spec.name, (accuracy,), 0)]


KINDS: dict[type, Kind] = {
    DistilledSet: Kind("distilled.safetensors", write_distilled, read_distilled, evaluate, lambda made: made.images),
    DistilledSteps: Kind("steps.safetensors", write_steps, read_steps, _score_steps, lambda made: made.as_set()),
    DistilledModel: Kind(
        "model.safetensors", write_distilled_model, read_distilled_model, _score_model, lambda made: None
    ),
}


def kind_of(outcome: Outcome) -> Kind:
    """The kind of an outcome."""
    return KINDS[type(outcome)]


def read_kept(method: Method, plan: Plan, folder: Path) -> Outcome | None:
    """The outcome of the same plan that a folder holds already; None where it holds none."""
    kind = KINDS[method.outcome]
    try:
        made = kind.read(folder / kind.file)
    except DocumentError:
        return None
    return made if made.plan == plan else None

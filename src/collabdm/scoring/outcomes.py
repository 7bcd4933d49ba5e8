"""Define how each kind of outcome is stored in a file, scored, and shown as images."""

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
class OutcomeKind:
    """How one kind of outcome is stored, scored and shown.

    Attributes:
        file: the name of its file in the folder of a round.
        write: writes an outcome.
        read: reads an outcome; raises DocumentError if the file is a different document.
        score: computes the scores of an outcome on test images.
        images: returns the images of an outcome, to show them; None if it has no images.
    """

    file: str
    write: Callable[[Any, Path], None]
    read: Callable[[Path], Any]
    score: Scoring
    images: Callable[[Any], ImageSet | None]


def kind_of(outcome: Outcome) -> OutcomeKind:
    """Find the kind of an outcome."""
    return OUTCOME_KINDS[type(outcome)]


def find_outcome(method: Method, plan: Plan, folder: Path) -> Outcome | None:
    """Read a method's outcome from a folder, if it belongs to the given plan.

    Args:
        method: the method.
        plan: the plan.
        folder: the folder of a round.

    Returns:
        The outcome; None if there is no outcome of this plan.
    """
    kind = OUTCOME_KINDS[method.outcome]
    try:
        outcome = kind.read(folder / kind.file)
    except DocumentError:
        return None
    return outcome if outcome.plan == plan else None


def _score_steps(
    steps: DistilledSteps, test: ImageSet, config: EvaluationConfig, context: RunContext
) -> list[Score]:
    """Score networks that are trained on the images of all steps together."""
    geometry = plan_geometry(steps.plan)
    return score(steps.method, steps.as_set(), test, geometry, config, context)


def _score_model(
    model: DistilledModel, test: ImageSet, config: EvaluationConfig, context: RunContext
) -> list[Score]:
    """Test the network itself."""
    network = trained_network(model).to(context.compute.device)
    accuracy = accuracy_of(network, test, model.plan.image.normalisation, context.compute)
    return [Score(model.method, model.spec.name, (accuracy,), 0)]


OUTCOME_KINDS: dict[type, OutcomeKind] = {
    DistilledSet: OutcomeKind(
        "distilled.safetensors",
        write_distilled,
        read_distilled,
        evaluate,
        lambda outcome: outcome.images,
    ),
    DistilledSteps: OutcomeKind(
        "steps.safetensors", write_steps, read_steps, _score_steps, lambda outcome: outcome.as_set()
    ),
    DistilledModel: OutcomeKind(
        "model.safetensors",
        write_distilled_model,
        read_distilled_model,
        _score_model,
        lambda outcome: None,
    ),
}

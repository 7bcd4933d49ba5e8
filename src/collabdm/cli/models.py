"""Train models, predict with them and export sets, for `train`, `predict` and `export`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from collabdm.cli.console import Bars
from collabdm.data.image_files import read_image
from collabdm.documents.outcome_files import read_distilled
from collabdm.documents.outcomes import DistilledSet
from collabdm.documents.specs import NetworkSpec
from collabdm.errors import DataError
from collabdm.export.card import Card
from collabdm.export.dataset import export
from collabdm.lab.results import read_results
from collabdm.matching.compute import Compute
from collabdm.matching.embedding import plan_geometry
from collabdm.progress import Progress, Stage
from collabdm.scoring.trained_model import TrainedModel, origin, read_model, state_tensors
from collabdm.scoring.training import Recipe, Task, Trainer, network_seed, training_set
from collabdm.version import versions

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@dataclass(frozen=True)
class Training:
    """The options of `train`: the network, its recipe and seed, and where it is trained."""

    network: NetworkSpec
    recipe: Recipe
    seed: int
    compute: Compute


def train_model(distilled: DistilledSet, name: str, training: Training, bars: Bars) -> TrainedModel:
    """Train a network on a distilled set.

    Args:
        distilled: the set.
        name: the name of the set's file, which the model records.
        training: network, recipe, seed and compute.
        bars: shows the progress.

    Returns:
        The model, with its provenance.
    """
    plan, recipe = distilled.plan, training.recipe
    task = Task(training.network, training_set(distilled), plan_geometry(plan), recipe)
    trainer = Trainer(task, training.compute)
    seed = network_seed(training.seed, training.network.name, 0)
    network = trainer.train(seed, lambda done: bars(Progress(Stage.TRAINING, done, recipe.epochs)))

    provenance = {"set": name} | origin(distilled)
    provenance |= {"recipe": recipe.model_dump(mode="json"), "seed": training.seed}
    if plan.flows is not None:
        provenance["flows"] = plan.flows.model_dump(mode="json")  # how `classify` reads tables
    weights = state_tensors(network)
    return TrainedModel(training.network, plan.image, plan.classes, weights, provenance, versions())


def predictions(path: Path, pictures: Sequence[Path], top: int) -> list[tuple[str, str]]:
    """Predict the classes of pictures.

    Args:
        path: a trained model.
        pictures: picture files, or folders that contain them.
        top: the number of classes to name for each picture.

    Returns:
        A pair for each picture: the file name, and its most probable classes as text.

    Raises:
        DataError: If a picture cannot be read, or a folder contains no pictures.
    """
    model = read_model(path)
    files = [file for place in pictures for file in picture_files(place)]
    channels, side, _ = model.image.shape
    images = [torch.tensor(read_image(file, str(file), side, channels)) for file in files]

    best = model.probabilities(torch.stack(images)).topk(min(top, len(model.classes)))
    return [
        (
            str(file),
            ", ".join(
                f"{model.classes[y]} {100 * p:.1f} %" for p, y in zip(values, classes, strict=True)
            ),
        )
        for file, values, classes in zip(
            files, best.values.tolist(), best.indices.tolist(), strict=True
        )
    ]


def picture_files(place: Path) -> list[Path]:
    """List the pictures in a folder and its subfolders, sorted by name.

    A path that is not a folder is returned as it is.

    Raises DataError if a folder contains no pictures.
    """
    if not place.is_dir():
        return [place]
    files = sorted(path for path in place.rglob("*") if path.suffix.lower() in PICTURES)
    if not files:
        raise DataError(f"{place} should contain pictures ({', '.join(PICTURES)}); found none")
    return files


@dataclass(frozen=True)
class ExportOptions:
    """The options of `export` for a distilled set; `Card` explains the last three."""

    form: str
    packed: bool
    licence: str | None
    counts: bool
    results: Path | None


def export_set(path: Path, output: Path, options: ExportOptions) -> str:
    """Export a distilled set.

    Args:
        path: the set.
        output: a new or empty folder.
        options: the form, and what the card contains.

    Returns:
        A summary of what was written.

    Raises:
        DataError: If the results are damaged or belong to a different plan, or if the images cannot
            be written in this form.
        OutputError: If the folder is not empty.
    """
    distilled = read_distilled(path)
    card = Card(options.licence, options.counts)
    if options.results is not None:
        results = read_results(options.results)
        if distilled.plan.digest not in results.plans:
            raise DataError(
                f"{options.results} should be results of this set; found those of another plan: "
                "repeat `collabdm evaluate --json` with this set"
            )
        card = replace(
            card, scores=tuple(record.score for record in results.scores), data=results.data
        )

    written = export(distilled, output, options.form, options.packed, card)

    small = distilled.plan.pae**2
    packed = f"; each contains {small} small ones, to be cut out before training"
    shown = packed if options.packed and small > 1 else ""
    return f"{output}: {len(written)} images of {len(written.classes)} classes{shown}"

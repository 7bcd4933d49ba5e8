"""Train models, predict with them and export sets, for `train`, `predict` and `export`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from collabdm.cli.console import Bars
from collabdm.data.conversion import Conversion
from collabdm.data.decoding import Undecoded, decode
from collabdm.data.folders import IMAGE_SUFFIXES, pictures_below
from collabdm.data.tally import Remark, Remarks
from collabdm.documents.outcome_files import read_distilled
from collabdm.documents.outcomes import DistilledSet
from collabdm.documents.picture_rules import PictureRules
from collabdm.documents.specs import NetworkSpec
from collabdm.errors import DataError, PlanError
from collabdm.export.card import Card
from collabdm.export.dataset import export
from collabdm.export.push import check_push
from collabdm.lab.results import read_results
from collabdm.matching.compute import Compute
from collabdm.matching.embedding import plan_geometry
from collabdm.matching.networks import Network
from collabdm.matching.run_context import RunContext
from collabdm.progress import Progress, Stage
from collabdm.rounds.exchange import data_digest
from collabdm.rounds.resumable import ResumableRun
from collabdm.scoring.trained_model import (
    TrainedModel,
    origin,
    read_model,
    state_tensors,
    write_model,
)
from collabdm.scoring.training import Recipe, Task, Trainer, network_seed, training_set
from collabdm.version import versions


@dataclass(frozen=True)
class Training:
    """The options of `train`: the network, its recipe and seed, and where it is trained.

    `output` is the file of the model, whose folder stores the state of interrupted training.
    """

    network: NetworkSpec
    recipe: Recipe
    seed: int
    compute: Compute
    output: Path


def train_model(distilled: DistilledSet, name: str, training: Training, bars: Bars) -> TrainedModel:
    """Train a network on a distilled set, and write the model.

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
    settings = [training.network.model_dump(mode="json"), recipe.model_dump(mode="json"), seed]
    identity = json.dumps([plan.digest, data_digest(task.data), settings])

    def on_epoch(done: int) -> None:
        bars(Progress(Stage.TRAINING, done, recipe.epochs))

    with ResumableRun(training.output, identity, RunContext(training.compute)) as run:
        model = _model_of(distilled, name, training, trainer.train(seed, on_epoch, run))
        write_model(model, training.output)
    return model


def _model_of(
    distilled: DistilledSet, name: str, training: Training, network: Network
) -> TrainedModel:
    """Make the model of a trained network, with its provenance."""
    plan, recipe = distilled.plan, training.recipe
    provenance = {"set": name} | origin(distilled)
    provenance |= {"recipe": recipe.model_dump(mode="json"), "seed": training.seed}
    if plan.flows is not None:
        provenance["flows"] = plan.flows.model_dump(mode="json")  # how `classify` reads tables
    if plan.pictures is not None:
        provenance["pictures"] = plan.pictures.model_dump(mode="json")  # how `predict` reads them
    weights = state_tensors(network)
    return TrainedModel(training.network, plan.image, plan.classes, weights, provenance, versions())


def predictions(
    path: Path, pictures: Sequence[Path], top: int, skip_unreadable: bool
) -> tuple[list[tuple[str, str]], tuple[Remark, ...]]:
    """Predict the classes of pictures, read by the rules with which the model was trained.

    Args:
        path: a trained model.
        pictures: picture files, or folders that contain them.
        top: the number of classes to name for each picture.
        skip_unreadable: whether to leave out pictures that cannot be read.

    Returns:
        A pair for each picture: the file name, and its most probable classes as text; and what was
        skipped or changed.

    Raises:
        DataError: If pictures cannot be read, or a folder contains no pictures.
    """
    model, found = read_model(path), Remarks()
    files = list(dict.fromkeys(f for place in pictures for f in picture_files(place, found)))
    channels, side, _ = model.image.shape
    rules = PictureRules.model_validate(model.provenance.get("pictures") or {})

    numbered = Undecoded(
        "the pictures", len(files), lambda: ((file, number) for number, file in enumerate(files))
    )
    images, changed = decode(numbered, Conversion(side, channels, rules), skip_unreadable)
    names = [str(files[int(images.classes[y])]) for y in images.labels.tolist()]

    best = model.probabilities(images.images).topk(min(top, len(model.classes)))
    rows = [
        (name, _listed(model.classes, values, classes))
        for name, values, classes in zip(
            names, best.values.tolist(), best.indices.tolist(), strict=True
        )
    ]
    return rows, (*found.frozen(), *changed)


def _listed(names: Sequence[str], probabilities: list[float], classes: list[int]) -> str:
    """List classes with their probabilities."""
    pairs = zip(probabilities, classes, strict=True)
    return ", ".join(f"{names[y]} {100 * p:.1f} %" for p, y in pairs)


def picture_files(place: Path, remarks: Remarks) -> list[Path]:
    """List the pictures in a folder and its subfolders, sorted by name.

    A path that is not a folder is returned as it is.

    Raises DataError if a folder contains no pictures.
    """
    if not place.is_dir():
        return [place]
    files = pictures_below(place, remarks)
    if not files:
        endings = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DataError(f"{place} should contain pictures ({endings}); found none")
    return files


@dataclass(frozen=True)
class ExportOptions:
    """The options of `export` for a distilled set; `Card` explains the last three.

    `form` None writes `table` for a set of rows, and `hub` otherwise.
    """

    form: str | None
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

    as_rows = distilled.plan.has_rows
    form = options.form or ("table" if as_rows else "hub")
    written = export(distilled, output, form, options.packed, card)
    if as_rows:
        return f"{output}: {len(written)} rows of {len(written.classes)} classes"

    small = distilled.plan.pae**2
    packed = f"; each contains {small} small ones, to be cut out before training"
    shown = packed if options.packed and small > 1 else ""
    return f"{output}: {len(written)} images of {len(written.classes)} classes{shown}"


def check_upload(path: Path, repository: str | None, form: str | None) -> None:
    """Check the options of an upload, and the access to the hub, before anything is written.

    Args:
        path: the set.
        repository: OWNER/NAME; None if only `--public` was set.
        form: the form of the export; None if it was not chosen.

    Raises:
        PlanError: there is no repository, or the form is not that of the hub.
        OutputError: as for `check_push`.
    """
    if repository is None:
        raise PlanError("`--public` should come with `--push OWNER/NAME`; found no repository")
    if form not in (None, "hub"):
        raise PlanError(f"`--push` needs the form hub; found {form}: leave out `--form`")
    if form is None and read_distilled(path).plan.has_rows:
        raise PlanError(
            "`--push` needs a set of images; found one of rows: export it, and upload the folder "
            "with `hf upload --repo-type dataset`"
        )
    check_push(repository)

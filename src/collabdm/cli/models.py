"""Taking a set away: `train` a model on it, `predict` with the model, `export` the set for others."""

from pathlib import Path
from typing import Annotated

import torch
import typer

from collabdm.cli.console import Bars, table
from collabdm.cli.options import (
    Device,
    DistilledPath,
    Precision,
    Quiet,
    Threads,
    app,
    check_output,
    compute_of,
    console,
)
from collabdm.data.decoding import read_image
from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.outcome_files import read_distilled
from collabdm.errors import DataError
from collabdm.export.dataset import FORMS, Card, export
from collabdm.export.onnx import check_onnx, onnx_bytes
from collabdm.lab.results import read_json
from collabdm.matching.embedding import plan_geometry
from collabdm.planning.settings import networks_of
from collabdm.progress import Progress, Stage
from collabdm.scoring.trained_model import TrainedModel, origin, read_model, state_tensors, write_model
from collabdm.scoring.training import RECIPES, Task, Trainer, network_seed, recipe_of, training_set
from collabdm.version import versions

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")


@app.command()
def train(
    distilled: DistilledPath,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the model, a safetensors file.")],
    network: Annotated[str, typer.Option(help="NAME or NAME:width=64,depth=2.")] = "ConvNet",
    recipe: Annotated[str, typer.Option(help=f"{', '.join(RECIPES)}.")] = "paper",
    epochs: Annotated[int | None, typer.Option(help="Epochs; else the recipe's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="The seed of the network.")] = 0,
    onnx: Annotated[bool, typer.Option("--onnx", help="An ONNX file beside it, which runs without collabdm.")] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Train a network on a distilled set: a model that predicts."""
    made = read_distilled(distilled)
    portable = output.with_suffix(".onnx")
    check_output(output, distilled, portable)
    if onnx:
        check_output(portable, distilled)
        check_onnx()
    (spec,) = networks_of((network,), made.plan.network)
    rule = recipe_of(recipe, epochs)
    trainer = Trainer(
        Task(spec, training_set(made), plan_geometry(made.plan), rule), compute_of(device, precision, threads)
    )
    with Bars(quiet) as bars:
        trained = trainer.train(
            network_seed(seed, spec.name, 0), lambda done: bars(Progress(Stage.TRAINING, done, rule.epochs))
        )
    told = {"set": distilled.name} | origin(made) | {"recipe": rule.model_dump(mode="json"), "seed": seed}
    if made.plan.flows is not None:
        told["flows"] = made.plan.flows.model_dump(mode="json")  # how `classify` reads tables
    model = TrainedModel(spec, made.plan.image, made.plan.classes, state_tensors(trained), told, versions())
    write_model(model, output)
    if onnx:
        atomic_write(portable, onnx_bytes(model))
    console.print(f"{output}: {spec.name} for {len(model.classes)} classes" + (f"; {portable}" if onnx else ""))


@app.command()
def predict(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="A model that `train` wrote, or that a method gave instead of a set."),
    ],
    pictures: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Pictures, or folders of them.")],
    top: Annotated[int, typer.Option(min=1, help="How many classes to name for each picture.")] = 1,
) -> None:
    """Say what is on pictures."""
    known = read_model(model)
    paths = [path for place in pictures for path in pictures_of(place)]
    channels, side, _ = known.image.shape
    pixels = torch.stack([torch.tensor(read_image(path, str(path), side, channels)) for path in paths])
    found = known.probabilities(pixels).topk(min(top, len(known.classes)))
    rows = [
        (str(path), ", ".join(f"{known.classes[y]} {100 * p:.1f} %" for p, y in zip(values, names, strict=True)))
        for path, values, names in zip(paths, found.values.tolist(), found.indices.tolist(), strict=True)
    ]
    console.print(table(f"{model}", ("picture", "is"), rows, figures=False))


@app.command("export")
def export_command(
    distilled: Annotated[Path, typer.Argument(metavar="SET", help="The distilled set, or, for onnx, a model.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="A new folder; for onnx, a file.")],
    form: Annotated[str, typer.Option(help=f"{', '.join(FORMS)}; of a model, onnx.")] = "hub",
    expanded: Annotated[
        bool, typer.Option("--expanded", help="Of a set with pae: the small images, enlarged, ready to train on.")
    ] = False,
    licence: Annotated[str | None, typer.Option(help="The licence of the set in the hub's words: cc-by-4.0, …")] = None,
    counts: Annotated[bool, typer.Option("--counts", help="Say on the card what each site holds.")] = False,
    results: Annotated[Path | None, typer.Option(help="Results of `evaluate --json`, for the card.")] = None,
) -> None:
    """Write a distilled set for others: a data set folder of the hub, pictures, or NumPy arrays; or a model as ONNX."""
    if form == "onnx":
        check_output(output, distilled)
        atomic_write(output, onnx_bytes(read_model(distilled)))
        console.print(f"{output}: runs without collabdm, from pixels to probabilities")
        return
    made = read_distilled(distilled)
    scored = read_json(results) if results else None
    if results and not (scored or {}).get("scores"):
        raise DataError(f"{results} should hold results of `collabdm evaluate --json`; found none")
    written = export(made, output, form, expanded, Card(licence, counts, scored))
    small = made.plan.pae**2
    told = f"; each holds {small} small ones, `--expanded` writes those" if small > 1 and not expanded else ""
    console.print(f"{output}: {len(written)} images of {len(written.classes)} classes{told}")


def pictures_of(place: Path) -> list[Path]:
    """A picture itself, or the pictures in a folder and the folders in it, in order of their names."""
    if not place.is_dir():
        return [place]
    found = sorted(path for path in place.rglob("*") if path.suffix.lower() in PICTURES)
    if not found:
        raise DataError(f"{place} should hold pictures ({', '.join(PICTURES)}); found none")
    return found

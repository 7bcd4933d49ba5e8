"""Commands that use a distilled set or a model: `train`, `predict`, `classify` and `export`."""

from pathlib import Path
from typing import Annotated

import typer

from collabdm.cli import choices
from collabdm.cli.options import (
    Device,
    DistilledPath,
    Epochs,
    Precision,
    Quiet,
    Recipe,
    Rows,
    TablesFile,
    Threads,
    scoring,
)

ModelOutput = Annotated[
    Path, typer.Option("-o", "--output", help="Path of the model to write, safetensors.")
]

TrainedNetwork = Annotated[
    str | None,
    scoring(help="NAME or NAME:width=64,depth=2.", show_default="ConvNet; MLP for rows"),
]

NetworkSeed = Annotated[int, scoring(min=0, help="Seed of the network.")]

WithOnnx = Annotated[
    bool, typer.Option("--onnx", help="Also write an ONNX file, which runs without collabdm.")
]

Opset = Annotated[
    int,
    typer.Option(help="Operators of the ONNX file: 18, 20, 21 or 22; older runtimes need 18."),
]


def train(
    distilled: DistilledPath,
    output: ModelOutput,
    network: TrainedNetwork = None,
    recipe: Recipe = "paper",
    epochs: Epochs = None,
    seed: NetworkSeed = 0,
    onnx: WithOnnx = False,
    opset: Opset = 18,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Train a network on a distilled set and write the model."""
    from collabdm.cli.console import Bars, console
    from collabdm.cli.models import Training, train_model
    from collabdm.cli.running import check_output, compute_of
    from collabdm.documents.atomic_write import atomic_write
    from collabdm.documents.outcome_files import read_distilled
    from collabdm.export.onnx import check_onnx, check_opset, onnx_bytes, runs_in
    from collabdm.planning.settings import networks_of, usual_network
    from collabdm.scoring.training import recipe_of

    distilled_set = read_distilled(distilled)
    onnx_path = output.with_suffix(".onnx")
    check_output(output, distilled, onnx_path)
    if onnx:
        check_output(onnx_path, distilled)
        check_opset(opset)
        check_onnx()
    wanted = network or usual_network(distilled_set.plan)
    (spec,) = networks_of((wanted,), distilled_set.plan.network)
    training = Training(
        spec, recipe_of(recipe, epochs), seed, compute_of(device, precision, threads), output
    )

    with Bars(quiet) as bars:
        model = train_model(distilled_set, distilled.name, training, bars)

    written = f"{output}: {spec.name} for {len(model.classes)} classes"
    if onnx:
        atomic_write(onnx_path, onnx_bytes(model, opset))
        written += f"; {onnx_path}, for {runs_in(opset)}"
    console.print(written)


def predict(
    model: Annotated[
        Path,
        typer.Argument(metavar="MODEL", help="A model of `train`, or the outcome of a method."),
    ],
    pictures: Annotated[
        list[Path], typer.Argument(metavar="PATH...", help="Pictures, or folders of pictures.")
    ],
    top: Annotated[int, typer.Option(min=1, help="Classes to name for each picture.")] = 1,
    skip_unreadable: Annotated[
        bool,
        typer.Option("--skip-unreadable", help="Count pictures that cannot be read, and go on."),
    ] = False,
    json_file: TablesFile = None,
) -> None:
    """Predict the classes of pictures with a trained model."""
    from collabdm.cli.console import notes
    from collabdm.cli.models import predictions
    from collabdm.cli.tables import Tables

    rows, remarks = predictions(model, pictures, top, skip_unreadable)
    tables = Tables(json_file)
    tables.add(f"{model}", ("picture", "prediction"), rows, figures=False)
    tables.write()
    for remark in remarks:
        notes.print(remark.line)


ModelPath = Annotated[Path, typer.Argument(metavar="MODEL", help="A trained model.")]

FlowsTable = Annotated[
    Path,
    typer.Argument(
        metavar="FLOWS", help="A table of flows, with or without labels; - is standard input."
    ),
]

Follow = Annotated[
    bool,
    typer.Option(
        "--follow", help="Go on with the rows that are appended to the CSV file, until Ctrl-C."
    ),
]

SchemaName = Annotated[
    str | None,
    typer.Option(help="Schema: a name, its file or a plan; default: the model's schema."),
]

HeldOut = Annotated[
    bool,
    typer.Option("--held-out", help="Use only the rows that the schema reserves for tests."),
]

Grouping = Annotated[
    choices.Grouping,
    typer.Option(help="Windows of consecutive rows (stream), or of rows of one class."),
]

CsvOutput = Annotated[
    Path | None,
    typer.Option(
        "-o",
        "--output",
        help="CSV file, one line per flow or window.",
        show_default="none; standard output for rows as they arrive",
    ),
]


def classify(
    model: ModelPath,
    data: FlowsTable,
    flows: SchemaName = None,
    follow: Follow = False,
    held_out: HeldOut = False,
    grouping: Grouping = "stream",
    rows: Rows = None,
    output: CsvOutput = None,
    threads: Threads = 0,
    quiet: Quiet = False,
    json_file: TablesFile = None,
) -> None:
    """Classify every flow of a table, or every window; with labels, report the accuracy."""
    from collabdm.cli.classifying import Request, classify_table
    from collabdm.cli.live import check_request, classify_live, is_live
    from collabdm.cli.running import check_output, compute_of
    from collabdm.cli.tables import Tables

    if output is not None:
        check_output(output, model, data)
    compute_of("cpu", "float32", threads)
    request = Request(model, data, flows, grouping, rows, held_out, follow)
    if is_live(request):
        check_request(request, output, json_file)
        classify_live(request, output, json_file)
    else:
        classify_table(request, output, quiet, Tables(json_file))


SetOrModel = Annotated[
    Path, typer.Argument(metavar="SET", help="The distilled set; for onnx, a model.")
]

ExportOutput = Annotated[
    Path, typer.Option("-o", "--output", help="New folder to write; for onnx, a file.")
]

ExportForm = Annotated[
    choices.Form | None,
    typer.Option(
        help="Hugging Face data set, folder of pictures, NumPy arrays, table of rows, or ONNX "
        "model.",
        show_default="hub; table for a set of rows",
    ),
]

Packed = Annotated[
    bool,
    typer.Option(
        "--packed",
        help="Of a set with pae, write the stored images, each of which contains several to train "
        "on. Default: those, enlarged.",
    ),
]

Licence = Annotated[
    str | None, typer.Option(help="Hugging Face's name of the set's licence: cc-by-4.0, …")
]

WithCounts = Annotated[
    bool, typer.Option("--counts", help="Name the sites on the card, with their class counts.")
]

Results = Annotated[Path | None, typer.Option(help="Results of `evaluate --json`, for the card.")]

Push = Annotated[
    str | None,
    typer.Option(
        metavar="OWNER/NAME",
        help="Also upload the folder to this data set of the Hugging Face hub, private if new.",
    ),
]

Public = Annotated[
    bool, typer.Option("--public", help="With --push: a new data set is visible to everybody.")
]


def export(
    distilled: SetOrModel,
    output: ExportOutput,
    form: ExportForm = None,
    packed: Packed = False,
    opset: Opset = 18,
    licence: Licence = None,
    counts: WithCounts = False,
    results: Results = None,
    push: Push = None,
    public: Public = False,
) -> None:
    """Export a distilled set for other programs, or a model as ONNX."""
    from collabdm.cli.console import console
    from collabdm.cli.models import ExportOptions, check_upload, export_set
    from collabdm.cli.running import check_output
    from collabdm.documents.atomic_write import atomic_write
    from collabdm.export.onnx import onnx_bytes, runs_in
    from collabdm.export.push import push as upload
    from collabdm.scoring.trained_model import read_model

    if push is not None or public:
        check_upload(distilled, push, form)
    if form == "onnx":
        check_output(output, distilled)
        atomic_write(output, onnx_bytes(read_model(distilled), opset))
        console.print(
            f"{output}: from pixels to probabilities without collabdm, in {runs_in(opset)}"
        )
        return

    options = ExportOptions(form, packed, licence, counts, results)
    console.print(export_set(distilled, output, options))
    if push is not None:
        console.print(upload(output, push, public))

"""Commands for the organiser of a round: `plan` and `schema`."""

from pathlib import Path
from typing import Annotated

import typer

from collabdm.cli import choices
from collabdm.cli.options import (
    DATA_HELP,
    Batch,
    ClassNames,
    Clip,
    Config,
    Delta,
    Epsilon,
    Fit,
    FlowForm,
    FlowsPath,
    Ground,
    ImageColumn,
    Ipc,
    LabelColumn,
    LocalSteps,
    Network,
    Passes,
    Preset,
    Range,
    Set,
    Sketch,
    SkipUnreadable,
    Steps,
    Wire,
    data_option,
    method_option,
    setting,
)

PlanOutput = Annotated[Path, typer.Option("-o", "--output", help="Path of the plan to write.")]

ReferenceData = Annotated[str | None, data_option(help=f"A public reference set: {DATA_HELP}.")]

Classes = Annotated[
    str | None,
    data_option(
        help="Class names instead of --data: separated by commas (names with commas in quotes), or "
        "a file with one per line."
    ),
]

ImageSize = Annotated[
    str | None,
    data_option(help="CHANNELSxSIDE, e.g. 3x32, with --classes; with --data, resize it to this."),
]

Sites = Annotated[
    str | None,
    data_option(
        help="Number of sites, or their names separated by commas; then no others may answer.",
        show_default="5",
    ),
]

Budget = Annotated[
    str | None,
    setting(help="Most bytes of a contribution, e.g. 1MB; selects steps, sketch and wire."),
]

SmallestSiteClass = Annotated[
    int | None,
    setting(
        min=1,
        help="Expected images of the smallest class at a site: selects steps and sketch with which "
        "the site sends it.",
    ),
]

Method = Annotated[str | None, method_option(choices.PLAN_METHODS, "collabdm")]

Seed = Annotated[int | None, setting(help="Seed of all networks and sketches.", show_default="0")]

Fraction = Annotated[
    float | None, setting(help="Share of the sites in each step.", show_default="1")
]

Images = Annotated[
    choices.ImageType | None,
    setting(help="Number type of the images sent.", show_default="uint8"),
]

Pae = Annotated[
    bool | None,
    setting(
        "--pae/--no-pae",
        help="Store 2 x 2 small images in each image (partition and expand).",
        show_default="on from side 16",
    ),
]

Init = Annotated[
    choices.Init | None,
    setting(help="Initial images of the local distillation.", show_default="noise"),
]

Local = Annotated[
    choices.LocalMethod | None,
    setting(
        help="Images of a contribution: averages of similar images, distilled (dm), drawn at "
        "random, or none. With `--init` or `--local-steps`, dm; with masks, a privacy budget or "
        "flows, none.",
        show_default="averages",
    ),
]

LocalImages = Annotated[
    int | None,
    setting(
        help="Images per class in a contribution; 0: at most ten averages, or the site's share "
        "of ipc, plus one."
    ),
]

AverageOf = Annotated[
    int | None,
    setting(min=2, help="Fewest images in each average.", show_default="50"),
]

Merging = Annotated[
    choices.Merging | None,
    setting(
        help="Weight sites by their images, or equally; or limit the effect of one site.",
        show_default="weighted",
    ),
]

LargestClass = Annotated[
    int | None,
    setting(
        min=1,
        help="Most images of a class that count for one site.",
        show_default="no limit; 100000 with masks",
    ),
]

MaskedFor = Annotated[
    list[Path] | None,
    data_option(
        help="Public key of a site that masks its contribution, as `keys` writes it; repeatable, "
        "one for each site, instead of --sites."
    ),
]

Threshold = Annotated[
    int | None,
    setting(
        help="Fewest sites whose masked sum may be opened.",
        show_default="two thirds of the sites",
    ),
]

Augment = Annotated[
    str | None,
    setting(help="Operations joined by underscores, e.g. color_crop_cutout; or none."),
]


def plan(
    output: PlanOutput,
    data: ReferenceData = None,
    classes: Classes = None,
    image_size: ImageSize = None,
    label_column: LabelColumn = None,
    image_column: ImageColumn = None,
    class_names: ClassNames = None,
    skip_unreadable: SkipUnreadable = False,
    ground: Ground = None,
    range: Range = None,
    fit: Fit = None,
    flows: FlowsPath = None,
    form: FlowForm = None,
    sites: Sites = None,
    masked_for: MaskedFor = None,
    preset: Preset = None,
    config: Config = None,
    assignments: Set = None,
    budget: Budget = None,
    smallest_site_class: SmallestSiteClass = None,
    method: Method = None,
    seed: Seed = None,
    ipc: Ipc = None,
    steps: Steps = None,
    batch: Batch = None,
    fraction: Fraction = None,
    sketch: Sketch = None,
    wire: Wire = None,
    images: Images = None,
    pae: Pae = None,
    init: Init = None,
    local: Local = None,
    local_steps: LocalSteps = None,
    local_images: LocalImages = None,
    average_of: AverageOf = None,
    passes: Passes = None,
    merging: Merging = None,
    largest_class: LargestClass = None,
    threshold: Threshold = None,
    augment: Augment = None,
    network: Network = None,
    epsilon: Epsilon = None,
    delta: Delta = None,
    clip: Clip = None,
) -> None:
    """Make a plan: all settings that sites and server agree on before the round."""
    options = dict(locals())

    from collabdm.cli.planning import make_plan_file

    make_plan_file(options, output)


Sample = Annotated[
    str,
    typer.Argument(
        metavar="SAMPLE",
        help="A public sample: a table, several (a.csv,b.csv), a pattern or a folder; or 5gnidd.",
    ),
]

SchemaOutput = Annotated[Path, typer.Option("-o", "--output", help="Path of the schema to write.")]

Label = Annotated[str | None, typer.Option(help="Column of the label; default: a usual name.")]

LeaveOut = Annotated[list[str] | None, typer.Option(help="A column to leave out; repeatable.")]

Keep = Annotated[
    list[str] | None,
    typer.Option(help="A column to use although it gives the label away; repeatable."),
]

Missing = Annotated[
    list[str] | None,
    typer.Option(help="A text that means a missing value in every column, e.g. -; repeatable."),
]

Encoding = Annotated[
    str | None, typer.Option(help="Encoding of tables that are not UTF-8, e.g. cp1252.")
]

Names = Annotated[
    str | None,
    typer.Option(help="Columns of tables without a line of column names: a,b,c, or a file."),
]

EmptyLabel = Annotated[
    str | None, typer.Option(help="Class of rows with an empty label; default: no label.")
]

TimeColumn = Annotated[str | None, typer.Option("--time", help="Column to sort the rows by.")]

TimeFormat = Annotated[
    str | None,
    typer.Option(help="How the time is written: iso, or e.g. '%d/%m/%Y %H:%M'; default: a number."),
]

KeepLeaking = Annotated[
    bool,
    typer.Option(
        "--keep-leaking", help="Keep the columns that reveal the label, as the paper does."
    ),
]

SchemaForm = Annotated[
    choices.RowForm | None,
    typer.Option("--as", help="Distil row by row.", show_default="images of several rows each"),
]

Flows = Annotated[int | None, typer.Option(help="Rows per image; default: as many as fit.")]

Side = Annotated[int | None, typer.Option(help="Height and width of an image.", show_default="32")]

Layout = Annotated[
    choices.Layout | None,
    typer.Option(help="Fill an image without gaps, or start every flow on a new line."),
]

Grouping = Annotated[
    choices.Grouping | None,
    typer.Option(help="Make an image of rows of one class, or of consecutive rows."),
]

TestSplit = Annotated[
    choices.Split | None,
    typer.Option(help="Test set: blocks of time, random images, or all images."),
]

Block = Annotated[int | None, typer.Option(help="Images per block of time.")]


def schema(
    sample: Sample,
    output: SchemaOutput,
    label: Label = None,
    leave_out: LeaveOut = None,
    keep: Keep = None,
    keep_leaking: KeepLeaking = False,
    missing: Missing = None,
    encoding: Encoding = None,
    names: Names = None,
    empty_label: EmptyLabel = None,
    time: TimeColumn = None,
    time_format: TimeFormat = None,
    form: SchemaForm = None,
    flows: Flows = None,
    side: Side = None,
    layout: Layout = None,
    grouping: Grouping = None,
    split: TestSplit = None,
    block: Block = None,
) -> None:
    """Draft a schema of flow tables from a sample, for review; or write a built-in schema."""
    from collabdm.cli.console import console
    from collabdm.cli.planning import print_draft, schema_summary
    from collabdm.cli.running import check_output
    from collabdm.data.flows.built_in import SCHEMAS
    from collabdm.data.flows.draft import DRAFT_SIDE, Choices, Draft, draft
    from collabdm.data.flows.names import names_of
    from collabdm.data.flows.schemas import with_changes
    from collabdm.documents.atomic_write import atomic_write
    from collabdm.planning.option_values import without_none

    check_output(output, Path(sample))
    if sample in SCHEMAS:
        drafted = Draft(SCHEMAS[sample])
    else:
        choices = Choices(
            label=label,
            side=side or DRAFT_SIDE,
            leave_out=leave_out or (),
            keep=keep or (),
            missing=missing or (),
            encoding=encoding,
            names=None if names is None else names_of(names),
            empty_label=empty_label,
            time=time,
            time_format=time_format,
            rows=form == "rows",
        )
        drafted = draft(sample, choices)

    shape = {"flows": flows, "side": side, "layout": layout, "form": form}
    changes = without_none(**shape, grouping=grouping, split=split, block=block)
    result = with_changes(drafted.schema, changes, keep_leaking)

    atomic_write(output, (result.model_dump_json(indent=2) + "\n").encode())
    print_draft(drafted)
    console.print(f"{output}: {schema_summary(result, drafted)}", soft_wrap=True)

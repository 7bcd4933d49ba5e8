"""Define the options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated, Any

import typer

from collabdm.cli import choices

DATA_HELP = (
    "a name (digits, mnist, fashion_mnist, cifar10, svhn), a folder of images (class = subfolder) "
    "or of parquet files, an .npz file, or hub:OWNER/NAME"
)

NETWORKS_HELP = "Networks to train, separated by commas."

RECIPE_HELP = "Optimiser, schedule and epochs of the training."

TRIALS_HELP = "Networks to train of each kind."


def option(panel: str, *flags: str, **settings: Any) -> Any:
    """Define a command-line option that is shown in a panel of the help.

    Args:
        panel: title of the panel.
        flags: names such as `--quiet` and `-q`; if omitted, typer uses the parameter's name.
        settings: keyword arguments of `typer.Option`.
    """
    return typer.Option(*flags, rich_help_panel=panel, **settings)


def data_option(*flags: str, **settings: Any) -> Any:
    """Define an option about data and sites; the arguments are those of `option`."""
    return option("Data and sites", *flags, **settings)


def setting(*flags: str, **settings: Any) -> Any:
    """Define an option about the settings of the round; the arguments are those of `option`."""
    return option("Settings of the round", *flags, **settings)


def safety(*flags: str, **settings: Any) -> Any:
    """Define an option about what leaves a site; the arguments are those of `option`."""
    return option("What leaves this site", *flags, **settings)


def scoring(*flags: str, **settings: Any) -> Any:
    """Define an option about training and scoring; the arguments are those of `option`."""
    return option("Training and scoring", *flags, **settings)


def computing(*flags: str, **settings: Any) -> Any:
    """Define an option about the computation; the arguments are those of `option`."""
    return option("Computing", *flags, **settings)


def method_option(names: tuple[str, ...], default: str) -> Any:
    """Define the `--method` option, which lists and completes the methods of this package."""
    return setting(
        help=f"Method: {', '.join(names)}, or one of an installed package.",
        show_default=default,
        metavar="METHOD",
        autocompletion=lambda: list(names),
    )


def check_json(path: Path | None) -> Path | None:
    """Check that the file of `--json` can be written. Raises OutputError."""
    if path is not None and path != Path("-"):
        from collabdm.documents.atomic_write import check_writable

        check_writable(path)
    return path


TablesFile = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="FILE",
        callback=check_json,
        help="Also write the tables to this file, as JSON; -: to standard output instead.",
    ),
]

# --- documents and data --------------------------------------------------------------------------

PlanPath = Annotated[Path, typer.Argument(metavar="PLAN", help="The plan, a JSON file.")]

DistilledPath = Annotated[
    Path, typer.Argument(metavar="SET", help="The distilled set, a safetensors file.")
]

Data = Annotated[str, data_option(help=f"The data: {DATA_HELP}.")]

SiteName = Annotated[str, data_option(help="The name of this site.")]

PolicyPath = Annotated[
    Path | None,
    safety(help="TOML file with the limits of this site; default: the limits below alone."),
]

AllowRealImages = Annotated[
    bool,
    safety(
        "--allow-real-images",
        help="Let images leave this site that are real or start from real ones: anyone can "
        "recognise the real ones in them.",
    ),
]

SmallestClass = Annotated[
    int | None,
    safety(
        min=1,
        help="Withhold classes with fewer images, or with fewer images behind each mean.",
        show_default="20, or that of the policy",
    ),
]

Without = Annotated[
    list[str] | None,
    safety("--without", metavar="CLASS", help="A class to leave out; repeatable."),
]

PublicBatches = Annotated[
    bool,
    safety(
        "--public-batches",
        help="Draw batches from the plan, so that anyone can repeat them; reveals which positions "
        "of the data stand behind each number.",
    ),
]

MaskKey = Annotated[
    Path | None,
    data_option(
        "--mask-key",
        help="Private key of this site for masks; default: the one that `keys` has made here.",
    ),
]

Resize = Annotated[
    bool, data_option("--resize", help="Resize images to the plan's size and channels.")
]

Rows = Annotated[
    str | None, data_option(help="Of a table of flows, use only the rows with this COLUMN=VALUE.")
]

LabelColumn = Annotated[
    str | None, data_option(help="Column of the labels; default: the one with a usual name.")
]

ImageColumn = Annotated[
    str | None, data_option(help="Column of the images; default: the one with a usual name.")
]

ClassNames = Annotated[
    str | None,
    data_option(
        metavar="FILE|A,B,…",
        help="Names of the label numbers 0, 1, …: a file with one per line, or a list; names with "
        "commas are quoted.",
    ),
]

TestSplit = Annotated[
    str | None, data_option(help="Split to test on, where none is called test; such as val.")
]

SkipUnreadable = Annotated[
    bool, data_option("--skip-unreadable", help="Count pictures that cannot be read, and go on.")
]

Ground = Annotated[
    str | None,
    data_option(
        help="Colour behind transparent pixels: white, black, grey or #rrggbb.",
        show_default="white",
    ),
]

Range = Annotated[
    str | None,
    data_option(
        help="Levels that become black and white in pictures of more than 8 bits: full, or "
        "LOW..HIGH; without it, they are refused."
    ),
]

Fit = Annotated[
    choices.Fit | None,
    data_option(
        help="Resize pictures ignoring their aspect ratio, or crop them to the central square.",
        show_default="squash",
    ),
]

FlowsPath = Annotated[
    str | None, data_option(help="Schema of tables of flows: 5gnidd, or its file.")
]

FlowForm = Annotated[
    choices.FlowForm | None,
    data_option(
        "--as",
        help="Distil tables of flows as images of several rows, or row by row.",
        show_default="the form of the schema",
    ),
]

# --- settings of a round -------------------------------------------------------------------------

Preset = Annotated[
    choices.Preset | None,
    setting(
        help="Default settings: ours (best), as published (paper), of a compared method, or none.",
        show_default="best",
    ),
]

Config = Annotated[Path | None, setting(help="TOML file with settings; options override it.")]

Set = Annotated[
    list[str] | None,
    setting(
        "--set",
        metavar="FIELD=VALUE",
        help="Set any field, such as refinement.passes=4; overrides options; repeatable.",
    ),
]

Ipc = Annotated[
    int | None, setting(help="Images per class of the distilled set.", show_default="10")
]

Steps = Annotated[int | None, setting(help="T, the number of random networks.", show_default="100")]

Batch = Annotated[
    str | None, setting(help="Real images per class and step, or all.", show_default="256")
]

Sketch = Annotated[
    int | None,
    setting(help="Length of a class mean after random projection; 0: whole.", show_default="0"),
]

Wire = Annotated[
    choices.Wire | None,
    setting(help="Number type of the class means sent.", show_default="float16"),
]

LocalSteps = Annotated[
    int | None, setting(help="Steps of the local distillation.", show_default="400")
]

Passes = Annotated[
    int | None, setting(help="Passes of the server over the T steps.", show_default="16")
]

Network = Annotated[
    str | None,
    setting(help="Embedding network: NAME or NAME:width=64,depth=2.", show_default="ConvNet"),
]

Epsilon = Annotated[
    float | None,
    setting(
        help="Differential privacy: the budget of each image; sites then add noise, and send "
        "statistics alone.",
        show_default="no noise",
    ),
]

Delta = Annotated[
    float | None,
    setting(help="The probability with which epsilon may not hold.", show_default="1e-05"),
]

Clip = Annotated[
    float | None,
    setting(
        help="Bound on the influence of an image, under --epsilon; default: from images that a "
        "program draws, without data."
    ),
]

# --- training and scoring ------------------------------------------------------------------------

Recipe = Annotated[choices.Recipe, scoring(help=RECIPE_HELP)]

Epochs = Annotated[int | None, scoring(help="Epochs; default: those of the recipe.")]

# --- computing -----------------------------------------------------------------------------------

Device = Annotated[str, computing(help="auto, cpu, cuda, cuda:1, …")]

Precision = Annotated[
    choices.Precision,
    computing(help="Precision of the networks; auto: the fastest on the device."),
]

Threads = Annotated[int, computing(min=0, help="Processor threads; 0: as many as cores are free.")]

Quiet = Annotated[bool, computing("--quiet", "-q", help="Show no progress bars.")]

"""Commands for research: `simulate`, `demo`, `reproduce`, `report` and `synthetic-flows`."""

from pathlib import Path
from typing import Annotated

import typer

from collabdm.cli import choices
from collabdm.cli.options import (
    DATA_HELP,
    NETWORKS_HELP,
    RECIPE_HELP,
    TRIALS_HELP,
    Batch,
    Config,
    Device,
    Epochs,
    Ipc,
    LocalSteps,
    Network,
    Passes,
    Precision,
    Preset,
    Quiet,
    Set,
    Sketch,
    Steps,
    Threads,
    Wire,
    data_option,
    method_option,
    scoring,
    setting,
)

RoundFolder = Annotated[Path, typer.Option("-o", "--output", help="Folder of the round.")]

DataToSplit = Annotated[str | None, data_option(help=f"The data to split: {DATA_HELP}.")]

TableSchema = Annotated[
    str | None,
    data_option(
        help="Schema of tables of flows: 5gnidd, or its file; --data is then a table, or several "
        "separated by commas."
    ),
]

Sites = Annotated[int | None, data_option(help="Number of sites.", show_default="5")]

Beta = Annotated[
    float | None,
    data_option(help="Concentration of the Dirichlet split; 0: IID.", show_default="0.1"),
]

ClassFloor = Annotated[
    int | None, data_option(help="Images of every class that each site receives first.")
]

SiteColumn = Annotated[
    str | None, data_option(help="Column that names the site; of flows NAME=1,2.")
]

Partition = Annotated[str | None, data_option(help="A saved partition.json, to repeat its split.")]

PerClass = Annotated[
    int | None, data_option(help="Use at most this number of training images per class.")
]

TestPerClass = Annotated[
    int | None, data_option(help="Use at most this number of test images per class.")
]

Side = Annotated[int | None, data_option(help="Resize the images to this number of pixels.")]

Method = Annotated[str | None, method_option(choices.METHODS, "collabdm-pae")]

Seed = Annotated[
    int | None, setting(help="Seed of the split, the round and the scores.", show_default="0")
]

Networks = Annotated[str | None, scoring(help=NETWORKS_HELP, show_default="ConvNet")]

Trials = Annotated[int | None, scoring(help=TRIALS_HELP, show_default="5")]

Recipe = Annotated[choices.Recipe | None, scoring(help=RECIPE_HELP, show_default="paper")]

LearningRate = Annotated[float | None, scoring(help="Learning rate; default: that of the recipe.")]

Curve = Annotated[
    int | None,
    scoring(help="Also score this number of points along the refinement.", show_default="0"),
]

Compare = Annotated[
    str | None,
    scoring(
        help="Also score, separated by commas: methods, random, sites, all.",
        show_default="localdm,random,sites",
    ),
]


def simulate(
    output: RoundFolder,
    data: DataToSplit = None,
    flows: TableSchema = None,
    sites: Sites = None,
    beta: Beta = None,
    class_floor: ClassFloor = None,
    site_column: SiteColumn = None,
    partition: Partition = None,
    per_class: PerClass = None,
    test_per_class: TestPerClass = None,
    side: Side = None,
    preset: Preset = None,
    config: Config = None,
    assignments: Set = None,
    method: Method = None,
    seed: Seed = None,
    ipc: Ipc = None,
    steps: Steps = None,
    batch: Batch = None,
    sketch: Sketch = None,
    wire: Wire = None,
    local_steps: LocalSteps = None,
    passes: Passes = None,
    network: Network = None,
    networks: Networks = None,
    trials: Trials = None,
    recipe: Recipe = None,
    epochs: Epochs = None,
    learning_rate: LearningRate = None,
    curve: Curve = None,
    compare: Compare = None,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Simulate a whole round on one machine: split, sites, server, scores; resumes if stopped."""
    options = dict(locals())

    from collabdm.cli.running import compute_of
    from collabdm.cli.simulating import experiment_from, run_simulation

    experiment = experiment_from(options)
    run_simulation(experiment, output, compute_of(device, precision, threads), quiet)


def demo(
    output: RoundFolder = Path("demo"),
    flows: Annotated[
        bool,
        typer.Option("--flows", help="Detect attacks at two base stations, in synthetic traffic."),
    ] = False,
    device: Device = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Simulate a round in a minute on built-in data: handwritten digits at five skewed sites."""
    from collabdm.cli import simulating
    from collabdm.cli.running import compute_of
    from collabdm.lab import demo as built_in

    experiment = built_in.traffic(output) if flows else built_in.DEMO
    compute = compute_of(device, "float32", threads)
    simulating.run_simulation(experiment, output, compute, quiet)


Grids = Annotated[
    list[Path],
    typer.Argument(metavar="GRID...", help="TOML files such as experiments/table2.toml."),
]

ResultsFolder = Annotated[Path, typer.Option("-o", "--output", help="Folder of the results.")]

Scale = Annotated[choices.Scale, typer.Option(help="Scale of the experiments.")]

Minutes = Annotated[
    float | None, typer.Option(min=0, help="Stop between cells before this time is over.")
]

Share = Annotated[str | None, typer.Option(help="This machine's share of the cells, such as 1/3.")]

Retry = Annotated[bool, typer.Option("--retry", help="Run failed cells again.")]


def reproduce(
    grids: Grids,
    output: ResultsFolder,
    scale: Scale = "cpu",
    minutes: Minutes = None,
    part: Share = None,
    retry: Retry = False,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Run the missing cells of published tables and figures; finished cells are kept.

    Reports the expected time first, and resumes if stopped. To merge the results of several
    machines, put their files into one folder. `collabdm report` shows the folder.
    """
    from collabdm.cli.console import console
    from collabdm.cli.reproducing import read_reproduction, run, start
    from collabdm.cli.running import compute_of

    reproduction = read_reproduction(grids, output, scale, part, retry)
    cells = start(reproduction)
    if cells and minutes != 0:
        run(reproduction, cells, compute_of(device, precision, threads), minutes, quiet)
    console.print(f"{output}: collabdm report {output}")


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...", help="Folders of rounds or simulations, or one of `reproduce`."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Path of the page.",
            show_default="report.html in the first folder",
        ),
    ] = None,
) -> None:
    """Show rounds, or tables next to the paper's, on one self-contained HTML page with plots."""
    from collabdm.cli.console import console
    from collabdm.cli.running import check_output
    from collabdm.report.grid_page import write_grid_page
    from collabdm.report.grid_summary import contains_grids
    from collabdm.report.round_page import write_report

    place = output or folders[0] / "report.html"
    if folders[0].is_dir() or output is not None:
        check_output(place)

    if len(folders) == 1 and contains_grids(folders[0]):
        written = write_grid_page(folders[0], place)
    else:
        written = write_report(folders, place)
    plots = f", and {len(written) - 1} plots in {place.with_suffix('')}" if written[1:] else ""
    console.print(f"{place}{plots}")


def synthetic_flows(
    output: Annotated[Path, typer.Option("-o", "--output", help="CSV file to write.")],
    share: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the 1,215,890 rows of the published table."),
    ] = 0.02,
    without: Annotated[
        list[str] | None, typer.Option(help="A label to leave out; repeatable.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the rows.")] = 0,
) -> None:
    """Write synthetic flows with the columns of 5G-NIDD, to try the commands without data."""
    from collabdm.cli.console import console
    from collabdm.cli.running import check_output
    from collabdm.data.flows.synthetic import PUBLISHED_COUNTS, write_synthetic

    check_output(output)
    labels = [name for name in PUBLISHED_COUNTS if name not in (without or ())]
    counts = {name: round(PUBLISHED_COUNTS[name] * share) for name in labels}
    write_synthetic(output, counts, seed)
    console.print(f"{output}: {sum(counts.values()):,} synthetic rows")

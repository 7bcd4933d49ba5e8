"""Commands for research: `simulate`, `audit`, `demo` and `synthetic-flows`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from collabdm.cli import choices
from collabdm.cli.options import (
    DATA_HELP,
    NETWORKS_HELP,
    RECIPE_HELP,
    TRIALS_HELP,
    Batch,
    ClassNames,
    Config,
    Data,
    Delta,
    Device,
    Epochs,
    Epsilon,
    Fit,
    Ground,
    ImageColumn,
    Ipc,
    LabelColumn,
    LocalSteps,
    Network,
    Passes,
    PlanPath,
    Precision,
    Preset,
    Quiet,
    Range,
    Resize,
    Rows,
    Set,
    Sketch,
    SkipUnreadable,
    Steps,
    TestSplit,
    Threads,
    Wire,
    data_option,
    method_option,
    option,
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


WithReport = Annotated[
    bool,
    typer.Option(
        "--report/--no-report", help="Write report.html: takes a few seconds, as in `report`."
    ),
]

AuditFolder = Annotated[Path, typer.Option("-o", "--output", help="Folder of the audit.")]


def attack(*flags: str, **settings: Any) -> Any:
    """Define an option about the attacks of an audit; the arguments are those of `option`."""
    return option("Attacks", *flags, **settings)


Members = Annotated[
    int,
    data_option(
        min=2,
        help="Images of each class that a round uses; the data needs three times as many.",
    ),
]

Shadows = Annotated[int, attack(min=0, help="Shadow rounds, which calibrate the attacks.")]

AuditNetworks = Annotated[int, attack(min=1, help="Networks trained on the set of each round.")]

AuditEpochs = Annotated[int, attack(min=1, help="Epochs of their training.")]

CanariesOfAKind = Annotated[int, attack(min=0, help="Canaries of each kind; 0: none.")]

SmallClass = Annotated[
    int, attack(min=0, help="Images of the class that is reconstructed from its means; 0: none.")
]

Iterations = Annotated[int, attack(min=1, help="Iterations of the reconstruction.")]

Restarts = Annotated[int, attack(min=1, help="How often the reconstruction starts anew.")]

AuditSeed = Annotated[int, attack(min=0, help="Seed of the images, rounds and networks.")]


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
    label_column: LabelColumn = None,
    image_column: ImageColumn = None,
    class_names: ClassNames = None,
    skip_unreadable: SkipUnreadable = False,
    test_split: TestSplit = None,
    ground: Ground = None,
    range: Range = None,
    fit: Fit = None,
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
    epsilon: Epsilon = None,
    delta: Delta = None,
    networks: Networks = None,
    trials: Trials = None,
    recipe: Recipe = None,
    epochs: Epochs = None,
    learning_rate: LearningRate = None,
    curve: Curve = None,
    compare: Compare = None,
    with_report: WithReport = True,
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
    compute = compute_of(device, precision, threads)
    run_simulation(experiment, output, compute, quiet, with_report)


def audit(
    plan: PlanPath,
    data: Data,
    output: AuditFolder,
    resize: Resize = False,
    rows: Rows = None,
    label_column: LabelColumn = None,
    image_column: ImageColumn = None,
    class_names: ClassNames = None,
    skip_unreadable: SkipUnreadable = False,
    members: Members = 100,
    shadows: Shadows = 7,
    networks: AuditNetworks = 1,
    epochs: AuditEpochs = 50,
    canaries: CanariesOfAKind = 5,
    small_class: SmallClass = 5,
    iterations: Iterations = 500,
    restarts: Restarts = 2,
    seed: AuditSeed = 0,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Attack rounds of a plan on data of your own, to see what they reveal; resumes if stopped.

    Rounds use a random half of the images; the attacks recognise them by the contribution and by
    the set. `collabdm report` shows the folder.
    """
    options = dict(locals())

    from collabdm.cli.auditing import run_audit
    from collabdm.cli.running import compute_of
    from collabdm.data.selection import read_selection
    from collabdm.rounds.exchange import DataSource

    chosen = read_selection(
        label_column, image_column, class_names, skip_unreadable=skip_unreadable
    )
    source = DataSource(data, resize, rows, chosen)
    run_audit(plan, source, options, output, compute_of(device, precision, threads))


def demo(
    output: RoundFolder = Path("demo"),
    flows: Annotated[
        bool,
        typer.Option("--flows", help="Detect attacks at two base stations, in synthetic traffic."),
    ] = False,
    with_report: WithReport = True,
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
    simulating.run_simulation(experiment, output, compute, quiet, with_report)


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

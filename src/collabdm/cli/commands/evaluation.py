"""The command to evaluate a distilled set: `evaluate`."""

from pathlib import Path
from typing import Annotated

import typer

from collabdm.cli.options import (
    NETWORKS_HELP,
    TRIALS_HELP,
    ClassNames,
    Data,
    Device,
    DistilledPath,
    Epochs,
    ImageColumn,
    LabelColumn,
    Precision,
    Quiet,
    Recipe,
    Resize,
    Rows,
    SkipUnreadable,
    TestSplit,
    Threads,
    scoring,
)

Networks = Annotated[str | None, scoring(help=NETWORKS_HELP, show_default="ConvNet; MLP for rows")]

Trials = Annotated[int, scoring(min=1, help=TRIALS_HELP)]

Seed = Annotated[int, scoring(min=0, help="Seed of the trained networks.")]

WithRandom = Annotated[
    bool,
    scoring("--random/--no-random", help="Also score random real images of the same storage."),
]

WithRobustness = Annotated[
    bool,
    scoring("--robust", help="Also report the scores of DD-Ranking; trains on all the data."),
]

Alone = Annotated[
    list[str] | None,
    scoring(
        metavar="NAME=DATA",
        help="Also train on these real images alone, such as a site's own; repeatable.",
    ),
]

JsonFile = Annotated[Path | None, typer.Option("--json", help="JSON file for the results.")]


def evaluate(
    distilled: DistilledPath,
    data: Data,
    resize: Resize = False,
    rows: Rows = None,
    label_column: LabelColumn = None,
    image_column: ImageColumn = None,
    class_names: ClassNames = None,
    skip_unreadable: SkipUnreadable = False,
    test_split: TestSplit = None,
    networks: Networks = None,
    trials: Trials = 5,
    recipe: Recipe = "paper",
    epochs: Epochs = None,
    seed: Seed = 0,
    random: WithRandom = True,
    robust: WithRobustness = False,
    alone: Alone = None,
    json_file: JsonFile = None,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Train networks on a distilled set and test them on real images."""
    from collabdm.cli.evaluating import Request, read_named, run_evaluation
    from collabdm.cli.running import check_output, compute_of
    from collabdm.data.selection import read_selection
    from collabdm.documents.outcome_files import read_distilled
    from collabdm.planning.settings import network_list, networks_of, usual_network
    from collabdm.rounds.exchange import DataSource
    from collabdm.scoring.evaluation import EvaluationConfig
    from collabdm.scoring.training import recipe_of

    distilled_set = read_distilled(distilled)
    if json_file is not None:
        check_output(json_file, distilled)
    wanted = network_list(networks or usual_network(distilled_set.plan))
    specs = networks_of(wanted, distilled_set.plan.network)
    config = EvaluationConfig(specs, trials, recipe_of(recipe, epochs), seed)
    compute = compute_of(device, precision, threads)

    chosen = read_selection(label_column, image_column, class_names, test_split, skip_unreadable)
    source = DataSource(data, resize, rows, chosen)
    others = tuple(read_named(text) for text in alone or ())
    request = Request(distilled, distilled_set, source, config, compute, random, robust, others)
    run_evaluation(request, json_file, quiet)

"""Scores: `evaluate` a set, `simulate` a whole round, and the `demo`."""

from pathlib import Path
from typing import Annotated

import typer

from collabdm.cli.console import SCORE_COLUMNS, Bars, score_rows, table
from collabdm.cli.options import (
    DATA_HELP,
    PRESET,
    Data,
    Device,
    DistilledPath,
    Precision,
    Quiet,
    Resize,
    Rows,
    Threads,
    app,
    check_output,
    compute_of,
    console,
    load_for_plan,
)
from collabdm.documents.outcome_files import read_distilled
from collabdm.documents.outcomes import DistilledSet
from collabdm.errors import DataError
from collabdm.export.pictures import write_picture
from collabdm.images import ImageSet
from collabdm.lab.experiment import Experiment
from collabdm.lab.results import (
    ComputeRecord,
    EvaluationResults,
    RobustnessRecord,
    ScoreRecord,
    write_results,
)
from collabdm.lab.settings import simulation
from collabdm.lab.simulate import simulate
from collabdm.matching.compute import Compute
from collabdm.matching.embedding import plan_geometry
from collabdm.matching.run_context import RunContext
from collabdm.methods.registry import METHODS
from collabdm.planning.settings import batch_of, given, network_list, networks_of, sketch_of
from collabdm.rounds.exchange import DataSource, picture_path
from collabdm.scoring.dd_ranking import robustness
from collabdm.scoring.evaluation import EvaluationConfig, evaluate, random_baselines, score
from collabdm.scoring.outcomes import KINDS
from collabdm.scoring.training import RECIPES, recipe_of
from collabdm.version import versions


@app.command("evaluate")
def evaluate_command(
    distilled: DistilledPath,
    data: Data,
    networks: Annotated[str, typer.Option(help="Networks to train, by commas.")] = "ConvNet",
    trials: Annotated[int, typer.Option(min=1, help="Networks trained of each kind.")] = 5,
    epochs: Annotated[int | None, typer.Option(help="Epochs; else the recipe's.")] = None,
    recipe: Annotated[str, typer.Option(help=f"{', '.join(RECIPES)}.")] = "paper",
    seed: Annotated[int, typer.Option(min=0, help="The seed of the trained networks.")] = 0,
    random: Annotated[
        bool, typer.Option("--random/--no-random", help="Score random real images of the same storage too.")
    ] = True,
    robust: Annotated[
        bool,
        typer.Option("--robust", help="The scores of DD-Ranking too; trains on all the data as well."),
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the results here as well.")] = None,
    resize: Resize = False,
    rows: Rows = None,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Train networks on a distilled set and test them on real images."""
    made = read_distilled(distilled)
    if json_file is not None:
        check_output(json_file, distilled)
    specs = networks_of(network_list(networks), made.plan.network)
    protocol = EvaluationConfig(specs, trials, recipe_of(recipe, epochs), seed)
    compute = compute_of(device, precision, threads)
    test = load_for_plan(made.plan, DataSource(data, resize, rows), "test")
    real = _training_split(made, data, resize, rows) if random or robust else None
    with Bars(quiet) as bars:
        context = RunContext(compute, bars)
        scores = evaluate(made, test, protocol, context)
        found = robustness(made, real, test, protocol, context) if robust and real is not None else None
        if random and real is not None:
            for what, baseline in random_baselines(made.plan, real, seed).items():
                scores += score(what, baseline, test, plan_geometry(made.plan), protocol, context)
    results = EvaluationResults(
        set=str(distilled), plan=made.plan.digest, data=data, seed=seed, bytes=distilled.stat().st_size,
        versions=versions(), recipe=protocol.recipe.model_dump(), compute=ComputeRecord.of(compute),
        scores=tuple(map(ScoreRecord.of, scores)), robustness=RobustnessRecord.of(found) if found else None,
    )  # fmt: skip
    if json_file is not None:
        write_results(results, json_file)
    console.print(
        table(
            f"Accuracy on {data}, {len(test):,} test images",
            SCORE_COLUMNS[:-1],
            (r[:-1] for r in score_rows(results)),
        )
    )
    if found is not None:
        console.print(
            f"label-robust score {found.lrs:.3f} ± {found.std['lrs']:.3f}, augmentation-robust score {found.ars:.3f} "
            f"± {found.std['ars']:.3f}, n = {found.n} "
            f"(recovery {100 * found.hlr:.2f} points short of all the data, {100 * found.ior:.2f} over random images)"
        )


def _training_split(made: DistilledSet, data: str, resize: bool, rows: str | None) -> ImageSet:
    try:
        return load_for_plan(made.plan, DataSource(data, resize, rows))
    except DataError as error:
        raise DataError(f"{error}. Random real images are drawn from it; `--no-random` goes without") from error


@app.command("simulate")
def simulate_command(
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder of the round.")],
    data: Annotated[str | None, typer.Option(help=f"The data to split: {DATA_HELP}.")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file that says the same; options win.")] = None,
    flows: Annotated[
        str | None,
        typer.Option(
            help="For tables of flows: 5gnidd, or a schema's file; --data is then a table, or several by commas."
        ),
    ] = None,
    method: Annotated[str | None, typer.Option(help=" | ".join(METHODS), show_default="collabdm-pae")] = None,
    sites: Annotated[int | None, typer.Option(help="Number of sites.", show_default="5")] = None,
    beta: Annotated[
        float | None, typer.Option(help="Skew of the Dirichlet split; 0 for IID.", show_default="0.1")
    ] = None,
    class_floor: Annotated[int | None, typer.Option(help="Images of every class that each site gets first.")] = None,
    site_column: Annotated[str | None, typer.Option(help="The column that names the site; of flows NAME=1,2.")] = None,
    partition: Annotated[str | None, typer.Option(help="A saved partition.json to replay.")] = None,
    per_class: Annotated[int | None, typer.Option(help="Use only so many images of each class.")] = None,
    test_per_class: Annotated[int | None, typer.Option(help="Test on only so many of each class.")] = None,
    side: Annotated[int | None, typer.Option(help="Resize the images to so many pixels first.")] = None,
    ipc: Annotated[int | None, typer.Option(help="Images per class of the distilled set.")] = None,
    steps: Annotated[int | None, typer.Option(help="T: random networks to match in.")] = None,
    batch: Annotated[str | None, typer.Option(help="Real images per class and step, or all.")] = None,
    sketch: Annotated[int | None, typer.Option(help="Width of the sketch; 0 for none.")] = None,
    wire: Annotated[str | None, typer.Option(help="float16, int8 or float32.")] = None,
    local_steps: Annotated[int | None, typer.Option(help="Steps of the local distillation.")] = None,
    passes: Annotated[int | None, typer.Option(help="Passes of the server over the steps.")] = None,
    network: Annotated[str | None, typer.Option(help="Embedding network: NAME or NAME:width=64,depth=2.")] = None,
    networks: Annotated[str | None, typer.Option(help="Networks to train, by commas.", show_default="ConvNet")] = None,
    trials: Annotated[int | None, typer.Option(help="Networks trained of each kind.", show_default="5")] = None,
    recipe: Annotated[str | None, typer.Option(help=", ".join(RECIPES), show_default="paper")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs; else the recipe's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Rate in training; else the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(help="The seed of everything.", show_default="0")] = None,
    curve: Annotated[
        int | None, typer.Option(help="Score so many points along the refinement as well.", show_default="0")
    ] = None,
    compare: Annotated[
        str | None,
        typer.Option(help="More lines, by commas: methods, random, sites, all.", show_default="localdm,random,sites"),
    ] = None,
    preset: Annotated[str | None, PRESET] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Simulate a whole round on one machine: split, every site, the server, the scores. Resumes where it stopped."""
    settings = given(
        ipc=ipc, steps=steps, wire=wire, batch=batch_of(batch), sketch=sketch_of(sketch),
        local=given(steps=local_steps) or None, refinement=given(passes=passes) or None, network=network,
    )  # fmt: skip
    options = given(
        data=data, flows=flows, method=method, sites=sites, beta=beta, class_floor=class_floor, site_column=site_column,
        partition=partition, per_class=per_class, test_per_class=test_per_class, side=side, trials=trials,
        recipe=recipe, epochs=epochs, learning_rate=learning_rate, seed=seed, networks=networks, compare=compare,
        curve=curve,
    )  # fmt: skip
    run_simulation(simulation(config, preset, options, settings), output, compute_of(device, precision, threads), quiet)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder of the round.")] = Path("demo"),
    flows: Annotated[
        bool, typer.Option("--flows", help="Attack detection instead: two base stations with synthetic traffic.")
    ] = False,
    device: Device = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """A whole round in a minute, with data that is built in: handwritten digits at five skewed sites."""
    from collabdm.lab import demo as built_in

    experiment = built_in.traffic(output) if flows else built_in.DEMO
    run_simulation(experiment, output, compute_of(device, "float32", threads), quiet)


def run_simulation(experiment: Experiment, output: Path, compute: Compute, quiet: bool) -> None:
    """Simulate, and show the table and where everything lies."""
    with Bars(quiet) as bars:
        results = simulate(experiment, output, RunContext(compute, bars))
    kind = KINDS[METHODS[experiment.method].outcome]
    images = kind.images(kind.read(output / kind.file))
    picture = picture_path(output / kind.file)
    if images is not None:
        write_picture(images, picture)
    title = f"Accuracy on {experiment.data}, {len(results.sets[experiment.method].sites)} sites"
    console.print(table(title, SCORE_COLUMNS, score_rows(results)))
    written = ("plan.json", "contributions/", kind.file, picture.name, "results.json")
    console.print(f"in {output}: {', '.join(name for name in written if (output / name).exists())}")

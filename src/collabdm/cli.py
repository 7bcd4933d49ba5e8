"""The command line: one command for each arrow of the round, and `simulate` for all of them.

    plan  ->  contribute (each site)  ->  distill  ->  evaluate

Exit codes: 0 done; 2 something in the input should be changed (one message says what); 130 stopped by
Ctrl-C, with no half file left: the same command goes on where it stood.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.text import Text

from collabdm import files
from collabdm.budget import choose, read_bytes
from collabdm.compute import Compute, choose_compute
from collabdm.errors import CollabDMError, DataError
from collabdm.evaluation import Protocol, evaluate, random_baselines, score
from collabdm.experiment import Bench, Experiment, Stopping, data_digest, networks_of, simulate
from collabdm.images import ImageSet
from collabdm.inspection import describe_file, summary
from collabdm.methods import METHODS, method_of
from collabdm.methods.collabdm import check_data
from collabdm.planning import check_probe, geometry
from collabdm.protocol import Plan
from collabdm.screen import SCORE_COLUMNS, Bars, score_rows, table, write_picture
from collabdm.settings import (
    batch_of,
    file_digest,
    given,
    merge_settings,
    network_list,
    new_plan,
    policy_of,
    preset_settings,
    recipe_of,
    said_of_plan,
    simulation,
    sites_of,
    sketch_of,
)
from collabdm.sources import fit_classes, load
from collabdm.training import RECIPES
from collabdm.version import __version__, versions
from collabdm.whole import OutputError, check_writable, write_whole

app = typer.Typer(
    name="collabdm",
    help="One-shot collaborative data distillation: many sites, one small synthetic training set, a single round.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
console = Console()
WRONG_INPUT, STOPPED = 2, 130  # exit codes
UsageError: Any = typer.BadParameter.__mro__[2]  # click's base class, which newer typers carry inside

DATA_HELP = (
    "a name (digits, mnist, fashion_mnist, cifar10, svhn), a folder of images (class = subfolder) or of "
    "parquet files, an .npz file, or a Hugging Face id"
)
Data = Annotated[str, typer.Option("--data", help=f"The data: {DATA_HELP}.")]
PRESET = typer.Option(help="Settings not given: `best` (ours) or `paper` (the published ones).", show_default="best")
Resize = Annotated[bool, typer.Option("--resize", help="Bring images to the plan's size and channels.")]
Device = Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda, cuda:1, …")]
Precision = Annotated[
    str, typer.Option(help="Networks compute in float32 or bfloat16; auto takes the fastest the device has.")
]
Threads = Annotated[int, typer.Option(min=0, help="Processor threads; 0 takes all.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
PlanPath = Annotated[Path, typer.Argument(metavar="PLAN", help="The plan, a JSON file.")]
DistilledPath = Annotated[Path, typer.Argument(metavar="SET", help="The distilled set, a safetensors file.")]


@app.command()
def plan(
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the plan.")],
    data: Annotated[str | None, typer.Option(help=f"A public reference set: {DATA_HELP}.")] = None,
    classes: Annotated[str | None, typer.Option(help="Without --data: class names, by commas.")] = None,
    image_size: Annotated[str | None, typer.Option(help="Without --data: CHANNELSxSIDE, e.g. 3x32.")] = None,
    budget: Annotated[
        str | None, typer.Option(help="Bytes a site may send, e.g. 1MB: chooses steps, sketch and wire.")
    ] = None,
    sites: Annotated[
        str | None,
        typer.Option(help="How many sites, or their names by commas (others are refused).", show_default="5"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The seed of all networks and sketches.", show_default="0")] = None,
    ipc: Annotated[int | None, typer.Option(help="Images per class of the distilled set.", show_default="10")] = None,
    steps: Annotated[int | None, typer.Option(help="T: random networks to match in.")] = None,
    batch: Annotated[str | None, typer.Option(help="Real images per class and step, or all.")] = None,
    fraction: Annotated[
        float | None, typer.Option(help="Share of the sites that take part in a step.", show_default="1")
    ] = None,
    sketch: Annotated[int | None, typer.Option(help="Width of the sketch; 0 for none.")] = None,
    wire: Annotated[str | None, typer.Option(help="Wire type: float16, int8 or float32.")] = None,
    images: Annotated[str | None, typer.Option(help="Images travel as uint8 or float32.")] = None,
    pae: Annotated[
        bool | None,
        typer.Option(
            "--pae/--no-pae", help="Partition-and-expand, 2 x 2; if not said, for images of side 16 and more."
        ),
    ] = None,
    init: Annotated[str | None, typer.Option(help="Local distillation starts from real or noise.")] = None,
    local: Annotated[str | None, typer.Option(help="Local part: dm, random or none.")] = None,
    local_steps: Annotated[int | None, typer.Option(help="Steps of the local distillation.")] = None,
    local_images: Annotated[
        int | None, typer.Option(help="Images per class that a site sends; 0 chooses its share of ipc.")
    ] = None,
    passes: Annotated[int | None, typer.Option(help="Passes of the server over the steps.")] = None,
    merging: Annotated[str | None, typer.Option(help="weighted (by images held) or uniform.")] = None,
    augment: Annotated[
        str | None, typer.Option(help="Operations by underscores, e.g. color_crop_cutout; none for none.")
    ] = None,
    network: Annotated[str | None, typer.Option(help="NAME or NAME:width=64,depth=2.")] = None,
    preset: Annotated[str | None, PRESET] = None,
    config: Annotated[
        Path | None, typer.Option(help="A TOML file with other fields of a plan (docs/format.md); options win.")
    ] = None,
) -> None:
    """Make a plan: all that sites and server agree on before the round."""
    options = given(
        seed=seed, ipc=ipc, steps=steps, batch=batch_of(batch), fraction=fraction, sketch=sketch_of(sketch),
        wire=wire, images=images, pae=None if pae is None else 2 if pae else 1, merging=merging,
        local=given(method=local, start=init, steps=local_steps, images=local_images) or None,
        refinement=given(passes=passes) or None, augment=policy_of(augment), network=network,
    )  # fmt: skip
    preset, said = said_of_plan(config, preset, options | sites_of(sites))
    made = new_plan(data, classes, image_size, merge_settings(preset_settings(preset), said))
    if budget is not None:
        made = choose(made, read_bytes(budget), keep=set(said))
    check_writable(output)
    files.write_plan(made, output)
    console.print(f"{output}: {summary(made)}")


@app.command()
def contribute(
    plan: PlanPath,
    data: Data,
    site: Annotated[str, typer.Option(help="This site's name.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the contribution.")],
    resize: Resize = False,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Answer a plan with this site's data: the one file that the site sends."""
    agreed = files.read_plan(plan)
    method = method_of(agreed)
    agreed.check_site(site)
    _check_output(output, plan)
    check_probe(agreed)
    held = _held(agreed, data, resize)
    identity = agreed.digest + site + data_digest(held)
    with (
        Bars(quiet) as bars,
        Stopping(output, identity, _bench(output, device, precision, threads, bars)) as run,
    ):
        files.write_contribution(method.contribute(agreed, held, site, run), output)
    _print_document(output)


@app.command()
def distill(
    plan: PlanPath,
    contributions: Annotated[list[Path], typer.Argument(metavar="SITE...", help="The sites' files.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the distilled set.")],
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Go without classes that no site has.")
    ] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Refine the sites' contributions into the distilled set."""
    agreed = files.read_plan(plan)
    method = method_of(agreed)
    picture = output.with_suffix(".png")
    _check_output(output, plan, picture, *contributions)
    _check_output(picture, plan, *contributions)
    answers = [files.read_contribution(path, agreed) for path in contributions]
    check_probe(agreed)
    identity = agreed.digest + ",".join(
        sorted(f"{a.site}:{file_digest(p)}" for a, p in zip(answers, contributions, strict=True))
    )
    with (
        Bars(quiet) as bars,
        Stopping(output, identity, _bench(output, device, precision, threads, bars)) as run,
    ):
        made = method.distill(agreed, answers, run, allow_missing)
        files.write_distilled(made, output)
    write_picture(made, picture)
    _print_document(output)


@app.command("evaluate")
def evaluate_command(
    distilled: DistilledPath,
    data: Data,
    networks: Annotated[str, typer.Option(help="Networks to train, by commas.")] = "ConvNet",
    trials: Annotated[int, typer.Option(min=1, help="Networks trained of each kind.")] = 5,
    epochs: Annotated[int | None, typer.Option(help="Epochs; else the recipe's.")] = None,
    recipe: Annotated[str, typer.Option(help=f"{' or '.join(RECIPES)}.")] = "paper",
    seed: Annotated[int, typer.Option(min=0, help="The seed of the trained networks.")] = 0,
    random: Annotated[
        bool, typer.Option("--random/--no-random", help="Score random real images of the same storage too.")
    ] = True,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the results here as well.")] = None,
    resize: Resize = False,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Train networks on a distilled set and test them on real images."""
    made = files.read_distilled(distilled)
    if json_file is not None:
        _check_output(json_file, distilled)
    specs = networks_of(network_list(networks), made.plan.network)
    protocol = Protocol(specs, trials, recipe_of(recipe, epochs), seed)
    compute = _compute(device, precision, threads)
    test = _held(made.plan, data, resize, "test")
    real = _held(made.plan, data, resize) if random else None
    with Bars(quiet) as bars:
        scores = evaluate(made, test, protocol, compute, bars)
        if real is not None:
            for what, baseline in random_baselines(made.plan, real, seed).items():
                scores += score(what, baseline, test, geometry(made.plan), protocol, compute, bars)
    results = {
        "set": str(distilled), "plan": made.plan.digest, "data": data, "seed": seed, "sets": {},
        "bytes": distilled.stat().st_size, "versions": versions(),
        "recipe": protocol.recipe.model_dump(), "compute": asdict(compute),
        "scores": [asdict(s) | {"mean": s.mean, "std": s.std, "n": s.n} for s in scores],
    }  # fmt: skip
    if json_file is not None:
        write_whole(json_file, (json.dumps(results, indent=2) + "\n").encode())
    console.print(
        table(
            f"Accuracy on {data}, {len(test):,} test images",
            SCORE_COLUMNS[:-1],
            (r[:-1] for r in score_rows(results)),
        )
    )


@app.command("simulate")
def simulate_command(
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder of the round.")],
    data: Annotated[str | None, typer.Option(help=f"The data to split: {DATA_HELP}.")] = None,
    config: Annotated[Path | None, typer.Option(help="A TOML file that says the same; options win.")] = None,
    method: Annotated[str | None, typer.Option(help=" | ".join(METHODS), show_default="collabdm-pae")] = None,
    sites: Annotated[int | None, typer.Option(help="Number of sites.", show_default="5")] = None,
    beta: Annotated[
        float | None, typer.Option(help="Skew of the Dirichlet split; 0 for IID.", show_default="0.1")
    ] = None,
    class_floor: Annotated[int | None, typer.Option(help="Images of every class that each site gets first.")] = None,
    site_column: Annotated[str | None, typer.Option(help="The column that names the site, instead of a split.")] = None,
    partition: Annotated[str | None, typer.Option(help="A saved partition.json to replay.")] = None,
    per_class: Annotated[int | None, typer.Option(help="Use only so many images of each class.")] = None,
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
    recipe: Annotated[str | None, typer.Option(help=" or ".join(RECIPES), show_default="paper")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs; else the recipe's.")] = None,
    seed: Annotated[int | None, typer.Option(help="The seed of everything.", show_default="0")] = None,
    compare: Annotated[
        str | None, typer.Option(help="More lines, by commas: methods, random, sites, all.", show_default="random")
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
        data=data, method=method, sites=sites, beta=beta, class_floor=class_floor, site_column=site_column,
        partition=partition, per_class=per_class, side=side, trials=trials, recipe=recipe, epochs=epochs, seed=seed,
        networks=networks, compare=compare,
    )  # fmt: skip
    _simulate(simulation(config, preset, options, settings), output, device, precision, threads, quiet)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="The folder of the round.")] = Path("demo"),
    device: Device = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """A whole round in a minute, with data that is built in: handwritten digits at five skewed sites."""
    from collabdm.demo import DEMO  # its settings are needed here only

    _simulate(DEMO, output, device, "float32", threads, quiet)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A plan, a contribution or a distilled set.")],
) -> None:
    """Say what is in a document: parts and their bytes, shapes, counts, digests."""
    _print_document(file)


@app.command()
def version() -> None:
    """Print the version."""
    console.print(__version__)


def main() -> None:
    """The entry point: errors that a person can mend are one message, not a traceback."""
    errors = Console(stderr=True)
    try:
        code = int(app(prog_name="collabdm", standalone_mode=False) or 0)  # 130 too: so newer typers say Ctrl-C
    except UsageError as error:
        error.show()
        code = WRONG_INPUT
    except CollabDMError as error:
        errors.print("[bold red]error:[/]", Text(str(error)), soft_wrap=True)
        code = WRONG_INPUT
    except (typer.Abort, KeyboardInterrupt):
        code = STOPPED
    if code == STOPPED:
        errors.print("stopped; the same command goes on where it stood")
    sys.exit(code)


def _check_output(output: Path, *inputs: Path) -> None:
    """Refuse an output that cannot be written, or that would take the place of an input."""
    if any(output.resolve() == path.resolve() for path in inputs):
        raise OutputError(f"{output} should be a file of its own; found one that is read or written here: name another")
    check_writable(output)


def _held(agreed: Plan, data: str, resize: bool, split: str = "train") -> ImageSet:
    """Data as the plan says. Raises DataError where it does not fit."""
    side, channels = (agreed.image.side, agreed.image.channels) if resize else (None, None)
    held = fit_classes(load(data, split, side=side, channels=channels), agreed.classes)
    try:
        check_data(agreed, held)
    except DataError as error:
        mended = held.shape == agreed.image.shape
        raise error if mended else DataError(f"{error}: `--resize` brings them to it") from error
    return held


def _compute(device: str, precision: str, threads: int) -> Compute:
    if threads > 0:
        torch.set_num_threads(threads)
    return choose_compute(device, precision)


def _bench(output: Path, device: str, precision: str, threads: int, bars: Bars) -> Bench:
    return Bench(output.parent, _compute(device, precision, threads), bars)


def _simulate(experiment: Experiment, output: Path, device: str, precision: str, threads: int, quiet: bool) -> None:
    compute = _compute(device, precision, threads)
    with Bars(quiet) as bars:
        results = simulate(experiment, Bench(output, compute, bars))
    made = files.read_distilled(output / "distilled.safetensors")
    write_picture(made, output / "distilled.png")
    title = f"Accuracy on {experiment.data}, {len(results['sets'][experiment.method]['sites'])} sites"
    console.print(table(title, SCORE_COLUMNS, score_rows(results)))
    console.print(f"in {output}: plan.json, contributions/, distilled.safetensors, distilled.png, results.json")


def _print_document(path: Path) -> None:
    title, rows = describe_file(path)
    console.print(table(title, ("part", "value"), rows, figures=False))


if __name__ == "__main__":
    main()

"""The round, one command for each arrow: plan, contribute, distill; and `inspect` for what travels."""

from pathlib import Path
from typing import Annotated

import typer

from collabdm.cli.console import Bars, table
from collabdm.cli.options import (
    DATA_HELP,
    PRESET,
    Data,
    Device,
    PlanPath,
    Precision,
    Quiet,
    Resize,
    Rows,
    Threads,
    app,
    check_output,
    console,
    context_of,
    load_for_plan,
    print_document,
)
from collabdm.documents.atomic_write import check_writable
from collabdm.documents.plan_file import read_plan, write_plan
from collabdm.methods.registry import one_round_method
from collabdm.planning.budget import choose, read_bytes
from collabdm.planning.presets import preset_settings
from collabdm.planning.settings import (
    batch_of,
    given,
    merge_settings,
    new_plan,
    policy_of,
    said_of_plan,
    sites_of,
    sketch_of,
)
from collabdm.rounds.contributions import ContributionFiles
from collabdm.rounds.exchange import (
    DataSource,
    Site,
    contribute_file,
    distill_files,
    picture_path,
    prepare_site,
)
from collabdm.rounds.inspect import summary
from collabdm.rounds.policy import preview_contribution, read_policy


@app.command()
def plan(
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the plan.")],
    data: Annotated[str | None, typer.Option(help=f"A public reference set: {DATA_HELP}.")] = None,
    classes: Annotated[str | None, typer.Option(help="Without --data: class names, by commas.")] = None,
    image_size: Annotated[str | None, typer.Option(help="Without --data: CHANNELSxSIDE, e.g. 3x32.")] = None,
    flows: Annotated[str | None, typer.Option(help="For tables of flows: 5gnidd, or a schema's file.")] = None,
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
        refinement=given(passes=passes) or None, augment=policy_of(augment), network=network, flows=flows,
    )  # fmt: skip
    preset, said = said_of_plan(config, preset, options | sites_of(sites))
    made = new_plan(data, classes, image_size, merge_settings(preset_settings(preset), said))
    if budget is not None:
        made = choose(made, read_bytes(budget), keep=set(said))
    check_writable(output)
    write_plan(made, output)
    console.print(f"{output}: {summary(made)}")


@app.command()
def contribute(
    plan: PlanPath,
    data: Data,
    site: Annotated[str, typer.Option(help="This site's name.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the contribution.")],
    policy: Annotated[
        Path | None, typer.Option(help="A TOML file: what this site allows (docs/deploy.md). Else everything.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be sent and how long it takes; write nothing.")
    ] = False,
    resize: Resize = False,
    rows: Rows = None,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Answer a plan with this site's data: the one file that the site sends."""
    agreed = read_plan(plan)
    one_round_method(agreed)
    agreed.check_site(site)
    who = Site(site, read_policy(policy))
    check_output(output, plan)
    held = load_for_plan(agreed, DataSource(data, resize, rows))
    prepared = prepare_site(agreed, held, who)
    if dry_run:
        foretold = preview_contribution(agreed, prepared.data, site)
        console.print(table(f"{site} would send", ("part", "value"), foretold, figures=False))
        return
    with Bars(quiet) as bars:
        contribute_file(prepared, output, context_of(device, precision, threads, bars))
    print_document(output)


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
    """Refine the sites' contributions into the distilled set, or make what else the plan's method gives."""
    agreed = read_plan(plan)
    one_round_method(agreed)
    picture = picture_path(output)
    check_output(output, plan, picture, *contributions)
    check_output(picture, plan, *contributions)
    answers = ContributionFiles(agreed, contributions)
    with Bars(quiet) as bars:
        distill_files(agreed, answers, output, context_of(device, precision, threads, bars), allow_missing)
    print_document(output)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A plan, a contribution or a distilled set.")],
) -> None:
    """Say what is in a document: parts and their bytes, shapes, counts, digests."""
    print_document(file)

"""The command for the server of a round: `distill`."""

from pathlib import Path
from typing import Annotated

import typer

from collabdm.cli.options import Device, PlanPath, Precision, Quiet, TablesFile, Threads


def distill(
    plan: PlanPath,
    contributions: Annotated[
        list[Path],
        typer.Argument(
            metavar="SITE...",
            help="The contributions of the sites; with masks also their unmaskings.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Path of the distilled set to write.")
    ],
    allow_missing: Annotated[
        bool,
        typer.Option(
            "--allow-missing", help="Omit the classes that no site has, without an error."
        ),
    ] = False,
    exclude: Annotated[
        list[str] | None,
        typer.Option(metavar="SITE", help="Leave out the contribution of a site; repeatable."),
    ] = None,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
    json_file: TablesFile = None,
) -> None:
    """Refine the sites' contributions into the distilled set, or the method's other outcome."""
    from collabdm.cli.console import Bars
    from collabdm.cli.running import check_output, context_of, print_document, print_sites
    from collabdm.cli.tables import Tables
    from collabdm.documents.plan_file import read_plan
    from collabdm.methods.registry import one_round_method
    from collabdm.planning.probe import check_probe
    from collabdm.rounds.exchange import distill_files, round_files
    from collabdm.rounds.saturation import saturation_note
    from collabdm.rounds.shown_files import shown_path
    from collabdm.rounds.site_table import compare_sites

    agreed = read_plan(plan)
    one_round_method(agreed)
    picture = shown_path(output, agreed)
    check_output(output, plan, picture, *contributions)
    check_output(picture, plan, *contributions)
    answers = round_files(agreed, contributions, exclude or ())
    tables = Tables(json_file)

    with Bars(quiet) as bars:
        context = context_of(device, precision, threads, bars)
        check_probe(agreed)
        print_sites(compare_sites(agreed, answers), tables)
        outcome = distill_files(agreed, answers, output, context, allow_missing)

    if note := saturation_note(outcome):
        tables.line(note)
    print_document(output, tables)

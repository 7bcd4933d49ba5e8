"""Commands for a site: `check`, `contribute` and `inspect`."""

from pathlib import Path
from typing import Annotated

import typer

from collabdm.cli.options import (
    Data,
    Device,
    PlanPath,
    PolicyPath,
    Precision,
    Quiet,
    Resize,
    Rows,
    SiteName,
    Threads,
)


def check(
    plan: PlanPath,
    data: Data,
    site: SiteName,
    policy: PolicyPath = None,
    resize: Resize = False,
    rows: Rows = None,
    server: Annotated[
        str | None, typer.Option(help="HOST:PORT of the server; default: no connection is tried.")
    ] = None,
    root_certificates: Annotated[
        Path | None, typer.Option(help="PEM file with the certificate that signed the server's.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="Private key of this node.")] = None,
) -> None:
    """Check a site's data, plan and connection before a round."""
    from collabdm.cli.checking import Report, check_connection, check_data, check_plan, check_policy
    from collabdm.rounds.exchange import DataSource

    report = Report()
    check_connection(report, server, root_certificates, key)

    agreed = check_plan(report, plan, site)
    images = None
    if agreed is None:
        report.skip("data", needed="plan")
    else:
        images = check_data(report, agreed, DataSource(data, resize, rows))

    if agreed is None or images is None:
        report.skip("policy", needed="plan and data")
        report.skip("machine", needed="plan and data")
    else:
        check_policy(report, agreed, images, site, policy)
    report.show()


def contribute(
    plan: PlanPath,
    data: Data,
    site: SiteName,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Path of the contribution to write.")
    ],
    policy: PolicyPath = None,
    resize: Resize = False,
    rows: Rows = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show the contribution's size and time; write nothing."),
    ] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Make this site's contribution to a plan: the one file that it sends."""
    from collabdm.cli.console import Bars, console, table
    from collabdm.cli.running import check_output, context_of, load_for_plan, print_document
    from collabdm.documents.plan_file import read_plan
    from collabdm.methods.registry import one_round_method
    from collabdm.rounds.exchange import DataSource, Site, contribute_file, prepare_site
    from collabdm.rounds.policy import read_policy
    from collabdm.rounds.preview import preview_contribution, preview_rows

    agreed = read_plan(plan)
    one_round_method(agreed)
    agreed.check_site(site)
    who = Site(site, read_policy(policy))
    check_output(output, plan)
    images = load_for_plan(agreed, DataSource(data, resize, rows))
    prepared = prepare_site(agreed, images, who)

    if dry_run:
        preview = preview_rows(preview_contribution(agreed, prepared.data, site))
        console.print(table(f"{site} would send", ("part", "value"), preview, figures=False))
        return

    with Bars(quiet) as bars:
        contribute_file(prepared, output, context_of(device, precision, threads, bars))
    print_document(output)


def inspect(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A plan, a contribution or a distilled set."),
    ],
) -> None:
    """Show the contents of a document: settings, tensors, counts, digests."""
    from collabdm.cli.running import print_document

    print_document(file)

"""Commands for a site: `check`, `contribute` and `inspect`."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from collabdm.cli.options import (
    AllowRealImages,
    Data,
    Device,
    PlanPath,
    PolicyPath,
    Precision,
    Quiet,
    Resize,
    Rows,
    SiteName,
    SmallestClass,
    Threads,
)


def check(
    plan: PlanPath,
    data: Data,
    site: SiteName,
    policy: PolicyPath = None,
    allow_real_images: AllowRealImages = False,
    smallest_class: SmallestClass = None,
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
    from collabdm.rounds.policy import policy_at_site

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
    else:
        read = partial(policy_at_site, policy, allow_real_images, smallest_class)
        check_policy(report, agreed, images, site, read)
    report.show()


def contribute(
    plan: PlanPath,
    data: Data,
    site: SiteName,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Path of the contribution to write.")
    ],
    policy: PolicyPath = None,
    allow_real_images: AllowRealImages = False,
    smallest_class: SmallestClass = None,
    resize: Resize = False,
    rows: Rows = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show everything that would be sent; write nothing."),
    ] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Make this site's contribution to a plan: the one file that it sends."""
    from collabdm.cli.contributing import prepare, show_plan, write
    from collabdm.cli.running import check_output
    from collabdm.documents.plan_file import read_plan
    from collabdm.methods.registry import one_round_method
    from collabdm.rounds.exchange import DataSource, Site
    from collabdm.rounds.policy import policy_at_site

    agreed = read_plan(plan)
    one_round_method(agreed)
    agreed.check_site(site)
    who = Site(site, policy_at_site(policy, allow_real_images, smallest_class))
    check_output(output, plan)

    prepared = prepare(agreed, DataSource(data, resize, rows), who)
    if dry_run:
        show_plan(prepared)
    else:
        write(prepared, output, (device, precision, threads), quiet)


def inspect(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A plan, a contribution or a distilled set."),
    ],
) -> None:
    """Show the contents of a document: settings, tensors, counts, digests."""
    from collabdm.cli.running import print_document

    print_document(file)

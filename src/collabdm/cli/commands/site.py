"""Commands for a site: `check`, `contribute`, `site`, `view`, `inspect` and `ledger`."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from collabdm.cli import choices
from collabdm.cli.options import (
    DATA_HELP,
    AllowRealImages,
    ClassNames,
    Data,
    Device,
    ImageColumn,
    LabelColumn,
    MaskKey,
    PlanPath,
    PolicyPath,
    Precision,
    PublicBatches,
    Quiet,
    Resize,
    Rows,
    SiteName,
    SkipUnreadable,
    SmallestClass,
    TablesFile,
    TestSplit,
    Threads,
    Without,
    data_option,
)

DataSplit = Annotated[choices.DataSplit, data_option(help="The part of the data.")]


def check(
    plan: PlanPath,
    data: Data,
    site: SiteName,
    policy: PolicyPath = None,
    allow_real_images: AllowRealImages = False,
    smallest_class: SmallestClass = None,
    without: Without = None,
    resize: Resize = False,
    rows: Rows = None,
    label_column: LabelColumn = None,
    image_column: ImageColumn = None,
    class_names: ClassNames = None,
    skip_unreadable: SkipUnreadable = False,
    server: Annotated[
        str | None, typer.Option(help="HOST:PORT of the server; default: no connection is tried.")
    ] = None,
    root_certificates: Annotated[
        Path | None, typer.Option(help="PEM file with the certificate that signed the server's.")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="Private key of this node.")] = None,
    mask_key: MaskKey = None,
    json_file: TablesFile = None,
) -> None:
    """Check a site's data, plan and connection before a round."""
    from collabdm.cli.checking import (
        Report,
        check_connection,
        check_data,
        check_mask_key,
        check_plan,
        check_policy,
    )
    from collabdm.cli.tables import Tables
    from collabdm.data.selection import read_selection
    from collabdm.rounds.exchange import DataSource
    from collabdm.rounds.policy import policy_at_site

    chosen = read_selection(
        label_column, image_column, class_names, skip_unreadable=skip_unreadable
    )
    report = Report()
    check_connection(report, server, root_certificates, key)

    agreed = check_plan(report, plan, site)
    if agreed is not None and agreed.masking is not None:
        check_mask_key(report, agreed, site, mask_key)
    images = None
    if agreed is None:
        report.skip("data", needed="plan")
    else:
        images = check_data(report, agreed, DataSource(data, resize, rows, chosen))

    if agreed is None or images is None:
        report.skip("policy", needed="plan and data")
        report.skip("machine", needed="plan and data")
    else:
        read = partial(policy_at_site, policy, allow_real_images, smallest_class, without or ())
        check_policy(report, agreed, images, site, read)
    report.show(Tables(json_file))


def contribute(
    plan: PlanPath,
    data: Data,
    site: SiteName,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Path of the contribution to write.")
    ],
    policy: PolicyPath = None,
    mask_key: MaskKey = None,
    allow_real_images: AllowRealImages = False,
    smallest_class: SmallestClass = None,
    without: Without = None,
    public_batches: PublicBatches = False,
    resize: Resize = False,
    rows: Rows = None,
    label_column: LabelColumn = None,
    image_column: ImageColumn = None,
    class_names: ClassNames = None,
    skip_unreadable: SkipUnreadable = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show everything that would be sent; write nothing."),
    ] = False,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
    json_file: TablesFile = None,
) -> None:
    """Make this site's contribution to a plan: the one file that it sends."""
    from collabdm.cli.contributing import prepare, show_plan, write
    from collabdm.cli.running import check_output
    from collabdm.cli.tables import Tables
    from collabdm.data.selection import read_selection
    from collabdm.documents.plan_file import read_plan
    from collabdm.methods.registry import one_round_method
    from collabdm.rounds.exchange import DataSource, Site
    from collabdm.rounds.policy import policy_at_site

    agreed = read_plan(plan)
    one_round_method(agreed)
    agreed.check_site(site)
    limits = policy_at_site(policy, allow_real_images, smallest_class, without or ())
    check_output(output, plan)

    chosen = read_selection(
        label_column, image_column, class_names, skip_unreadable=skip_unreadable
    )
    who = Site(site, limits, public_batches, mask_key)
    prepared = prepare(agreed, DataSource(data, resize, rows, chosen), who)
    if dry_run:
        show_plan(prepared, Tables(json_file))
    else:
        write(prepared, output, (device, precision, threads), quiet, Tables(json_file))


def site(
    plan: Annotated[
        Path | None,
        typer.Argument(metavar="[PLAN]", help="A plan to start with; the page can take another."),
    ] = None,
    data: Annotated[str, data_option(help=f"The data to start with: {DATA_HELP}.")] = "",
    site: Annotated[str, data_option(help="The name of this site.")] = "",
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder for the contribution, SITE.safetensors.")
    ] = Path(),
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0: a free one.")
    ] = 0,
    open_browser: Annotated[
        bool,
        typer.Option(
            "--open",
            help="Open the page in a browser, whose command line shows the address to other users "
            "of this machine.",
        ),
    ] = False,
    policy: PolicyPath = None,
    mask_key: MaskKey = None,
    allow_real_images: AllowRealImages = False,
    smallest_class: SmallestClass = None,
    without: Without = None,
    public_batches: PublicBatches = False,
    resize: Resize = False,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
) -> None:
    """Serve a page on this machine to check a plan, contribute and download, in a browser."""
    from collabdm.cli.running import compute_of
    from collabdm.cli.serving import serve
    from collabdm.rounds.policy import read_policy
    from collabdm.site_page.form import Form
    from collabdm.site_page.work import Settings, Work

    read_policy(policy)  # a fault in it should show now
    form = Form(
        site=site,
        data=data,
        folder=str(output.absolute()),
        without=tuple(without or ()),
        smallest_class=smallest_class,
        allow_real_images=allow_real_images,
        resize=resize,
    )
    compute = partial(compute_of, device, precision, threads)
    settings = Settings(compute, policy, mask_key, public_batches)
    serve(Work(settings, form), plan, port, open_browser)


def view(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A contribution or a distilled set.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Path of the picture, a PNG.")],
    plan: Annotated[
        Path | None, data_option(help="The plan of a contribution; needed to compare it.")
    ] = None,
    data: Annotated[
        str | None, data_option(help=f"Private data to compare with: {DATA_HELP}.")
    ] = None,
    resize: Resize = False,
    rows: Rows = None,
    label_column: LabelColumn = None,
    image_column: ImageColumn = None,
    class_names: ClassNames = None,
    skip_unreadable: SkipUnreadable = False,
    split: DataSplit = "train",
    test_split: TestSplit = None,
    results: Annotated[
        Path | None, typer.Option("--json", help="Also write the table to this file.")
    ] = None,
) -> None:
    """Draw the images of a document by class, each above the most similar private image."""
    from collabdm.cli.running import check_output
    from collabdm.cli.viewing import Request, view_document
    from collabdm.data.selection import read_selection
    from collabdm.rounds.exchange import DataSource

    inputs = [path for path in (file, plan) if path is not None]
    check_output(output, *inputs, *([results] if results else []))
    if results is not None:
        check_output(results, *inputs)

    chosen = read_selection(label_column, image_column, class_names, test_split, skip_unreadable)
    source = None if data is None else DataSource(data, resize, rows, chosen)
    view_document(Request(file, output, plan, source, split, results))


def inspect(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A plan, a contribution or a distilled set."),
    ],
    json_file: TablesFile = None,
) -> None:
    """Show the contents of a document: settings, tensors, counts, digests."""
    from collabdm.cli.running import print_document
    from collabdm.cli.tables import Tables

    print_document(file, Tables(json_file))


def ledger(json_file: TablesFile = None) -> None:
    """Show what this site has released with noise or masks, and its privacy budget so far."""
    from collabdm.cli.tables import Tables
    from collabdm.privacy.ledger import Ledger
    from collabdm.rounds.ledger_rows import COLUMNS, account_lines, release_rows

    own, tables = Ledger(), Tables(json_file)
    releases = own.releases()
    if releases:
        tables.add(str(own.path), COLUMNS, release_rows(releases), figures=False)
        for line in account_lines(releases):
            tables.line(line)
    else:
        tables.line(f"{own.path}: no release with noise or masks")
    tables.write()

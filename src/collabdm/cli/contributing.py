"""Make a contribution, and show the site's operator everything that leaves the site."""

from pathlib import Path

from collabdm.cli.console import Bars, notes
from collabdm.cli.running import context_of, load_for_plan
from collabdm.cli.tables import Tables
from collabdm.documents.contribution import Contribution
from collabdm.documents.plan import Plan
from collabdm.matching.compute import Compute
from collabdm.rounds.comparison import Comparison, compare, sent_images
from collabdm.rounds.estimate import estimated_seconds, forecast
from collabdm.rounds.exchange import (
    DataSource,
    PreparedSite,
    Site,
    contribute_file,
    prepare_site,
)
from collabdm.rounds.preview import preview_contribution, preview_rows
from collabdm.rounds.spending import spending_rows

SHORT_SECONDS = 10.0  # of estimated work, which needs no forecast


def prepare(plan: Plan, source: DataSource, site: Site) -> PreparedSite:
    """Load a site's data, check everything, and name the classes that are withheld.

    Args:
        plan: the plan.
        source: the site's data.
        site: the site.

    Returns:
        The prepared site.

    Raises:
        CollabDMError: the plan, the name, the data, the policy or the machine does not fit.
    """
    prepared = prepare_site(plan, load_for_plan(plan, source), site)
    for withheld in prepared.release.withheld:
        notes.print(f"withheld: {withheld}")
    return prepared


def write(
    prepared: PreparedSite,
    output: Path,
    computing: tuple[str, str, int],
    quiet: bool,
    tables: Tables,
) -> None:
    """Compute and write the contribution, then show what it contains.

    Args:
        prepared: the checked site.
        output: the file to write.
        computing: the options `--device`, `--precision` and `--threads`.
        quiet: whether to hide the progress bars.
        tables: prints the table.
    """
    with Bars(quiet) as bars:
        context = context_of(*computing, bars)
        if not quiet:
            show_forecast(prepared, context.compute)
        contribution = contribute_file(prepared, output, context)

    comparison = None if contribution is None else _compared(contribution, prepared)
    _show(f"{output} contains, and {prepared.name} sends", prepared, comparison, tables)


def show_forecast(prepared: PreparedSite, compute: Compute) -> None:
    """Show how long the work will take, unless it takes a few seconds or is already done."""
    most = max(one.images for one in prepared.release.classes)
    estimate = estimated_seconds(prepared.plan, most)
    answered = prepared.spending is not None and prepared.spending.stored is not None
    if estimate is None or estimate < SHORT_SECONDS or answered:
        return
    notes.print(f"{forecast(prepared.plan, most, compute)} of computing at the present load")


def show_plan(prepared: PreparedSite, tables: Tables) -> None:
    """Show what the contribution would contain."""
    _show(f"{prepared.name} would send", prepared, None, tables)


def _show(
    title: str, prepared: PreparedSite, comparison: Comparison | None, tables: Tables
) -> None:
    preview = preview_contribution(prepared.plan, prepared.release, prepared.name)
    rows = preview_rows(preview, comparison)
    rows += spending_rows(prepared.spending) if prepared.spending else []
    tables.add(title, ("part", "value"), rows, figures=False)
    tables.write()


def _compared(contribution: Contribution, prepared: PreparedSite) -> Comparison | None:
    """Compare the images of a contribution with the site's own; None if it has no images."""
    images = sent_images(contribution)
    return compare(images, prepared.data, prepared.plan.pae) if len(images) else None

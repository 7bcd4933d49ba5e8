"""Make a contribution, and show the site's operator everything that leaves the site."""

from pathlib import Path

from collabdm.cli.console import Bars, notes
from collabdm.cli.running import context_of, load_for_plan
from collabdm.cli.tables import Tables
from collabdm.documents.plan import Plan
from collabdm.rounds.exchange import (
    DataSource,
    PreparedSite,
    Site,
    contribute_file,
    prepare_site,
)
from collabdm.rounds.inspect import Row
from collabdm.rounds.sent import compare_sent, sent_rows, site_forecast


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
        duration = None if quiet else site_forecast(prepared, context.compute)
        if duration is not None:
            notes.print(duration)
        contribution = contribute_file(prepared, output, context)

    rows = sent_rows(prepared, compare_sent(contribution, prepared))
    _show(f"{output} contains, and {prepared.name} sends", rows, tables)


def show_plan(prepared: PreparedSite, tables: Tables) -> None:
    """Show what the contribution would contain."""
    _show(f"{prepared.name} would send", sent_rows(prepared), tables)


def _show(title: str, rows: list[Row], tables: Tables) -> None:
    tables.add(title, ("part", "value"), rows, figures=False)
    tables.write()

"""Check a site before a round: its connection, plan, data and policy, all in one report."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from collabdm.cli.running import compute_of, load_for_plan
from collabdm.cli.tables import Tables
from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import read_plan
from collabdm.errors import CollabDMError
from collabdm.flower.connection import check_flower, check_key, check_server
from collabdm.images import ImageSet
from collabdm.methods.registry import one_round_method
from collabdm.planning.limits import check_limits
from collabdm.planning.probe import check_probe
from collabdm.privacy.site_keys import site_key
from collabdm.rounds.estimate import forecast
from collabdm.rounds.exchange import DataSource, Site, check_spending
from collabdm.rounds.inspect import Row
from collabdm.rounds.policy import Policy, Release
from collabdm.rounds.preview import preview_contribution, preview_rows
from collabdm.rounds.sent import key_rows
from collabdm.rounds.spending import Spending, spending_rows

Result = TypeVar("Result")


@dataclass
class Report:
    """Collects the results of independent checks: if one fails, the others still run."""

    rows: list[Row] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def check(
        self, name: str, action: Callable[[], Result], describe: Callable[[Result], str] = str
    ) -> Result | None:
        """Run one check and add its row.

        Args:
            name: name of the check.
            action: the check, which raises CollabDMError if something is wrong.
            describe: converts the result of `action` to the text of the row.

        Returns:
            The action's result, or None if something is wrong.
        """
        try:
            result = action()
        except CollabDMError as error:
            self.rows.append((name, f"WRONG: {error}"))
            self.failed.append(name)
            return None

        self.rows.append((name, describe(result)))
        return result

    def skip(self, name: str, needed: str) -> None:
        """Add a row for a check that was not run, because a check that it depends on failed."""
        self.rows.append((name, f"not checked: needs the {needed}"))

    def show(self, tables: Tables) -> None:
        """Print the table. Raises CollabDMError if any check failed; the message names each one."""
        tables.add("Before the round", ("check", "result"), self.rows, figures=False)
        tables.write()
        if self.failed:
            raise CollabDMError(
                f"{', '.join(self.failed)} should be corrected before the round; see the table"
            )


def check_connection(
    report: Report, server: str | None, root_certificates: Path | None, key: Path | None
) -> None:
    """Check the key, the installation of Flower and the connection to the server.

    Args:
        report: receives the results.
        server: `HOST:PORT`; None skips the checks of the server and of Flower.
        root_certificates: a file with the certificate that signed the server's certificate; None
            connects without TLS.
        key: the site's private key for Flower; None skips this check.
    """
    if key is not None:
        report.check("key", lambda: check_key(key))
    if server is not None:
        report.check("flower", check_flower)
        report.check("server", lambda: check_server(server, root_certificates))


def check_plan(report: Report, path: Path, site: str) -> Plan | None:
    """Check that a plan accepts this site, and that it asks for no more than any machine can do.

    Args:
        report: receives the result.
        path: the plan.
        site: name of the site.

    Returns:
        The plan, or None if something is wrong.
    """

    def read() -> Plan:
        plan = read_plan(path)
        one_round_method(plan)
        plan.check_site(site)
        check_limits(plan)
        return plan

    return report.check("plan", read, lambda plan: f"{plan.digest[:16]}…, for this site")


def check_mask_key(report: Report, plan: Plan, site: str, path: Path | None) -> None:
    """Check that the site has the private key that belongs to its public one in a plan with masks.

    The other sites' keys are listed for comparison: whoever makes the plan could replace them.

    Args:
        report: receives the result and the first digits of all keys.
        plan: the plan.
        site: name of the site.
        path: the private key; None uses the one in the site's private folder.
    """
    report.check(
        "mask key",
        lambda: site_key(plan, site, path),
        lambda _: "it belongs to the public key in the plan",
    )
    report.rows.extend(key_rows(plan))


def check_data(report: Report, plan: Plan, source: DataSource) -> ImageSet | None:
    """Check that the site's data fits a plan.

    Args:
        report: receives the result.
        plan: the plan.
        source: the data.

    Returns:
        The images, or None if something is wrong.
    """
    return report.check(
        "data",
        lambda: load_for_plan(plan, source),
        lambda images: f"{len(images):,} images that fit the plan",
    )


def check_policy(
    report: Report, plan: Plan, images: ImageSet, site: str, policy: Callable[[], Policy]
) -> None:
    """Check the site's policy, then this machine, and report what the site would send.

    The machine should reproduce the plan's probe, which is computed only if the policy allows it.

    Args:
        report: receives the result and the rows that describe the contribution.
        plan: the plan.
        images: the site's data.
        site: name of the site.
        policy: reads the policy.
    """

    def allowed() -> tuple[Release, Spending | None]:
        limits = policy()
        release = limits.release(plan, images, site)
        return release, check_spending(plan, release.data, Site(site, limits))

    def described(result: tuple[Release, Spending | None]) -> str:
        withheld = result[0].withheld
        if not withheld:
            return "the plan is allowed"
        return f"the plan is allowed; withheld: {', '.join(one.name for one in withheld)}"

    def computed() -> str:
        check_probe(plan)
        compute = compute_of("auto", "auto", 0)
        duration = forecast(plan, int(images.counts().max()), compute)
        rest = "" if duration is None else f"; {duration} of computing at its present load"
        return f"computes the same as the plan's author{rest}"

    result = report.check("policy", allowed, described)
    if result is None:
        report.skip("machine", needed="policy")
    else:
        release, spending = result
        report.check("machine", computed)
        rows = preview_rows(preview_contribution(plan, release, site))
        rows += spending_rows(spending) if spending else []
        report.rows.extend((f"would send: {part}", value) for part, value in rows)

"""What a plan with a privacy budget spends at a site, on top of earlier releases.

The ledger lists the site's earlier releases with noise. All of them may contain the same images, so
the worst is assumed: they add up to one Gaussian mechanism (`privacy.accounting`). Releases without
noise have no epsilon and are not part of the sum.
"""

import hashlib
from dataclasses import dataclass

from collabdm.documents.plan import Plan
from collabdm.privacy.accounting import spent_epsilon
from collabdm.privacy.gaussian import mechanism_of, privacy_of
from collabdm.privacy.ledger import Kind, Ledger, Release, Spent
from collabdm.privacy.wording import budget_text, guarantee, protected_from
from collabdm.rounds.inspect import Row


@dataclass(frozen=True)
class Spending:
    """A site's budget before and after it answers a plan.

    Attributes:
        plan: the plan.
        before: the epsilon of all other releases of the site together.
        after: the epsilon of all releases together, this one included.
        releases: the number of the other releases.
        stored: the contribution, if the site has already answered the plan; None otherwise.
    """

    plan: Plan
    before: float
    after: float
    releases: int
    stored: bytes | None


def spending_of(plan: Plan, site: str, data: str, ledger: Ledger) -> Spending:
    """Add up the privacy budget of a site.

    Args:
        plan: a plan with a privacy budget; sums are stated at its delta.
        site: the name of the site.
        data: the digest of the site's data.
        ledger: the ledger of the site.

    Returns:
        The site's budget before and after.

    Raises:
        LedgerError: the site has answered the plan with other data, or the ledger is damaged.
    """
    stored = ledger.stored(plan.digest, site, data)
    earlier = [
        release.spent.noise_multiplier
        for release in ledger.account(site, data)
        if release.spent is not None and (release.plan, release.site) != (plan.digest, site)
    ]

    delta = privacy_of(plan).delta
    before = spent_epsilon(earlier, delta)
    after = spent_epsilon([*earlier, mechanism_of(plan).multiplier], delta)
    return Spending(plan, before, after, len(earlier), stored)


def excess(spending: Spending | None, largest: float | None) -> str | None:
    """Compare a budget with a policy's limit.

    Args:
        spending: the site's budget; None if the plan has no privacy budget.
        largest: `largest_epsilon` of the policy; None imposes no limit.

    Returns:
        The reason to refuse the plan; None if it is allowed.
    """
    if largest is None:
        return None
    if spending is None:
        return f"`largest_epsilon` is {largest:g}; the plan has no privacy budget"

    tolerance = 1e-9  # a limit allows itself, although composition rounds
    if spending.after <= largest * (1 + tolerance):
        return None
    together = f", with {spending.releases} earlier releases" if spending.releases else ""
    return f"`largest_epsilon` is {largest:g}, but the plan asks for {spending.after:.4g}{together}"


def spending_rows(spending: Spending) -> list[Row]:
    """Describe a budget as rows of (part, value)."""
    privacy = privacy_of(spending.plan)
    after = budget_text(spending.after, privacy.delta)
    earlier = f"{spending.releases} earlier {'release' if spending.releases == 1 else 'releases'}"

    return [
        ("privacy of each image", f"{guarantee(privacy)} ({protected_from(spending.plan)})"),
        ("privacy budget of this site", f"{after}, including {earlier}"),
        ("answered before", "yes: the same file is sent again" if spending.stored else "no"),
    ]


def release_of(plan: Plan, site: str, data: str, content: bytes) -> Release:
    """Make the ledger's entry for a contribution with noise, masks or both.

    Args:
        plan: the plan that it answers.
        site: the name of the site.
        data: the digest of the site's data.
        content: the bytes of the contribution.

    Returns:
        The entry.
    """
    kind: Kind = "masked"
    spent = None

    if plan.privacy is not None:
        kind = "noised" if plan.masking is None else "noised and masked"
        spent = Spent(
            noise_multiplier=mechanism_of(plan).multiplier,
            epsilon=plan.privacy.epsilon,
            delta=plan.privacy.delta,
        )
    return Release(
        plan=plan.digest,
        site=site,
        data=data,
        kind=kind,
        file=hashlib.sha256(content).hexdigest(),
        spent=spent,
    )

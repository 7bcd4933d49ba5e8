"""A site's answer to a plan with a privacy budget: made once, open or masked, and recorded.

    open      the usual contribution, with noised statistics
    masked    the noised sums themselves; the noise of `threshold` sites adds up to the budget's

The ledger returns the stored answer for a repeated request, so no noise is drawn twice.
"""

from collections.abc import Callable

from collabdm.documents.plan import Plan
from collabdm.privacy.ledger import Ledger
from collabdm.rounds.spending import release_of


def noised_content(plan: Plan, site: str, data: str, compute: Callable[[], bytes]) -> bytes:
    """Return the bytes of a site's only contribution to a plan with a privacy budget.

    Args:
        plan: the plan.
        site: the name of the site.
        data: the digest of its data.
        compute: computes the bytes of a new contribution, with noise, and masked if the plan asks
            for it.

    Returns:
        The stored bytes, or those of a new contribution.

    Raises:
        LedgerError: the site has answered the plan with other data.
        CollabDMError: the contribution cannot be computed.
    """
    ledger = Ledger()
    stored = ledger.stored(plan.digest, site, data)
    if stored is not None:
        return stored

    content = compute()
    return ledger.record(release_of(plan, site, data, content), content)

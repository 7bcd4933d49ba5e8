"""A site's answer to a plan with noise or masks: made once, recorded, and returned ever after.

A second answer would weaken the noise, or reveal the difference of two data sets under equal masks.
The ledger returns the stored answer for a repeated request.
"""

from collections.abc import Callable

from collabdm.documents.plan import Plan
from collabdm.privacy.ledger import Ledger
from collabdm.rounds.spending import release_of


def answer_once(plan: Plan, site: str, data: str, compute: Callable[[], bytes]) -> bytes:
    """Return the bytes of a site's only contribution to a plan with noise or masks.

    Args:
        plan: the plan.
        site: the name of the site.
        data: the digest of its data.
        compute: computes the bytes of a new contribution, noised and masked as the plan asks.

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

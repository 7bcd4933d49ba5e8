"""Show the ledger of a site as text: one row per release, and the budget of each site name."""

from collections.abc import Sequence

from collabdm.privacy.accounting import spent_epsilon
from collabdm.privacy.ledger import Release
from collabdm.privacy.wording import budget_text

COLUMNS = ("site", "plan", "data", "protection", "privacy of each image", "file")


def release_rows(releases: Sequence[Release]) -> list[tuple[str, ...]]:
    """Write one row per release, with shortened digests."""
    return [
        (
            release.site,
            f"{release.plan[:16]}…",
            f"{release.data[:16]}…",
            release.kind,
            budget_text(release.spent.epsilon, release.spent.delta)
            if release.spent
            else "no noise",
            f"{release.file[:16]}…",
        )
        for release in releases
    ]


def account_lines(releases: Sequence[Release]) -> list[str]:
    """Write the sum of the budget of each site, at the largest delta of its releases."""
    lines = []
    for site in dict.fromkeys(release.site for release in releases):
        data = {release.data for release in releases if release.site == site}
        spent = [r.spent for r in releases if r.spent and (r.site == site or r.data in data)]
        if spent:
            delta = max(one.delta for one in spent)
            total = spent_epsilon([one.noise_multiplier for one in spent], delta)
            number = f"{len(spent)} {'release' if len(spent) == 1 else 'releases'} with noise"
            lines.append(f"{site}: {budget_text(total, delta)} for each image, from {number}")
    return lines

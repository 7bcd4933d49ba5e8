"""A site's record of the missing sites about which it has answered, one list for each plan.

Answers about different lists could open the sum of fewer sites than the plan's threshold. The
site's private folder therefore keeps the first answer: the same list gets the same bytes again,
another one is refused.

    unmasked/SITE-DIGEST    the missing sites, separated by commas, and a line feed; then the file
"""

from collections.abc import Sequence
from pathlib import Path

from collabdm.documents.atomic_write import write_once
from collabdm.documents.plan import Plan
from collabdm.errors import CollabDMError, OutputError
from collabdm.privacy.site_folder import site_folder


class UnmaskedError(CollabDMError):
    """The site has answered about other missing sites of the plan."""


def record_path(plan: Plan, site: str) -> Path:
    """Return the path of a site's record for a plan."""
    return site_folder() / "unmasked" / f"{site}-{plan.digest}"


def stored_unmasking(plan: Plan, site: str, missing: Sequence[str]) -> bytes | None:
    """Return a site's earlier answer about missing sites.

    Args:
        plan: the plan.
        site: the site.
        missing: the missing sites, in the order of their names.

    Returns:
        The bytes of the answer; None if there is none.

    Raises:
        UnmaskedError: the site has answered about others.
        OutputError: the record cannot be read.
    """
    path = record_path(plan, site)
    try:
        names, _, content = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(f"{path} should be readable; {error.strerror}") from error

    if names != ",".join(missing).encode():
        raise UnmaskedError(
            f"{site} should answer about one list of missing sites; found an answer about "
            f"{names.decode(errors='replace')}: another one could open the sum of fewer sites; ask "
            "for a new plan"
        )
    return content


def record_unmasking(plan: Plan, site: str, missing: Sequence[str], content: bytes) -> bytes:
    """Record an answer before it leaves the site, and return the one that counts: the first.

    Args:
        plan: the plan.
        site: the site.
        missing: the missing sites, in the order of their names.
        content: the bytes of the answer.

    Returns:
        The bytes to send.

    Raises:
        UnmaskedError: the site has answered about others meanwhile.
        OutputError: the record cannot be written.
    """
    line = ",".join(missing).encode() + b"\n"
    write_once(record_path(plan, site), line + content)
    return stored_unmasking(plan, site, missing) or content

"""A round with masks, from files to a file: at a site, and at the server.

    contribution           of each site
    or, if sites dropped out, the contributions of the others, and an unmasking of each of these

The server adds the contributions while it reads them, so a single one is in memory. It opens the
sum only if all sites have contributed, or if every remaining site has answered about exactly the
missing ones; otherwise it lists who owes which file.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from collabdm.documents.codec import format_of, read_limited
from collabdm.documents.contribution import check_contributions
from collabdm.documents.masked_contribution import (
    MaskedContribution,
    decode_masked,
    masking_of,
)
from collabdm.documents.plan import Plan
from collabdm.documents.unmasking import (
    UNMASKING_FORMAT,
    Unmasking,
    decode_unmasking,
    remaining_sites,
    unmasking_bytes,
)
from collabdm.errors import DocumentError, PlanError
from collabdm.matching.network_size import statistics_width
from collabdm.matching.run_context import RunContext
from collabdm.methods.base import Method, Outcome
from collabdm.privacy.ledger import Ledger
from collabdm.privacy.masked_sums import add_numbers, open_sum
from collabdm.privacy.unmasking import mask_of_missing, unmask
from collabdm.privacy.unmasking_record import record_unmasking, stored_unmasking
from collabdm.rounds.contributions import contribution_limit, parse_contribution

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

UNMASKING_LIMIT = 2**26  # bytes; a site's keys and tokens, with room for a million sites

# --- a site --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MaskedSite:
    """A site of a plan with masks, and its private key."""

    plan: Plan
    name: str
    key: "X25519PrivateKey"


def unmasking_content(site: MaskedSite, missing: Sequence[str]) -> bytes:
    """Return the bytes of a site's answer about missing sites, which is given once only.

    Args:
        site: a remaining site.
        missing: the names of the missing sites.

    Returns:
        The bytes.

    Raises:
        UnmaskedError: the site has answered about other missing sites.
        PlanError: the site has not contributed, is missing itself, or too few sites would remain.
    """
    plan, absent = site.plan, tuple(sorted(set(missing)))
    answer = unmask(plan, site.name, absent, site.key)

    ledger = Ledger()
    if (plan.digest, site.name) not in [(one.plan, one.site) for one in ledger.releases()]:
        raise PlanError(
            f"{site.name} should have contributed to the plan before it answers about missing "
            f"sites; found no contribution in {ledger.path}: answer where it was made"
        )
    stored = stored_unmasking(plan, site.name, absent)
    if stored is not None:
        return stored
    content = unmasking_bytes(answer, plan.classes)
    return record_unmasking(plan, site.name, absent, content)


# --- the server ----------------------------------------------------------------------------------


def parse_masked(content: bytes, plan: Plan, where: str) -> MaskedContribution:
    """Parse a masked contribution from its bytes.

    Args:
        content: the bytes of the file.
        plan: the plan that it should answer.
        where: the name of the file, for errors.

    Returns:
        The masked contribution.

    Raises:
        DocumentError: the bytes are not a masked contribution to the plan.
    """
    return decode_masked(content, plan, statistics_width(plan), where)


def read_unmasking(path: Path, plan: Plan) -> Unmasking:
    """Read an unmasking from a file. Raises DocumentError if it is not one of the plan."""
    return decode_unmasking(read_limited(path, UNMASKING_LIMIT), plan, str(path))


def answering_site(content: bytes, plan: Plan, where: str = "contribution") -> str:
    """Check a contribution to a plan, masked or open, and return the name of its site.

    Args:
        content: the bytes of the file.
        plan: the plan that it should answer.
        where: the name of the file, for errors.

    Returns:
        The name.

    Raises:
        DocumentError: the bytes are not a contribution to the plan.
    """
    if plan.masking is None:
        return parse_contribution(content, plan, where).site
    return parse_masked(content, plan, where).site


class MaskedFiles:
    """The files of a round with masks, each checked, and the sum of the contributions."""

    def __init__(self, plan: Plan, paths: Iterable[Path]) -> None:
        """Read, check and add the files.

        Args:
            plan: the plan that they should belong to.
            paths: masked contributions and unmaskings, in any order.

        Raises:
            DocumentError: files do not belong to the plan (the message names all of them), or the
                sum cannot be opened with them.
        """
        self.plan = plan
        self.sites: tuple[str, ...] = ()
        self.missing: tuple[str, ...] = ()
        self._unmaskings: dict[str, Unmasking] = {}
        self._sum = add_numbers(plan, ())
        digests, faults = [], []

        for path in paths:
            try:
                digests.append(self._add(path))
            except DocumentError as error:
                faults.append(str(error))
        if faults:
            raise DocumentError("\n".join(faults))

        self.sites = tuple(sorted(self.sites))
        self.missing = self._check_complete()
        self.identity = ",".join(sorted(digests))

    def _add(self, path: Path) -> str:
        """Read a file and add it; return its digest. Raises DocumentError."""
        if format_of(path) == UNMASKING_FORMAT:
            unmasking = read_unmasking(path, self.plan)
            if unmasking.site in self._unmaskings:
                raise DocumentError(
                    f"{path}: each site should send one unmasking; found another of "
                    f"{unmasking.site}: remove one of the files"
                )
            self._unmaskings[unmasking.site] = unmasking
            return f"{unmasking.site}:{','.join(unmasking.missing)}"

        content = read_limited(path, contribution_limit(self.plan))
        masked = parse_masked(content, self.plan, str(path))
        check_contributions(self.plan, [*self.sites, masked.site])
        self._sum += add_numbers(self.plan, [masked])
        self.sites = (*self.sites, masked.site)
        return f"{masked.site}:{hashlib.sha256(content).hexdigest()}"

    def _check_complete(self) -> tuple[str, ...]:
        """Check that the files suffice to open the sum, and return the missing sites.

        Raises DocumentError; the message lists who owes which file.
        """
        declared = {name for answer in self._unmaskings.values() for name in answer.missing}
        returned = sorted(declared & set(self.sites))
        if returned:
            raise DocumentError(
                f"a site that others have declared missing should not contribute; found "
                f"{', '.join(returned)}: delete the contribution, which the answers of the others "
                "could open, and go on without it"
            )
        if not self.sites:
            check_contributions(self.plan, [])

        missing = tuple(sorted(set(self.plan.site_names or ()) - set(self.sites)))
        if missing:
            self._check_unmaskings(missing)
        return missing

    def _check_unmaskings(self, missing: tuple[str, ...]) -> None:
        """Check that all remaining sites have answered about the missing ones."""
        threshold = masking_of(self.plan).threshold
        owed = [f"contribution of {site}" for site in missing]
        if len(self.sites) < threshold:
            raise DocumentError(
                f"at least {threshold} sites should contribute, `masking.threshold` of the plan; "
                f"found {len(self.sites)}, so the sum stays closed; owed: {', '.join(owed)}"
            )

        late = [
            site
            for site in self.sites
            if site not in self._unmaskings or self._unmaskings[site].missing != missing
        ]
        if late:
            options = " ".join(f"--missing {site}" for site in missing)
            raise DocumentError(
                "all sites should contribute, or the others answer about those that cannot; the "
                f"sum stays closed; owed: {', '.join(owed)}; or, if that is not possible any more, "
                f"the file of `collabdm unmask {options}` of {', '.join(late)}"
            )

    def distill(self, method: Method, context: RunContext, allow_missing: bool) -> Outcome:
        """Open the sum, and compute the outcome of the round.

        Args:
            method: the method of the plan.
            context: device, progress and checkpoints.
            allow_missing: accept a round in which a class is missing at every site.

        Returns:
            The outcome.

        Raises:
            DocumentError: the masks do not cancel, or a class is missing.
            PlanError: the contributions of the method cannot be masked.
        """
        if method.distill_merged is None:
            raise PlanError(f"`method` should be one with masks; found {method.name}")

        merged = open_sum(self.plan, self._sum - self._mask_left())
        return method.distill_merged(self.plan, merged, self.sites, context, allow_missing)

    def _mask_left(self) -> np.ndarray:
        """Compute what the masks towards the missing sites have left in the sum."""
        if not self.missing:
            return np.zeros_like(self._sum)

        remaining = remaining_sites(self.plan, self.missing)
        answers = {site: self._unmaskings[site] for site in remaining}
        return mask_of_missing(self.plan, answers, len(self._sum))

"""Read the contributions of a round from disk, and check each file once.

A file that is larger than its plan allows is rejected before it is read.
"""

import copy
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from collabdm.documents.codec import read_limited
from collabdm.documents.contribution import (
    CheckedContributions,
    Contribution,
    check_contributions,
)
from collabdm.documents.contribution_file import decode_contribution
from collabdm.documents.extra_tensors import declared_bytes
from collabdm.documents.plan import Plan
from collabdm.errors import DocumentError
from collabdm.methods.registry import contribution_spec
from collabdm.planning.cost import most_bytes

HEADER_ALLOWANCE = 2**20  # bytes
KEPT_IN_MEMORY = 2**30  # bytes of files; further contributions are read again when they are used


def contribution_limit(plan: Plan) -> int:
    """Return the largest number of bytes that a contribution to the plan can have."""
    return most_bytes(plan) + declared_bytes(contribution_spec(plan).extra) + HEADER_ALLOWANCE


def read_contribution(path: Path | str, plan: Plan) -> Contribution:
    """Read one site's contribution to a plan from a file.

    Raises:
        DocumentError: the file cannot be read, or is not a contribution to the plan.
    """
    return parse_contribution(read_limited(Path(path), contribution_limit(plan)), plan, str(path))


def parse_contribution(content: bytes, plan: Plan, where: str = "contribution") -> Contribution:
    """Parse one site's contribution to a plan from its bytes.

    Args:
        content: the bytes of a contribution file.
        plan: the plan that it should belong to.
        where: the name of the file, for errors.

    Returns:
        The contribution.

    Raises:
        DocumentError: the bytes are not a contribution to the plan.
    """
    return decode_contribution(content, contribution_spec(plan), where)


class ContributionFiles(CheckedContributions):
    """The contributions of a round by site, from files.

    All files are read and checked at the start. Up to `KEPT_IN_MEMORY` bytes of them stay in
    memory; the other files are read again when they are used.
    """

    def __init__(self, plan: Plan, paths: Iterable[Path]) -> None:
        """Read and check the files.

        Args:
            plan: the plan that they should belong to.
            paths: the files, in any order.

        Raises:
            DocumentError: files are not contributions to the plan (the message names all of them),
                two files are of the same site, or there are no files.
        """
        self.plan = plan
        self._kept: dict[str, Contribution] = {}
        located: list[tuple[str, Path]] = []
        digests, faults, size = {}, [], 0

        for path in paths:
            try:
                content = read_limited(path, contribution_limit(plan))
                contribution = parse_contribution(content, plan, str(path))
            except DocumentError as error:
                faults.append(str(error))
                continue
            located.append((contribution.site, path))
            digests[contribution.site] = hashlib.sha256(content).hexdigest()
            size += len(content)
            if size <= KEPT_IN_MEMORY:
                self._kept[contribution.site] = contribution

        if faults:
            raise DocumentError("\n".join(faults))
        check_contributions(plan, [site for site, _ in located])
        self._paths = dict(sorted(located))
        self._digests = dict(sorted(digests.items()))

    def __getitem__(self, site: str) -> Contribution:
        if site in self._kept:
            return self._kept[site]

        path = self._paths[site]
        content = read_limited(path, contribution_limit(self.plan))
        if hashlib.sha256(content).hexdigest() != self._digests[site]:
            raise DocumentError(f"{path} should not change while it is used; it did: start again")
        return parse_contribution(content, self.plan, str(path))

    def without(self, sites: Iterable[str]) -> "ContributionFiles":
        """Return the contributions of the other sites.

        Raises:
            DocumentError: a site has no contribution here, or no site is left.
        """
        excluded = set(sites)
        if unknown := sorted(excluded - set(self._paths)):
            raise DocumentError(
                f"sites to leave out should be among {', '.join(self._paths)}; "
                f"found {', '.join(unknown)}"
            )
        left = [site for site in self._paths if site not in excluded]
        check_contributions(self.plan, left)

        others = copy.copy(self)
        others._kept = {site: kept for site, kept in self._kept.items() if site in left}
        others._paths = {site: self._paths[site] for site in left}
        others._digests = {site: self._digests[site] for site in left}
        return others

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def paths(self) -> dict[str, Path]:
        """The file of each site, in the order of the names."""
        return dict(self._paths)

    @property
    def identity(self) -> str:
        """The sites and the SHA-256 of their files, as one text."""
        return ",".join(f"{site}:{digest}" for site, digest in self._digests.items())

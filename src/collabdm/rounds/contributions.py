"""Contributions on disk, read against the plan that they answer.

A file is read at most once it is known to be no larger than any contribution to the plan can be.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from collabdm.documents.codec import read_limited
from collabdm.documents.contribution import Contribution, check_contributions
from collabdm.documents.contribution_file import decode_contribution
from collabdm.documents.extra_tensors import declared_bytes
from collabdm.documents.plan import Plan
from collabdm.errors import DocumentError
from collabdm.methods.registry import contribution_spec
from collabdm.planning.cost import most_bytes

HEADER_ALLOWANCE = 2**20


def read_contribution(path: Path | str, plan: Plan) -> Contribution:
    """Read and check one site's answer to `plan`. Raises DocumentError."""
    return parse_contribution(read_limited(Path(path), contribution_limit(plan)), plan, str(path))


def parse_contribution(content: bytes, plan: Plan, where: str = "contribution") -> Contribution:
    """A contribution from its bytes, checked against `plan`. Raises DocumentError."""
    return decode_contribution(content, contribution_spec(plan), where)


class ContributionFiles(Mapping[str, Contribution]):
    """The contributions of a round, by site, on disk: each is read when it is asked for, and none is kept.

    All are read and checked once at the start. Raises DocumentError where one does not answer the plan, or
    where two are of one site.
    """

    def __init__(self, plan: Plan, paths: Iterable[Path]) -> None:
        self._plan = plan
        found = [(read_contribution(path, plan).site, path) for path in paths]
        check_contributions(plan, [site for site, _ in found])
        self._paths = dict(sorted(found))

    def __getitem__(self, site: str) -> Contribution:
        contribution = read_contribution(self._paths[site], self._plan)
        if contribution.site != site:
            raise DocumentError(f"{self._paths[site]} should be of {site!r}; found {contribution.site!r}: it changed")
        return contribution

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def paths(self) -> dict[str, Path]:
        """Where each site's contribution is, in the order of the names."""
        return dict(self._paths)


def contribution_limit(plan: Plan) -> int:
    """The most bytes that an answer to the plan can have."""
    return most_bytes(plan) + declared_bytes(contribution_spec(plan).extra) + HEADER_ALLOWANCE

"""Carry out the steps of a round, at a site and at the server, from files to a file.

    Plan, images   ->  Contribution     at a site, if its policy allows it
    Plan, files    ->  outcome          at the server, usually a DistilledSet

The command line and Flower both use these functions, so the files they write are identical.
Interrupted work continues from its last checkpoint.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from collabdm.data.flows.images import load_flows
from collabdm.data.flows.tables import Reading
from collabdm.data.selection import Selection
from collabdm.data.tally import Tally
from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.contribution import Contribution
from collabdm.documents.contribution_file import (
    contribution_bytes,
    decode_without_plan,
    write_contribution,
)
from collabdm.documents.masked_contribution import masked_bytes
from collabdm.documents.plan import Plan
from collabdm.errors import DataError, DocumentError
from collabdm.images import ImageSet
from collabdm.matching.run_context import RunContext
from collabdm.methods.base import Method, Outcome, check_data
from collabdm.methods.registry import one_round_method
from collabdm.planning.probe import check_probe
from collabdm.privacy.ledger import Ledger
from collabdm.privacy.masked_noise import noised_and_masked
from collabdm.privacy.masked_sums import mask_statistics
from collabdm.privacy.site_folder import site_folder
from collabdm.privacy.site_keys import site_key
from collabdm.privacy.site_secret import secret_seed
from collabdm.rounds.answered import answer_once
from collabdm.rounds.contributions import ContributionFiles
from collabdm.rounds.masked import MaskedFiles
from collabdm.rounds.policy import Policy, PolicyError, Release
from collabdm.rounds.resumable import ResumableRun
from collabdm.rounds.shown_files import write_shown
from collabdm.rounds.site_pictures import Split, load_pictures
from collabdm.rounds.spending import Spending, excess, spending_of
from collabdm.scoring.outcomes import kind_of

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey


@dataclass(frozen=True)
class DataSource:
    """Where a site's data is, and how it is adapted to a plan.

    Attributes:
        location: a name, a folder, a file or hub:OWNER/NAME (see `data.sources`); for a plan of
            flows, a table.
        resize: whether to convert images to the plan's size and channels.
        rows: COLUMN=VALUE, to use only these rows of a table of flows.
        selection: the columns, class names and splits of pictures; the rules come from the plan.
    """

    location: str
    resize: bool = False
    rows: str | None = None
    selection: Selection = Selection()


def load_for_plan(
    plan: Plan,
    source: DataSource,
    split: Split = "train",
    note: Callable[[str], None] = lambda line: None,
) -> ImageSet:
    """Load data in the plan's classes and image shape.

    Args:
        plan: the plan.
        source: the location of the data.
        split: the training or the test part.
        note: receives the lines of the tally: what was read, skipped and changed.

    Returns:
        The images.

    Raises:
        DataError: the data cannot be read, or does not fit the plan.
    """
    return load_tallied_for_plan(plan, source, split, note)[0]


def load_tallied_for_plan(
    plan: Plan,
    source: DataSource,
    split: Split = "train",
    note: Callable[[str], None] = lambda line: None,
) -> tuple[ImageSet, Tally | None]:
    """Load data as `load_for_plan` does, and return the tally of pictures with it.

    Args:
        plan: the plan.
        source: the location of the data.
        split: the training or the test part.
        note: receives the lines of the tally.

    Returns:
        The images, and their tally; None for tables of flows.

    Raises:
        DataError: the data cannot be read, or does not fit the plan.
    """
    if plan.flows is not None:
        reading = Reading(parse_rows(source.rows))
        return load_flows(source.location, plan.flows, split, reading, note), None
    if source.rows is not None:
        raise DataError("`--rows` belongs to a plan for tables of flows; found a plan for images")

    data, tally = load_pictures(plan, source.location, split, source.selection, source.resize)
    for line in tally.lines():
        note(line)
    return data, tally


def parse_rows(rows: str | None) -> tuple[str, str] | None:
    """Parse COLUMN=VALUE into a pair; None gives None.

    Raises:
        DataError: the text does not have this form.
    """
    if rows is None:
        return None
    column, equals, value = rows.rpartition("=")
    if not equals:
        raise DataError(f"`--rows` should be COLUMN=VALUE; found {rows!r}")
    return column, value


def data_digest(*sets: ImageSet) -> str:
    """Compute the SHA-256 of images and labels, so that a resumed run notices changed data."""
    digest = hashlib.sha256()
    for data in sets:
        digest.update(data.labels.numpy().tobytes())
        for start in range(0, len(data), 4096):
            digest.update(data.images[start : start + 4096].numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Site:
    """A site: its name, and the decisions of its operator.

    Attributes:
        name: the site's name.
        policy: the policy of its operator.
        public_batches: whether to draw batches from the plan, so that anyone can repeat the draws;
            otherwise they are drawn from the site's secret (`privacy.site_secret`).
        key: the file of its private key for masks; None uses the key of this name in the site's
            private folder.
    """

    name: str
    policy: Policy = Policy()
    public_batches: bool = False
    key: Path | None = None


@dataclass(frozen=True)
class PreparedSite:
    """A site that passed all checks of `prepare_site`, as `contribute_file` needs it."""

    plan: Plan
    method: Method
    name: str
    release: Release
    public_batches: bool = False
    key: "X25519PrivateKey | None" = None  # None without masks
    spending: Spending | None = None  # None without a privacy budget

    @property
    def data(self) -> ImageSet:
        """The images of the classes that are sent."""
        return self.release.data

    @cached_property
    def data_digest(self) -> str:
        """The digest of these images."""
        return data_digest(self.data)

    @property
    def identity(self) -> str:
        """A text that is different for every contribution."""
        return self.plan.digest + self.name + self.data_digest


def prepare_site(plan: Plan, data: ImageSet, site: Site) -> PreparedSite:
    """Check everything that can be checked before a contribution is computed.

    Args:
        plan: the plan.
        data: the site's images.
        site: the site's name and policy.

    Returns:
        The site, with the release of its data that the policy allows.

    Raises:
        CollabDMError: the plan, the name, the data, the policy, the key or the machine does not
            fit.
    """
    method = one_round_method(plan)
    plan.check_site(site.name)
    check_data(plan, data)
    release = site.policy.release(plan, data, site.name)
    key = None if plan.masking is None else site_key(plan, site.name, site.key)
    spending = check_spending(plan, release.data, site)
    check_probe(plan)
    return PreparedSite(plan, method, site.name, release, site.public_batches, key, spending)


def check_spending(plan: Plan, data: ImageSet, site: Site) -> Spending | None:
    """Add up the privacy budget of a site, and check it against the site's policy.

    Args:
        plan: the plan.
        data: the images that the site would use.
        site: the site's name and policy.

    Returns:
        The budget before and after; None if the plan has no privacy budget.

    Raises:
        LedgerError: the site has answered the plan with other data, or the ledger is damaged.
        PolicyError: the policy does not allow to spend as much.
    """
    spending = None
    if plan.privacy is not None:
        spending = spending_of(plan, site.name, data_digest(data), Ledger())

    reason = excess(spending, site.policy.largest_epsilon)
    if reason is not None:
        raise PolicyError(f"the plan should be allowed by this site's policy; {reason}")
    return spending


def contribute_file(
    prepared: PreparedSite, output: Path, context: RunContext
) -> Contribution | None:
    """Compute a site's contribution and write it, masked if the plan asks for masks.

    Args:
        prepared: the checked site.
        output: the file to write.
        context: device and progress.

    Returns:
        The contribution, as written; None if it was masked.

    Raises:
        CollabDMError: the contribution cannot be computed or written, the site's secret cannot be
            read, or the site has answered a plan with masks before, with other data.
    """
    plan, name, key = prepared.plan, prepared.name, prepared.key
    if plan.privacy is not None:
        content = _noised_once(prepared, context)
        atomic_write(output, content, private=True)
        return decode_without_plan(content, str(output)) if key is None else None

    identity = prepared.identity
    if not prepared.public_batches:
        seed = secret_seed(plan.digest, name)
        context = replace(context, site_seed=seed)
        identity += hashlib.sha256(str(seed).encode()).hexdigest()

    with ResumableRun(output, identity, context) as run:

        def compute() -> Contribution:
            return prepared.method.contribute(plan, prepared.data, name, run)

        if key is not None:
            content = answer_once(
                plan, name, prepared.data_digest, lambda: _masked_bytes(plan, key, compute())
            )
            atomic_write(output, content, private=True)
            return None

        contribution = compute()
        write_contribution(contribution, output)
    return contribution


def _masked_bytes(plan: Plan, key: "X25519PrivateKey", contribution: Contribution) -> bytes:
    """Mask the statistics of a contribution."""
    masked = mask_statistics(plan, contribution.site, contribution.statistics, key)
    return masked_bytes(masked, plan.classes)


def _noised_once(prepared: PreparedSite, context: RunContext) -> bytes:
    """Return the site's only contribution with noise; it is in the ledger before it is returned.

    Checkpoints contain sums without noise, so they are stored in the site's private folder.
    """
    plan, name = prepared.plan, prepared.name
    unfinished = site_folder() / "unfinished" / f"{plan.digest[:32]}-{name}"

    with ResumableRun(unfinished, prepared.identity, context) as run:
        return answer_once(plan, name, prepared.data_digest, lambda: _noised_bytes(prepared, run))


def _noised_bytes(prepared: PreparedSite, context: RunContext) -> bytes:
    """Compute a contribution with noise, masked if the plan asks for masks."""
    plan, name, data, key = prepared.plan, prepared.name, prepared.data, prepared.key
    if key is None:
        return contribution_bytes(prepared.method.contribute(plan, data, name, context))
    return masked_bytes(noised_and_masked(plan, data, name, key, context), plan.classes)


def distill_files(
    plan: Plan,
    contributions: ContributionFiles | MaskedFiles,
    output: Path,
    context: RunContext,
    allow_missing: bool = False,
) -> Outcome:
    """Compute the outcome of a round, and write it with a picture of its images or, for rows, CSV.

    Args:
        plan: the plan.
        contributions: the checked files of the sites.
        output: the file to write.
        context: device and progress.
        allow_missing: whether to accept a round in which a class is missing at every site.

    Returns:
        The outcome.

    Raises:
        CollabDMError: the machine or the contributions do not fit, or the output cannot be written.
    """
    method = one_round_method(plan)
    check_probe(plan)

    with ResumableRun(output, plan.digest + contributions.identity, context) as run:
        if isinstance(contributions, MaskedFiles):
            outcome = contributions.distill(method, run, allow_missing)
        else:
            outcome = method.distill(plan, contributions, run, allow_missing)
        kind = kind_of(outcome)
        kind.write(outcome, output)

    images = kind.images(outcome)
    if images is not None:
        write_shown(images, plan, output)
    return outcome


def round_files(
    plan: Plan, paths: Sequence[Path], exclude: Sequence[str] = ()
) -> ContributionFiles | MaskedFiles:
    """Read and check the files of all sites: contributions, or masked ones with their unmaskings.

    Args:
        plan: the plan.
        paths: the files, in any order.
        exclude: the names of sites to leave out.

    Returns:
        The files.

    Raises:
        DocumentError: files do not fit, or excluded sites are among masked ones; the message names
            every one.
    """
    if plan.masking is None:
        return ContributionFiles(plan, paths).without(exclude)
    if exclude:
        raise DocumentError(
            f"`exclude` should name sites with open contributions; found {', '.join(exclude)}: a "
            "sum with masks contains all sites that have contributed"
        )
    return MaskedFiles(plan, paths)

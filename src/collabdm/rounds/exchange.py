"""Carry out the steps of a round, at a site and at the server, from files to a file.

    Plan, images   ->  Contribution     at a site, if its policy allows it
    Plan, files    ->  outcome          at the server, usually a DistilledSet

The command line and Flower both use these functions, so the files they write are identical.
Interrupted work continues from its last checkpoint.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from collabdm.data.flows.images import load_flows
from collabdm.data.flows.tables import Reading
from collabdm.data.sources import fit_classes, load
from collabdm.documents.contribution import Contribution
from collabdm.documents.contribution_file import write_contribution
from collabdm.documents.plan import Plan
from collabdm.errors import DataError
from collabdm.export.pictures import write_picture
from collabdm.images import ImageSet
from collabdm.matching.run_context import RunContext
from collabdm.methods.base import Method, Outcome, check_data
from collabdm.methods.registry import one_round_method
from collabdm.planning.probe import check_probe
from collabdm.rounds.contributions import ContributionFiles
from collabdm.rounds.policy import Policy, Release
from collabdm.rounds.resumable import ResumableRun
from collabdm.scoring.outcomes import kind_of

Split = Literal["train", "test"]


@dataclass(frozen=True)
class DataSource:
    """Where a site's data is, and how it is adapted to a plan.

    Attributes:
        location: a name, a folder, a file or a hub id (see `data.sources`); for a plan of flows, a
            table.
        resize: whether to convert images to the plan's size and channels.
        rows: COLUMN=VALUE, to use only these rows of a table of flows.
    """

    location: str
    resize: bool = False
    rows: str | None = None


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
        note: receives a line for each kind of fault that was counted in a table.

    Returns:
        The images.

    Raises:
        DataError: the data cannot be read, or does not fit the plan.
    """
    if plan.flows is not None:
        reading = Reading(parse_rows(source.rows))
        return load_flows(Path(source.location), plan.flows, split, reading, note)
    if source.rows is not None:
        raise DataError("`--rows` belongs to a plan for tables of flows; found a plan for images")

    image = plan.image
    side, channels = (image.side, image.channels) if source.resize else (None, None)
    data = fit_classes(load(source.location, split, side=side, channels=channels), plan.classes)
    try:
        check_data(plan, data)
    except DataError as error:
        if data.shape == image.shape:
            raise
        raise DataError(f"{error}: `--resize` brings them to it") from error
    return data


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
    """A site: its name, and the policy of its operator."""

    name: str
    policy: Policy = Policy()


@dataclass(frozen=True)
class PreparedSite:
    """A site that passed all checks of `prepare_site`, as `contribute_file` needs it."""

    plan: Plan
    method: Method
    name: str
    release: Release

    @property
    def data(self) -> ImageSet:
        """The images of the classes that are sent."""
        return self.release.data

    @property
    def identity(self) -> str:
        """A text that is different for every contribution."""
        return self.plan.digest + self.name + data_digest(self.data)


def prepare_site(plan: Plan, data: ImageSet, site: Site) -> PreparedSite:
    """Check everything that can be checked before a contribution is computed.

    Args:
        plan: the plan.
        data: the site's images.
        site: the site's name and policy.

    Returns:
        The site, with the release of its data that the policy allows.

    Raises:
        CollabDMError: the plan, the name, the data, the policy or the machine does not fit.
    """
    method = one_round_method(plan)
    plan.check_site(site.name)
    check_data(plan, data)
    release = site.policy.release(plan, data, site.name)
    check_probe(plan)
    return PreparedSite(plan, method, site.name, release)


def contribute_file(prepared: PreparedSite, output: Path, context: RunContext) -> Contribution:
    """Compute a site's contribution and write it.

    Args:
        prepared: the checked site.
        output: the file to write.
        context: device and progress.

    Returns:
        The contribution, as written.

    Raises:
        CollabDMError: the contribution cannot be computed or written.
    """
    plan, name = prepared.plan, prepared.name
    with ResumableRun(output, prepared.identity, context) as run:
        contribution = prepared.method.contribute(plan, prepared.data, name, run)
        write_contribution(contribution, output)
    return contribution


def distill_files(
    plan: Plan,
    contributions: ContributionFiles,
    output: Path,
    context: RunContext,
    allow_missing: bool = False,
) -> Outcome:
    """Compute the outcome of a round, and write it together with a picture of its images.

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
        outcome = method.distill(plan, contributions, run, allow_missing)
        kind = kind_of(outcome)
        kind.write(outcome, output)

    images = kind.images(outcome)
    if images is not None:
        write_picture(images, picture_path(output))
    return outcome


def picture_path(output: Path) -> Path:
    """Return the path of the picture of a set, in the folder of its file."""
    return output.with_suffix(".png")

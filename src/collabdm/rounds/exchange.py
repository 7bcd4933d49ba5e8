"""The two arrows of the round at the rim: from a plan and data to a file, from files to a file.

    Plan, images   ->  Contribution     at a site, as its policy allows
    Plan, files    ->  outcome          at the server: most often a DistilledSet

The command line and Flower both go this way, so what they write is the same, to the byte. What is stopped
goes on where it stood.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from collabdm.data.flows.images import load_flows
from collabdm.data.flows.tables import Reading
from collabdm.data.sources import fit_classes, load
from collabdm.documents.contribution_file import write_contribution
from collabdm.documents.plan import Plan
from collabdm.errors import DataError
from collabdm.export.pictures import write_picture
from collabdm.images import ImageSet
from collabdm.methods.base import Outcome, check_data
from collabdm.methods.registry import one_round
from collabdm.planning.probe import check_probe
from collabdm.rounds.contributions import ContributionFiles
from collabdm.rounds.policy import Policy
from collabdm.rounds.resumable import Bench, ResumableRun
from collabdm.scoring.outcomes import kind_of


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def data_digest(*sets: ImageSet) -> str:
    """SHA-256 of images and labels: tells a run that is resumed whether its data changed."""
    digest = hashlib.sha256()
    for data in sets:
        digest.update(data.labels.numpy().tobytes())
        for start in range(0, len(data), 4096):
            digest.update(data.images[start : start + 4096].numpy().tobytes())
    return digest.hexdigest()


Split = Literal["train", "test"]


def load_for_plan(
    agreed: Plan,
    data: str,
    resize: bool = False,
    split: Split = "train",
    rows: str | None = None,
    say: Callable[[str], None] = lambda note: None,
) -> ImageSet:
    """Data as the plan says: images, brought to its size if `resize`, or a table of flows, all of it or the `rows`
    COLUMN=VALUE; `say` hears what was counted in it. Raises DataError where the data do not fit.
    """
    if agreed.flows is not None:
        return load_flows(Path(data), agreed.flows, split, Reading(place_of(rows)), say)
    if rows is not None:
        raise DataError("`--rows` belongs to a plan for tables of flows; found a plan for images")
    side, channels = (agreed.image.side, agreed.image.channels) if resize else (None, None)
    held = fit_classes(load(data, split, side=side, channels=channels), agreed.classes)
    try:
        check_data(agreed, held)
    except DataError as error:
        mended = held.shape == agreed.image.shape
        raise error if mended else DataError(f"{error}: `--resize` brings them to it") from error
    return held


def place_of(rows: str | None) -> tuple[str, str] | None:
    """COLUMN=VALUE as a pair."""
    if rows is None:
        return None
    column, equals, value = rows.rpartition("=")
    if not equals:
        raise DataError(f"`--rows` should be COLUMN=VALUE; found {rows!r}")
    return column, value


@dataclass(frozen=True)
class Site:
    """Who answers: a name, and what is allowed."""

    name: str
    policy: Policy = Policy()


def prepare_site_data(plan: Plan, data: ImageSet, site: Site) -> ImageSet:
    """The data that the site's answer may use, once all is checked that can be. Raises CollabDMError."""
    one_round(plan)
    plan.check_site(site.name)
    check_data(plan, data)
    held = site.policy.withhold(data)
    site.policy.check(plan, held)
    check_probe(plan)
    return held


def contribute_file(plan: Plan, data: ImageSet, site: Site, output: Path, bench: Bench) -> None:
    """Answer a plan: write one site's contribution. Raises CollabDMError."""
    held = prepare_site_data(plan, data, site)
    with ResumableRun(output, plan.digest + site.name + data_digest(held), bench) as run:
        write_contribution(one_round(plan).contribute(plan, held, site.name, run), output)


def distill_files(
    plan: Plan, contributions: ContributionFiles, output: Path, bench: Bench, allow_missing: bool = False
) -> Outcome:
    """Write the outcome of a round, and its picture beside it where it has images. Raises CollabDMError."""
    method = one_round(plan)
    check_probe(plan)
    paths = contributions.paths
    identity = plan.digest + ",".join(f"{site}:{file_digest(path)}" for site, path in paths.items())
    with ResumableRun(output, identity, bench) as run:
        made: Outcome = method.distill(plan, contributions, run, allow_missing)
        kind = kind_of(made)
        kind.write(made, output)
    if (images := kind.images(made)) is not None:
        write_picture(images, picture_of(output))
    return made


def picture_of(output: Path) -> Path:
    """Where the picture of a set is."""
    return output.with_suffix(".png")

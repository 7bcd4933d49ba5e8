"""Compare the sites of a round at the server, so that a broken or malicious one can be noticed.

For each site, the table contains the number of images that it states, and the distance and the norm
of its class means relative to the other sites (`matching.robust_merging.deviations`). Measured on
Fashion-MNIST with five sites, honest sites have distances of 0.97 to 1.03 if the split is even, and
of 0.9 to 3.8 if it is very uneven (Dirichlet, beta 0.1). A site with swapped labels has 13, and one
whose means are zero 20. A site with other data or far fewer images also differs: the table flags
sites, and the operator of the server decides.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from collabdm.documents.contribution import Contribution, Statistics
from collabdm.documents.plan import Plan
from collabdm.matching.robust_merging import FEWEST_COMPARED, Deviation, deviations
from collabdm.rounds.masked import MaskedFiles

LARGEST_DISTANCE = 3.0  # beyond which a site is flagged

LARGEST_COUNT_RATIO = 10  # a site's number of images over that of all others together

MASKED = (
    "sites cannot be compared: their means are masked, and only their sum is opened; the plan's "
    "`masking.range` and `largest_class` bound what one site can add to it"
)

COLUMNS = ("site", "images", "distance", "norm", "remark")


@dataclass(frozen=True)
class SiteRow:
    """One site of the table.

    Attributes:
        site: its name.
        images: the number of images that it states, over all classes.
        deviation: how its means differ; None if they cannot be compared.
        remarks: the reasons why it is flagged.
    """

    site: str
    images: int
    deviation: Deviation | None
    remarks: tuple[str, ...]

    @property
    def cells(self) -> tuple[str, ...]:
        """The row of the table, in the order of `COLUMNS`."""
        distance = norm = "-"
        if self.deviation is not None:
            distance, norm = f"{self.deviation.distance:.2f}", f"{self.deviation.norm:.2f}"
        return self.site, f"{self.images:,}", distance, norm, "; ".join(self.remarks) or "-"


@dataclass(frozen=True)
class SiteTable:
    """The comparison of all sites: one row for each, and notes that follow the table."""

    rows: tuple[SiteRow, ...]
    notes: tuple[str, ...]

    @property
    def flagged(self) -> tuple[str, ...]:
        """The names of the sites with remarks."""
        return tuple(row.site for row in self.rows if row.remarks)

    def lines(self) -> list[str]:
        """Return the table as plain lines, for a log."""
        rows = []
        for row in self.rows:
            site, images, distance, norm, remark = row.cells
            line = f"{site}: {images} images, distance {distance}, norm {norm}"
            rows.append(f"{line}, {remark}" if row.remarks else line)
        return [*rows, *self.notes]


def compare_sites(plan: Plan, contributions: Mapping[str, Contribution] | MaskedFiles) -> SiteTable:
    """Compare the sites of a round.

    Args:
        plan: the plan.
        contributions: the checked contributions, read once for each block of steps; masked ones
            are not read.

    Returns:
        The table; it has no rows if sums are masked, because the server cannot see one site,
        or if there is only one site.
    """
    if plan.masking is not None or isinstance(contributions, MaskedFiles):
        return SiteTable((), (MASKED,))

    names = sorted(contributions)
    if len(names) < 2:
        return SiteTable((), ())

    def read() -> Iterator[Statistics]:
        return (contributions[site].statistics for site in names)

    images = {site: int(contributions[site].statistics.totals.sum()) for site in names}
    compared = deviations(plan, len(names), read)
    capped = plan.largest_class is not None

    rows = []
    for site, deviation in zip(names, compared, strict=True):
        remarks = _remarks(images[site], sum(images.values()), deviation, capped)
        rows.append(SiteRow(site, images[site], deviation, remarks))
    return SiteTable(tuple(rows), _notes(rows, plan.steps))


def _remarks(
    images: int, all_images: int, deviation: Deviation | None, capped: bool
) -> tuple[str, ...]:
    """State why a site is flagged; empty if it is not.

    Args:
        images: the number of images that it states.
        all_images: the number of images of all sites.
        deviation: how its means differ.
        capped: whether the plan limits the number of images of a class.

    Returns:
        The reasons.
    """
    remarks = []
    if deviation is not None and not deviation.distance <= LARGEST_DISTANCE:
        remarks.append("differs from the others")
    others = all_images - images
    if not capped and 0 < others * LARGEST_COUNT_RATIO < images:
        remarks.append(f"states more than {LARGEST_COUNT_RATIO} times the images of all others")
    return tuple(remarks)


def _notes(rows: list[SiteRow], steps: int) -> tuple[str, ...]:
    """Explain the table: what cannot be compared, and what to do about flagged sites."""
    flagged = [row.site for row in rows if row.remarks]
    notes = []
    if steps and all(row.deviation is None for row in rows):
        notes.append(
            f"the means cannot be compared: no class is at {FEWEST_COMPARED} sites in any step"
        )
    if flagged:
        options = " ".join(f"--exclude {site}" for site in flagged)
        notes.append(
            f"flagged: {', '.join(flagged)}; ask for the reason, which can be other data or few "
            f"images, or leave out: collabdm distill {options}"
        )
    return tuple(notes)

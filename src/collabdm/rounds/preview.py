"""Preview a contribution: its content and its exact size, before it is computed.

The preview states in plain words, for the operator of a site, everything that leaves it: how much
is sent of how much data, the smallest class, the classes withheld, whether images start from real
ones, and how near they lie to private ones. The size follows from the shapes of the tensors, which
are not allocated. The time is an upper estimate.
"""

from dataclasses import dataclass

import torch

from collabdm.documents.contribution import stated_counts
from collabdm.documents.contribution_file import ContributionShape, contribution_size
from collabdm.documents.masked_contribution import masked_size, masked_tensors
from collabdm.documents.plan import Plan
from collabdm.documents.protection import Masking, Privacy
from collabdm.methods.registry import contribution_spec
from collabdm.privacy.noised_statistics import added_noise
from collabdm.privacy.release import count_images
from collabdm.privacy.wording import budget_text
from collabdm.rounds.comparison import ClassComparison, Comparison
from collabdm.rounds.estimate import estimated_seconds, rough_duration
from collabdm.rounds.inspect import Row
from collabdm.rounds.policy import RealImages, Release, real_images
from collabdm.version import versions


@dataclass(frozen=True)
class ContributionPreview:
    """The size and the content of a contribution.

    Attributes:
        statistics_shape: steps, classes and width of the class means.
        statistics_dtype: the type of the class means in the file, the plan's `wire`.
        statistics_bytes: the bytes of the class means, including the scales of int8.
        image_shape: number of images, channels, height and width.
        image_bytes: the bytes of the images' pixels.
        extra_bytes: the bytes of each extra tensor, by name.
        total_bytes: the bytes of the file.
        data_bytes: the bytes of the private images of the classes that are sent.
        class_counts: the site's number of images of each class, by name; these numbers are sent.
        real_images: how the contribution uses real images.
        average_of: the fewest images in each average that is sent; None if no averages are sent.
        seconds: the longest computing time on two cores; None if it cannot be estimated.
        release: what is released about each class, and the classes that are withheld.
        masking: the plan's secure aggregation; None without.
        privacy: the plan's budget of differential privacy; None without.
    """

    statistics_shape: tuple[int, ...]
    statistics_dtype: str
    statistics_bytes: int
    image_shape: tuple[int, ...]
    image_bytes: int
    extra_bytes: dict[str, int]
    total_bytes: int
    data_bytes: int
    class_counts: dict[str, int]
    real_images: RealImages
    average_of: int | None
    seconds: float | None
    release: Release
    masking: Masking | None
    privacy: Privacy | None

    @property
    def other_bytes(self) -> int:
        """The bytes of labels, counts and header."""
        tensors = self.statistics_bytes + self.image_bytes + sum(self.extra_bytes.values())
        return self.total_bytes - tensors


def preview_contribution(plan: Plan, release: Release, site: str) -> ContributionPreview:
    """Preview a site's contribution.

    Args:
        plan: the plan.
        release: the data that the site's policy releases, and the classes that it withholds.
        site: the site's name.

    Returns:
        The preview.
    """
    data = release.data
    spec, counts = contribution_spec(plan), data.counts()
    present = torch.nonzero(counts).flatten()
    noise = None if plan.privacy is None else added_noise(plan)
    sent = len(present) if noise is None else len(plan.classes)  # with noise, every class
    with_images = int((counts >= plan.local.average_of).sum()) if plan.local.average_of else None
    steps = len(plan.steps_of(site))
    shape = ContributionShape(site, spec, steps, sent, versions(), noise, with_images)

    tensors = shape.tensors()
    codes, images = tensors["statistics.codes"], tensors["local.images"]
    dtype, total_bytes = str(plan.wire), contribution_size(shape)
    if plan.masking is not None:
        codes = masked_tensors(plan, spec.width)["sums"]
        dtype, total_bytes = (
            f"int{8 * codes.dtype.itemsize}, masked",
            masked_size(plan, spec.width, site),
        )
    scales = tensors.get("statistics.scales")
    _, totals = stated_counts(plan, counts[present])
    stated = zip(present.tolist(), totals.tolist(), strict=True)

    return ContributionPreview(
        statistics_shape=codes.shape,
        statistics_dtype=dtype,
        statistics_bytes=codes.nbytes + (0 if scales is None else scales.nbytes),
        image_shape=images.shape,
        image_bytes=images.nbytes,
        extra_bytes={name: extra.nbytes for name, extra in spec.extra.items()},
        total_bytes=total_bytes,
        data_bytes=data.nbytes(),
        class_counts={plan.classes[y]: count for y, count in stated},
        real_images=real_images(plan),
        average_of=plan.local.average_of,
        seconds=estimated_seconds(plan, int(counts.max())),
        release=release,
        masking=plan.masking,
        privacy=plan.privacy,
    )


def preview_rows(preview: ContributionPreview, comparison: Comparison | None = None) -> list[Row]:
    """Format the preview as rows of (part, value) for people to read.

    Args:
        preview: the preview.
        comparison: of the images of the finished contribution with the private ones; None before
            it is computed, or if it has no images.

    Returns:
        The rows.
    """
    counts = ", ".join(f"{name}: {count:,}" for name, count in preview.class_counts.items())
    if preview.privacy is not None:
        counts += "; all classes of the plan are sent, and their numbers with noise"
    rows = [
        ("class means", _means_text(preview)),
        ("images", _images_text(preview)),
        ("numbers of images, masked" if preview.masking else "numbers of images", counts),
        ("labels, counts and header", f"{preview.other_bytes:,} bytes"),
        ("total", f"{preview.total_bytes:,} bytes"),
        ("private data", _data_text(preview)),
        *_release_rows(preview.release, bool(preview.statistics_bytes)),
        ("real images", preview.real_images),
    ]
    if preview.extra_bytes:
        extra = preview.extra_bytes
        rows.insert(2, ("extra tensors", f"{sum(extra.values()):,} bytes: {', '.join(extra)}"))
    if comparison is not None and comparison.classes:
        rows.append(("nearest private image", _nearest_text(comparison.closest)))

    time = "not estimated"
    if preview.seconds is not None:
        time = f"{rough_duration(preview.seconds)} on two cores, at most"
    return [*rows, *_protection_rows(preview), ("time", time)]


def _means_text(preview: ContributionPreview) -> str:
    steps, classes, width = preview.statistics_shape
    if not preview.statistics_bytes:
        return "none"
    return (
        f"{preview.statistics_bytes:,} bytes: means of {classes} classes under {steps} networks, "
        f"each of {width} numbers in {preview.statistics_dtype}"
    )


def _images_text(preview: ContributionPreview) -> str:
    number, *shape = preview.image_shape
    if not number:
        return "no images" if "images" not in preview.extra_bytes else "in the extra tensors"
    origin = {
        RealImages.NONE: "none of which starts from a real one",
        RealImages.START: "which start from real ones",
        RealImages.SENT: "which are real",
        RealImages.START_OR_SENT: "which are real, or start from real ones",
    }[preview.real_images]
    most = ""
    if preview.average_of is not None:
        most = "up to "  # groups of images that hardly differ are left out
        origin = f"each an average of at least {preview.average_of} similar images"
    size = " x ".join(map(str, shape))
    return f"{preview.image_bytes:,} bytes: {most}{number} of {size}, {origin}"


def _data_text(preview: ContributionPreview) -> str:
    text = f"{preview.data_bytes:,} bytes of images of these classes"
    if preview.total_bytes > preview.data_bytes:
        text += "; MORE IS SENT THAN THE SITE HAS"
    return text


def _release_rows(release: Release, has_means: bool) -> list[Row]:
    """Describe the smallest class, the largest ratio, and the classes that are withheld."""
    smallest = min(release.classes, key=lambda one: one.images)
    text = f"{smallest.name}, {count_images(smallest.images)}"
    rows = [("smallest class", text)]

    if has_means:
        behind = min(one.behind for one in release.classes)
        largest = max(release.classes, key=lambda one: one.ratio)
        limit = f"the limit is {release.limits.largest_ratio:g}"
        rows += [
            ("behind each mean", f"at least {count_images(behind)}"),
            (
                "numbers sent",
                f"{largest.ratio:.2g} for each number in the images of {largest.name}, which has "
                f"the most; {limit}",
            ),
        ]
    if not release.withheld:
        return [*rows, ("withheld", "no class")]
    return rows + [(f"withheld: {one.name}", one.reason) for one in release.withheld]


def _nearest_text(closest: ClassComparison) -> str:
    text = f"{closest.nearest:.1f} grey levels away, in class {closest.name}"
    if closest.spacing is None:
        return text
    return (
        f"{text}; there, private images are {closest.spacing.median:.1f} from the nearest other "
        f"one (median; at least {closest.spacing.minimum:.1f})"
    )


def _protection_rows(preview: ContributionPreview) -> list[Row]:
    """Describe the privacy budget and the masks."""
    privacy, masking = preview.privacy, preview.masking
    budget = "none: what the means reveal of one image is not bounded"
    if privacy is not None:
        budget = f"{budget_text(privacy.epsilon, privacy.delta)} for each image"

    masks = "no: the server reads this site's numbers"
    if masking is not None:
        masks = f"yes: the server reads only sums over sites, at least {masking.threshold}"
    return [("privacy budget", budget), ("masks", masks)]

"""Preview a contribution: its exact size and its content, before it is computed.

The size follows from the shapes of the tensors, without allocating them. The time is an upper
estimate.
"""

from dataclasses import dataclass

import torch

from collabdm.documents.contribution import stated_counts
from collabdm.documents.contribution_file import ContributionShape, contribution_size
from collabdm.documents.plan import Plan
from collabdm.images import ImageSet
from collabdm.methods.registry import contribution_spec
from collabdm.rounds.estimate import estimated_seconds, rough_duration
from collabdm.rounds.inspect import Row
from collabdm.rounds.policy import RealImages, real_images
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
        class_counts: the site's number of images of each class, by name; these numbers are sent.
        real_images: how the contribution uses real images.
        seconds: the longest computing time on two cores; None if it cannot be estimated.
    """

    statistics_shape: tuple[int, ...]
    statistics_dtype: str
    statistics_bytes: int
    image_shape: tuple[int, ...]
    image_bytes: int
    extra_bytes: dict[str, int]
    total_bytes: int
    class_counts: dict[str, int]
    real_images: RealImages
    seconds: float | None

    @property
    def other_bytes(self) -> int:
        """The bytes of labels, counts and header."""
        tensors = self.statistics_bytes + self.image_bytes + sum(self.extra_bytes.values())
        return self.total_bytes - tensors


def preview_contribution(plan: Plan, data: ImageSet, site: str) -> ContributionPreview:
    """Preview a site's contribution.

    Args:
        plan: the plan.
        data: the images that the site would use.
        site: the site's name.

    Returns:
        The preview.
    """
    spec, counts = contribution_spec(plan), data.counts()
    present = torch.nonzero(counts).flatten()
    shape = ContributionShape(site, spec, len(plan.steps_of(site)), len(present), versions())

    tensors = shape.tensors()
    codes, images = tensors["statistics.codes"], tensors["local.images"]
    scales = tensors.get("statistics.scales")
    _, totals = stated_counts(plan, counts[present])
    stated = zip(present.tolist(), totals.tolist(), strict=True)

    return ContributionPreview(
        statistics_shape=codes.shape,
        statistics_dtype=plan.wire,
        statistics_bytes=codes.nbytes + (0 if scales is None else scales.nbytes),
        image_shape=images.shape,
        image_bytes=images.nbytes,
        extra_bytes={name: extra.nbytes for name, extra in spec.extra.items()},
        total_bytes=contribution_size(shape),
        class_counts={plan.classes[y]: count for y, count in stated},
        real_images=real_images(plan),
        seconds=estimated_seconds(plan, int(counts.max())),
    )


def preview_rows(preview: ContributionPreview) -> list[Row]:
    """Format the preview as rows of (part, value) for people to read."""
    means = " x ".join(map(str, preview.statistics_shape))
    number, *shape = preview.image_shape
    images = f"{number} of {' x '.join(map(str, shape))}"
    extra = preview.extra_bytes

    rows = [
        (
            "class means",
            f"{preview.statistics_bytes:,} bytes, {means} numbers in {preview.statistics_dtype}",
        ),
        ("images", f"{preview.image_bytes:,} bytes, {images}"),
    ]
    if extra:
        rows.append(("extra tensors", f"{sum(extra.values()):,} bytes: {', '.join(extra)}"))

    time = "not estimated"
    if preview.seconds is not None:
        time = f"{rough_duration(preview.seconds)} on two cores, at most"
    counts = ", ".join(f"{name}: {count}" for name, count in preview.class_counts.items())

    return [
        *rows,
        ("labels, counts and header", f"{preview.other_bytes:,} bytes"),
        ("total", f"{preview.total_bytes:,} bytes"),
        ("classes", counts),
        ("real images", preview.real_images),
        ("time", time),
    ]

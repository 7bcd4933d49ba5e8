"""Read and write a Contribution as a safetensors document, the same on disk and on the network.

    statistics.NAME      the tensors of `Statistics`
    local.images         the images
    local.labels         the classes of the images, ascending
    parts.NAME           the extra tensors of the Plan's method

Reference: docs/format.md, "Contribution".
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field, model_serializer
from torch import Tensor

from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.codec import DocumentHeader, decode_document, encode_document, encoded_bytes
from collabdm.documents.contribution import (
    CONTRIBUTION_VERSION,
    AddedNoise,
    Contribution,
    ContributionSpec,
    Statistics,
    check_contribution,
)
from collabdm.documents.extra_tensors import EXTRA_PREFIX, DeclaredTensors, TensorSpec, check_names
from collabdm.documents.plan import Plan
from collabdm.documents.specs import WIRE_DTYPES
from collabdm.errors import DataError, DocumentError
from collabdm.images import ImageSet

CONTRIBUTION_FORMAT = "collabdm/contribution"

_STATISTICS = "statistics."
_INTEGERS = ("steps", "classes", "batch_counts", "totals")
_REQUIRED = {_STATISTICS + name for name in (*_INTEGERS, "codes")} | {
    "local.images",
    "local.labels",
}


@dataclass(frozen=True)
class ContributionShape:
    """The shape of a contribution before it is computed.

    Attributes:
        site: the name of the site.
        spec: the plan, the width of a class mean, and the extra tensors.
        steps: the number of steps in which the site takes part.
        present: the number of classes that the site has.
        versions: the versions of the libraries, as in the contribution.
        noise: the noise that its header describes; None without.
        with_images: the number of classes of which images are sent; None if of all.
    """

    site: str
    spec: ContributionSpec
    steps: int
    present: int
    versions: dict[str, str]
    noise: AddedNoise | None = None
    with_images: int | None = None

    @property
    def plan(self) -> Plan:
        """The plan."""
        return self.spec.plan

    @property
    def plan_digest(self) -> str:
        """The digest of the plan."""
        return self.plan.digest

    def tensors(self) -> DeclaredTensors:
        """Return the dtypes and shapes of all tensors in the file."""
        plan, means = self.plan, (self.steps, self.present)
        with_images = self.present if self.with_images is None else self.with_images
        images = with_images * plan.local.images_sent
        lengths = {"steps": self.steps} | dict.fromkeys(_INTEGERS[1:], self.present)

        specs = {_STATISTICS + name: TensorSpec(torch.int64, (n,)) for name, n in lengths.items()}
        codes = TensorSpec(WIRE_DTYPES[plan.wire], (*means, self.spec.width))
        specs[_STATISTICS + "codes"] = codes
        if plan.wire == "int8":
            specs[_STATISTICS + "scales"] = TensorSpec(torch.float32, means)
        specs["local.images"] = TensorSpec(plan.image_dtype, (images, *plan.image.shape))
        specs["local.labels"] = TensorSpec(torch.int64, (images,))
        return specs | {EXTRA_PREFIX + name: extra for name, extra in self.spec.extra.items()}


class ContributionHeader(DocumentHeader):
    """The header of a Contribution; `noise` is absent from its JSON without noise."""

    site: str
    plan_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    noise: AddedNoise | None = None

    @model_serializer(mode="wrap")
    def _without_absent_noise(self, handler: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        return {k: v for k, v in handler(self).items() if v is not None or k != "noise"}


def write_contribution(contribution: Contribution, path: Path | str) -> None:
    """Write a Contribution that only the owner of the file can read. Raises OutputError."""
    atomic_write(Path(path), contribution_bytes(contribution), private=True)


def contribution_bytes(contribution: Contribution) -> bytes:
    """Encode a Contribution as bytes."""
    statistics, images = contribution.statistics, contribution.images

    tensors = {_STATISTICS + name: getattr(statistics, name) for name in (*_INTEGERS, "codes")}
    if statistics.scales is not None:
        tensors[_STATISTICS + "scales"] = statistics.scales
    tensors |= {"local.images": images.images, "local.labels": images.labels}
    tensors |= {EXTRA_PREFIX + name: extra for name, extra in contribution.extra_tensors.items()}

    return encode_document(tensors, _header(contribution, images.classes))


def contribution_size(shape: ContributionShape) -> int:
    """Return the bytes of a contribution of a given shape, without computing or allocating it."""
    return encoded_bytes(shape.tensors(), _header(shape, shape.plan.classes))


def _header(
    contribution: Contribution | ContributionShape, classes: tuple[str, ...]
) -> ContributionHeader:
    return ContributionHeader(
        format=CONTRIBUTION_FORMAT,
        version=CONTRIBUTION_VERSION,
        classes=classes,
        versions=contribution.versions,
        site=contribution.site,
        plan_digest=contribution.plan_digest,
        noise=contribution.noise,
    )


def decode_contribution(
    content: bytes, spec: ContributionSpec, where: str = "contribution"
) -> Contribution:
    """Decode and check a Contribution.

    Args:
        content: The bytes of the whole file.
        spec: The Plan that it should answer, and the contents that follow from it.
        where: The name of the file, for errors.

    Raises:
        DocumentError: The bytes are not a contribution, or the contribution does not answer the
            Plan.
    """
    contribution = decode_without_plan(content, where)
    try:
        check_contribution(spec, contribution)
    except DocumentError as error:
        raise DocumentError(f"{where}: {error}") from error

    return contribution


def decode_without_plan(content: bytes, where: str) -> Contribution:
    """Decode a Contribution, unchecked against a Plan: to show it, not to use it.

    Raises DocumentError if the bytes are not a contribution; the message names `where`.
    """
    header, tensors = decode_document(
        content, where, ContributionHeader, CONTRIBUTION_FORMAT, CONTRIBUTION_VERSION
    )
    try:
        return _contribution(header, tensors)
    except (DocumentError, DataError) as error:
        raise DocumentError(f"{where}: {error}") from error


def _contribution(header: ContributionHeader, tensors: dict[str, Tensor]) -> Contribution:
    """Build a Contribution from its tensors. Raises DocumentError or DataError."""
    extra = [name for name in tensors if name.startswith(EXTRA_PREFIX)]
    optional = {_STATISTICS + "scales"} & set(tensors)
    check_names(f"contribution of {header.site!r}", tensors, {*_REQUIRED, *optional, *extra})

    images = ImageSet(tensors["local.images"], _labels(tensors["local.labels"]), header.classes)
    return Contribution(
        header.site,
        header.plan_digest,
        _statistics(tensors),
        images,
        header.versions,
        {name.removeprefix(EXTRA_PREFIX): tensors[name] for name in extra},
        header.noise,
    )


def _statistics(tensors: dict[str, Tensor]) -> Statistics:
    for name in _INTEGERS:
        numbers = tensors[_STATISTICS + name]
        if numbers.dtype != torch.int64 or numbers.ndim != 1:
            raise DocumentError(
                f"`{_STATISTICS}{name}` should be int64 of one dimension; "
                f"found {numbers.dtype} of shape {tuple(numbers.shape)}"
            )

    integers = {name: tensors[_STATISTICS + name] for name in _INTEGERS}
    codes, scales = tensors[_STATISTICS + "codes"], tensors.get(_STATISTICS + "scales")
    return Statistics(**integers, codes=codes, scales=scales)


def _labels(labels: Tensor) -> Tensor:
    """Check the labels and return them. Raises DocumentError."""
    if labels.dtype != torch.int64 or labels.ndim != 1:
        raise DocumentError(
            "`local.labels` should be int64 of one dimension; "
            f"found {labels.dtype} of shape {tuple(labels.shape)}"
        )
    if bool((labels[1:] < labels[:-1]).any()):
        raise DocumentError("`local.labels` should ascend; found them in another order")

    return labels

"""TODO documents.contribution_file."""

from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.codec import DocumentHeader, decode_document, encode_document, expect_names
from collabdm.documents.contribution import (
    CONTRIBUTION_VERSION,
    Contribution,
    ContributionSpec,
    Statistics,
    check_contribution,
)
from collabdm.errors import DataError, DocumentError
from collabdm.images import ImageSet

_PART = "parts."
_STATISTICS = ("steps", "classes", "codes", "batch_counts", "totals")


class ContributionHeader(DocumentHeader):
    """Header of a Contribution."""

    site: str
    plan_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def write_contribution(contribution: Contribution, path: Path | str) -> None:
    """Write a Contribution as safetensors, readable by its owner alone."""
    atomic_write(Path(path), contribution_bytes(contribution), private=True)


def contribution_bytes(contribution: Contribution) -> bytes:
    """The bytes of a Contribution: the same on disk and on any wire."""
    s = contribution.statistics
    tensors = {f"statistics.{name}": getattr(s, name) for name in _STATISTICS}
    if s.scales is not None:
        tensors["statistics.scales"] = s.scales
    tensors |= {"local.images": contribution.images.images, "local.labels": contribution.images.labels}
    tensors |= {f"{_PART}{name}": part for name, part in contribution.extra_tensors.items()}
    header = ContributionHeader(
        format="collabdm/contribution",
        version=CONTRIBUTION_VERSION,
        classes=contribution.images.classes,
        versions=contribution.versions,
        site=contribution.site,
        plan_digest=contribution.plan_digest,
    )
    return encode_document(tensors, header)


def decode_contribution(content: bytes, spec: ContributionSpec, where: str = "contribution") -> Contribution:
    """A Contribution from its bytes, checked against the plan that it answers. Raises DocumentError."""
    header, tensors = decode_document(content, where, ContributionHeader, "collabdm/contribution", CONTRIBUTION_VERSION)
    try:
        contribution = _contribution(header, tensors)
        check_contribution(spec, contribution)
    except (DocumentError, DataError) as error:
        raise DocumentError(f"{where}: {error}") from error
    return contribution


def _contribution(header: ContributionHeader, tensors: dict[str, Tensor]) -> Contribution:
    names = {f"statistics.{name}" for name in _STATISTICS} | {"local.images", "local.labels"}
    scales = tensors.get("statistics.scales")
    parts = {name.removeprefix(_PART): tensor for name, tensor in tensors.items() if name.startswith(_PART)}
    optional = {"statistics.scales", *(f"{_PART}{name}" for name in parts)}
    expect_names(f"contribution of {header.site!r}", tensors, names | (optional & set(tensors)))
    for name in ("statistics.steps", "statistics.classes", "statistics.batch_counts", "statistics.totals"):
        if tensors[name].dtype != torch.int64 or tensors[name].ndim != 1:
            raise DocumentError(f"`{name}` should be int64 of one dimension; found {tensors[name].dtype}")
    statistics = Statistics(**{name: tensors[f"statistics.{name}"] for name in _STATISTICS}, scales=scales)
    labels = tensors["local.labels"]
    if labels.dtype != torch.int64 or labels.ndim != 1 or bool((labels[1:] < labels[:-1]).any()):
        raise DocumentError("`local.labels` should be int64 of one dimension, in ascending order")
    images = ImageSet(tensors["local.images"], labels, header.classes)
    return Contribution(header.site, header.plan_digest, statistics, images, header.versions, parts)

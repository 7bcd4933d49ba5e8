"""The outcomes beside a DistilledSet on disk: DistilledSteps and DistilledModel, as safetensors.

Read and checked as the documents are, see `files`. Of their headers only the kind differs from that of a set; that of
a model names its network as well.
"""

from pathlib import Path
from typing import Any

import torch

from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.codec import DocumentHeader, decode_document, encode_document, expect_names, read_limited
from collabdm.documents.extra_tensors import TensorSpec, check_extra_tensors
from collabdm.documents.outcomes import (
    DISTILLED_VERSION,
    STEPS_VERSION,
    DistilledModel,
    DistilledSet,
    DistilledSteps,
)
from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import plan_within
from collabdm.errors import DataError, DocumentError
from collabdm.images import ImageSet


class DistilledHeader(DocumentHeader):
    """Header of a DistilledSet: the plan whole, and the images of each class that each site holds."""

    method: str
    plan: dict[str, Any]
    sites: dict[str, list[int]]


def check_header(where: str, header: DistilledHeader, plan: Plan) -> None:
    """Refuse classes other than the plan's, and counts that are not one for each class."""
    if header.classes != plan.classes:
        raise DocumentError(f"{where}: classes should be those of the plan, {plan.classes}; found {header.classes}")
    check_site_counts(where, header, plan)


def write_steps(made: DistilledSteps, path: Path | str) -> None:
    """Write DistilledSteps as safetensors."""
    header = DistilledHeader(
        format="collabdm/steps",
        version=STEPS_VERSION,
        classes=made.plan.classes,
        **what_made(made),
    )
    tensors = {"images": made.images, "labels": made.labels, "rates": made.rates}
    atomic_write(Path(path), encode_document(tensors, header))


def read_steps(path: Path | str) -> DistilledSteps:
    """Read DistilledSteps. Raises DocumentError where the file holds none."""
    where = str(path)
    header, tensors = decode_document(
        read_limited(Path(path), DISTILLED_LIMIT), where, DistilledHeader, "collabdm/steps", STEPS_VERSION
    )
    plan = plan_within(where, header.plan)
    check_header(where, header, plan)
    images = tensors.get("images", torch.zeros(0))
    count, each = (*images.shape, 0, 0)[:2]
    declared = {
        "images": TensorSpec(plan.image_dtype, (count, each, *plan.image.shape)),
        "labels": TensorSpec(torch.float32, (count, each, len(plan.classes))),
        "rates": TensorSpec(torch.float32, (count,)),
    }
    check_extra_tensors(declared, tensors, where)
    if not count * each or bool((tensors["rates"] <= 0).any()):
        raise DocumentError(f"{where}: there should be at least one step, with rates above 0")
    return DistilledSteps(**tensors, plan=plan, sites=header.sites, method=header.method, versions=header.versions)


DISTILLED_LIMIT = 2**32


def what_made(outcome: DistilledSet | DistilledSteps | DistilledModel) -> dict[str, Any]:
    """The fields of a header that say of any outcome where it comes from."""
    plan = outcome.plan.model_dump(mode="json")
    return {"versions": outcome.versions, "method": outcome.method, "plan": plan, "sites": outcome.sites}


def check_site_counts(where: str, header: DistilledHeader, plan: Plan) -> None:
    """Refuse counts of sites that are not one for each class. Raises DocumentError."""
    if any(len(held) != len(plan.classes) or min(held) < 0 for held in header.sites.values()):
        raise DocumentError(f"{where}: each site should have {len(plan.classes)} counts, none negative")


def write_distilled(distilled: DistilledSet, path: Path | str) -> None:
    """Write a DistilledSet as safetensors."""
    header = DistilledHeader(
        format="collabdm/distilled",
        version=DISTILLED_VERSION,
        classes=distilled.images.classes,
        **what_made(distilled),
    )
    tensors = {"images": distilled.images.images, "labels": distilled.images.labels}
    atomic_write(Path(path), encode_document(tensors, header))


def read_distilled(path: Path | str) -> DistilledSet:
    """Read a DistilledSet. Raises DocumentError where it is not one."""
    where = str(path)
    content = read_limited(Path(path), DISTILLED_LIMIT)
    header, tensors = decode_document(content, where, DistilledHeader, "collabdm/distilled", DISTILLED_VERSION)
    plan = plan_within(where, header.plan)
    expect_names(where, tensors, {"images", "labels"})
    try:
        images = ImageSet(tensors["images"], tensors["labels"], header.classes)
    except DataError as error:
        raise DocumentError(f"{where}: {error}") from error
    if images.images.dtype != plan.image_dtype:
        raise DocumentError(f"{where}: images should be {plan.images}; found {images.images.dtype}")
    if bool((images.labels[1:] < images.labels[:-1]).any()):
        raise DocumentError(f"{where}: labels should ascend")
    if header.classes != plan.classes or images.shape != plan.image.shape:
        raise DocumentError(f"{where}: images should be of the plan's classes and shape {plan.image.shape}")
    counts = set(images.counts().tolist())
    if counts == {0} or (plan.options is None and not counts <= {0, plan.ipc}):
        raise DocumentError(f"{where}: there should be {plan.ipc} images of a class; found {sorted(counts)}")
    check_site_counts(where, header, plan)
    return DistilledSet(images, plan, header.sites, header.method, header.versions)

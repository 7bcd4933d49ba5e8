"""Read and write DistilledSet and DistilledSteps as safetensors documents.

Reference: docs/format.md, "DistilledSet" and "Steps".
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.codec import (
    DocumentHeader,
    decode_document,
    encode_document,
    read_limited,
)
from collabdm.documents.extra_tensors import (
    DeclaredTensors,
    TensorSpec,
    check_extra_tensors,
    check_names,
)
from collabdm.documents.outcomes import (
    DISTILLED_VERSION,
    STEPS_VERSION,
    DistilledModel,
    DistilledSet,
    DistilledSteps,
    check_site_counts,
)
from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import embedded_plan
from collabdm.errors import DataError, DocumentError
from collabdm.images import ImageSet

DISTILLED_FORMAT = "collabdm/distilled"
STEPS_FORMAT = "collabdm/steps"
DISTILLED_LIMIT = 2**32  # the most bytes of any outcome


class DistilledHeader(DocumentHeader):
    """The header of an outcome: its method, the whole Plan, and the sites' images per class."""

    method: str
    plan: dict[str, Any]
    sites: dict[str, list[int]]


def provenance_fields(outcome: DistilledSet | DistilledSteps | DistilledModel) -> dict[str, Any]:
    """Return the header fields that state where an outcome comes from."""
    return {
        "versions": outcome.versions,
        "method": outcome.method,
        "plan": outcome.plan.model_dump(mode="json"),
        "sites": outcome.sites,
    }


def check_header(where: str, header: DistilledHeader, plan: Plan) -> None:
    """Check the classes and counts of an outcome against its Plan.

    Args:
        where: The name of the file, for errors.
        header: The decoded header.
        plan: The Plan in that header.

    Raises:
        DocumentError: The classes differ from the Plan's, or a site does not have one count per
            class.
    """
    if header.classes != plan.classes:
        raise DocumentError(
            f"{where}: classes should be those of the plan, {plan.classes}; found {header.classes}"
        )
    try:
        check_site_counts(plan, header.sites)
    except DocumentError as error:
        raise DocumentError(f"{where}: {error}") from error


def write_distilled(distilled: DistilledSet, path: Path | str) -> None:
    """Write a DistilledSet. Raises OutputError."""
    header = DistilledHeader(
        format=DISTILLED_FORMAT,
        version=DISTILLED_VERSION,
        classes=distilled.images.classes,
        **provenance_fields(distilled),
    )
    tensors = {"images": distilled.images.images, "labels": distilled.images.labels}
    atomic_write(Path(path), encode_document(tensors, header))


def read_distilled(path: Path | str) -> DistilledSet:
    """Read a DistilledSet. Raises DocumentError if the file is not a DistilledSet."""
    where = str(path)
    content = read_limited(Path(path), DISTILLED_LIMIT)
    header, tensors = decode_document(
        content, where, DistilledHeader, DISTILLED_FORMAT, DISTILLED_VERSION
    )
    plan = embedded_plan(where, header.plan)

    check_names(where, tensors, {"images", "labels"})
    try:
        images = ImageSet(tensors["images"], tensors["labels"], header.classes)
    except DataError as error:
        raise DocumentError(f"{where}: {error}") from error

    check_header(where, header, plan)
    _check_images(where, images, plan)
    return DistilledSet(images, plan, header.sites, header.method, header.versions)


def _check_images(where: str, images: ImageSet, plan: Plan) -> None:
    """Check type, shape, order and number of distilled images. Raises DocumentError."""
    if images.images.dtype != plan.image_dtype:
        raise DocumentError(f"{where}: images should be {plan.images}; found {images.images.dtype}")
    if images.shape != plan.image.shape:
        raise DocumentError(
            f"{where}: images should be {plan.image.shape}, as in the plan; found {images.shape}"
        )
    if bool((images.labels[1:] < images.labels[:-1]).any()):
        raise DocumentError(f"{where}: labels should ascend; found them in another order")

    counts = set(images.counts().tolist())
    if counts == {0} or (plan.options is None and not counts <= {0, plan.ipc}):
        raise DocumentError(
            f"{where}: there should be {plan.ipc} images of a class; found {sorted(counts)}"
        )


def write_steps(steps: DistilledSteps, path: Path | str) -> None:
    """Write DistilledSteps. Raises OutputError."""
    header = DistilledHeader(
        format=STEPS_FORMAT,
        version=STEPS_VERSION,
        classes=steps.plan.classes,
        **provenance_fields(steps),
    )
    tensors = {"images": steps.images, "labels": steps.labels, "rates": steps.rates}
    atomic_write(Path(path), encode_document(tensors, header))


def read_steps(path: Path | str) -> DistilledSteps:
    """Read DistilledSteps. Raises DocumentError if the file does not contain them."""
    where = str(path)
    content = read_limited(Path(path), DISTILLED_LIMIT)
    header, tensors = decode_document(content, where, DistilledHeader, STEPS_FORMAT, STEPS_VERSION)

    plan = embedded_plan(where, header.plan)
    check_header(where, header, plan)
    check_extra_tensors(_steps_declared(plan, tensors), tensors, where)

    if not tensors["labels"].numel():
        raise DocumentError(
            f"{where}: there should be at least one step of one image; "
            f"found labels of shape {tuple(tensors['labels'].shape)}"
        )
    if bool((tensors["rates"] <= 0).any()):
        raise DocumentError(
            f"{where}: rates should be above 0; found {float(tensors['rates'].min())}"
        )

    return DistilledSteps(
        **tensors, plan=plan, sites=header.sites, method=header.method, versions=header.versions
    )


def _steps_declared(plan: Plan, tensors: dict[str, Tensor]) -> DeclaredTensors:
    """Return the required tensors, given the numbers of steps and images in `images`."""
    images = tensors.get("images", torch.zeros(0))
    steps, each = (*images.shape, 0, 0)[:2]
    return {
        "images": TensorSpec(plan.image_dtype, (steps, each, *plan.image.shape)),
        "labels": TensorSpec(torch.float32, (steps, each, len(plan.classes))),
        "rates": TensorSpec(torch.float32, (steps,)),
    }

"""Images as extra tensors of a contribution: their number, declaration, packing and union."""

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from jaxtyping import Float32, Int64
from pydantic import Field, model_validator
from torch import Tensor

from collabdm.documents.extra_tensors import DeclaredTensors, TensorSpec
from collabdm.documents.frozen_model import FrozenModel, Positive
from collabdm.documents.outcomes import DistilledSet
from collabdm.documents.plan import Plan
from collabdm.errors import PlanError
from collabdm.images import ImageSet
from collabdm.methods.base import Contributions, checked_in_order, site_counts, stored_pixels
from collabdm.version import versions

LABEL_BYTES = 8


class OwnImages(FrozenModel):
    """The options: each site sends `images` images, or as many as fit into `bytes`.

    If neither is set, each site sends an equal share of the set.
    """

    images: Positive | None = None
    bytes: Annotated[int, Field(ge=1, le=2**40)] | None = None

    @model_validator(mode="after")
    def _one_count(self) -> "OwnImages":
        if self.images is not None and self.bytes is not None:
            raise ValueError("either `images` or `bytes` should be given; found both")
        return self


def images_sent(plan: Plan, options: OwnImages) -> int:
    """Compute the number k of images that each site sends.

    Raises:
        PlanError: one image has more than `bytes` bytes.
    """
    if options.bytes is None:
        return options.images or math.ceil(plan.ipc * len(plan.classes) / plan.sites)

    image_bytes = TensorSpec(plan.image_dtype, plan.image.shape).nbytes + LABEL_BYTES
    if options.bytes < image_bytes:
        raise PlanError(
            f"`options.bytes` should be at least {image_bytes}, those of an image; "
            f"found {options.bytes}"
        )
    return options.bytes // image_bytes


def declare_images(plan: Plan, k: int) -> DeclaredTensors:
    """Declare k images and their labels as extra tensors."""
    return {
        "images": TensorSpec(plan.image_dtype, (k, *plan.image.shape)),
        "labels": TensorSpec(torch.int64, (k,)),
    }


def image_tensors(
    plan: Plan, pixels: Float32[Tensor, "k c h w"], labels: Int64[Tensor, " k"]
) -> dict[str, Tensor]:
    """Convert images and labels to the declared tensors.

    Args:
        plan: the plan, which states how images are stored.
        pixels: the images, in 0 .. 1.
        labels: their classes.

    Returns:
        The tensors by name.
    """
    return {"images": stored_pixels(plan, pixels), "labels": labels}


def union(
    plan: Plan, contributions: Contributions, declared: DeclaredTensors, allow_missing: bool
) -> DistilledSet:
    """Unite the images of all sites in a set, sorted by class.

    Args:
        plan: the plan.
        contributions: the contributions, in any order.
        declared: the extra tensors that the method declares.
        allow_missing: accept a round in which a class is missing at every site.

    Returns:
        The set.

    Raises:
        DocumentError: a contribution does not answer the plan, or a class is missing and
            `allow_missing` is False.
    """
    ordered = checked_in_order(plan, contributions, declared, allow_missing)
    labels = torch.cat([contribution.extra_tensors["labels"] for contribution in ordered])
    images = torch.cat([contribution.extra_tensors["images"] for contribution in ordered])

    order = labels.argsort(stable=True)
    images_by_class = ImageSet(images[order], labels[order], plan.classes)
    return DistilledSet(images_by_class, plan, site_counts(plan, ordered), plan.method, versions())


def balanced_labels(images: int, present: Sequence[int]) -> list[int]:
    """Spread `images` images evenly over the classes present, and return their ascending labels.

    The first classes get one more image each if the number does not divide evenly.

    >>> balanced_labels(5, [0, 3])
    [0, 0, 0, 3, 3]
    """
    each, rest = divmod(images, len(present))
    return [y for rank, y in enumerate(present) for _ in range(each + (rank < rest))]

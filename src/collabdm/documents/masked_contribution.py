"""A masked contribution: sums of one site, from which nothing can be read until all are added.

A site adds its mask modulo 2^bits to each whole number, so every number in the file is uniformly
random; the masks of all sites add up to zero (`collabdm.privacy.masks`). The tensors, in the order
in which the mask's stream covers them:

    check     8 zeros; their sum over all sites shows whether the masks cancel
    totals    the number of images of each class, at most `Plan.largest_class`
    sites     1 for each class that the site has; only with uniform merging
    sums      the weighted class means of each step, in fixed point (`fixed_point`)

Reference: docs/format.md, "Masked contribution".
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from collabdm.documents.codec import (
    DocumentHeader,
    decode_document,
    encode_document,
    encoded_bytes,
)
from collabdm.documents.extra_tensors import DeclaredTensors, TensorSpec, check_extra_tensors
from collabdm.documents.plan import Plan
from collabdm.documents.protection import Masking
from collabdm.errors import DocumentError, PlanError
from collabdm.version import versions

MASKED_FORMAT = "collabdm/masked"
MASKED_VERSION = 1
CHECK_NUMBERS = 8

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True)
class MaskedContribution:
    """One site's masked numbers, by the names of the tensors."""

    site: str
    plan_digest: str
    numbers: dict[str, Tensor]
    versions: dict[str, str] = field(default_factory=dict)


class MaskedHeader(DocumentHeader):
    """The header of a masked contribution; `content` is the SHA-256 of its tensors."""

    site: str
    plan_digest: Digest
    content: Digest


def masking_of(plan: Plan) -> Masking:
    """Return the masking of a plan. Raises PlanError if the plan has none."""
    if plan.masking is None:
        raise PlanError("`masking` should be in the plan; found a plan of open contributions")
    return plan.masking


def masked_tensors(plan: Plan, width: int) -> DeclaredTensors:
    """Declare the tensors of a masked contribution, in the order of the mask's stream.

    `width` is r, the number of values in a class mean. Raises PlanError for a plan without masks.
    """
    dtype = torch.int32 if masking_of(plan).bits == 32 else torch.int64
    classes = len(plan.classes)

    shapes: dict[str, tuple[int, ...]] = {"check": (CHECK_NUMBERS,), "totals": (classes,)}
    if plan.merging == "uniform":
        shapes["sites"] = (classes,)
    shapes["sums"] = (plan.steps, classes, width)
    return {name: TensorSpec(dtype, shape) for name, shape in shapes.items()}


def content_digest(tensors: Mapping[str, Tensor]) -> str:
    """Compute the SHA-256 of the bytes of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(tensors[name].contiguous().numpy().tobytes())
    return digest.hexdigest()


def masked_bytes(masked: MaskedContribution, classes: tuple[str, ...]) -> bytes:
    """Encode a masked contribution to a plan with these classes as bytes."""
    header = _header(masked, classes, content_digest(masked.numbers))
    return encode_document(masked.numbers, header)


def masked_size(plan: Plan, width: int, site: str) -> int:
    """Return the bytes of a site's masked contribution, without computing or allocating it.

    Args:
        plan: a plan with masks.
        width: r, the number of values in a class mean.
        site: the site's name.

    Returns:
        The number of bytes.
    """
    blank = MaskedContribution(site, plan.digest, {}, versions())
    header = _header(blank, plan.classes, content="0" * 64)
    return encoded_bytes(masked_tensors(plan, width), header)


def _header(masked: MaskedContribution, classes: tuple[str, ...], content: str) -> MaskedHeader:
    return MaskedHeader(
        format=MASKED_FORMAT,
        version=MASKED_VERSION,
        classes=classes,
        versions=masked.versions,
        site=masked.site,
        plan_digest=masked.plan_digest,
        content=content,
    )


def decode_masked(
    content: bytes, plan: Plan, width: int, where: str = "masked contribution"
) -> MaskedContribution:
    """Decode and check a masked contribution.

    Args:
        content: the bytes of the whole file.
        plan: the plan that it should answer.
        width: r, the number of values in a class mean.
        where: the name of the file, for errors.

    Returns:
        The masked contribution.

    Raises:
        DocumentError: the bytes are not a masked contribution to the plan.
    """
    header, tensors = decode_document(content, where, MaskedHeader, MASKED_FORMAT, MASKED_VERSION)
    where = f"{where}: masked contribution of {header.site!r}"

    check_answers(plan, header.site, header.plan_digest, where)
    if header.classes != plan.classes:
        raise DocumentError(f"{where}: classes should be {plan.classes}; found {header.classes}")
    check_extra_tensors(masked_tensors(plan, width), tensors, where)
    check_content(tensors, header.content, where)
    return MaskedContribution(header.site, header.plan_digest, tensors, header.versions)


def check_answers(plan: Plan, site: str, digest: str, where: str) -> None:
    """Check that a document answers a plan, and comes from one of its sites.

    Args:
        plan: the plan.
        site: the name of the site in the document.
        digest: the digest of the plan in the document.
        where: the name of the document, for errors.

    Raises:
        DocumentError: it answers another plan, or the plan does not name the site.
    """
    if digest != plan.digest:
        raise DocumentError(
            f"{where}: plan digest should be {plan.digest[:16]}…; found {digest[:16]}…: it answers "
            "another plan, whose masks do not cancel here; ask the site for one with this plan"
        )
    try:
        plan.check_site(site)
    except PlanError as error:
        raise DocumentError(f"{where}: {error}") from error


def check_content(tensors: Mapping[str, Tensor], digest: str, where: str) -> None:
    """Check the digest of a document's tensors.

    Args:
        tensors: the tensors.
        digest: the digest in the header.
        where: the name of the document, for errors.

    Raises:
        DocumentError: the tensors were changed.
    """
    found = content_digest(tensors)
    if found != digest:
        raise DocumentError(
            f"{where}: content digest should be {digest[:16]}…; found {found[:16]}…: the file was "
            "changed on its way; ask the site to send it again"
        )

"""An unmasking: what a remaining site answers after other sites have dropped out of a masked round.

It contains the keys of the masks that this site shares with the missing sites, and only with those,
encrypted; and tokens, with which the documents of the other remaining sites can be decrypted.
Nothing can be decrypted until all remaining sites have answered for the same missing sites
(`collabdm.privacy.unmasking`).

    keys      U8 (missing sites, 32)            in the order of the names
    tokens    U8 (other remaining sites, 32)    in the order of the names

Reference: docs/format.md, "Unmasking".
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from collabdm.documents.codec import DocumentHeader, decode_document, encode_document
from collabdm.documents.extra_tensors import DeclaredTensors, TensorSpec, check_extra_tensors
from collabdm.documents.masked_contribution import (
    Digest,
    check_answers,
    check_content,
    content_digest,
    masking_of,
)
from collabdm.documents.plan import Plan
from collabdm.errors import DocumentError, PlanError

UNMASKING_FORMAT = "collabdm/unmasking"
UNMASKING_VERSION = 1
KEY_BYTES = 32


@dataclass(frozen=True)
class Unmasking:
    """One remaining site's answer about the missing sites, whose names ascend."""

    site: str
    plan_digest: str
    missing: tuple[str, ...]
    keys: Tensor
    tokens: Tensor
    versions: dict[str, str] = field(default_factory=dict)


class UnmaskingHeader(DocumentHeader):
    """The header of an unmasking; `content` is the SHA-256 of its tensors."""

    site: str
    plan_digest: Digest
    missing: tuple[str, ...]
    content: Digest


def remaining_sites(plan: Plan, missing: Iterable[str]) -> list[str]:
    """List the sites of a plan with masks that remain without the missing ones, in order.

    Raises:
        PlanError: no site is missing, a missing site is not in the plan, or fewer sites remain than
            the plan's threshold.
    """
    threshold, absent = masking_of(plan).threshold, set(missing)
    names = sorted(plan.site_names or ())

    unknown = sorted(absent - set(names))
    if unknown or not absent:
        raise PlanError(
            f"`missing` should name sites of the plan, {', '.join(names)}; "
            f"found {', '.join(unknown) or 'none'}"
        )

    remaining = [name for name in names if name not in absent]
    if len(remaining) < threshold:
        raise PlanError(
            f"at least {threshold} sites should remain, `masking.threshold` of the plan; "
            f"found {len(remaining)}: the sum of so few sites stays closed"
        )
    return remaining


def unmasking_tensors(missing: int, remaining: int) -> DeclaredTensors:
    """Declare the tensors of an unmasking, from the numbers of missing and remaining sites."""
    return {
        "keys": TensorSpec(torch.uint8, (missing, KEY_BYTES)),
        "tokens": TensorSpec(torch.uint8, (remaining - 1, KEY_BYTES)),
    }


def unmasking_bytes(unmasking: Unmasking, classes: tuple[str, ...]) -> bytes:
    """Encode an unmasking for a plan with these classes as bytes."""
    tensors = {"keys": unmasking.keys, "tokens": unmasking.tokens}
    header = UnmaskingHeader(
        format=UNMASKING_FORMAT,
        version=UNMASKING_VERSION,
        classes=classes,
        versions=unmasking.versions,
        site=unmasking.site,
        plan_digest=unmasking.plan_digest,
        missing=unmasking.missing,
        content=content_digest(tensors),
    )
    return encode_document(tensors, header)


def decode_unmasking(content: bytes, plan: Plan, where: str = "unmasking") -> Unmasking:
    """Decode and check an unmasking.

    Args:
        content: the bytes of the whole file.
        plan: the plan that it belongs to.
        where: the name of the file, for errors.

    Returns:
        The unmasking.

    Raises:
        DocumentError: the bytes are not an unmasking of the plan.
    """
    header, tensors = decode_document(
        content, where, UnmaskingHeader, UNMASKING_FORMAT, UNMASKING_VERSION
    )
    where = f"{where}: unmasking of {header.site!r}"

    check_answers(plan, header.site, header.plan_digest, where)
    if list(header.missing) != sorted(set(header.missing)) or header.site in header.missing:
        raise DocumentError(
            f"{where}: the missing sites should be others, in the order of their names; "
            f"found {', '.join(header.missing)}"
        )
    try:
        remaining = remaining_sites(plan, header.missing)
    except PlanError as error:
        raise DocumentError(f"{where}: {error}") from error

    check_extra_tensors(unmasking_tensors(len(header.missing), len(remaining)), tensors, where)
    check_content(tensors, header.content, where)
    return Unmasking(
        header.site, header.plan_digest, header.missing, **tensors, versions=header.versions
    )

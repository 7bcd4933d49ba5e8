"""The three documents on disk: Plan as JSON, Contribution and DistilledSet as safetensors.

docs/format.md states the formats in MUST and MAY. No pickle is read or written. A file is written
beside its place and moved there when it is whole, so nobody ever sees half a file. A file is checked
before it is used: size first, then structure, values, and the plan it answers.
"""

import json
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from collabdm.documents.frozen_model import validation_message
from collabdm.errors import DocumentError

HEADER_KEY = "collabdm"  # one metadata key: safetensors does not order several


class DocumentHeader(BaseModel):
    """What every header begins with."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    format: str
    version: int
    classes: tuple[str, ...]
    versions: dict[str, str]


Header = TypeVar("Header", bound=DocumentHeader)


def encode_document(tensors: dict[str, Tensor], header: DocumentHeader) -> bytes:
    """Safetensors bytes of a document: its tensors, and its header as the one metadata text."""
    return safetensors.torch.save(contiguous(tensors), {HEADER_KEY: header.model_dump_json()})


def contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as safetensors wants them: each in order and in memory of its own; copied only where it is not."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        whole = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
        own = whole and all(tensor.data_ptr() != other.data_ptr() for other in found.values())
        found[name] = tensor if own else tensor.clone(memory_format=torch.contiguous_format)
    return found


def read_metadata(content: bytes) -> dict[str, str]:
    """The metadata of safetensors bytes (8 bytes of length, then JSON)."""
    length = int.from_bytes(content[:8], "little")
    return json.loads(content[8 : 8 + length])["__metadata__"]


def decode_document(
    content: bytes, where: str, model: type[Header], kind: str, version: int
) -> tuple[Header, dict[str, Tensor]]:
    """Header and tensors of a document from its bytes. Raises DocumentError."""
    try:
        tensors = safetensors.torch.load(content)
        text = json.loads(read_metadata(content)[HEADER_KEY], object_pairs_hook=distinct_keys)
    except (KeyError, TypeError, ValueError, RecursionError, safetensors.SafetensorError) as error:
        raise DocumentError(
            f"{where} should be a whole safetensors file with a `{HEADER_KEY}` header; found one that is "
            f"damaged, cut off or of another kind ({error}): ask for it again"
        ) from error
    check_format(where, text, kind, version)
    try:
        return model.model_validate(text), tensors
    except ValidationError as error:
        raise DocumentError(f"{where}: header: {validation_message(error)}") from error


def format_of(path: Path) -> str:
    """The kind of document that a safetensors file says it is; empty where it says nothing."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            return str(json.loads((file.metadata() or {})[HEADER_KEY])["format"])
    except (OSError, KeyError, TypeError, ValueError, RecursionError, safetensors.SafetensorError):
        return ""


def check_format(where: str, document: Any, kind: str, version: int) -> None:
    found = document.get("format") if isinstance(document, dict) else None
    if found != kind:
        raise DocumentError(f"{where}: format should be {kind}; found {found!r}")
    if document.get("version") != version or isinstance(document.get("version"), bool):
        raise DocumentError(
            f"{where}: version should be {version}; found {document.get('version')!r}: "
            "it was made by another version of collabdm; use the same on both sides"
        )


def expect_names(where: str, tensors: dict[str, Tensor], names: set[str]) -> None:
    """Refuse a document with other tensors than those named. Raises DocumentError."""
    if set(tensors) != names:
        missing, unknown = sorted(names - set(tensors)), sorted(set(tensors) - names)
        raise DocumentError(f"{where}: parts should be {sorted(names)}; missing {missing}, unknown {unknown}")


def read_limited(path: Path, limit: int) -> bytes:
    """The bytes of a file, unless they are more than `limit`. Raises DocumentError."""
    try:
        size = path.stat().st_size
        if size > limit:
            raise DocumentError(f"{path} should have at most {limit:,} bytes; found {size:,}")
        return path.read_bytes()
    except OSError as error:
        raise DocumentError(f"{path} should be a readable file; {error.strerror}") from error


def distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key stands twice")
    return dict(pairs)

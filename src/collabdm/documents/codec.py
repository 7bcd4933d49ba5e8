"""Encode and decode safetensors documents: one JSON header and named tensors.

    file = N (8 bytes, little-endian), N bytes of JSON, the tensors' bytes
    JSON = dtype, shape and offsets of each tensor, and __metadata__ = {"collabdm": header}

Nothing is pickled, so reading a file executes nothing. A file is checked before it is used: its
size first, then its structure, its header, its values, and the Plan that it refers to.

Reference: docs/format.md; https://huggingface.co/docs/safetensors (the container).
"""

import json
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from collabdm.documents.extra_tensors import DeclaredTensors
from collabdm.documents.frozen_model import validation_message
from collabdm.documents.json_text import load_json
from collabdm.documents.regular_file import check_regular, read_regular
from collabdm.errors import DocumentError

HEADER_KEY = "collabdm"  # the only metadata key, because safetensors does not order several

#: names of dtypes in safetensors, in the order in which it sorts them
_NAMES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
}
_RANK = {dtype: rank for rank, dtype in enumerate(_NAMES)}

#: the errors that reading a damaged file can raise
_DAMAGED = (KeyError, TypeError, ValueError, RecursionError, safetensors.SafetensorError)


#: what to do with a document of another kind, by the expected and the found kind
ADVICE = {
    ("collabdm/distilled", "collabdm/contribution"): ": `collabdm distill` makes the set from the "
    "contributions of all sites",
    ("collabdm/distilled", "collabdm/model"): ": a model is used by `collabdm predict` and "
    "`collabdm export --form onnx`",
    ("collabdm/model", "collabdm/distilled"): ": `collabdm train` makes a model from the set",
}


class DocumentHeader(BaseModel):
    """The fields that every document's header contains."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: str
    version: int
    classes: tuple[str, ...]
    versions: dict[str, str]


Header = TypeVar("Header", bound=DocumentHeader)


def encode_document(tensors: dict[str, Tensor], header: DocumentHeader) -> bytes:
    """Encode a document as bytes."""
    return safetensors.torch.save(contiguous(tensors), {HEADER_KEY: header.model_dump_json()})


def encoded_bytes(tensors: DeclaredTensors, header: DocumentHeader) -> int:
    """Return the size of a document from the dtypes and shapes of its tensors alone.

    The tensors are written in the order of safetensors: larger numbers first, then by name.
    """
    entries: dict[str, Any] = {"__metadata__": {HEADER_KEY: header.model_dump_json()}}
    end = 0
    for name, spec in sorted(tensors.items(), key=lambda item: (-_RANK[item[1].dtype], item[0])):
        start, end = end, end + spec.nbytes
        shape = list(spec.shape)
        entries[name] = {"dtype": _NAMES[spec.dtype], "shape": shape, "data_offsets": [start, end]}

    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    return 8 + -(-len(text) // 8) * 8 + end


def contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors as safetensors requires them: contiguous, each in memory of its own.

    A tensor is copied only if it is a view or shares its memory with an earlier tensor.
    """
    separate: dict[str, Tensor] = {}

    for name, tensor in tensors.items():
        whole = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
        shared = any(tensor.data_ptr() == other.data_ptr() for other in separate.values())
        copied = not whole or shared
        separate[name] = tensor.clone(memory_format=torch.contiguous_format) if copied else tensor

    return separate


def read_metadata(content: bytes) -> dict[str, str]:
    """Read the metadata of safetensors bytes. Raises KeyError, TypeError or ValueError."""
    length = int.from_bytes(content[:8], "little")
    return load_json(content[8 : 8 + length])["__metadata__"]


def decode_document(
    content: bytes, where: str, model: type[Header], kind: str, version: int
) -> tuple[Header, dict[str, Tensor]]:
    """Decode a document.

    Args:
        content: The bytes of the whole file.
        where: The name of the document, for errors.
        model: The class of its header.
        kind: The expected `format`, such as `collabdm/contribution`.
        version: The expected `version`.

    Returns:
        The validated header, and the tensors by name. The tensors are not checked yet.

    Raises:
        DocumentError: The bytes are damaged, the kind or the version differs, or the header is
            invalid.
    """
    try:
        tensors = safetensors.torch.load(content)
        fields = load_json(read_metadata(content)[HEADER_KEY])
    except _DAMAGED as error:
        raise DocumentError(
            f"{where} should be a whole safetensors file with a `{HEADER_KEY}` header; found one "
            f"that is damaged, cut off or of another kind ({error}): ask for it again"
        ) from error

    check_format(where, fields, kind, version)
    try:
        return model.model_validate(fields), tensors
    except ValidationError as error:
        raise DocumentError(f"{where}: header: {validation_message(error)}") from error


def format_of(path: Path) -> str:
    """Read the `format` in the header of a safetensors file; empty if there is no such field."""
    try:
        check_regular(path)
        with safetensors.safe_open(path, "pt") as file:
            return str(load_json((file.metadata() or {})[HEADER_KEY])["format"])
    except (OSError, *_DAMAGED):
        return ""


def check_format(where: str, fields: Any, kind: str, version: int) -> None:
    """Check the kind and the version that a document states.

    Args:
        where: The name of the document, for errors.
        fields: Its decoded JSON.
        kind: The expected `format`.
        version: The expected `version`.

    Raises:
        DocumentError: The kind or the version differs.
    """
    stated = fields.get("format") if isinstance(fields, dict) else None
    if stated != kind:
        advice = ADVICE.get((kind, str(stated)), "")
        raise DocumentError(f"{where}: format should be {kind}; found {stated!r}{advice}")

    number = fields.get("version")
    if number != version or isinstance(number, bool):
        raise DocumentError(
            f"{where}: version should be {version}; found {number!r}: "
            "it was made by another version of collabdm; use the same on both sides"
        )


def read_limited(path: Path, limit: int) -> bytes:
    """Read a file of at most `limit` bytes. Raises DocumentError before reading a larger one."""
    try:
        size = check_regular(path)
        if size > limit:
            raise DocumentError(f"{path} should have at most {limit:,} bytes; found {size:,}")

        return read_regular(path, limit)
    except OSError as error:
        raise DocumentError(f"{path} should be a readable file; {error.strerror}") from error

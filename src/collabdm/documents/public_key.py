"""The public key of a site for masks, a JSON file that the site sends to the organiser.

    {"format": "collabdm/public-key", "version": 1, "site": "north", "key": "64 hexadecimal digits"}

Reference: RFC 7748 (X25519); docs/format.md, "Public key".
"""

import json
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from collabdm.documents.codec import check_format, read_limited
from collabdm.documents.frozen_model import FrozenModel, SiteName, validation_message
from collabdm.documents.json_text import load_json
from collabdm.errors import DocumentError

PUBLIC_KEY_FORMAT = "collabdm/public-key"
PUBLIC_KEY_VERSION = 1
PUBLIC_KEY_LIMIT = 4096  # bytes


class PublicKey(FrozenModel):
    """A site's name and its public X25519 key, in hexadecimal."""

    site: SiteName
    key: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def public_key_bytes(public: PublicKey) -> bytes:
    """Encode a public key as bytes."""
    fields = {"format": PUBLIC_KEY_FORMAT, "version": PUBLIC_KEY_VERSION} | public.model_dump()
    return (json.dumps(fields, indent=2) + "\n").encode()


def read_public_key(path: Path) -> PublicKey:
    """Read a public key. Raises DocumentError if the file is not one."""
    content = read_limited(path, PUBLIC_KEY_LIMIT)
    try:
        fields = load_json(content)
    except ValueError as error:
        raise DocumentError(
            f"{path} should be a public key, as `collabdm keys` writes it; found text that is not "
            "JSON"
        ) from error

    check_format(str(path), fields, PUBLIC_KEY_FORMAT, PUBLIC_KEY_VERSION)
    try:
        return PublicKey(**{k: v for k, v in fields.items() if k not in ("format", "version")})
    except (ValidationError, TypeError) as error:
        text = validation_message(error) if isinstance(error, ValidationError) else str(error)
        raise DocumentError(f"{path}: {text}") from error

"""The secret of a site, and the seed of the draws that nobody else may know.

A site draws batches of its images. If it drew them from the plan's seed and its name alone, the
server would know the positions of the images behind each mean. Instead

    seed = first 63 bits of HMAC-SHA256(secret, plan digest, site)

where the secret is 32 bytes from the operating system's generator, stored once in the site's
private folder. Repeating a command on the same machine thus gives the same bytes.

Reference: H. Krawczyk, M. Bellare, R. Canetti, "HMAC: keyed-hashing for message authentication",
RFC 2104, 1997.
"""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from collabdm.documents.atomic_write import atomic_write
from collabdm.errors import OutputError
from collabdm.privacy.site_folder import FOLDER_VARIABLE, site_folder

SECRET_BYTES = 32
SECRET_FILE = "secret"


def secret_seed(plan_digest: str, site: str) -> int:
    """Compute the seed of a site's own draws for a plan.

    Raises OutputError if the secret can neither be read nor created.
    """
    message = "\x1f".join((plan_digest, site)).encode()
    digest = hmac.new(site_secret(), message, hashlib.sha256).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def site_secret() -> bytes:
    """Read the secret of the sites of this user, and create it if there is none.

    Raises OutputError.
    """
    path = site_folder() / SECRET_FILE
    try:
        if not path.exists():
            _create(path)
        secret = path.read_bytes()
    except OSError as error:
        raise OutputError(
            f"{path} should be a file that this user may read and write; {error.strerror}: name "
            f"another folder in {FOLDER_VARIABLE}"
        ) from error

    if len(secret) != SECRET_BYTES:
        raise OutputError(
            f"{path} should have {SECRET_BYTES} bytes; found {len(secret)}: remove it, and a new "
            "one is created; contributions to the same plan are then different"
        )
    return secret


def _create(path: Path) -> None:
    """Create the secret, unless another process creates it at the same time. Raises OSError."""
    own = path.with_name(f".{SECRET_FILE}.{secrets.token_hex(8)}")
    atomic_write(own, secrets.token_bytes(SECRET_BYTES), private=True)
    try:
        os.link(own, path)  # fails if the file exists, so that one secret wins
    except FileExistsError:
        pass
    finally:
        own.unlink()

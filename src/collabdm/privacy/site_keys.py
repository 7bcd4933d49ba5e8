"""The X25519 key pair of a site, from which it derives the masks that it shares with other sites.

    NAME.mask.key    the private key, PEM (PKCS #8); it never leaves the site
    NAME.pub.json    the public key, which the organiser lists in the plan

Reference: A. Langley, M. Hamburg, S. Turner, "Elliptic curves for security", RFC 7748, 2016.
"""

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from collabdm.documents.atomic_write import write_once
from collabdm.documents.codec import read_limited
from collabdm.documents.frozen_model import SITE_NAME, SITE_NAME_RULE
from collabdm.documents.masked_contribution import masking_of
from collabdm.documents.plan import Plan
from collabdm.documents.public_key import PublicKey, public_key_bytes
from collabdm.errors import CollabDMError, OutputError
from collabdm.privacy.site_folder import site_folder

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

PRIVATE_KEY_LIMIT = 4096  # bytes


class SiteKeyError(CollabDMError):
    """A site's private key is missing, damaged, or not the one in the plan."""


def private_key_path(site: str, folder: Path | None = None) -> Path:
    """Return the path of a site's private key; by default in the site's private folder."""
    return (folder or site_folder()) / f"{site}.mask.key"


def public_key_path(site: str, folder: Path | None = None) -> Path:
    """Return the path of a site's public key; by default in the site's private folder."""
    return (folder or site_folder()) / f"{site}.pub.json"


def create_keys(site: str, folder: Path | None = None) -> Path:
    """Create the key pair of a site from the operating system's generator.

    Returns the path of the public key. Raises SiteKeyError if a plan does not allow the name, and
    OutputError if a file exists already: a lost key cannot be made again, so none is overwritten.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    if re.fullmatch(SITE_NAME, site) is None:
        raise SiteKeyError(f"`site` {SITE_NAME_RULE}; found {site!r}")

    private, public = private_key_path(site, folder), public_key_path(site, folder)
    for path in (private, public):
        if path.exists():
            raise OutputError(f"{path} should not exist yet; it does: keys are never overwritten")

    key = X25519PrivateKey.generate()
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    document = public_key_bytes(PublicKey(site=site, key=public_hex(key)))

    for path, content in ((private, pem), (public, document)):
        if not write_once(path, content):
            raise OutputError(f"{path} should not exist yet; it does: keys are never overwritten")
    return public


def public_hex(private: "X25519PrivateKey") -> str:
    """Return the public key of a private key, in hexadecimal."""
    return private.public_key().public_bytes_raw().hex()


def read_private_key(path: Path) -> "X25519PrivateKey":
    """Read a private key.

    Raises SiteKeyError if the file is missing, damaged, or readable by others than its owner.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if not path.exists():
        raise SiteKeyError(
            f"{path} should be this site's private key; found no file: make one with "
            "`collabdm keys`, or name its file"
        )
    try:
        key = load_pem_private_key(read_limited(path, PRIVATE_KEY_LIMIT), None)
    except (TypeError, ValueError, UnsupportedAlgorithm) as error:
        raise SiteKeyError(f"{path} should be a private key, PEM; found something else") from error

    if not isinstance(key, X25519PrivateKey):
        raise SiteKeyError(
            f"{path} should be an X25519 key, as `collabdm keys` makes it; found another kind: a "
            "node's key for Flower is not the key for masks"
        )
    if os.name == "posix" and path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise SiteKeyError(f"{path} should be readable only by its owner: chmod 600 {path}")
    return key


def site_key(plan: Plan, site: str, path: Path | None) -> "X25519PrivateKey":
    """Read a site's private key for a plan with masks.

    Args:
        plan: the plan.
        site: the site's name.
        path: the file; None uses the key of this name in the site's private folder.

    Returns:
        The key, whose public part is the one that the plan lists for the site.

    Raises:
        PlanError: the plan has no masks, or does not name the site.
        SiteKeyError: there is no such key, or the plan lists another one.
    """
    plan.check_site(site)
    listed = masking_of(plan).keys[site]
    where = path or private_key_path(site)
    private = read_private_key(where)

    found = public_hex(private)
    if found != listed:
        raise SiteKeyError(
            f"the public key of {site} in the plan should be that of {where}, {found[:16]}…; "
            f"found {listed[:16]}…: use the key that the organiser got, or ask for a plan with "
            "this one"
        )
    return private

"""Pairwise masks, which cancel when the numbers of all sites are added.

    mask_k   = sum over j != k of  s(k, j) PRG(key_kj)     modulo 2^bits
    key_kj   = HKDF-SHA256(X25519(sk_k, pk_j), info = domain, plan digest, both names in order)
    s(k, j)  = 1 if k < j, else -1                         (names compared by their characters)

PRG is the ChaCha20 stream, read as little-endian numbers of `bits` bits. Since s(k, j) = -s(j, k),
the masks of all sites of a plan add up to 0. Each key depends on the plan, so each mask is used for
one vector only, and masks of different plans do not cancel.

Without the masks of double blinding, a site that has sent its numbers must not be declared missing.

References: K. Bonawitz et al., "Practical secure aggregation for privacy-preserving machine
learning", CCS 2017, section 4 (pairwise masks). RFC 7748 (X25519), RFC 5869 (HKDF), RFC 8439
(ChaCha20).
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from collabdm.documents.masked_contribution import masking_of
from collabdm.documents.plan import Plan
from collabdm.errors import PlanError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

DOMAIN = "collabdm/masks/1"
SEPARATOR = "\x1f"
KEY_BYTES = 32
ORIGIN = bytes(16)  # block counter 0 and nonce 0: each key generates a single stream


def word_type(plan: Plan) -> np.dtype:
    """Return the type of a masked number: unsigned, little-endian, of `masking.bits` bits."""
    return np.dtype("<u4" if masking_of(plan).bits == 32 else "<u8")


def agree(private: "X25519PrivateKey", public: str, *context: str) -> bytes:
    """Derive a key that only the owners of two X25519 keys know.

    Args:
        private: one's own private key.
        public: the other's public key, in hexadecimal.
        context: texts on which both agree; different texts give independent keys.

    Returns:
        32 bytes.

    Raises:
        PlanError: the public key is not a point of the curve that keeps a secret.
    """
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(public)))
    except ValueError as error:
        raise PlanError(
            f"`masking.keys` should be X25519 keys; found {public[:16]}…, which is of low order"
        ) from error

    info = SEPARATOR.join([DOMAIN, *context]).encode()
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=info).derive(shared)


def mask_key(plan: Plan, site: str, other: str, private: "X25519PrivateKey") -> bytes:
    """Derive the key of the masks that two sites share in a plan, from the key of one of them.

    Args:
        plan: the plan.
        site: the owner of the private key.
        other: the other site.
        private: the private key.

    Returns:
        32 bytes, the same for both sites.

    Raises:
        PlanError: the other site's key in the plan is not valid.
    """
    names = sorted([site, other])
    return agree(private, masking_of(plan).keys[other], "mask", plan.digest, *names)


def stream(key: bytes, words: int, dtype: np.dtype) -> np.ndarray:
    """Generate the numbers of a key: the ChaCha20 stream from its beginning.

    Args:
        key: 32 bytes.
        words: how many numbers.
        dtype: the type of a number.

    Returns:
        A vector of that length.
    """
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

    generator = Cipher(ChaCha20(key, ORIGIN), mode=None).encryptor()
    return np.frombuffer(generator.update(bytes(words * dtype.itemsize)), dtype)


def mask(plan: Plan, site: str, private: "X25519PrivateKey", words: int) -> np.ndarray:
    """Compute the mask of a site.

    Args:
        plan: the plan.
        site: the site's name.
        private: the site's private key.
        words: how many numbers are masked.

    Returns:
        The mask, to be added modulo 2^bits.

    Raises:
        PlanError: the key of another site in the plan is not valid.
    """
    keys = {
        other: mask_key(plan, site, other, private)
        for other in plan.site_names or ()
        if other != site
    }
    return sum_of_streams(plan, site, keys, words)


def sum_of_streams(plan: Plan, site: str, keys: Mapping[str, bytes], words: int) -> np.ndarray:
    """Add the masks that a site shares with some other sites, with their signs.

    Args:
        plan: the plan.
        site: the site's name.
        keys: the key that it shares with each of the others.
        words: how many numbers are masked.

    Returns:
        The part of the site's mask that these others cancel.
    """
    dtype = word_type(plan)
    total = np.zeros(words, dtype)
    for other, key in keys.items():
        if site < other:
            total += stream(key, words, dtype)
        else:
            total -= stream(key, words, dtype)
    return total

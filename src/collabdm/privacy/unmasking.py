"""Open the sum of the remaining sites after others have dropped out of a masked round.

The masks that the remaining sites R share with the missing sites L do not cancel. Each remaining
site k therefore encrypts its keys for the missing sites, key_kd for d in L, and sends a token to
the document of every other remaining site:

    token_jk  = HKDF-SHA256(X25519(sk_j, pk_k), info = domain, plan digest, L, from j, to k)
    pad_k     = ChaCha20(SHA-256 of token_jk for all j in R but k, in the order of the names)
    keys_k    = (key_kd for d in L) XOR pad_k

pad_k needs the token of every other remaining site for the same L. The keys thus appear only if all
remaining sites have answered for the same missing sites: a server that names different sites to
each of them gets nothing. With the keys, the server removes the masks towards L from the sum over
R, and nothing else: the numbers of a single remaining site stay masked by those of the others.

If the server has the contribution of the only missing site, it can open that one: then nobody
should answer.

Reference: K. Bonawitz et al., "Practical secure aggregation for privacy-preserving machine
learning", CCS 2017 (recovery from dropped users; here without secret sharing).
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from collabdm.documents.masked_contribution import masking_of
from collabdm.documents.plan import Plan
from collabdm.documents.unmasking import Unmasking, remaining_sites
from collabdm.errors import PlanError
from collabdm.privacy.masks import (
    KEY_BYTES,
    agree,
    mask_key,
    stream,
    sum_of_streams,
    word_type,
)
from collabdm.version import versions

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

BYTE = np.dtype("u1")


def unmask(plan: Plan, site: str, missing: Sequence[str], private: "X25519PrivateKey") -> Unmasking:
    """Compute a remaining site's answer about missing sites.

    Args:
        plan: the plan.
        site: the remaining site.
        missing: the names of the missing sites.
        private: the remaining site's private key.

    Returns:
        The unmasking.

    Raises:
        PlanError: the site itself is missing, a name is not in the plan, too few sites remain, or
            the key of another site in the plan is not valid.
    """
    absent = tuple(sorted(set(missing)))
    remaining = remaining_sites(plan, absent)
    if site not in remaining:
        raise PlanError(f"a site that answers should not be missing itself; found {site} in both")

    others = [name for name in remaining if name != site]
    agreement = _Agreement(plan, private, absent)
    incoming = [agreement.token(other, (other, site)) for other in others]
    outgoing = [agreement.token(other, (site, other)) for other in others]

    keys = _rows([mask_key(plan, site, name, private) for name in absent])
    return Unmasking(
        site,
        plan.digest,
        absent,
        torch.from_numpy(keys ^ _pad(incoming, len(absent))),
        torch.from_numpy(_rows(outgoing)),
        versions(),
    )


def mask_of_missing(plan: Plan, unmaskings: Mapping[str, Unmasking], words: int) -> np.ndarray:
    """Compute what the masks towards the missing sites add to the sum of the remaining sites.

    Args:
        plan: the plan.
        unmaskings: the answers of all remaining sites, for the same missing sites.
        words: how many numbers are masked.

    Returns:
        The vector to subtract from the sum, modulo 2^bits.
    """
    remaining = sorted(unmaskings)
    missing = unmaskings[remaining[0]].missing
    parts = []

    for site in remaining:
        tokens = [
            _token_for(unmaskings[other].tokens, site, [n for n in remaining if n != other])
            for other in remaining
            if other != site
        ]
        keys = unmaskings[site].keys.numpy() ^ _pad(tokens, len(missing))
        of_site = {name: row.tobytes() for name, row in zip(missing, keys, strict=True)}
        parts.append(sum_of_streams(plan, site, of_site, words))
    return np.add.reduce(parts, dtype=word_type(plan))


@dataclass(frozen=True)
class _Agreement:
    """A remaining site's key, and the missing sites that it answers about."""

    plan: Plan
    private: "X25519PrivateKey"
    missing: tuple[str, ...]

    def token(self, other: str, route: tuple[str, str]) -> bytes:
        """Derive the token of a route, from this site to another or back."""
        first, last = route
        context = ("token", self.plan.digest, "from", first, "to", last, "missing", *self.missing)
        return agree(self.private, masking_of(self.plan).keys[other], *context)


def _token_for(tokens: Tensor, site: str, others: Sequence[str]) -> bytes:
    """Find the token for a site among those that another site sent to `others`."""
    return tokens[others.index(site)].numpy().tobytes()


def _pad(tokens: Sequence[bytes], keys: int) -> np.ndarray:
    """Derive the bytes that hide a site's keys from the tokens of all other remaining sites."""
    key = hashlib.sha256(b"".join(tokens)).digest()
    return stream(key, keys * KEY_BYTES, BYTE).reshape(keys, KEY_BYTES)


def _rows(texts: Sequence[bytes]) -> np.ndarray:
    """Arrange keys or tokens as rows of bytes."""
    return np.frombuffer(b"".join(texts), np.uint8).reshape(len(texts), KEY_BYTES).copy()

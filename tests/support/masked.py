"""Plans with masks, and the private keys of their sites."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from tiny import tiny_data, tiny_plan

from collabdm.documents.contribution import Statistics
from collabdm.documents.masked_contribution import MaskedContribution
from collabdm.documents.plan import Plan
from collabdm.methods import collabdm
from collabdm.privacy.masked_sums import mask_statistics
from collabdm.privacy.site_keys import public_hex

SITES = ("east", "north", "south", "west", "zenith")
COUNTS = ((5, 4, 3), (4, 0, 6), (0, 7, 2), (3, 3, 0), (8, 1, 1))
Keys = dict[str, X25519PrivateKey]


def site_keys(sites: Sequence[str] = SITES) -> Keys:
    """A key for each site, the same in every run."""
    return {
        site: X25519PrivateKey.from_private_bytes(bytes([k + 1]) * 32)
        for k, site in enumerate(sites)
    }


def masked_plan(keys: Keys, threshold: int = 3, bits: int = 32, **settings: Any) -> Plan:
    masking = {
        "keys": {site: public_hex(key) for site, key in keys.items()},
        "bits": bits,
        "threshold": threshold,
    }
    round_: dict[str, Any] = {
        "sites": len(keys),
        "site_names": tuple(keys),
        "local": {"method": "none"},
        "largest_class": 1000,
        "masking": masking,
    }
    return tiny_plan(**round_ | settings)


def open_plan(plan: Plan) -> Plan:
    """The same round without masks."""
    return plan.model_copy(update={"masking": None})


@cache
def statistics_of(plan: Plan, site: str, counts: tuple[int, ...], seed: int = 0) -> Statistics:
    """What a site computes before it masks."""
    data = tiny_data(counts, seed, plan)
    return collabdm.contribute(open_plan(plan), data, site).statistics


def masked_round(plan: Plan, keys: Keys) -> dict[str, MaskedContribution]:
    return {
        site: mask_statistics(plan, site, statistics_of(plan, site, COUNTS[k], k), keys[site])
        for k, site in enumerate(keys)
    }

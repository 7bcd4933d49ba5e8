"""Settings of a plan with masks: the public keys of its sites, and the settings that masks need.

A site's numbers are hidden among those of the other sites, so there should be at least three: with
two, each can subtract its own numbers from the sum and learns those of the other.
"""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from collabdm.documents.plan import Plan
from collabdm.documents.public_key import read_public_key
from collabdm.errors import PlanError
from collabdm.planning.settings import Settings, merge_settings

LARGEST_CLASS = 100_000  # images of a class at a site; more would leave fewer binary places


def masked_for(paths: Sequence[Path]) -> Settings:
    """Return the settings of a plan whose sites have these public keys.

    Raises DocumentError if a file is not a public key, PlanError if a site occurs twice.
    """
    keys = [read_public_key(path) for path in paths]
    repeated = sorted(site for site, count in Counter(k.site for k in keys).items() if count > 1)
    if repeated:
        raise PlanError(
            f"`masked_for` should name each site once; found several keys of {', '.join(repeated)}"
        )

    by_site = {public.site: public.key for public in sorted(keys, key=lambda key: key.site)}
    return {
        "sites": len(by_site),
        "site_names": tuple(by_site),
        "masking": {"keys": by_site},
    }


def with_masking_defaults(settings: Settings) -> Settings:
    """Fill in the settings that masks need, unless they are set; leave open plans unchanged.

    The threshold is two thirds of the sites, rounded up, and at least 2.
    """
    masking = settings.get("masking")
    if not isinstance(masking, dict):
        return settings

    sites = len(masking.get("keys") or {})
    defaults = {
        "wire": "float32",
        "largest_class": LARGEST_CLASS,
        "local": {"method": "none"},
        "masking": {"threshold": max(2, math.ceil(2 * sites / 3))},
    }
    return merge_settings(defaults, settings)


def masking_summary(plan: Plan) -> str:
    """Summarise what masks hide, and how exact the sums are; empty for a plan without masks."""
    masking = plan.masking
    if masking is None:
        return ""

    places, sites = plan.binary_places, plan.sites
    error = sites / 2 * 2.0**-places
    of_mean = f"{error:.2g} / images of the class" if plan.merging == "weighted" else f"{error:.2g}"
    lines = [
        f"masked: the server learns sums over {masking.threshold} to {sites} sites, and nothing of "
        f"one site; fixed point with step 2^-{places}, so a mean is off by at most {of_mean}"
    ]
    if masking.threshold < 3:
        lines.append(
            "warning: from the sum over two sites, each learns the numbers of the other; a "
            "threshold of at least 3 is advised"
        )
    return "\n".join(lines)

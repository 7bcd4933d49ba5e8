"""The parts of a Plan that protect what a site sends: masks, and a privacy budget.

References: K. Bonawitz et al., "Practical secure aggregation for privacy-preserving machine
learning", CCS 2017. C. Dwork, A. Roth, "The algorithmic foundations of differential privacy", 2014.
"""

from typing import Annotated, Literal

from pydantic import Field

from collabdm.documents.frozen_model import FrozenModel, SiteName


class Masking(FrozenModel):
    """Secure aggregation: the server learns the sums over all sites, and nothing of one site.

    - `keys`: the public X25519 key of each site, in hexadecimal.
    - `bits`: the size of a masked whole number; sums are computed modulo 2^bits.
    - `range`: the largest absolute value of a class mean; a site refuses to send a larger one.
    - `threshold`: the fewest sites whose sum may be opened; the sites enforce it.
    """

    keys: dict[SiteName, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]
    bits: Literal[32, 64] = 32
    range: Annotated[float, Field(gt=0, le=10**6)] = 32.0
    threshold: Annotated[int, Field(ge=2)]


class Privacy(FrozenModel):
    """Differential privacy of each image: the budget, and the bound of the Gaussian mechanism.

    - `epsilon`, `delta`: the budget for all that a site sends (adding or removing one image).
    - `clip`: the largest distance of the sketched embedding of one image from the public centre of
      its step; images further away are moved towards the centre.
    - `count_share`: the share of the budget (of 1 / sigma^2) that is spent on the class counts.
    """

    epsilon: Annotated[float, Field(gt=0, le=1000)]
    delta: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    clip: Annotated[float, Field(gt=0, le=10**6)]
    count_share: Annotated[float, Field(gt=0, lt=1)] = 0.02

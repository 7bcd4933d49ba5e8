"""TODO checkpoint."""

from dataclasses import dataclass, field

from jaxtyping import Float32
from torch import Tensor


@dataclass
class State:
    """Where a run stands: what it needs to go on as if it had never stopped."""

    done: int
    images: Float32[Tensor, "n c h w"]
    optimiser: dict[str, Tensor] = field(default_factory=dict)

"""A trained network as an outcome: its weights, what it looks at, and where it comes from.

    f(x) = network(normalise(x)),   x pixels as the plan says

Some methods give a network instead of images: nobody can train another one on it, but it can be used at once.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from collabdm.errors import DocumentError
from collabdm.networks import Network, NetworkSpec, build
from collabdm.parts import Declared, PartSpec, check_parts
from collabdm.protocol import Plan

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class DistilledModel:
    """Weights of one network, for images and classes of `plan`; `sites` as in a DistilledSet."""

    weights: Weights
    spec: NetworkSpec
    plan: Plan
    sites: dict[str, list[int]]
    method: str
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_parts(weights_declared(self.spec, self.plan), self.weights, "the model")
        if any(len(held) != len(self.plan.classes) or min(held) < 0 for held in self.sites.values()):
            raise DocumentError(f"each site should have {len(self.plan.classes)} counts, none negative")

    def network(self) -> Network:
        """The network, in evaluation mode, on the CPU."""
        network = build(self.spec, self.plan.image.shape, len(self.plan.classes))
        load_weights(network, self.weights)
        return network.eval()


def weights_of(network: nn.Module) -> Weights:
    """Parameters and running statistics by name, on the CPU."""
    return {n: v.detach().cpu().clone() for n, v in network.state_dict().items() if v.is_floating_point()}


def load_weights(network: nn.Module, weights: Weights) -> None:
    """Put weights of the same network in place."""
    network.load_state_dict({**network.state_dict(), **weights})


def weights_declared(spec: NetworkSpec, plan: Plan) -> Declared:
    """What the weights of a network should be."""
    network = build(spec, plan.image.shape, len(plan.classes))
    return {
        n: PartSpec(torch.float32, tuple(v.shape)) for n, v in network.state_dict().items() if v.is_floating_point()
    }

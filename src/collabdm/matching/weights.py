"""A trained network as an outcome: its weights, what it looks at, and where it comes from.

    f(x) = network(normalise(x)),   x pixels as the plan says

Some methods give a network instead of images: nobody can train another one on it, but it can be used at once.
"""

import torch
from torch import nn

from collabdm.documents.extra_tensors import DeclaredTensors, TensorSpec
from collabdm.documents.outcomes import DistilledModel, Weights
from collabdm.documents.plan import Plan
from collabdm.documents.specs import NetworkSpec
from collabdm.matching.networks import Network, build


def weights_of(network: nn.Module) -> Weights:
    """Parameters and running statistics by name, on the CPU."""
    return {n: v.detach().cpu().clone() for n, v in network.state_dict().items() if v.is_floating_point()}


def load_weights(network: nn.Module, weights: Weights) -> None:
    """Put weights of the same network in place."""
    network.load_state_dict({**network.state_dict(), **weights})


def weights_declared(spec: NetworkSpec, plan: Plan) -> DeclaredTensors:
    """What the weights of a network should be."""
    network = build(spec, plan.image.shape, len(plan.classes))
    return {
        n: TensorSpec(torch.float32, tuple(v.shape)) for n, v in network.state_dict().items() if v.is_floating_point()
    }


def network_of(made: DistilledModel) -> Network:
    """The network of an outcome, in evaluation mode, on the CPU."""
    network = build(made.spec, made.plan.image.shape, len(made.plan.classes))
    load_weights(network, made.weights)
    return network.eval()

"""Copy, load and declare the weights of a trained network: parameters and running statistics.

Only floating-point tensors count as weights. The counters of batch normalisation (int64) have no
effect in evaluation, so methods neither send nor average them. A file that stores a complete
network uses `scoring.trained_model.state_tensors`.
"""

import torch
from torch import nn

from collabdm.documents.extra_tensors import DeclaredTensors, TensorSpec
from collabdm.documents.outcomes import DistilledModel, Weights
from collabdm.documents.plan import Plan
from collabdm.documents.specs import NetworkSpec
from collabdm.matching.networks import Network, build, skeleton


def float_weights(network: nn.Module) -> Weights:
    """Copy the weights of a network to the CPU."""
    return {
        name: tensor.detach().cpu().clone()
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point()
    }


def load_weights(network: nn.Module, weights: Weights) -> None:
    """Copy weights into a network with the same layers; its counters remain unchanged."""
    network.load_state_dict({**network.state_dict(), **weights})


def declare_weights(spec: NetworkSpec, plan: Plan) -> DeclaredTensors:
    """Declare dtype and shape of each weight of a network for the plan's images and classes."""
    network = skeleton(spec, plan.image.shape, len(plan.classes))
    return {
        name: TensorSpec(torch.float32, tuple(tensor.shape))
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point()
    }


def trained_network(model: DistilledModel) -> Network:
    """Build the network of an outcome, in evaluation mode, on the CPU."""
    network = build(model.spec, model.plan.image.shape, len(model.plan.classes))
    load_weights(network, model.weights)
    return network.eval()

"""Compute the size of a network from the shapes of its layers, without allocating weights."""

from functools import lru_cache

import torch
from torch import Tensor, nn

from collabdm.documents.plan import Plan
from collabdm.documents.specs import NetworkSpec
from collabdm.matching.networks import skeleton

Image = tuple[int, int, int]


def statistics_width(plan: Plan) -> int:
    """Return the number of values in a class mean: r = min(sketch, embedding width)."""
    width = embedding_width(plan.network, plan.image.shape)
    return width if plan.sketch is None else min(plan.sketch, width)


@lru_cache
def embedding_width(spec: NetworkSpec, image: Image) -> int:
    """Return the number of values in the embedding of an image (channels, height, width)."""
    return skeleton(spec, image, 1).embedding_width


def multiplications(spec: NetworkSpec, image: Image) -> float:
    """Return the number of multiplications in all convolutions for one image, forward only."""
    return float(sum(weights * positions for weights, _, positions in _convolutions(spec, image)))


def activations(spec: NetworkSpec, image: Image) -> int:
    """Return the number of output values of all convolutions for one image."""
    return sum(filters * positions for _, filters, positions in _convolutions(spec, image))


@lru_cache
def _convolutions(spec: NetworkSpec, image: Image) -> tuple[tuple[int, int, int], ...]:
    """Measure the weights, filters and output positions of every convolution."""
    sizes: list[tuple[int, int, int]] = []

    def measure(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if isinstance(layer, nn.Conv2d):
            positions = output[0, 0].numel()
            sizes.append((layer.weight.numel(), layer.out_channels, positions))

    network = skeleton(spec, image, 1)
    for layer in network.modules():
        layer.register_forward_hook(measure)
    with torch.no_grad():
        network.embed(torch.zeros(2, *image, device="meta"))

    return tuple(sizes)

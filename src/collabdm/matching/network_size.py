"""Compute the size of a network from the shapes of its layers, without allocating weights."""

from collections.abc import Iterator
from functools import lru_cache

from torch import nn

from collabdm.documents.plan import Plan
from collabdm.documents.specs import NetworkSpec
from collabdm.matching.layer_shapes import layer_shapes
from collabdm.matching.networks import BasicBlock, Image, skeleton


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
    features = skeleton(spec, image, 1).features
    return tuple(
        (layer.weight.numel(), layer.out_channels, shape[1] * shape[2])
        for layer, shape in _each_convolution(features, image)
    )


def _each_convolution(layers: nn.Sequential, image: Image) -> Iterator[tuple[nn.Conv2d, Image]]:
    """Yield the convolutions, also those within blocks, with the shapes of their outputs."""
    for layer, before, after in layer_shapes(layers, image):
        if isinstance(layer, nn.Conv2d):
            yield layer, after
        elif isinstance(layer, BasicBlock):
            yield from _each_convolution(layer.body, before)
            yield from _each_convolution(layer.shortcut, before)

"""Compute the shapes of feature maps from the layers, without running them.

    convolution, pooling    side -> floor((side + 2 padding - kernel) / stride) + 1
    mean of all pixels      side -> 1
    all other layers        unchanged

PyTorch's meta device computes the same, but takes seconds to load in every process.
"""

from collections.abc import Iterator
from typing import Any

from torch import nn

from collabdm.matching.networks import BasicBlock, Image

POOLINGS = (nn.AvgPool2d, nn.MaxPool2d)


def layer_shapes(layers: nn.Sequential, image: Image) -> Iterator[tuple[nn.Module, Image, Image]]:
    """Yield each layer with the shapes of its input and of its output.

    Args:
        layers: the layers of a network before its classifier.
        image: (channels, height, width) of the images.
    """
    shape = image
    for layer in layers:
        before, shape = shape, output_shape(layer, shape)
        yield layer, before, shape


def output_shape(layer: nn.Module, shape: Image) -> Image:
    """Return the shape of the output of a layer, from that of its input."""
    channels, side, _ = shape
    if isinstance(layer, nn.Sequential):
        for inner in layer:
            shape = output_shape(inner, shape)
        return shape
    if isinstance(layer, BasicBlock):
        return output_shape(layer.body, shape)
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return channels, 1, 1

    if isinstance(layer, nn.Conv2d):
        channels = layer.out_channels
    elif not isinstance(layer, POOLINGS):
        return shape
    side = 1 + (side + 2 * _side(layer.padding) - _side(layer.kernel_size)) // _side(layer.stride)
    return channels, side, side


def _side(size: Any) -> int:
    """Return a size in pixels, which a layer states once or for both directions."""
    return int(size[0] if isinstance(size, tuple) else size)

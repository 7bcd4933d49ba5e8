"""Rewrite a chain of layers as expressions that compile well and access memory less often.

A small network spends most of its time reading and writing the outputs of its convolutions, not on
the convolutions themselves. Therefore this module rewrites

    instance normalisation   gamma (x - mean) / sqrt(variance + eps) + beta   as   s x + t

with one scale s and one shift t for each channel of each image, in float32. Without gradients,
normalisation, activation and average pooling become a single expression of the four pixels that
form a pooled pixel, so nothing between convolution and pooling is written to memory:

    pooled = 1/4 sum_{i,j in {0,1}} activation(s x_{2u+i, 2v+j} + t)

Without compilation these expressions are slower than the layers; `Network.embed` chooses.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn


def run_fused(
    layers: Sequence[nn.Module], x: Float[Tensor, "n c h w"]
) -> Float[Tensor, "n c2 h2 w2"]:
    """Apply the layers in order, inside compiled code."""
    x = x.contiguous(memory_format=torch.channels_last)

    done = 0
    while done < len(layers):
        layer, following = layers[done], layers[done + 1 : done + 3]

        if not isinstance(layer, nn.InstanceNorm2d):
            x = layer(x)
        elif _fuses_with_pooling(following, x):
            x = _pooled(x, *scale_and_shift(layer, x), following[0])
            done += 2
        else:
            scale, shift = scale_and_shift(layer, x)
            x = (x * scale + shift).to(x.dtype)

        done += 1

    return x


def scale_and_shift(
    norm: nn.InstanceNorm2d, x: Float[Tensor, "n c h w"]
) -> tuple[Float32[Tensor, "n c 1 1"], Float32[Tensor, "n c 1 1"]]:
    """Compute the scale s and the shift t of the instance normalisation of x."""
    variance, mean = torch.var_mean(x.float(), (2, 3), correction=0, keepdim=True)
    scale = torch.rsqrt(variance + norm.eps) * norm.weight.float().view(1, -1, 1, 1)
    return scale, norm.bias.float().view(1, -1, 1, 1) - mean * scale


def _fuses_with_pooling(following: Sequence[nn.Module], x: Tensor) -> bool:
    """Return whether the next two layers are an activation and a pooling that can be fused."""
    even = x.shape[2] % 2 == 0 and x.shape[3] % 2 == 0
    pools = len(following) == 2 and isinstance(following[1], nn.AvgPool2d)
    return even and pools and not torch.is_grad_enabled()


def _pooled(x: Tensor, scale: Tensor, shift: Tensor, activation: nn.Module) -> Tensor:
    """Apply normalisation, activation and average pooling as one expression."""
    corners = [x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]
    first, *rest = (activation(corner * scale + shift) for corner in corners)
    for value in rest:
        first = first + value
    return (first * 0.25).to(x.dtype)

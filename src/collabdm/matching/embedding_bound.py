"""Bound the norm of an embedding, and so of every class mean, by the layers of the network.

Instance, layer and group normalisation map M numbers x (with scale 1 and shift 0, as seeded) to

    z = (x - mean) / sqrt(variance + 1e-5),   so   sum z^2 = M variance / (variance + 1e-5) <= M

and hence |z|^2 <= N for a feature map of N numbers. The layers that follow change the norm by

    ReLU, leaky ReLU      |f(z)| <= |z|
    sigmoid               |f(z)|^2 <= N, since every value is at most 1
    average of k pixels   |f(z)|^2 <= |z|^2 / k, by convexity
    maximum               |f(z)|^2 <= |z|^2, since the maximum is one of the values of z
    residual block        |f(z)| <= |body(z)| + |shortcut(z)|

A sketch multiplies norms by at most the largest singular value of its D x r matrix of random signs
over sqrt(r). That is close to 1 + sqrt(D / r), and exceeds it by `SKETCH_SLACK` with a probability
below 10^-12; it never exceeds sqrt(D), the Frobenius norm.

The mean of vectors within a bound lies within it too. Networks without normalisation have no bound.

References: D. Ulyanov, A. Vedaldi, V. Lempitsky, "Instance normalization", 2016. I. M. Johnstone,
"On the distribution of the largest eigenvalue in principal components analysis", Annals of
Statistics, 2001 (singular values of random matrices).
"""

import math
from functools import lru_cache

from torch import nn

from collabdm.documents.plan import Plan
from collabdm.documents.specs import NetworkSpec
from collabdm.matching.layer_shapes import layer_shapes
from collabdm.matching.networks import BasicBlock, Image, skeleton

SKETCH_SLACK = 1.1

_NORMS = (nn.InstanceNorm2d, nn.GroupNorm)


def largest_norm(plan: Plan) -> float | None:
    """Return the largest norm that a class mean of a plan can have; None if there is no bound.

    Means with masks or with noise have no bound either.
    """
    if plan.masking is not None or plan.privacy is not None:
        return None
    bound, width = embedding_bound(plan.network, plan.image.shape)
    if bound is None or plan.sketch is None or plan.sketch >= width:
        return bound
    return bound * min(SKETCH_SLACK * (1 + math.sqrt(width / plan.sketch)), math.sqrt(width))


@lru_cache
def embedding_bound(spec: NetworkSpec, image: Image) -> tuple[float | None, int]:
    """Return the largest norm of an embedding, None if there is no bound, and its width D."""
    network, bound = skeleton(spec, image, 1), None
    for layer, before, after in layer_shapes(network.features, image):
        bound = _after(layer, bound, math.prod(before), math.prod(after))
    return bound, network.embedding_width


def _after(layer: nn.Module, bound: float | None, before: int, after: int) -> float | None:
    """Bound the norm after a layer.

    Args:
        layer: the layer.
        bound: the bound of the norm before it; None if there is none.
        before: the number of values before the layer.
        after: the number of values after it.

    Returns:
        The bound of the norm after the layer; None if there is none.
    """
    if isinstance(layer, (*_NORMS, nn.Sigmoid)):
        return math.sqrt(after)
    if isinstance(layer, BasicBlock):
        return _after_block(layer, bound, after)
    if bound is None or isinstance(layer, nn.ReLU | nn.LeakyReLU | nn.MaxPool2d | nn.Identity):
        return bound
    if isinstance(layer, nn.AvgPool2d):
        return bound / 2  # of 2 x 2 pixels
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        return bound / math.sqrt(before / after)
    return None


def _after_block(block: BasicBlock, bound: float | None, after: int) -> float | None:
    """Bound the norm after a residual block; the arguments are those of `_after`."""
    if not isinstance(block.body[-1], _NORMS):
        return None
    normalised = math.sqrt(after)
    shortcut = normalised if len(block.shortcut) else bound
    return None if shortcut is None else normalised + shortcut

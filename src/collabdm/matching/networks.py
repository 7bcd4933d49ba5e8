"""The networks: ConvNet, AlexNet, VGG11 and ResNet18 for small square images, and MLP for rows.

A network computes `logits = classifier(embed(x))`. Statistics use only the embedding; the linear
classifier is for networks that are trained. `k x k, c` is a convolution with c filters of side k
that preserves the side of the image, and P is a pooling that halves it. Every convolution is
followed by a normalisation (except in AlexNet) and an activation:

    ConvNet   [3x3, width   P] x depth                                                    linear
    AlexNet   5x5, 128  P   5x5, 192  P   3x3, 256   3x3, 192   3x3, 192  P               linear
    VGG11     3x3: 64 P   128 P   256 256 P   512 512 P   512 512 P                       linear
    ResNet18  3x3, 64   [3x3, c   3x3, c] x 2 for c = 64, 128, 256, 512   mean of pixels  linear
    MLP       side x side, width   [1x1, width] x (depth - 1)                             linear
    Thresholds    random thresholds on few columns, width (`thresholds`)                  linear

A row of a table is an image of side 1 with a channel for each encoded value. Only MLP and
Thresholds take it: the first convolution covers the whole image, without padding, so it is a layer
of `width` units.

Instance normalisation maps each channel of each image to

    gamma (x - mean) / sqrt(variance + 1e-5) + beta,   mean and variance (biased) over its pixels

so a channel of a single pixel would carry no information. The networks therefore differ from the
table in one respect: a pooling or stride before a further convolution halves the side only if a
side of at least 2 remains, which matters for images of side below 32. Except in ResNet18, the first
convolution pads images of side 28 to 32, as is usual for MNIST.

References:
    B. Zhao, H. Bilen, "Dataset condensation with differentiable Siamese augmentation", ICML 2021.
    B. Zhao, H. Bilen, "Dataset condensation with distribution matching", WACV 2023: ConvNet and
        these variants for small images.
    A. Krizhevsky, I. Sutskever, G. E. Hinton, "ImageNet classification with deep convolutional
        neural networks", NeurIPS 2012.
    K. Simonyan, A. Zisserman, "Very deep convolutional networks for large-scale image recognition",
        ICLR 2015.
    K. He, X. Zhang, S. Ren, J. Sun, "Deep residual learning for image recognition", CVPR 2016.
    D. Ulyanov, A. Vedaldi, V. Lempitsky, "Instance normalization: the missing ingredient for fast
        stylization", 2016.
"""

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from collabdm.documents.specs import (
    GROUPS,
    ROW_NETWORKS,
    Activation,
    NetworkName,
    NetworkSpec,
    Norm,
    Pooling,
)
from collabdm.errors import PlanError
from collabdm.matching.compiled_layers import run_fused
from collabdm.matching.thresholds import Thresholds
from collabdm.seeds import Stream

Image = tuple[int, int, int]  # channels, height, width
Row = tuple[int, int] | Literal["P"]  # a convolution (filters, side of a filter), or a pooling
Features = tuple[nn.Sequential, int]  # the layers before the classifier, and their width

SMALLEST_SIDE, LARGEST_SIDE = 8, 512

ALEXNET: tuple[Row, ...] = ((128, 5), "P", (192, 5), "P", (256, 3), (192, 3), (192, 3), "P")
VGG11: tuple[Row, ...] = (
    *((64, 3), "P", (128, 3), "P", (256, 3), (256, 3), "P"),
    *((512, 3), (512, 3), "P", (512, 3), (512, 3), "P"),
)
RESNET18 = (64, 128, 256, 512)  # the filters of each stage

NORMS: dict[Norm, Callable[[int], nn.Module]] = {
    "instance": lambda channels: nn.InstanceNorm2d(channels, affine=True),
    "batch": nn.BatchNorm2d,
    "layer": lambda channels: nn.GroupNorm(1, channels),
    "group": lambda channels: nn.GroupNorm(GROUPS, channels),
    "none": lambda channels: nn.Identity(),
}
ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leakyrelu": nn.LeakyReLU,  # slope 0.01
    "sigmoid": nn.Sigmoid,
}
POOLINGS: dict[Pooling, Callable[[], nn.Module]] = {
    "average": lambda: nn.AvgPool2d(2),
    "max": lambda: nn.MaxPool2d(2),  # "none" adds no layer
}


class Network(nn.Module):
    """A network: features, flattened into the embedding, and a linear classifier on top."""

    embedding_width: int  #: the number of values in an embedding

    def __init__(self, features: nn.Sequential, embedding_width: int, classes: int) -> None:
        super().__init__()
        self.embedding_width = embedding_width
        self.features = features
        self.classifier = nn.Linear(embedding_width, classes)

    def embed(self, x: Float[Tensor, "n c side side"]) -> Float[Tensor, "n d"]:
        """Compute the embedding, of width d = `embedding_width`; x is in network units."""
        if torch.compiler.is_compiling():
            return run_fused(list(self.features), x).flatten(1)
        return self.features(x).flatten(1)

    def forward(self, x: Float[Tensor, "n c side side"]) -> Float[Tensor, "n classes"]:
        """Compute the logits."""
        return self.classifier(self.embed(x))


class BasicBlock(nn.Module):
    """A residual block, `relu(body(x) + shortcut(x))`; the body has two 3x3 convolutions."""

    def __init__(self, before: int, channels: int, stride: int, norm: Norm) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, channels, 3, stride, padding=1, bias=False),
            NORMS[norm](channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            NORMS[norm](channels),
        )

        self.shortcut = nn.Sequential()  # the identity, where the shape allows it
        if before != channels:
            self.shortcut.append(nn.Conv2d(before, channels, 1, stride, bias=False))
            self.shortcut.append(NORMS[norm](channels))

    def forward(self, x: Float[Tensor, "n c side side"]) -> Float[Tensor, "n c2 side2 side2"]:
        """Apply the block; side2 is side / stride, rounded up."""
        return torch.relu(self.body(x) + self.shortcut(x))


def skeleton(spec: NetworkSpec, image: Image, classes: int) -> Network:
    """Build a network on the meta device: it has shapes, but no memory for its weights.

    Args:
        spec: the network.
        image: (channels, height, width) of its images, in pixels.
        classes: the number of its logits.

    Returns:
        The network, in training mode.

    Raises:
        PlanError: the images are not square, their side is not in 8 .. 512 (1 is allowed for MLP),
            or it is too small for the depth.
    """
    channels, height, width = image
    if channels < 1 or classes < 1:
        raise PlanError(
            f"channels and classes should be at least 1; found {channels} and {classes}"
        )
    if height != width:
        raise PlanError(f"images should be square; found {height} x {width}")
    if height == 1 and spec.name not in ROW_NETWORKS:
        raise PlanError(
            f"`network` should be {' or '.join(ROW_NETWORKS)} for rows of a table; "
            f"found {spec.name}"
        )
    if height != 1 and not SMALLEST_SIDE <= height <= LARGEST_SIDE:
        raise PlanError(
            f"image side should be between {SMALLEST_SIDE} and {LARGEST_SIDE}; found {height}"
        )

    with torch.device("meta"):  # where the layers' initialisation draws no random numbers
        return Network(*_FEATURES[spec.name](spec, image), classes)


def build(spec: NetworkSpec, image: Image, classes: int) -> Network:
    """Build a network on the CPU, in training mode, with weights 0 until `seed_weights` is called.

    torch's global random generator is neither read nor advanced.

    Args:
        spec: the network.
        image: (channels, height, width) of its images, in pixels.
        classes: the number of its logits.

    Returns:
        The network.

    Raises:
        PlanError: as for `skeleton`.

    >>> build(NetworkSpec(), (3, 32, 32), 10).embedding_width
    2048
    """
    network = skeleton(spec, image, classes)
    network.to_empty(device="cpu")

    with torch.no_grad():
        for layer in network.modules():
            for parameter in layer.parameters(recurse=False):
                parameter.zero_()
    _reset_norms(network)

    return network


def seed_weights(network: nn.Module, stream: Stream) -> None:
    """Fill the parameters in place; a stream gives the same float32 weights on every machine.

    The next uniforms u of the stream are used in the order of `named_parameters` (a layer's
    weight, row by row, then its bias). Every weight and bias of a convolution or linear layer
    becomes

        (2u - 1) / sqrt(fan_in),   fan_in = the number of inputs of one output

    This is PyTorch's default initialisation: He et al., "Delving deep into rectifiers", 2015, with
    a = sqrt 5. Scales of normalisations become 1 and their shifts 0, without uniforms. The
    arithmetic is float32 on the CPU; the values are then copied to each parameter's device and
    dtype. No tensor is replaced, so compiled graphs stay valid. A layer of `thresholds` draws its
    own, before the others.
    """
    for layer in network.modules():
        if isinstance(layer, Thresholds):
            layer.seed(stream)
    drawn = [
        (parameter, layer.weight[0].numel())
        for layer in _random_layers(network)
        for parameter in layer.parameters(recurse=False)
    ]
    sizes = [parameter.numel() for parameter, _ in drawn]
    values = stream.uniforms(sum(sizes)).mul_(2).sub_(1)  # exact: multiples of 2^-23

    with torch.no_grad():
        for (parameter, fan_in), part in zip(drawn, values.split(sizes), strict=True):
            bound = torch.tensor(1 / math.sqrt(fan_in), dtype=torch.float32)
            parameter.copy_((part * bound).view(parameter.shape))

    _reset_norms(network)


def has_batch_norm(network: nn.Module) -> bool:
    """Whether, in training, the output for an image depends on the other images of its batch."""
    return any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())


def _random_layers(network: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    """List the layers whose parameters are random, in the order of their definition."""
    return [
        layer
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and not isinstance(layer, Thresholds)
    ]


def _reset_norms(network: nn.Module) -> None:
    """Set scales to 1, shifts to 0, and reset the running statistics of batch normalisation."""
    for layer in network.modules():
        if isinstance(layer, nn.InstanceNorm2d | nn.BatchNorm2d | nn.GroupNorm):
            layer.reset_parameters()


def _convnet(spec: NetworkSpec, image: Image) -> Features:
    side = image[1]
    deepest = int(math.log2(_padded(side)))
    if spec.pooling != "none" and spec.depth > deepest:
        raise PlanError(
            f"`depth` should be at most {deepest} for images of side {side}; found {spec.depth}"
        )

    block: tuple[Row, ...] = ((spec.width, 3), "P")
    return _chain(block * spec.depth, image, spec.norm, spec.activation, spec.pooling)


def _alexnet(spec: NetworkSpec, image: Image) -> Features:
    return _chain(ALEXNET, image, norm="none", activation="relu", pooling="max")


def _vgg11(spec: NetworkSpec, image: Image) -> Features:
    return _chain(VGG11, image, spec.norm, activation="relu", pooling="max")


def _resnet18(spec: NetworkSpec, image: Image) -> Features:
    channels, side, _ = image
    stem = nn.Conv2d(channels, RESNET18[0], 3, padding=1, bias=False)
    features = nn.Sequential(stem, NORMS[spec.norm](RESNET18[0]), nn.ReLU())

    for before, filters in pairwise((RESNET18[0], *RESNET18)):
        stride = 2 if before != filters and side > 2 else 1
        side = -(-side // stride)
        features.append(BasicBlock(before, filters, stride, spec.norm))
        features.append(BasicBlock(filters, filters, 1, spec.norm))

    return features.append(nn.AdaptiveAvgPool2d(1)), RESNET18[-1]


def _mlp(spec: NetworkSpec, image: Image) -> Features:
    channels, kernel, _ = image
    layers: list[nn.Module] = []

    for _ in range(spec.depth):
        layers.append(nn.Conv2d(channels, spec.width, kernel))
        layers += [NORMS[spec.norm](spec.width), ACTIVATIONS[spec.activation]()]
        channels, kernel = spec.width, 1

    return nn.Sequential(*layers), spec.width


def _thresholds(spec: NetworkSpec, image: Image) -> Features:
    columns = spec.columns or ()
    if image[1] != 1 or sum(columns) != image[0]:
        raise PlanError(
            f"`columns` of Thresholds should have the {image[0]} values of a row of side 1; "
            f"found {sum(columns)} values and side {image[1]}"
        )
    return nn.Sequential(Thresholds(columns, spec.width), nn.Sigmoid()), spec.width


_FEATURES: dict[NetworkName, Callable[[NetworkSpec, Image], Features]] = {
    "ConvNet": _convnet,
    "AlexNet": _alexnet,
    "VGG11": _vgg11,
    "ResNet18": _resnet18,
    "MLP": _mlp,
    "Thresholds": _thresholds,
}


def _chain(
    rows: tuple[Row, ...], image: Image, norm: Norm, activation: Activation, pooling: Pooling
) -> Features:
    """Build the features that a table of convolutions and poolings describes."""
    channels, image_side, _ = image
    side = _padded(image_side)
    border = (side - image_side) // 2  # additional padding of the first convolution
    layers: list[nn.Module] = []

    for i, row in enumerate(rows):
        if row != "P":
            filters, kernel = row
            layers.append(nn.Conv2d(channels, filters, kernel, padding=kernel // 2 + border))
            layers += [NORMS[norm](filters), ACTIVATIONS[activation]()]
            channels, border = filters, 0
        elif pooling in POOLINGS and side // 2 >= (2 if i + 1 < len(rows) else 1):
            layers.append(POOLINGS[pooling]())
            side //= 2

    return nn.Sequential(*layers), channels * side * side


def _padded(side: int) -> int:
    """Return the side of an image after the first convolution, which pads 28 to 32."""
    return 32 if side == 28 else side

"""Siamese differentiable augmentation, partition-and-expand, and CutMix.

A draw determines a transformation: an operation out of a policy (a list of operations) and its
strength. In matching, there is one draw for each (step, class), which applies to every image of the
class, real and synthetic ("siamese"); in training, every image has its own draw. Every draw takes
five uniforms u0 .. u4, whatever the operation:

    operation  index floor(u0 * number of operations) in the policy
    color      x + (u1 - 1/2);  then (x - m) 2 u2 + m, where m is the mean over channels;
               then (x - m) (u3 + 1/2) + m, where m is the mean over the whole image
    crop       shift by whole pixels in -side/8 .. side/8 along each axis, zeros outside
    cutout     a square of side/2 around a random centre set to zero
    flip       left-right, if u1 < 1/2
    scale      both axes by their own factor in 1/1.2 .. 1.2
    rotate     by an angle in -15 .. 15 degrees

Values are in network units, so zero is the mean colour. Each operation is an affine map of
coordinates (bilinear), a map of colours or a mask, so a batch needs no loop over its images.

Partition-and-expand with factor l stores l x l small images in each image: `expand` cuts them out
and enlarges each to full size; `mosaic` packs several full images into one. `cutmix` is used only
in training: it pastes a box from a different image of the batch into each image, and mixes labels.

References: B. Zhao, H. Bilen, "Dataset condensation with differentiable siamese augmentation", ICML
2021. G. Zhao, G. Li, Y. Qin, Y. Yu, "Improved distribution matching for dataset condensation",
CVPR 2023 (partition and expand). S. Yun et al., "CutMix: regularization strategy to train strong
classifiers with localizable features", ICCV 2019.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64, Shaped
from torch import Tensor

from collabdm.documents.specs import Operation
from collabdm.seeds import Stream

UNIFORMS_PER_DRAW = 5
CROP_RATIO, CUTOUT_RATIO = 0.125, 0.5  # as fractions of the side
SCALE_RATIO, ROTATION_DEGREES = 1.2, 15.0


@dataclass(frozen=True)
class Draws:
    """The parameters of m transformations of images.

    Attributes:
        colour: brightness, saturation and contrast.
        affine: the map from output to input coordinates, both in -1 .. 1.
        box: the masked pixels as left, right, top, bottom; right and bottom are exclusive.
    """

    colour: Float32[Tensor, "m 3"]
    affine: Float32[Tensor, "m 2 3"]
    box: Float32[Tensor, "m 4"]

    def rows(self, index: Int64[Tensor, " n"]) -> "Draws":
        """Return one draw for each of n images; `index` gives the number of each image's draw."""
        return Draws(self.colour[index], self.affine[index], self.box[index])

    def to(self, device: torch.device) -> "Draws":
        """Copy the draws to a device."""
        return Draws(self.colour.to(device), self.affine.to(device), self.box.to(device))


def identity(m: int) -> Draws:
    """Return m draws that change nothing."""
    colour = torch.tensor([0.0, 1.0, 1.0]).repeat(m, 1)
    affine = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).repeat(m, 1, 1)
    return Draws(colour, affine, torch.zeros(m, 4))


def draw(policy: Sequence[Operation], m: int, side: int, stream: Stream) -> Draws:
    """Draw m transformations.

    Args:
        policy: the operations to draw from; if empty, no uniforms are taken.
        m: the number of transformations.
        side: the side of the images, in pixels.
        stream: the stream of the uniforms.

    Returns:
        The draws, on the CPU.
    """
    draws = identity(m)
    if not policy:
        return draws

    uniforms = stream.uniforms(m, UNIFORMS_PER_DRAW)
    chosen = (uniforms[:, 0] * len(policy)).floor().long()

    for index, operation in enumerate(policy):
        at = torch.nonzero(chosen == index).flatten()
        if len(at):
            _WRITERS[operation](draws, at, uniforms[at], side)

    return draws


def augment(x: Float32[Tensor, "n c s s"], draws: Draws) -> Float32[Tensor, "n c s s"]:
    """Transform each image (network units) by its own draw; differentiable in x."""
    x = _recoloured(x, draws.colour)

    grid = F.affine_grid(draws.affine, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    return x.masked_fill(_box_mask(draws.box, x.shape[-1]), 0.0)


def expand(images: Float[Tensor, "n c h w"], factor: int) -> Float[Tensor, "m c h w"]:
    """Cut every image into factor x factor tiles, row by row, and enlarge each to full size."""
    if factor == 1:
        return images

    _, _, h, w = images.shape
    return F.interpolate(cut(images, factor), size=(h, w), mode="bilinear", align_corners=False)


def cut(images: Shaped[Tensor, "n c h w"], factor: int) -> Shaped[Tensor, "m c u v"]:
    """Cut every image into factor x factor tiles, row by row."""
    n, c, h, w = images.shape
    tiles = images.reshape(n, c, factor, h // factor, factor, w // factor)
    return tiles.permute(0, 2, 4, 1, 3, 5).reshape(n * factor**2, c, h // factor, w // factor)


def mosaic(images: Float[Tensor, "m c h w"], factor: int) -> Float[Tensor, "n c h w"]:
    """Pack every factor^2 consecutive images, reduced by averaging, into one image."""
    if factor == 1:
        return images

    m, c, h, w = images.shape
    n = m // factor**2
    tiles = F.avg_pool2d(images, factor)
    tiles = tiles.reshape(n, factor, factor, c, h // factor, w // factor)
    return tiles.permute(0, 3, 1, 4, 2, 5).reshape(n, c, h, w)


def cutmix(
    x: Float32[Tensor, "n c s s"], targets: Float32[Tensor, "n classes"], stream: Stream
) -> tuple[Float32[Tensor, "n c s s"], Float32[Tensor, "n classes"]]:
    """Paste a box from a different image into each image, the same box for the whole batch.

    The box has a share 1 - lambda of the image's area, where lambda is uniform in 0 .. 1; the part
    of the box that lies outside the image is cut off.

    Args:
        x: the images.
        targets: their labels as distributions over the classes.
        stream: the stream of the box, and of the order of the other images.

    Returns:
        The images, and their targets, mixed in proportion to the pixels from each image.
    """
    side = x.shape[-1]
    share, across, down = stream.uniforms(3).tolist()
    reach = side * math.sqrt(1 - share) / 2

    left, top = max(0, int(across * side - reach)), max(0, int(down * side - reach))
    right, bottom = min(side, int(across * side + reach)), min(side, int(down * side + reach))

    order = stream.permutation(len(x)).to(x.device)
    mixed = x.clone()
    mixed[:, :, top:bottom, left:right] = x[order, :, top:bottom, left:right]

    own_share = 1 - (bottom - top) * (right - left) / side**2
    return mixed, own_share * targets + (1 - own_share) * targets[order]


def _recoloured(
    x: Float32[Tensor, "n c s s"], colour: Float32[Tensor, "n 3"]
) -> Float32[Tensor, "n c s s"]:
    """Change brightness, saturation and contrast, in that order."""
    brightness, saturation, contrast = (column.view(-1, 1, 1, 1) for column in colour.unbind(1))
    x = x + brightness

    if x.shape[1] > 1:  # a grey image equals its mean over channels
        mean = x.mean(1, keepdim=True)
        x = (x - mean) * saturation + mean

    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * contrast + mean


def _box_mask(box: Float32[Tensor, "n 4"], side: int) -> Tensor:
    """Mask the pixels of each image's box: True inside, of shape (n, 1, side, side)."""
    pixel = torch.arange(side, device=box.device)
    left, right, top, bottom = (column.view(-1, 1) for column in box.unbind(1))
    columns = (pixel >= left) & (pixel < right)
    rows = (pixel >= top) & (pixel < bottom)
    return rows[:, None, :, None] & columns[:, None, None, :]


# --- one function for each operation: it sets the draws `at` from their uniforms `u` --------------


def _color(draws: Draws, at: Tensor, u: Tensor, side: int) -> None:
    draws.colour[at] = torch.stack([u[:, 1] - 0.5, 2 * u[:, 2], u[:, 3] + 0.5], 1)


def _crop(draws: Draws, at: Tensor, u: Tensor, side: int) -> None:
    reach = int(side * CROP_RATIO + 0.5)
    shift = (u[:, 1:3] * (2 * reach + 1)).floor() - reach
    draws.affine[at, :, 2] = shift * 2 / side


def _cutout(draws: Draws, at: Tensor, u: Tensor, side: int) -> None:
    size = int(side * CUTOUT_RATIO + 0.5)
    start = (u[:, 1:3] * (side + 1 - size % 2)).floor() - size // 2
    left, top = start.unbind(1)
    draws.box[at] = torch.stack([left, left + size, top, top + size], 1)


def _flip(draws: Draws, at: Tensor, u: Tensor, side: int) -> None:
    draws.affine[at, 0, 0] = torch.where(u[:, 1] < 0.5, -1.0, 1.0)


def _scale(draws: Draws, at: Tensor, u: Tensor, side: int) -> None:
    factors = u[:, 1:3] * (SCALE_RATIO - 1 / SCALE_RATIO) + 1 / SCALE_RATIO
    draws.affine[at, 0, 0], draws.affine[at, 1, 1] = factors.unbind(1)


def _rotate(draws: Draws, at: Tensor, u: Tensor, side: int) -> None:
    angle = (u[:, 1] - 0.5) * 2 * math.radians(ROTATION_DEGREES)
    draws.affine[at, 0, 0] = draws.affine[at, 1, 1] = angle.cos()
    draws.affine[at, 0, 1], draws.affine[at, 1, 0] = -angle.sin(), angle.sin()


_WRITERS: dict[Operation, Callable[[Draws, Tensor, Tensor, int], None]] = {
    "color": _color,
    "crop": _crop,
    "cutout": _cutout,
    "flip": _flip,
    "scale": _scale,
    "rotate": _rotate,
}

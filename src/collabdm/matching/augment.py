"""Siamese differentiable augmentation, and partition-and-expand.

One draw fixes one transformation: an operation of the policy and its strength. In matching, a draw
belongs to a (step, class) and is applied to every image of the class on both sides, real and
synthetic ("siamese"); in training, every image has its own. Every draw takes five uniforms u0 .. u4,
whatever the operation:

    operation  index floor(u0 * number of operations) in the policy
    color      x + (u1 - 1/2);  then (x - m) 2 u2 + m, m over channels;
               then (x - m) (u3 + 1/2) + m, m over the whole image
    crop       shift by (dx, dy), integers in -side/8 .. side/8, zeros outside
    cutout     a square of side/2 around a random centre set to zero
    flip       left-right, if u1 < 1/2
    scale      both axes by their own factor in 1/1.2 .. 1.2
    rotate     by an angle in -15 .. 15 degrees

Values are in network units, so zero is the mean colour. All operations are one affine map of
coordinates (bilinear), one map of colours and one mask: a batch needs no loop over its images.

Partition-and-expand with factor l stores l x l small images in each image:
`expand` cuts them out and enlarges each to full size, `mosaic` packs full images into one.

`cutmix` belongs to training alone: a box of every image is taken from another image of the batch, and
its label in proportion.

References: B. Zhao, H. Bilen, "Dataset condensation with differentiable siamese augmentation", ICML
2021. G. Zhao, G. Li, Y. Qin, Y. Yu, "Improved distribution matching for dataset condensation",
CVPR 2023 (partition and expand). S. Yun et al., "CutMix: regularization strategy to train strong classifiers
with localizable features", ICCV 2019.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from collabdm.documents.specs import Operation
from collabdm.seeds import Stream

UNIFORMS_PER_DRAW = 5


CROP_RATIO, CUTOUT_RATIO, SCALE_RATIO, ROTATION_DEGREES = 0.125, 0.5, 1.2, 15.0


@dataclass(frozen=True)
class Draws:
    """m transformations: `colour` (brightness, saturation, contrast), `affine` (output to input
    coordinates in -1 .. 1) and `box` (left, right, top, bottom in pixels, right and bottom excluded).
    """

    colour: Float32[Tensor, "m 3"]
    affine: Float32[Tensor, "m 2 3"]
    box: Float32[Tensor, "m 4"]

    def rows(self, index: Int64[Tensor, " n"]) -> "Draws":
        """One draw per image, given which draw each image takes."""
        return Draws(self.colour[index], self.affine[index], self.box[index])

    def to(self, device: torch.device) -> "Draws":
        """The same draws on a device."""
        return Draws(self.colour.to(device), self.affine.to(device), self.box.to(device))


def identity(m: int) -> Draws:
    """m draws that change nothing."""
    colour = torch.tensor([0.0, 1.0, 1.0]).repeat(m, 1)
    affine = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]).repeat(m, 1, 1)
    return Draws(colour, affine, torch.zeros(m, 4))


def _color(d: Draws, at: Tensor, u: Tensor, side: int) -> None:
    d.colour[at] = torch.stack([u[:, 1] - 0.5, 2 * u[:, 2], u[:, 3] + 0.5], 1)


def _crop(d: Draws, at: Tensor, u: Tensor, side: int) -> None:
    reach = int(side * CROP_RATIO + 0.5)
    d.affine[at, :, 2] = ((u[:, 1:3] * (2 * reach + 1)).floor() - reach) * 2 / side


def _cutout(d: Draws, at: Tensor, u: Tensor, side: int) -> None:
    size = int(side * CUTOUT_RATIO + 0.5)
    start = (u[:, 1:3] * (side + 1 - size % 2)).floor() - size // 2
    d.box[at] = torch.stack([start[:, 0], start[:, 0] + size, start[:, 1], start[:, 1] + size], 1)


def _flip(d: Draws, at: Tensor, u: Tensor, side: int) -> None:
    d.affine[at, 0, 0] = torch.where(u[:, 1] < 0.5, -1.0, 1.0)


def _scale(d: Draws, at: Tensor, u: Tensor, side: int) -> None:
    factors = u[:, 1:3] * (SCALE_RATIO - 1 / SCALE_RATIO) + 1 / SCALE_RATIO
    d.affine[at, 0, 0], d.affine[at, 1, 1] = factors[:, 0], factors[:, 1]


def _rotate(d: Draws, at: Tensor, u: Tensor, side: int) -> None:
    angle = (u[:, 1] - 0.5) * 2 * math.radians(ROTATION_DEGREES)
    d.affine[at, 0, 0] = d.affine[at, 1, 1] = angle.cos()
    d.affine[at, 0, 1], d.affine[at, 1, 0] = -angle.sin(), angle.sin()


_WRITE: dict[Operation, Callable[[Draws, Tensor, Tensor, int], None]] = {
    "color": _color, "crop": _crop, "cutout": _cutout, "flip": _flip, "scale": _scale, "rotate": _rotate,
}  # fmt: skip


def draw(policy: Sequence[Operation], m: int, side: int, stream: Stream) -> Draws:
    """m transformations for square images of the given side (pixels), on the CPU."""
    draws = identity(m)
    if not policy:
        return draws
    u = stream.uniforms(m, UNIFORMS_PER_DRAW)
    chosen = (u[:, 0] * len(policy)).floor().long()
    for index, operation in enumerate(policy):
        at = torch.nonzero(chosen == index).flatten()
        if len(at):
            _WRITE[operation](draws, at, u[at], side)
    return draws


def augment(x: Float32[Tensor, "n c s s"], draws: Draws) -> Float32[Tensor, "n c s s"]:
    """Images in network units, each transformed by its own draw; differentiable in x."""
    brightness, saturation, contrast = (column.view(-1, 1, 1, 1) for column in draws.colour.unbind(1))
    x = x + brightness
    if x.shape[1] > 1:  # a grey image is its own mean over channels
        mean = x.mean(1, keepdim=True)
        x = (x - mean) * saturation + mean
    mean = x.mean((1, 2, 3), keepdim=True)
    x = (x - mean) * contrast + mean
    grid = F.affine_grid(draws.affine, list(x.shape), align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    pixel = torch.arange(x.shape[-1], device=x.device)
    left, right, top, bottom = (column.view(-1, 1) for column in draws.box.unbind(1))
    columns = (pixel >= left) & (pixel < right)
    rows = (pixel >= top) & (pixel < bottom)
    return x.masked_fill((rows[:, None, :, None] & columns[:, None, None, :]), 0.0)


def expand(images: Float[Tensor, "n c h w"], factor: int) -> Float[Tensor, "m c h w"]:
    """Cut every image into factor x factor tiles (row by row), each enlarged to full size (bilinear)."""
    if factor == 1:
        return images
    n, c, h, w = images.shape
    tiles = images.reshape(n, c, factor, h // factor, factor, w // factor)
    tiles = tiles.permute(0, 2, 4, 1, 3, 5).reshape(n * factor**2, c, h // factor, w // factor)
    return F.interpolate(tiles, size=(h, w), mode="bilinear", align_corners=False)


def mosaic(images: Float[Tensor, "m c h w"], factor: int) -> Float[Tensor, "n c h w"]:
    """Pack every factor^2 consecutive images, reduced by averaging, into one image."""
    if factor == 1:
        return images
    m, c, h, w = images.shape
    small = F.avg_pool2d(images, factor).reshape(m // factor**2, factor, factor, c, h // factor, w // factor)
    return small.permute(0, 3, 1, 4, 2, 5).reshape(m // factor**2, c, h, w)


def cutmix(
    x: Float32[Tensor, "n c s s"], targets: Float32[Tensor, "n classes"], stream: Stream
) -> tuple[Float32[Tensor, "n c s s"], Float32[Tensor, "n classes"]]:
    """One box for the batch, of a share 1 - lambda of the image (lambda uniform, that is Beta(1, 1)), pasted from a
    random other order of the batch; targets are mixed by the share of pixels that is left.
    """
    side = x.shape[-1]
    share, across, down = stream.uniforms(3).tolist()
    reach = side * math.sqrt(1 - share) / 2
    left, top = max(0, int(across * side - reach)), max(0, int(down * side - reach))
    right, bottom = min(side, int(across * side + reach)), min(side, int(down * side + reach))
    order = stream.permutation(len(x)).to(x.device)
    mixed = x.clone()
    mixed[:, :, top:bottom, left:right] = x[order, :, top:bottom, left:right]
    kept = 1 - (bottom - top) * (right - left) / side**2
    return mixed, kept * targets + (1 - kept) * targets[order]

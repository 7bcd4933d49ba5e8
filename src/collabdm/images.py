"""Labelled images in memory, and the map from pixels to network units.

Pixels are uint8 in 0 .. 255, or float32 scaled so that 0 .. 1 is the same range; learned images may
exceed that range. Networks receive

    (x - mean) / std,    x in 0 .. 1

with constants from the Plan, never from one site's data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from collabdm.errors import DataError, check_type
from collabdm.pictures import SHOWN_SIDE, as_html, contact_sheet

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = UInt8[Tensor, "n c h w"] | Float32[Tensor, "n c h w"]


@dataclass(frozen=True)
class ImageSet:
    """Images with their labels and the names of the classes. Raises DataError if they do not fit.

    `images` has shape (n, channels, height, width); `labels` has shape (n,) and contains positions
    in `classes`. A set is a torch Dataset of (float32 pixels, class), which a DataLoader accepts.
    """

    images: Pixels
    labels: Int64[Tensor, " n"]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        for name, tensor in (("images", self.images), ("labels", self.labels)):
            check_type(name, tensor, Tensor, DataError, "convert it with torch.as_tensor")

        if self.images.dtype not in (torch.uint8, torch.float32) or self.images.ndim != 4:
            raise DataError(
                "`images` should be uint8 or float32 of shape (n, channels, height, width); "
                f"found {self.images.dtype} of shape {tuple(self.images.shape)}"
            )
        if self.images.dtype == torch.float32 and not bool(torch.isfinite(self.images).all()):
            raise DataError("images should be finite; found NaN or infinity")

        if self.labels.shape != (len(self.images),) or self.labels.dtype != torch.int64:
            raise DataError(
                f"`labels` should be int64, one per image, ({len(self.images)},); "
                f"found {self.labels.dtype} of shape {tuple(self.labels.shape)}"
            )
        if len(self.labels):
            self._check_labels()

    def _check_labels(self) -> None:
        least, most, count = int(self.labels.min()), int(self.labels.max()), len(self.classes)
        if not 0 <= least <= most < count:
            raise DataError(
                f"labels should be in 0 .. {count - 1} (there are {count} classes); "
                f"found {least} .. {most}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Float32[Tensor, "c h w"], int]:
        """Return an image, where 0 .. 1 is the range of uint8 pixels, and its class."""
        return as_float(self.images[i].unsqueeze(0))[0], int(self.labels[i])

    def __repr__(self) -> str:
        """Describe the set in one line."""
        size = " x ".join(map(str, self.images.shape[1:]))
        return f"ImageSet({len(self):,} images of {size}, {listed(self.classes)})"

    def _repr_html_(self) -> str:
        """Show the images in a notebook."""
        return as_html(self.picture(), repr(self)) if len(self) else repr(self)

    def picture(self, columns: int = 10, zoom: int | None = None) -> "Image":
        """Draw the images, a row for each class, with at most `columns` images of each.

        An image has `zoom` pixels for each of its own; by default it is enlarged to about 64.
        Raises DataError if there are no images.
        """
        if not len(self):
            raise DataError("a set to draw should have images; found none")
        pixels = as_uint8(self.images)
        rows = [pixels[index] for y in range(len(self.classes)) if len(index := self.of_class(y))]
        return contact_sheet(rows, columns, zoom or max(1, SHOWN_SIDE // self.images.shape[-1]))

    def show(self, columns: int = 10) -> None:
        """Open a window with the images, as `picture` draws them."""
        self.picture(columns).show()

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one image: (channels, height, width)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def counts(self) -> Int64[Tensor, " classes"]:
        """Count the images of each class, n_y."""
        return torch.bincount(self.labels, minlength=len(self.classes))

    def of_class(self, y: int) -> Int64[Tensor, " n_y"]:
        """Return the positions of the images of class y, in order."""
        return torch.nonzero(self.labels == y).flatten()

    def subset(self, index: Int64[Tensor, " m"]) -> "ImageSet":
        """Return the images at the given positions, with their labels."""
        return ImageSet(self.images[index], self.labels[index], self.classes)

    def nbytes(self) -> int:
        """The number of bytes of the pixels."""
        return self.images.numel() * self.images.element_size()


def check_image_set(name: str, data: object) -> None:
    """Check that an argument is an ImageSet. Raises DataError with the way to make one."""
    remedy = "make one with `load(...)`, or as ImageSet(images, labels, classes) from tensors"
    check_type(name, data, ImageSet, DataError, remedy)


def listed(classes: Sequence[str]) -> str:
    """Name the classes in a few words.

    >>> listed(("cat", "dog")), listed([str(y) for y in range(100)])
    ('2 classes: cat, dog', '100 classes: 0, 1, 2, …, 99')
    """
    shown = [*classes[:3], "…", classes[-1]] if len(classes) > 5 else classes
    return f"{len(classes)} classes: {', '.join(shown)}"


def pool(sets: Sequence[ImageSet]) -> ImageSet:
    """Concatenate sets, in the order given. Raises DataError if their classes differ."""
    if len({s.classes for s in sets}) != 1:
        raise DataError("sets to pool should have the same classes in the same order")

    images = torch.cat([s.images for s in sets])
    return ImageSet(images, torch.cat([s.labels for s in sets]), sets[0].classes)


def as_float(images: Pixels) -> Float32[Tensor, "n c h w"]:
    """Convert pixels to float32, where 0 .. 1 is the range of uint8 pixels."""
    return images.float() / 255 if images.dtype == torch.uint8 else images


def as_uint8(images: Pixels) -> UInt8[Tensor, "n c h w"]:
    """Round pixels to uint8 in 0 .. 255; values outside this range are clipped."""
    if images.dtype == torch.uint8:
        return images
    return (images.clamp(0, 1) * 255).round().to(torch.uint8)


@dataclass(frozen=True)
class Normalisation:
    """The affine map from pixels in 0 .. 1 to network units: a mean and std for each channel."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def _constants(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and std as (1, channels, 1, 1), on the device of `like`."""
        mean = torch.tensor(self.mean, device=like.device).view(1, -1, 1, 1)
        return mean, torch.tensor(self.std, device=like.device).view(1, -1, 1, 1)

    def apply(self, images: Pixels) -> Float32[Tensor, "n c h w"]:
        """Convert pixels to network units."""
        mean, std = self._constants(images)
        return (as_float(images) - mean) / std

    def invert(self, values: Float32[Tensor, "n c h w"]) -> Float32[Tensor, "n c h w"]:
        """Convert network units to float32 pixels, where 0 .. 1 is the range of uint8 pixels."""
        mean, std = self._constants(values)
        return values * std + mean


def measure_normalisation(data: ImageSet) -> Normalisation:
    """Measure the mean and std of each channel of a reference set, rounded to four decimals."""
    levels = data.images.flatten(2).transpose(0, 1).flatten(1)  # channel, pixel
    scale = 255.0 if levels.dtype == torch.uint8 else 1.0

    mean = [float(channel.double().mean()) / scale for channel in levels]
    std = [float(channel.double().std(correction=0)) / scale for channel in levels]

    least_std = 1e-3  # avoids a division by 0 for a constant channel
    return Normalisation(
        tuple(round(m, 4) for m in mean), tuple(max(round(s, 4), least_std) for s in std)
    )

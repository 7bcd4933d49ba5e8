"""Decode one image (a file, encoded bytes, an array or a tensor) into planes of bytes.

    byte = round(255 v)       for an array of real values v in 0 .. 1; bytes are kept unchanged

Reference: Pillow decodes and resizes the images.
"""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image, ImageOps
from torch import Tensor

from collabdm.documents.regular_file import read_regular
from collabdm.errors import DataError

GREY_MODES = ("L", "LA", "1")
DEEP_MODES = ("I", "F")  # modes of 16 or 32 bits per level, which Pillow would clip silently
CHANNELS = (1, 3)

#: Pillow can open others, of which some are handed to other programs (PostScript)
PICTURE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
MOST_PIXELS = 50_000_000  # of one picture, before it is resized


def read_image(
    image: object, where: str, side: int | None = None, channels: int | None = None
) -> UInt8[np.ndarray, "c h w"]:
    """Decode one image.

    Args:
        image: A path, encoded bytes, the hub's {bytes, path}, a Pillow image, an array or a tensor.
        where: The name of the image, for errors.
        side: Resize to side x side pixels, bilinear with antialiasing, ignoring the aspect ratio.
        channels: Convert to grey (1) or RGB (3). By default, grey images remain grey and all others
            become RGB.

    Returns:
        Planes of bytes, (channels, height, width).

    Raises:
        DataError: The image cannot be decoded, or has more than 8 bits per level.
    """
    if isinstance(image, (np.ndarray, Tensor)):
        planes = _planes(np.asarray(image), where, channels_first=isinstance(image, Tensor))
        if channels in (None, len(planes)) and (side is None or planes.shape[1:] == (side, side)):
            return planes
        image = Image.fromarray(planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0))

    if isinstance(image, dict):
        image = image.get("bytes") or image.get("path")
    if isinstance(image, (Path, str)):
        where = f"`{image}`"

    picture = _convert(_open(image, where), where, channels)
    if side is not None and picture.size != (side, side):
        picture = picture.resize((side, side), Image.Resampling.BILINEAR)

    pixels = np.asarray(picture)
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _open(image: object, where: str) -> Image.Image:
    """Open an image with Pillow, load all its pixels, and turn it upright. Raises DataError."""
    if not isinstance(image, (Path, str, bytes, bytearray, Image.Image)):
        raise DataError(
            f"{where} should be an image, encoded bytes or an array; found {type(image).__name__}"
        )

    try:
        if isinstance(image, (Path, str)):
            image = read_regular(Path(image))
        picture = image if isinstance(image, Image.Image) else _opened(image)
        picture.load()
        return ImageOps.exif_transpose(picture)
    except Exception as error:  # damaged bytes make decoders raise errors of any kind
        raise DataError(
            f"{where} should be a whole image file; it cannot be read ({error})"
        ) from error


def _opened(content: bytes | bytearray) -> Image.Image:
    """Open encoded bytes of a known format, and check the size before anything is decoded."""
    picture = Image.open(io.BytesIO(content), formats=PICTURE_FORMATS)
    width, height = picture.size
    if width * height > MOST_PIXELS:
        raise ValueError(f"{width:,} x {height:,} pixels, more than {MOST_PIXELS:,}")
    return picture


def _convert(picture: Image.Image, where: str, channels: int | None) -> Image.Image:
    if picture.mode.startswith(DEEP_MODES):
        raise DataError(
            f"{where} should have 8 bits per channel; found mode {picture.mode}: "
            "scale it to 0 .. 255"
        )

    grey = channels == 1 or (channels is None and picture.mode in GREY_MODES)
    return picture.convert("L" if grey else "RGB")


def _planes(
    array: Shaped[np.ndarray, "..."], where: str, channels_first: bool
) -> UInt8[np.ndarray, "c h w"]:
    """Convert an array (h, w), (h, w, c) or (c, h, w) to planes of bytes. Raises DataError."""
    array = array[None] if array.ndim == 2 else array

    order = (0, 2) if channels_first else (2, 0)
    axes = [axis for axis in order if array.ndim == 3 and array.shape[axis] in CHANNELS]
    if not axes:
        raise DataError(
            f"{where} should be (h, w), (h, w, c) or (c, h, w) with c = 1 or 3; found {array.shape}"
        )

    return np.moveaxis(_levels(array, where), axes[0], 0)


def _levels(array: Shaped[np.ndarray, "..."], where: str) -> UInt8[np.ndarray, "..."]:
    """Convert real values in 0 .. 1 to bytes; return bytes unchanged. Raises DataError."""
    if np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):  # rejects NaN too
            raise DataError(
                f"{where} should have values in 0 .. 1; "
                f"found {array.min():.4g} .. {array.max():.4g}: leave normalisation to the plan"
            )
        return np.round(array.astype(np.float64) * 255).astype(np.uint8)

    if array.dtype != np.uint8:
        raise DataError(f"{where} should be uint8, or real in 0 .. 1; found {array.dtype}")
    return array

"""Decode one image (a file, encoded bytes, an array or a tensor) into planes of bytes.

    file  ->  first frame  ->  upright  ->  bytes (`pixels`)  ->  side x side

Reference: Pillow decodes and resizes the images; JEITA CP-3451, "Exif" (the orientation tag).
"""

import io
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from collabdm.data.conversion import (
    MOST_PIXELS_VARIABLE,
    PILLOWS_LIMIT,
    Conversion,
    PictureError,
    UnreadableError,
    most_pixels,
)
from collabdm.data.dicom import dicom_picture, is_dicom
from collabdm.data.pixels import deep_colour, fitted, flat, level_bytes
from collabdm.data.tally import Remarks
from collabdm.documents.picture_rules import PictureRules
from collabdm.documents.regular_file import read_regular
from collabdm.errors import DataError

CHANNELS = (1, 3)

#: Pillow can open others, of which some are handed to other programs (PostScript)
PICTURE_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")

ORIENTATION = 0x0112  # the tag of EXIF
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def read_image(
    image: object,
    where: str,
    conversion: Conversion = Conversion(),
    remarks: Remarks | None = None,
) -> UInt8[np.ndarray, "c h w"]:
    """Decode one image.

    Args:
        image: A path, encoded bytes, the hub's {bytes, path}, a Pillow image, an array or a tensor.
        where: The name of the image, for errors.
        conversion: The side and channels to make, and the rules of the plan. Without channels,
            grey images remain grey and all others become RGB.
        remarks: Counts what was changed; None counts nothing.

    Returns:
        Planes of bytes, (channels, height, width).

    Raises:
        UnreadableError: The image cannot be decoded.
        DataError: Its levels or its shape do not fit the rules.
    """
    remarks = Remarks() if remarks is None else remarks
    side, channels, rules = conversion.side, conversion.channels, conversion.rules
    if isinstance(image, (np.ndarray, Tensor)):
        planes = _planes(image, where, rules, remarks)
        size = planes.shape[1:]
        unchanged = size == (side, side) or (
            side is None and (size[0] == size[1] or rules.fit == "squash")
        )
        if unchanged and channels in (None, len(planes)):
            return planes
        image = Image.fromarray(planes[0] if len(planes) == 1 else planes.transpose(1, 2, 0))

    if isinstance(image, dict):
        image = image.get("bytes") or image.get("path")
    if isinstance(image, (Path, str)):
        where = f"`{image}`"

    picture = flat(_open(image, where, rules, remarks), where, channels, rules, remarks)
    pixels = np.asarray(fitted(picture, where, conversion, remarks))
    return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def _open(image: object, where: str, rules: PictureRules, remarks: Remarks) -> Image.Image:
    """Open an image, load the pixels of its first frame, and turn it upright. Raises DataError."""
    if not isinstance(image, (Path, str, bytes, bytearray, Image.Image)):
        raise DataError(
            f"{where} should be an image, encoded bytes or an array; found {type(image).__name__}"
        )

    content: bytes = b""
    try:
        if isinstance(image, (Path, str)):
            content = read_regular(Path(image))
        elif not isinstance(image, Image.Image):
            content = bytes(image)
        if is_dicom(content):
            return dicom_picture(content, where, rules, remarks)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged metadata; damaged pixels raise errors
            picture = image if isinstance(image, Image.Image) else _opened(content)
            if getattr(picture, "n_frames", 1) > 1:
                remarks.add("several_frames", where)
            _check_depth(picture, where, rules, remarks)
            picture.load()
            return _upright(picture, where, remarks)
    except DataError:
        raise
    except Exception as error:  # damaged bytes make decoders raise errors of any kind
        raise UnreadableError(where, _reason(error, content)) from error


def _reason(error: Exception, content: bytes) -> str:
    """Explain why a picture cannot be read, in words of this package."""
    start = content[:512].lstrip().lower()
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    if isinstance(error, FileNotFoundError):
        return "it does not exist"
    if isinstance(error, PictureError):
        return str(error)
    if isinstance(error, OSError) and error.errno is not None:
        return error.strerror or "the system cannot read it"
    if not content:
        return "it is empty"
    if start.startswith((b"<!doctype html", b"<html")):
        return "it is a web page"
    if isinstance(error, UnidentifiedImageError):
        return f"it is none of {', '.join(PICTURE_FORMATS)}, or its beginning is damaged"
    if "truncated" in str(error) or isinstance(error, EOFError):
        return "it is cut off"
    return "it is damaged"


def _opened(content: bytes) -> Image.Image:
    """Open encoded bytes of a known format, and check the size before anything is decoded."""
    most = most_pixels()
    try:
        picture = Image.open(io.BytesIO(content), formats=PICTURE_FORMATS)
    except Image.DecompressionBombError as error:
        raise PictureError(f"it has more than {PILLOWS_LIMIT:,} pixels") from error

    width, height = picture.size
    if width * height > most:
        raise PictureError(
            f"it has {width:,} x {height:,} pixels, more than {most:,}: set "
            f"{MOST_PIXELS_VARIABLE} to raise this limit"
        )
    return picture


def _check_depth(picture: Image.Image, where: str, rules: PictureRules, remarks: Remarks) -> None:
    """Check colours of 16 bits, of which Pillow reads the high byte. Raises DataError."""
    if not deep_colour(picture):
        return
    if rules.ends is not None:
        raise DataError(
            f"{where} has colours of 16 bits, which can be read with the range full; found the "
            f"range {rules.range}: convert it to 8 bits"
        )
    remarks.add("deep_levels", where)


def _upright(picture: Image.Image, where: str, remarks: Remarks) -> Image.Image:
    """Turn a picture by its orientation tag; one that cannot be read turns nothing."""
    turn = None
    try:
        orientation = picture.getexif().get(ORIENTATION, 1)
        if orientation not in (0, 1):
            turn = TURNS[orientation]
    except Exception:  # damaged metadata raises errors of any kind
        remarks.add("orientation", where)
    return picture if turn is None else picture.transpose(turn)


def _planes(
    image: Shaped[np.ndarray, "..."] | Tensor, where: str, rules: PictureRules, remarks: Remarks
) -> UInt8[np.ndarray, "c h w"]:
    """Convert an array (h, w), (h, w, c) or (c, h, w) to planes of bytes. Raises DataError."""
    channels_first = isinstance(image, Tensor)
    array = np.asarray(image)
    array = array[None] if array.ndim == 2 else array

    order = (0, 2) if channels_first else (2, 0)
    axes = [axis for axis in order if array.ndim == 3 and array.shape[axis] in CHANNELS]
    if not axes or 0 in array.shape:
        volume = " (a volume?)" if array.ndim in (3, 4) and min(array.shape) > 4 else ""
        raise DataError(
            f"{where} should be (h, w), (h, w, c) or (c, h, w) with c = 1 or 3; "
            f"found {array.shape}{volume}"
        )
    return np.moveaxis(level_bytes(_levels(array, where, rules), where, rules, remarks), axes[0], 0)


def _levels(
    array: Shaped[np.ndarray, "..."], where: str, rules: PictureRules
) -> Shaped[np.ndarray, "..."]:
    """Convert real levels in 0 .. 1 to bytes, if the rules have no range. Raises DataError."""
    if array.dtype.kind != "f" or rules.range is not None:
        return array
    if not (array.min() >= 0 and array.max() <= 1):  # rejects NaN too
        raise DataError(
            f"{where} should have values in 0 .. 1; found {array.min():.4g} .. "
            f"{array.max():.4g}: leave normalisation to the plan, or declare a `--range`"
        )
    return np.round(array.astype(np.float64) * 255).astype(np.uint8)

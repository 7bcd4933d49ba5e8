"""Turn levels of any depth into bytes, by the rules of the plan.

    byte = round(255 clip((v - low) / (high - low), 0, 1))
    byte = v                                                  for levels that are bytes already

Real levels without a range should be in 0 .. 1.
"""

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image, ImageOps

from collabdm.data.conversion import Conversion, DeepLevelsError
from collabdm.data.tally import Remarks
from collabdm.documents.picture_rules import FULL, PictureRules
from collabdm.errors import DataError

GREY_MODES = ("L", "LA", "1", "La")
DEEP_MODES = ("I", "F")  # modes of 16 or 32 bits per level, which Pillow would clip silently
ALPHA_MODES = ("RGBA", "LA", "PA", "La", "RGBa")
DEEP_COLOUR = ("16B", "16L", "16N")  # Pillow's names of raw modes with 16 bits per level

Levels = Shaped[np.ndarray, "..."]
Bytes = UInt8[np.ndarray, "..."]


def level_bytes(
    levels: Levels, where: str, rules: PictureRules, remarks: Remarks, full: int | None = None
) -> Bytes:
    """Convert the levels of one picture to bytes.

    Args:
        levels: bytes, which are unchanged, or numbers of another type.
        where: the name of the picture, for errors.
        rules: the rules of the plan.
        remarks: counts pictures that are scaled.
        full: the largest level of the file's type; None takes that of the array's type.

    Returns:
        The bytes, in the same shape.

    Raises:
        DataError: the rules have no range for such levels, or they are not numbers.
    """
    if levels.dtype == np.uint8:
        return levels
    if levels.dtype == bool:
        return levels.astype(np.uint8) * 255
    if levels.dtype.kind not in "iuf" or not levels.size:
        raise DataError(f"{where} should contain numbers; found {levels.dtype} of {levels.shape}")

    least, most = float(levels.min()), float(levels.max())
    if not np.isfinite(least + most):
        raise DataError(f"{where} should have finite levels; found NaN or infinity")

    low, high = _ends(levels.dtype, (least, most), where, rules, full)
    if least < low or most > high:
        remarks.add("outside_range", where)
    remarks.add("deep_levels", where)
    return share_bytes((levels.astype(np.float64) - low) / (high - low))


def share_bytes(shares: Levels) -> Bytes:
    """Convert shares of the range to bytes; those outside 0 .. 1 become its ends."""
    return np.round(shares.clip(0, 1) * 255).astype(np.uint8)


def _ends(
    kind: np.dtype,
    found: tuple[float, float],
    where: str,
    rules: PictureRules,
    full: int | None,
) -> tuple[float, float]:
    """Return the levels that become 0 and 255. Raises DataError if the rules have none."""
    if rules.ends is not None:
        return rules.ends

    real = kind.kind == "f"
    if rules.range == FULL:
        if real and not 0 <= found[0] <= found[1] <= 1:
            raise DataError(
                f"{where} should have values in 0 .. 1, the full range of real levels; found "
                f"{found[0]:g} .. {found[1]:g}: use a range LOW..HIGH"
            )
        most = 1 if real else full
        if most is None and kind.itemsize > 2:
            raise DataError(
                f"{where} has levels of {8 * kind.itemsize} bits, from {found[0]:g} to "
                f"{found[1]:g}: use a range LOW..HIGH in place of full"
            )
        return (0.0, float(np.iinfo(kind).max if most is None else most))
    raise DeepLevelsError(where, *found)


def deep_colour(picture: Image.Image) -> bool:
    """Whether a file has colours of 16 bits, of which Pillow reads the high byte."""
    modes = (str(tile[3]) for tile in getattr(picture, "tile", ()) if len(tile) > 3)
    return picture.mode in ("RGB", "RGBA", "LA") and any(
        word in mode for mode in modes for word in DEEP_COLOUR
    )


def flat(
    picture: Image.Image, where: str, channels: int | None, rules: PictureRules, remarks: Remarks
) -> Image.Image:
    """Convert a picture to grey (L) or colour (RGB), with transparent pixels on the ground.

    Args:
        picture: a whole picture.
        where: its name, for errors.
        channels: 1 for grey, 3 for colour; None keeps grey pictures grey.
        rules: the rules of the plan.
        remarks: counts pictures that are changed.

    Raises:
        DataError: the rules have no range for its levels.
    """
    if picture.mode.startswith(DEEP_MODES):
        full = 2**16 - 1 if picture.mode.startswith("I;16") or _from_16_bits(picture) else None
        levels = np.asarray(picture)
        picture = Image.fromarray(level_bytes(levels, where, rules, remarks, full))

    grey = channels == 1 or (channels is None and picture.mode in GREY_MODES)
    if picture.mode in ALPHA_MODES or "transparency" in picture.info:
        picture = _composed(picture, where, rules, remarks)
    return picture.convert("L" if grey else "RGB")


def _from_16_bits(picture: Image.Image) -> bool:
    """Whether Pillow widened the 16 bits of a PNG or PGM file to 32."""
    return picture.mode == "I" and picture.format in ("PNG", "PPM")


def _composed(
    picture: Image.Image, where: str, rules: PictureRules, remarks: Remarks
) -> Image.Image:
    """Lay a picture over the ground; a picture without transparent pixels is unchanged."""
    colours = picture.convert("RGBA")
    if colours.getchannel("A").getextrema() == (255, 255):
        return colours.convert("RGB") if picture.mode in ALPHA_MODES else picture

    remarks.add("transparency", where)
    ground = Image.new("RGBA", picture.size, (*rules.colour, 255))
    return Image.alpha_composite(ground, colours)


def fitted(
    picture: Image.Image, where: str, conversion: Conversion, remarks: Remarks
) -> Image.Image:
    """Resize a picture, bilinear with antialiasing, and make it square by the rules.

    Args:
        picture: a picture of bytes.
        where: its name, for remarks.
        conversion: the side; None keeps the size.
        remarks: counts pictures that are not square.
    """
    side, crop = conversion.side, conversion.rules.fit == "crop"
    width, height = picture.size
    if width != height and (side is not None or crop):
        remarks.add("cropped" if crop else "squashed", where)
        if crop:
            picture = ImageOps.crop(picture, _margins(width, height))

    if side is not None and picture.size != (side, side):
        picture = picture.resize((side, side), Image.Resampling.BILINEAR)
    return picture


def _margins(width: int, height: int) -> tuple[int, int, int, int]:
    """Return what the central square leaves out: left, top, right, bottom."""
    across, down = max(width - height, 0), max(height - width, 0)
    return across // 2, down // 2, across - across // 2, down - down // 2

"""Decode DICOM pictures, with the extra `dicom`.

    v = slope stored + intercept                                  modality rescale
    byte = round(255 clip((v - (c - 1/2)) / (w - 1) + 1/2, 0, 1))       window of centre c, width w

A range in the plan replaces the window, in units of v. MONOCHROME1 is inverted, so that bright
pixels are always large. Of several frames the first one is used.

Reference: DICOM PS3.3, C.11.1 (modality LUT) and C.11.2 (VOI LUT).
"""

import io
import warnings
from typing import Any

import numpy as np
from jaxtyping import Shaped
from PIL import Image

from collabdm.data.conversion import PictureError, most_pixels
from collabdm.data.pixels import level_bytes, share_bytes
from collabdm.data.tally import Remarks
from collabdm.documents.picture_rules import PictureRules
from collabdm.errors import DataError

MAGIC, MAGIC_AT = b"DICM", 128
GREY = ("MONOCHROME1", "MONOCHROME2")


def is_dicom(content: bytes) -> bool:
    """Whether the bytes of a file are a DICOM file."""
    return content[MAGIC_AT : MAGIC_AT + len(MAGIC)] == MAGIC


def dicom_picture(content: bytes, where: str, rules: PictureRules, remarks: Remarks) -> Image.Image:
    """Decode the first frame of a DICOM file to a grey or colour picture of bytes.

    Args:
        content: the bytes of the file.
        where: its name, for errors.
        rules: the rules of the plan.
        remarks: counts what was changed.

    Raises:
        DataError: pydicom is not installed, or the rules have no range for its levels.
        Exception: the file is damaged; pydicom raises errors of any kind.
    """
    try:
        import pydicom
    except ImportError as error:
        raise DataError(
            f"{where} is a DICOM file, which needs pydicom: pip install 'collabdm[dicom]'"
        ) from error

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        header = pydicom.dcmread(io.BytesIO(content))
        _check_size(header)
        levels = _first_frame(header, where, remarks)
        kind = str(header.get("PhotometricInterpretation", "MONOCHROME2"))
        if kind not in GREY:
            return _colour(levels, kind, where, rules, remarks)

        levels = levels * _number(header, "RescaleSlope", 1.0) + _number(
            header, "RescaleIntercept", 0.0
        )
    return Image.fromarray(_grey(header, levels, kind, where, rules, remarks))


def _check_size(header: Any) -> None:
    """Check the declared size before anything is decoded. Raises PictureError."""
    pixels = int(header.Rows) * int(header.Columns) * int(header.get("NumberOfFrames", 1) or 1)
    if not 0 < pixels <= most_pixels():
        raise PictureError(f"it has {pixels:,} pixels in all frames, of at most {most_pixels():,}")


def _first_frame(header: Any, where: str, remarks: Remarks) -> Shaped[np.ndarray, "..."]:
    try:
        levels = header.pixel_array
    except (RuntimeError, NotImplementedError) as error:
        raise PictureError(
            "its compression needs another decoder: pip install pylibjpeg pylibjpeg-libjpeg"
        ) from error
    if int(header.get("NumberOfFrames", 1) or 1) > 1:
        remarks.add("several_frames", where)
        levels = levels[0]
    return levels


def _colour(
    levels: Shaped[np.ndarray, "..."], kind: str, where: str, rules: PictureRules, remarks: Remarks
) -> Image.Image:
    if kind != "RGB" or levels.ndim != 3:
        raise DataError(
            f"{where} should be grey or RGB; found {kind}: convert it with another program"
        )
    return Image.fromarray(level_bytes(levels, where, rules, remarks))


def _grey(
    header: Any,
    levels: Shaped[np.ndarray, "h w"],
    kind: str,
    where: str,
    rules: PictureRules,
    remarks: Remarks,
) -> np.ndarray:
    """Scale the levels of a grey picture by the plan's range or by the window of its header."""
    window = None if rules.range is not None else _window(header)
    if window is not None:
        centre, width = window
        shares = (levels - (centre - 0.5)) / max(width - 1, 1) + 0.5
        scaled = share_bytes(shares)
        remarks.add("window", where)
    else:
        stored = int(header.get("BitsStored", 16))
        if stored <= 8 and rules.range is None and levels.min() >= 0 and levels.max() <= 255:
            scaled = np.round(levels).astype(np.uint8)
        else:
            whole = levels if (levels % 1).any() else levels.astype(np.int64)
            scaled = level_bytes(whole, where, rules, remarks, 2**stored - 1)
    return 255 - scaled if kind == "MONOCHROME1" else scaled


def _window(header: Any) -> tuple[float, float] | None:
    """Return the first window of a header, centre and width; None if it has none."""
    values = [header.get("WindowCenter"), header.get("WindowWidth")]
    if None in values:
        return None
    centre, width = (float(v[0] if hasattr(v, "__getitem__") else v) for v in values)
    return centre, width


def _number(header: Any, name: str, default: float) -> float:
    value = header.get(name)
    return default if value is None else float(value)

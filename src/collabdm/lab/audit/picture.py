"""Draw audit.png: released images beside the nearest private ones, and a small class recovered.

The first rows show, for each kind of release, the released images (above), the nearest image that
the round uses (middle) and the nearest that it does not use (below). The last rows show the images
of the small class, and the nearest reconstruction of each from the means.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor

from collabdm.documents.atomic_write import atomic_write_with
from collabdm.images import as_uint8
from collabdm.pictures import SHOWN_SIDE

GAP, TEXT_HEIGHT = 2, 18


@dataclass(frozen=True)
class Strip:
    """Rows of images under a title, all with the same number of images."""

    title: str
    rows: Sequence[Float32[Tensor, "n c h w"]]


def write_strips(strips: Sequence[Strip], path: Path) -> None:
    """Write the picture as PNG."""
    from PIL import Image, ImageDraw

    sheets = [_sheet(strip) for strip in strips]
    width = max(400, *(sheet.shape[1] for sheet in sheets))
    height = sum(sheet.shape[0] + TEXT_HEIGHT for sheet in sheets)
    canvas = Image.new("RGB", (width, height), "white")
    draw, top = ImageDraw.Draw(canvas), 0

    for strip, sheet in zip(strips, sheets, strict=True):
        draw.text((GAP, top + GAP), strip.title, fill="black")
        canvas.paste(Image.fromarray(sheet), (0, top + TEXT_HEIGHT))
        top += TEXT_HEIGHT + sheet.shape[0]

    atomic_write_with(path, lambda file: canvas.save(file, format="PNG"))


def _sheet(strip: Strip) -> np.ndarray:
    """Draw the rows of a strip on white."""
    side = strip.rows[0].shape[-1]
    zoom = max(1, SHOWN_SIDE // side)
    cell = side * zoom + GAP
    columns = max(len(row) for row in strip.rows)
    sheet = np.full((len(strip.rows) * cell + GAP, columns * cell + GAP, 3), 255, dtype=np.uint8)

    for y, row in enumerate(strip.rows):
        for x, pixels in enumerate(_enlarged(row, zoom)):
            top, left = y * cell + GAP, x * cell + GAP
            sheet[top : top + side * zoom, left : left + side * zoom] = pixels
    return sheet


def _enlarged(images: Float32[Tensor, "n c h w"], zoom: int) -> list[np.ndarray]:
    """Convert images to colours, (height, width, 3), enlarged."""
    channels = [0, 1, 2] if images.shape[1] == 3 else [0, 0, 0]
    levels = as_uint8(images)[:, torch.tensor(channels)].numpy().transpose(0, 2, 3, 1)
    return [colours.repeat(zoom, 0).repeat(zoom, 1) for colours in levels]

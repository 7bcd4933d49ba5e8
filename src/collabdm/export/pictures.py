"""TODO export.pictures."""

from pathlib import Path

import numpy as np
from PIL import Image

from collabdm.documents.atomic_write import atomic_write_with
from collabdm.images import ImageSet, as_uint8


def write_picture(images: ImageSet, path: Path, columns: int = 10) -> None:
    """A PNG of a set: a row per class, up to `columns` images of each, every image some 64 pixels wide."""
    zoom = max(1, 64 // images.shape[-1])
    picture = contact_sheet(images, columns, zoom)
    atomic_write_with(path, lambda file: picture.save(file, format="PNG"))


def contact_sheet(images: ImageSet, columns: int, zoom: int, gap: int = 2) -> Image.Image:
    """A row per class, up to `columns` images of each, on white."""
    channels, side, _ = images.shape
    present = [y for y in range(len(images.classes)) if len(images.of_class(y))]
    columns = min(columns, max(len(images.of_class(y)) for y in present))
    cell = side * zoom + gap
    sheet = np.full((len(present) * cell + gap, columns * cell + gap, 3), 255, dtype=np.uint8)
    pixels = as_uint8(images.images).numpy()
    for row, y in enumerate(present):
        for column, index in enumerate(images.of_class(y)[:columns].tolist()):
            one = pixels[index][[0, 0, 0] if channels != 3 else [0, 1, 2]].transpose(1, 2, 0)
            top, left = row * cell + gap, column * cell + gap
            sheet[top : top + side * zoom, left : left + side * zoom] = one.repeat(zoom, 0).repeat(zoom, 1)
    return Image.fromarray(sheet)

"""Draw contact sheets: pictures of a set with one row of images for each class."""

from pathlib import Path

import numpy as np
from PIL import Image

from collabdm.documents.atomic_write import atomic_write_with
from collabdm.images import ImageSet, as_uint8

SHOWN_SIDE = 64  # approximate side in pixels of each image on a contact sheet


def write_picture(images: ImageSet, path: Path, columns: int = 10) -> None:
    """Write a contact sheet as PNG, with each image enlarged to about 64 pixels.

    Args:
        images: The set.
        path: The file.
        columns: The largest number of images of each class.
    """
    zoom = max(1, SHOWN_SIDE // images.shape[-1])
    sheet = contact_sheet(images, columns, zoom)
    atomic_write_with(path, lambda file: sheet.save(file, format="PNG"))


def contact_sheet(images: ImageSet, columns: int, zoom: int, gap: int = 2) -> Image.Image:
    """Draw a contact sheet on white, with one row for each class that has images.

    Args:
        images: The set.
        columns: The largest number of images of each class.
        zoom: The number of sheet pixels for each image pixel, in both directions.
        gap: The number of pixels between images.
    """
    channels, side, _ = images.shape
    rows = [index for y in range(len(images.classes)) if len(index := images.of_class(y))]
    columns = min(columns, max(len(index) for index in rows))

    cell = side * zoom + gap
    sheet = np.full((len(rows) * cell + gap, columns * cell + gap, 3), 255, dtype=np.uint8)
    pixels = as_uint8(images.images).numpy()

    for row, index in enumerate(rows):
        for column, position in enumerate(index[:columns].tolist()):
            colours = pixels[position][[0, 0, 0] if channels != 3 else [0, 1, 2]]
            enlarged = colours.transpose(1, 2, 0).repeat(zoom, 0).repeat(zoom, 1)
            top, left = row * cell + gap, column * cell + gap
            sheet[top : top + side * zoom, left : left + side * zoom] = enlarged

    return Image.fromarray(sheet)

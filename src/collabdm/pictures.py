"""Draw contact sheets: rows of images on white, for files, reports and notebooks."""

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

SHOWN_SIDE = 64  # approximate side in pixels of each image on a contact sheet


def contact_sheet(
    rows: Sequence[UInt8[Tensor, "_ c h w"]], columns: int = 10, zoom: int = 1, gap: int = 2
) -> "Image":
    """Draw a contact sheet.

    Args:
        rows: the images of each row, at least one in all.
        columns: the largest number of images in a row.
        zoom: the number of sheet pixels for each image pixel, in both directions.
        gap: the number of pixels between images.

    Returns:
        The sheet. Images of three channels are in colour; of others, the first channel is drawn.
    """
    from PIL import Image  # here, so that the package is imported fast

    columns = min(columns, max(map(len, rows)))
    channels, height, width = rows[0].shape[1:]
    down, right = height * zoom + gap, width * zoom + gap
    sheet = np.full((len(rows) * down + gap, columns * right + gap, 3), 255, dtype=np.uint8)

    for row, images in enumerate(rows):
        for column, pixels in enumerate(images[:columns].numpy()):
            colours = pixels[[0, 0, 0] if channels != 3 else [0, 1, 2]]
            enlarged = colours.transpose(1, 2, 0).repeat(zoom, 0).repeat(zoom, 1)
            top, left = row * down + gap, column * right + gap
            sheet[top : top + height * zoom, left : left + width * zoom] = enlarged

    return Image.fromarray(sheet)


def as_html(sheet: "Image", caption: str) -> str:
    """Return a picture with a caption as HTML, with the pixels in it."""
    from html import escape

    stream = io.BytesIO()
    sheet.save(stream, format="PNG")
    return (
        f'<figure><figcaption>{escape(caption)}</figcaption><img alt="{escape(caption)}" '
        f'style="image-rendering: pixelated" src="{data_uri("png", stream.getvalue())}"></figure>'
    )


def data_uri(kind: str, content: bytes) -> str:
    """Encode an image file as a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"

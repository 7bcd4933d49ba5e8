"""Draw the images of a document by class, each above the most similar private image if known.

    cat          [image] [image] …
    46 apart     [private] [private] …
                  8.5      12.3

The number is the distance of the two images (`privacy.nearest`); it is red if private images of the
class are never as near to each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from collabdm.pictures import SHOWN_SIDE

COLUMNS = 12  # images on a line; further ones of the class continue below
GAP, CAPTION, LABEL, FONT = 6, 16, 150, 13  # pixels

Colour = tuple[int, int, int]
BLACK, GREY, RED, WHITE = (0, 0, 0), (110, 110, 110), (190, 0, 0), (255, 255, 255)


@dataclass(frozen=True)
class Tile:
    """An image, and the private image nearest to it with a caption, or None and no caption."""

    image: UInt8[Tensor, "c h w"]
    private: UInt8[Tensor, "c h w"] | None = None
    caption: str = ""
    is_near: bool = False


@dataclass(frozen=True)
class ClassRow:
    """The images of a class, with its name and remarks, each on a line of its own."""

    name: str
    remarks: tuple[str, ...]
    tiles: tuple[Tile, ...]


def draw_document(title: str, rows: Sequence[ClassRow]) -> Image.Image:
    """Draw the classes of a document, one below the other.

    Args:
        title: the text above the picture; lines are separated by line feeds.
        rows: the classes, each with at least one image.

    Returns:
        The picture.
    """
    widest = max(min(len(row.tiles), COLUMNS) for row in rows)
    cell = _Cell.of(rows[0].tiles[0])
    lines = [-(-len(row.tiles) // COLUMNS) for row in rows]

    heights = [_row_height(row, count, cell) for row, count in zip(rows, lines, strict=True)]
    head = GAP + (FONT + 4) * (title.count("\n") + 1) + GAP
    width = max(LABEL + widest * (cell.side + GAP) + GAP, 560)
    sheet = Image.new("RGB", (width, head + sum(heights)), WHITE)
    ImageDraw.Draw(sheet).text((GAP, GAP), title, fill=BLACK, font=_font())

    top = head
    for row, height in zip(rows, heights, strict=True):
        _draw_row(sheet, row, cell, top)
        top += height
    return sheet


@dataclass(frozen=True)
class _Cell:
    """The zoom of images, the side of a drawn one, and the height of a line of them."""

    zoom: int
    side: int
    height: int

    @classmethod
    def of(cls, tile: Tile) -> "_Cell":
        size = tile.image.shape[-1]
        zoom = max(1, round(SHOWN_SIDE / size))
        side = zoom * size
        pair = 2 * side + 2 + CAPTION if tile.private is not None else side
        return cls(zoom, side, pair + GAP)


def _row_height(row: ClassRow, lines: int, cell: _Cell) -> int:
    texts = (1 + len(row.remarks)) * (FONT + 4)
    return max(lines * cell.height, texts) + GAP


def _draw_row(sheet: Image.Image, row: ClassRow, cell: _Cell, top: int) -> None:
    draw = ImageDraw.Draw(sheet)
    draw.text((GAP, top), row.name[:24], fill=BLACK, font=_font())
    for number, remark in enumerate(row.remarks, start=1):
        draw.text((GAP, top + number * (FONT + 4)), remark, fill=GREY, font=_font(FONT - 2))

    for number, tile in enumerate(row.tiles):
        line, column = divmod(number, COLUMNS)
        left, above = LABEL + column * (cell.side + GAP), top + line * cell.height
        sheet.paste(_enlarged(tile.image, cell.zoom), (left, above))

        if tile.private is not None:
            sheet.paste(_enlarged(tile.private, cell.zoom), (left, above + cell.side + 2))
            colour: Colour = RED if tile.is_near else BLACK
            place = (left + cell.side // 2, above + 2 * cell.side + 2)
            draw.text(place, tile.caption, fill=colour, font=_font(FONT - 1), anchor="ma")


def _enlarged(image: UInt8[Tensor, "c h w"], zoom: int) -> Image.Image:
    """Convert an image to RGB, enlarged without smoothing; other than three channels are grey."""
    channels = [0, 1, 2] if len(image) == 3 else [0, 0, 0]
    pixels = np.ascontiguousarray(image.numpy()[channels].transpose(1, 2, 0))
    return Image.fromarray(pixels.repeat(zoom, 0).repeat(zoom, 1))


def _font(size: int = FONT) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)

"""Fill page templates: each page is one self-contained file, and all text is escaped."""

import io
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from collabdm.pictures import data_uri
from collabdm.report.contestants import is_baseline
from collabdm.report.figures import INK
from collabdm.report.palette import look_of


class Mark(NamedTuple):
    """A mark on a cell of a table: its CSS class, and its text."""

    kind: str
    text: str


class Table(NamedTuple):
    """A table of text; the cells of the first column name the rows.

    Attributes:
        columns: The headings.
        rows: The texts of the cells.
        caption: A sentence above the table.
        marks: Marks on cells, by row and column.
        keyed: Whether the first column names sets, shown with their colours and markers.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    marks: Mapping[tuple[int, int], Mark] = {}
    keyed: bool = False


class Plot(NamedTuple):
    """A plot as SVG, with its caption."""

    svg: str
    caption: str

    @property
    def markup(self) -> Markup:
        """The SVG element, in the page's text colour, with a description for screen readers."""
        element = self.svg[self.svg.index("<svg") :].replace(INK, "currentColor")
        described = f'<svg role="img" aria-label="{escape(self.caption)}" '
        return Markup(element.replace("<svg ", described, 1))


def render(template: str, **context: Any) -> bytes:
    """Fill the named template in `templates/`. Returns the HTML page."""
    return _environment().get_template(template).render(**context).encode()


def with_code(text: str) -> Markup:
    """Escape text, and show the parts in backticks as code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("collabdm.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["look"] = look_of
    environment.filters["code"] = with_code
    environment.tests["baseline"] = is_baseline
    return environment


def png_uri(pixels: UInt8[np.ndarray, "channels height width"]) -> str:
    """Encode pixels as a PNG in a data URI."""
    levels = pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0]
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="PNG")
    return data_uri("png", buffer.getvalue())

"""Pages from templates: everything is inside one file, and every text is escaped."""

import base64
import io
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from PIL import Image

from collabdm.report.figures import INK


class Table(NamedTuple):
    """A table of texts. The first column names the row."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""


class Plot(NamedTuple):
    """A plot as SVG, with its caption."""

    svg: str
    caption: str

    @property
    def markup(self) -> Markup:
        """The SVG element, drawn in the page's own ink and described for screen readers."""
        element = self.svg[self.svg.index("<svg") :].replace(INK, "currentColor")
        described = f'<svg role="img" aria-label="{escape(self.caption)}" '
        return Markup(element.replace("<svg ", described, 1))


def render(template: str, **context: Any) -> bytes:
    """A page, filled from a template in `templates/`."""
    return _environment().get_template(template).render(**context).encode()


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("collabdm.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def png_uri(pixels: UInt8[np.ndarray, "channels height width"]) -> str:
    """Pixels as a PNG inside an address."""
    levels = pixels.transpose(1, 2, 0) if len(pixels) == 3 else pixels[0]
    buffer = io.BytesIO()
    Image.fromarray(levels).save(buffer, format="PNG")
    return data_uri("png", buffer.getvalue())


def data_uri(kind: str, content: bytes) -> str:
    """An image file inside an address."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"

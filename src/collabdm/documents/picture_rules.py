"""How pictures become bytes, agreed on in the plan so that all sites read the same pixels alike.

byte = round(255 clip((v - low) / (high - low), 0, 1))      levels v of more than 8 bits
seen = alpha colour + (1 - alpha) ground                    transparent pixels
"""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from collabdm.documents.frozen_model import FrozenModel

FULL = "full"
RANGE = re.compile(r"(-?[0-9]{1,12}(?:\.[0-9]{1,9})?)\.\.(-?[0-9]{1,12}(?:\.[0-9]{1,9})?)")


class PictureRules(FrozenModel):
    """How pictures become square images of bytes.

    - `ground`: the colour behind transparent pixels, `#rrggbb`.
    - `range`: the levels of more than 8 bits that become 0 and 255: `full` for those of the file's
      type, or LOW..HIGH; None refuses such pictures. Pictures of 8 bits are unchanged.
    - `fit`: how a picture becomes square if it is resized: `squash` ignores the aspect ratio, and
      `crop` takes the central square.
    """

    ground: Annotated[str, Field(pattern="^#[0-9a-f]{6}$")] = "#ffffff"
    range: str | None = None
    fit: Literal["squash", "crop"] = "squash"

    @field_validator("range")
    @classmethod
    def _has_two_ends(cls, text: str | None) -> str | None:
        if text is None or text == FULL:
            return text
        ends = RANGE.fullmatch(text)
        if ends is None or float(ends[1]) >= float(ends[2]):
            raise ValueError("should be full, or LOW..HIGH with LOW below HIGH, such as 0..4095")
        return text

    @property
    def colour(self) -> tuple[int, int, int]:
        """The ground as red, green and blue."""
        red, green, blue = bytes.fromhex(self.ground[1:])
        return red, green, blue

    @property
    def ends(self) -> tuple[float, float] | None:
        """LOW and HIGH; None if the range is `full` or not set."""
        ends = None if self.range is None else RANGE.fullmatch(self.range)
        return None if ends is None else (float(ends[1]), float(ends[2]))

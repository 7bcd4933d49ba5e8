"""The images to make of pictures, the limit of their size, and the errors of single pictures."""

import os
from dataclasses import dataclass

from collabdm.documents.picture_rules import PictureRules
from collabdm.errors import DataError

MOST_PIXELS = 50_000_000  # of one picture, before it is resized
MOST_PIXELS_VARIABLE = "COLLABDM_MOST_PIXELS"
PILLOWS_LIMIT = 178_956_970  # of pixels; Pillow refuses more


@dataclass(frozen=True)
class Conversion:
    """The images to make: their side and channels (None keeps those of the picture), the rules."""

    side: int | None = None
    channels: int | None = None
    rules: PictureRules = PictureRules()


class PictureError(ValueError):
    """A reason for which a picture cannot be read, in words of this package."""


class UnreadableError(DataError):
    """One picture cannot be read; others of the set may be readable."""

    def __init__(self, where: str, reason: str) -> None:
        self.where, self.reason = where, reason
        super().__init__(
            f"{where} should be a whole image file; it cannot be read ({reason}): replace or "
            "remove it, or leave it out with `--skip-unreadable`"
        )


def most_pixels() -> int:
    """Return the most pixels of one picture: COLLABDM_MOST_PIXELS, or `MOST_PIXELS`."""
    text = os.environ.get(MOST_PIXELS_VARIABLE, "")
    return min(int(text), PILLOWS_LIMIT) if text.isdecimal() and text.isascii() else MOST_PIXELS


class DeepLevelsError(DataError):
    """A picture has more than 8 bits per level, and the plan has no range for it."""

    def __init__(self, where: str, least: float, most: float) -> None:
        self.where, self.least, self.most = where, least, most
        ends = f"`--range {least:g}..{most:g}`"
        measured = f" or, with the same values for all sites, {ends}" if least < most else ""
        super().__init__(
            f"{where} should have 8 bits per level, or the plan a range; found levels from "
            f"{least:g} to {most:g}: make the plan with `--range full`{measured}"
        )

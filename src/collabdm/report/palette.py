"""Choose the colour and the marker of each method: the same on every plot, table and page.

    method            colour         marker
    collabdm          blue           circle
    localdm           orange         square
    central           green          diamond
    coreset           pink           triangle, up
    fedd3             red            triangle, down
    dosfl             light blue     plus
    dense             wine           cross
    fedavg            olive          pentagon
    rounds-means      brown          triangle, left
    rounds-gradients  purple         triangle, right

Methods that exist with and without pae share colour and marker: it is filled with pae, and an
outline without. Colour-blind people can distinguish methods by colour and marker; in print without
colours, the markers differ. A method of another package has a dark grey and a marker that depends
on its name. Random real images, each site alone and all the data are not methods: they are grey.

Reference: M. Okabe, K. Ito, "Color universal design", 2008; P. Tol, "Colour schemes", 2021.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple
from zlib import crc32

GREY = "#777777"


class Look(NamedTuple):
    """The look of a series: colour, matplotlib's marker, the marker as text, and filled or not."""

    colour: str
    marker: str
    glyph: str
    filled: bool = True

    @property
    def style(self) -> dict[str, Any]:
        """The arguments of matplotlib's `errorbar`."""
        face = self.colour if self.filled else "none"
        return {
            "color": self.colour,
            "marker": self.marker,
            "mfc": face,
            "mew": 1.5,
            "ms": 7,
            "capsize": 3,
        }


_FAMILIES = {
    "collabdm": Look("#0072B2", "o", "●"),
    "localdm": Look("#E69F00", "s", "■"),
    "central": Look("#009E73", "D", "◆"),
    "coreset": Look("#CC79A7", "^", "▲"),
    "fedd3": Look("#D55E00", "v", "▼"),
    "dosfl": Look("#56B4E9", "P", "✚"),
    "dense": Look("#882255", "X", "✖"),
    "fedavg": Look("#999933", "p", "⬟"),
    "rounds-means": Look("#8C510A", "<", "◀"),
    "rounds-gradients": Look("#6A3D9A", ">", "▶"),
}

_OPEN = {"●": "○", "■": "□", "◆": "◇"}

_OTHERS = (Look("#555555", "h", "⬢"), Look("#555555", "d", "♦"))


def look_of(name: str) -> Look:
    """Return the look of a set or row by its name; a remark after a comma has no influence.

    >>> look_of("collabdm-pae").colour == look_of("collabdm, uniform").colour
    True
    """
    packed = name.partition(",")[0].strip().endswith("-pae")
    family = _family(name)
    known = _FAMILIES.get(family)

    if known is None:
        return _OTHERS[crc32(family.encode()) % len(_OTHERS)]
    if not packed and known.glyph in _OPEN:
        return known._replace(glyph=_OPEN[known.glyph], filled=False)
    return known


def looks_of(names: Iterable[str]) -> dict[str, Look]:
    """Return looks that differ for all of several names; variants of a method share its colour.

    The first variant of a method has the look of `look_of`, and the others have other markers.
    Names that are not of methods of this package get the looks of methods that are absent.

    >>> looks_of(["collabdm", "collabdm, uniform"])["collabdm, uniform"].colour
    '#0072B2'
    """
    wanted = list(names)
    own = {name: look_of(name) for name in wanted if _family(name) in _FAMILIES}
    spare = [look for look in _FAMILIES.values() if look.colour not in _colours(own.values())]
    spare += [look for look in _FAMILIES.values() if look not in spare]

    looks: dict[str, Look] = {}
    others = 0
    for name in wanted:
        if name in own:
            look = own[name]
        else:
            look, others = spare[others % len(spare)], others + 1
        variants = (look, *(other._replace(colour=look.colour) for other in _FAMILIES.values()))
        looks[name] = next((one for one in variants if one not in looks.values()), look)
    return looks


def _family(name: str) -> str:
    return name.partition(",")[0].strip().removesuffix("-pae")


def _colours(looks: Iterable[Look]) -> set[str]:
    return {look.colour for look in looks}

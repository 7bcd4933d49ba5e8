"""Show the images of sets by class, and the rows of sets of tables."""

from typing import NamedTuple

from collabdm.data.flows.rows import decode_set
from collabdm.documents.outcomes import DistilledSet
from collabdm.images import as_uint8
from collabdm.report.html import Table, png_uri
from collabdm.report.round_sets import ShownSet

MOST_SHOWN = 50  # images shown of each class of the round's own set
FIRST_SHOWN = 10  # those shown at once, and of compared methods; the page unfolds the others
MOST_ROWS = 3  # rows of a table shown of each class


class ClassPictures(NamedTuple):
    """The images of one class as data URIs: the first, and those that the page unfolds."""

    name: str
    first: list[str]
    more: list[str]

    @property
    def total(self) -> int:
        """The number of images shown."""
        return len(self.first) + len(self.more)


def images_by_class(shown: ShownSet, most: int = MOST_SHOWN) -> list[ClassPictures]:
    """Encode up to `most` images of each class; omit empty classes, and rows of tables."""
    if shown.rows:
        return []

    pixels = as_uint8(shown.images.images).numpy()
    classes = []
    for y, name in enumerate(shown.images.classes):
        index = shown.images.of_class(y)[:most].tolist()
        addresses = [png_uri(pixels[i]) for i in index]
        if addresses:
            classes.append(ClassPictures(name, addresses[:FIRST_SHOWN], addresses[FIRST_SHOWN:]))
    return classes


def row_table(shown: ShownSet) -> Table:
    """Decode the first rows of each class of a set of rows; an empty table for images."""
    schema = shown.plan.flows
    if schema is None or not shown.rows:
        return Table((), [])

    chosen = [i for y in range(len(shown.images.classes)) for i in _first_rows(shown, y)]
    decoded = decode_set(schema, shown.images)
    *columns, label = decoded
    rows = [
        (str(decoded[label][i]), *(_text(decoded[name][i]) for name in columns)) for i in chosen
    ]
    caption = f"The first {MOST_ROWS} rows of each class, in the columns and units of the table"
    return Table((label, *columns), rows, caption)


def _first_rows(shown: ShownSet, y: int) -> list[int]:
    rows: list[int] = shown.images.of_class(y)[:MOST_ROWS].tolist()
    return rows


def _text(value: float | int | str | None) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def shades(distilled: DistilledSet) -> dict[str, list[tuple[int, str]]]:
    """Return the image counts of each site by class, each with a shade in 0 .. 1 for its cell."""
    largest = max((max(counts) for counts in distilled.sites.values()), default=0) or 1
    return {
        site: [(count, f"{(count / largest) ** 0.5:.3f}") for count in counts]
        for site, counts in distilled.sites.items()
    }

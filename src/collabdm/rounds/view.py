"""Draw the images of any document, next to a site's most similar private images.

The images of a contribution with pae can be compared only with the plan at hand, because the file
does not contain it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from collabdm.documents.codec import format_of, read_limited
from collabdm.documents.contribution_file import CONTRIBUTION_FORMAT, decode_without_plan
from collabdm.documents.outcome_files import (
    DISTILLED_FORMAT,
    DISTILLED_LIMIT,
    STEPS_FORMAT,
    read_distilled,
    read_steps,
)
from collabdm.documents.plan import Plan
from collabdm.errors import DocumentError
from collabdm.export.document_picture import ClassRow, Tile
from collabdm.images import ImageSet, as_uint8
from collabdm.privacy.nearest import reduced, small_images
from collabdm.privacy.release import count_images
from collabdm.rounds.comparison import ClassComparison, Comparison, compare, sent_images
from collabdm.rounds.contributions import read_contribution

MOST_SHOWN = 36  # images of a class in a picture

LEGEND = (
    "below each the most similar private image, and their distance in grey levels of 0 to 255;\n"
    "red: nearer than private images of the class are to each other; a likeness that you see "
    "counts too"
)


@dataclass(frozen=True)
class Document:
    """The images of a document, and its plan, which is None for a contribution on its own."""

    images: ImageSet
    plan: Plan | None

    @property
    def pae(self) -> int:
        """The number of small images along a side of a stored image; 1 without the plan."""
        return 1 if self.plan is None else self.plan.pae


def read_images(path: Path, plan: Plan | None = None) -> Document:
    """Read the images of a contribution or of an outcome.

    Args:
        path: the file.
        plan: the plan of a contribution; not needed for other documents.

    Returns:
        The images, at least one.

    Raises:
        DocumentError: the file is not a document, does not belong to the plan, or has no images.
    """
    document = _read(path, plan)
    if not len(document.images):
        raise DocumentError(f"{path} should contain images; found none: there is nothing to draw")
    if document.images.shape[-1] == 1:
        raise DocumentError(
            f"{path} should contain images; found rows of a table: write them with "
            "`collabdm export --form table`"
        )
    return document


def _read(path: Path, plan: Plan | None) -> Document:
    kind = format_of(path)
    if kind == CONTRIBUTION_FORMAT:
        if plan is None:
            content = read_limited(path, DISTILLED_LIMIT)
            return Document(sent_images(decode_without_plan(content, str(path))), None)
        return Document(sent_images(read_contribution(path, plan)), plan)
    if kind == DISTILLED_FORMAT:
        distilled = read_distilled(path)
        return Document(distilled.images, distilled.plan)
    if kind == STEPS_FORMAT:
        steps = read_steps(path)
        return Document(steps.as_set(), steps.plan)

    read_limited(path, DISTILLED_LIMIT)  # a clearer error for a file that cannot be read
    raise DocumentError(
        f"{path} should be a contribution or a distilled set, which contain images; found "
        f"{kind or 'another kind of file, such as a plan'}"
    )


def compare_with(document: Document, private: ImageSet) -> Comparison:
    """Compare the images of a document with private images.

    Raises DocumentError if there are no private images of the document's classes.
    """
    comparison = compare(document.images, private, document.pae)
    if not comparison.classes:
        raise DocumentError("the data should have images of the document's classes; found none")
    return comparison


def rows_alone(document: Document) -> list[ClassRow]:
    """Lay out the images of a document by class."""
    small = small_images(document.images, document.pae)
    pixels, rows = as_uint8(small.images), []

    for y in torch.nonzero(small.counts()).flatten().tolist():
        index = small.of_class(y).tolist()
        tiles = tuple(Tile(pixels[i]) for i in index[:MOST_SHOWN])
        rows.append(ClassRow(small.classes[y], _count_remark(len(index)), tiles))
    return rows


def rows_compared(document: Document, comparison: Comparison, private: ImageSet) -> list[ClassRow]:
    """Lay out the images of a document above the nearest private ones, the nearest pairs first.

    Args:
        document: the document.
        comparison: of its images with the private ones.
        private: the private images.

    Returns:
        The classes that have private images.
    """
    small, nearest, rows = comparison.small, comparison.nearest, []
    pixels = as_uint8(small.images)

    for one in comparison.classes:
        index = small.of_class(small.classes.index(one.name))
        index = index[nearest.distances[index].argsort(stable=True)][:MOST_SHOWN]
        found = private.images[nearest.positions[index]]
        shown = as_uint8(reduced(found, document.pae))

        tiles = []
        for at, image in zip(index.tolist(), shown, strict=True):
            distance = float(nearest.distances[at])
            is_near = one.spacing is not None and distance < one.spacing.minimum
            tiles.append(Tile(pixels[at], image, f"{distance:.1f}", is_near))
        remarks = (*_count_remark(one.images), *_spacing_remarks(one))
        rows.append(ClassRow(one.name, remarks, tuple(tiles)))
    return rows


def comparison_json(path: Path, document: Document, comparison: Comparison | None) -> Any:
    """Return the table of `view` as plain values, with the distance of every image.

    Args:
        path: the file of the document.
        document: the document.
        comparison: of its images with private ones; None without.

    Returns:
        Values for a JSON file.
    """
    small = small_images(document.images, document.pae)
    rows: dict[str, Any] = {}
    for y in torch.nonzero(small.counts()).flatten().tolist():
        rows[small.classes[y]] = {"images": len(small.of_class(y))}

    for one in comparison.classes if comparison else ():
        of_class = small.of_class(small.classes.index(one.name))
        assert comparison is not None
        spacing = one.spacing
        rows[one.name] |= {
            "nearest": one.nearest,
            "median": one.median,
            "private_median": None if spacing is None else spacing.median,
            "private_minimum": None if spacing is None else spacing.minimum,
            "distances": comparison.nearest.distances[of_class].tolist(),
        }
    return {"file": str(path), "classes": rows}


def _count_remark(images: int) -> tuple[str, ...]:
    hidden = f", {MOST_SHOWN} shown" if images > MOST_SHOWN else ""
    return (f"{count_images(images)}{hidden}",)


def _spacing_remarks(one: ClassComparison) -> tuple[str, ...]:
    if one.spacing is None:
        return ()
    return (
        f"private ones are {one.spacing.median:.1f}",
        f"apart, at least {one.spacing.minimum:.1f}",
    )

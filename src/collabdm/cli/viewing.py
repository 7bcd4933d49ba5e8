"""Draw the images of a document, and print how near they lie to a site's private images."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from collabdm.cli.console import console, table
from collabdm.cli.running import load_tallied_for_plan
from collabdm.data.tally import Tally
from collabdm.documents.atomic_write import atomic_write, atomic_write_with
from collabdm.documents.plan_file import read_plan
from collabdm.errors import DocumentError
from collabdm.export.document_picture import ClassRow, draw_document
from collabdm.images import ImageSet
from collabdm.rounds.comparison import Comparison
from collabdm.rounds.exchange import DataSource
from collabdm.rounds.view import (
    LEGEND,
    Document,
    compare_with,
    comparison_json,
    read_images,
    rows_alone,
    rows_compared,
)

COLUMNS = ("class", "images", "nearest", "median", "private: median", "private: least")


@dataclass(frozen=True)
class Request:
    """The options of `view`.

    Attributes:
        file: the document.
        picture: the PNG file to write.
        plan: the plan of a contribution; None for other documents.
        source: the private data to compare with; None draws the images alone.
        split: the part of the data.
        json: a file for the table; None writes none.
    """

    file: Path
    picture: Path
    plan: Path | None
    source: DataSource | None
    split: Literal["train", "test"]
    json: Path | None


def view_document(request: Request) -> None:
    """Draw the images of a document, and print and write the table.

    Raises CollabDMError if the document has no images, or the data does not fit it.
    """
    plan = None if request.plan is None else read_plan(request.plan)
    document = read_images(request.file, plan)

    tally: Tally | None = None
    comparison, title = None, f"{request.file}: {len(document.images):,} images"
    if request.source is None:
        rows = rows_alone(document)
    else:
        private, tally = _private(request, document)
        comparison = compare_with(document, private)
        rows = rows_compared(document, comparison, private)
        title += f"\n{LEGEND}"

    picture = draw_document(title, rows)
    atomic_write_with(request.picture, lambda file: picture.save(file, format="PNG"))
    if request.json is not None:
        values = comparison_json(request.file, document, comparison)
        if tally is not None:
            values["tally"] = tally.json()
        atomic_write(request.json, (json.dumps(values, indent=2) + "\n").encode())
    _print(request, rows, comparison)


def _private(request: Request, document: Document) -> tuple[ImageSet, Tally | None]:
    """Load the private data and its tally.

    Raises DocumentError if the plan of a contribution is missing.
    """
    if document.plan is None:
        raise DocumentError(
            f"`--plan` should name the plan of {request.file} to compare its images with data; "
            "found none: a contribution does not contain its plan"
        )
    assert request.source is not None
    return load_tallied_for_plan(document.plan, request.source, request.split)


def _print(request: Request, rows: list[ClassRow], comparison: Comparison | None) -> None:
    if comparison is None:
        counts = [(row.name, row.remarks[0]) for row in rows]
        console.print(table(f"images in {request.picture}", ("class", "images"), counts))
        return

    cells = []
    for one in comparison.classes:
        apart = ("-", "-")
        if one.spacing is not None:
            apart = (f"{one.spacing.median:.1f}", f"{one.spacing.minimum:.1f}")
        figures = (f"{one.nearest:.1f}", f"{one.median:.1f}")
        cells.append((one.name, f"{one.images:,}", *figures, *apart))
    title = (
        f"distances from the nearest private image, and of private images from each other, in grey "
        f"levels; picture: {request.picture}"
    )
    console.print(table(title, COLUMNS, cells))

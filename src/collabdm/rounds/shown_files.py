"""Write what shows a set next to its file: a picture or, for rows of a table, a CSV file."""

from pathlib import Path

from collabdm.documents.plan import Plan
from collabdm.export.pictures import write_picture
from collabdm.export.table import write_csv
from collabdm.images import ImageSet


def write_shown(images: ImageSet, plan: Plan, output: Path) -> None:
    """Write a picture of a set or, for rows, a CSV file, next to its file."""
    path = shown_path(output, plan)
    if plan.flows is not None and plan.flows.as_rows:
        write_csv(plan.flows, images, path)
    else:
        write_picture(images, path)


def shown_path(output: Path, plan: Plan) -> Path:
    """Return the path of what shows a set: its picture or, for rows, its CSV file."""
    return output.with_suffix(".csv") if plan.has_rows else picture_path(output)


def picture_path(output: Path) -> Path:
    """Return the path of the picture of a set, in the folder of its file."""
    return output.with_suffix(".png")

"""Write pictures of sets, with one row of images for each class."""

from pathlib import Path

from collabdm.documents.atomic_write import atomic_write_with
from collabdm.images import ImageSet


def write_picture(images: ImageSet, path: Path, columns: int = 10) -> None:
    """Write a contact sheet as PNG, with each image enlarged to about 64 pixels.

    Args:
        images: The set.
        path: The file.
        columns: The largest number of images of each class.
    """
    sheet = images.picture(columns)
    atomic_write_with(path, lambda file: sheet.save(file, format="PNG"))

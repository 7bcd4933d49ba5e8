"""Write a distilled set as a Hugging Face data set, an image folder, NumPy arrays, or tables.

    hub       README.md (the card), data/train-00000-of-00001.parquet, preview.png
    folder    one subfolder for each class, PNG pictures
    npz       one file: images (n, channels, side, side), labels, classes
    table     set.csv and set.parquet, of a set of rows

`hub` and `folder` contain PNG pictures: uint8 images without loss, float32 images rounded to 256
levels. `npz` contains the pixels unchanged. In a set with pae (partition and expand), each stored
image contains pae^2 small ones. These are written one by one, enlarged as for training, so that
anyone can train on them as on any images; `packed` writes the stored images instead.

Reference: Q. Lhoest et al., "Datasets: a community library for natural language processing",
EMNLP 2021.
"""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from collabdm.documents.atomic_write import atomic_write, atomic_write_with
from collabdm.documents.outcomes import DistilledSet
from collabdm.errors import DataError, OutputError, PlanError, printable
from collabdm.export.card import Card, card_text
from collabdm.export.pictures import write_picture
from collabdm.export.table import schema_of_rows, write_tables
from collabdm.images import ImageSet, as_uint8
from collabdm.scoring.training import training_set

Write = Callable[[DistilledSet, ImageSet, Path, Card], None]


def export(
    distilled: DistilledSet,
    output: Path,
    form: str = "hub",
    packed: bool = False,
    card: Card = Card(),
) -> ImageSet:
    """Write a set to a new folder.

    Args:
        distilled: The set.
        output: A folder that is new or empty.
        form: `hub`, `folder`, `npz` or, for rows, `table`.
        packed: Whether to write the stored images of a set with pae, instead of the small ones that
            they contain.
        card: Licence, counts and scores for the card; only `hub` has a card.

    Returns:
        The images that were written.

    Raises:
        PlanError: The form is unknown.
        DataError: The images or the class names cannot be written in this form.
        OutputError: The output is a file or a folder that is not empty.
    """
    if form not in FORMS:
        raise PlanError(f"`form` should be one of {', '.join(FORMS)}; found {form!r}")

    images = distilled.images if packed else training_set(distilled)
    if form == "table":
        schema_of_rows(distilled.plan)
    elif form != "npz":
        images = _as_pictures(images)

    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise OutputError(
            f"{output} should be a new or empty folder; found something there: name another"
        )

    FORMS[form](distilled, images, output, card)
    return images


def _as_pictures(images: ImageSet) -> ImageSet:
    channels, side, _ = images.shape
    if side == 1:
        raise DataError(
            "rows of a table have no pictures: export them as table, or as npz with encoded values"
        )
    if channels not in (1, 3):
        raise DataError(
            f"images should have 1 or 3 channels to be written as pictures; found {channels}: "
            "export them as npz"
        )
    return ImageSet(as_uint8(images.images), images.labels, images.classes)


def _write_hub(distilled: DistilledSet, images: ImageSet, output: Path, card: Card) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import ClassLabel, Features
    from datasets import Image as ImageFeature

    label = ClassLabel(names=list(images.classes))
    schema = Features({"image": ImageFeature(), "label": label}).arrow_schema
    pictures = [
        {"bytes": _png(pixels), "path": f"{i:05d}.png"}
        for i, pixels in enumerate(images.images.numpy())
    ]

    columns = {"image": pictures, "label": images.labels.tolist()}
    table = pa.Table.from_pydict(columns, schema=schema)
    path = output / "data" / "train-00000-of-00001.parquet"
    atomic_write_with(path, lambda file: pq.write_table(table, file))

    write_picture(images, output / "preview.png")
    atomic_write(output / "README.md", card_text(distilled, images, card).encode())


def _write_folder(distilled: DistilledSet, images: ImageSet, output: Path, card: Card) -> None:
    names = [_folder_name(name) for name in images.classes]
    if len(set(names)) != len(names):
        raise DataError(
            f"class names should give distinct folders; found {sorted(names)}: export another form"
        )

    for y, name in enumerate(names):
        for i, index in enumerate(images.of_class(y).tolist()):
            atomic_write(output / name / f"{i:05d}.png", _png(images.images[index].numpy()))


def _folder_name(class_name: str) -> str:
    return printable(class_name).replace("/", "-").replace("\\", "-").strip(". ") or "-"


def _write_npz(distilled: DistilledSet, images: ImageSet, output: Path, card: Card) -> None:
    arrays = {
        "images": images.images.numpy(),
        "labels": images.labels.numpy(),
        "classes": np.array(images.classes),
    }
    atomic_write_with(
        output / "train.npz",
        lambda file: np.savez_compressed(file, allow_pickle=False, **arrays),
    )


def _write_table(distilled: DistilledSet, images: ImageSet, output: Path, card: Card) -> None:
    write_tables(distilled, output)


FORMS: dict[str, Write] = {
    "hub": _write_hub,
    "folder": _write_folder,
    "npz": _write_npz,
    "table": _write_table,
}


def _png(pixels: UInt8[np.ndarray, "channels height width"]) -> bytes:
    buffer = io.BytesIO()
    levels = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
    Image.fromarray(levels).save(buffer, format="PNG")
    return buffer.getvalue()

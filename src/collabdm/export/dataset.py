"""A distilled set in the forms that others read: a data set folder of the hub, an image folder, NumPy arrays.

    hub       README.md (the card), data/train-00000-of-00001.parquet, preview.png
    folder    one subfolder for each class, PNG pictures
    npz       one file: images (n, channels, side, side), labels, classes

Pixels are stored without loss: uint8 as PNG, or as they are in `npz`. A set made with pae holds pae^2 small images
in each stored one; `expanded` writes those, enlarged, which is what networks train on. A set of float32 is rounded to
256 levels in the first two forms, which are pictures.

Reference: Q. Lhoest et al., "Datasets: a community library for natural language processing", EMNLP 2021.
"""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from collabdm.documents.atomic_write import atomic_write, atomic_write_with
from collabdm.documents.outcomes import DistilledSet
from collabdm.errors import DataError, OutputError, PlanError
from collabdm.export.pictures import contact_sheet
from collabdm.images import ImageSet, as_uint8
from collabdm.scoring.evaluation import Score
from collabdm.scoring.training import training_set


@dataclass(frozen=True)
class Card:
    """What the card of an exported set says beside what the set itself says.

    `licence` is the hub's word for it; `counts` tells what each site holds, which is the sites' to decide; `scores`
    were measured on test images of `data`.
    """

    licence: str | None = None
    counts: bool = False
    scores: tuple[Score, ...] = ()
    data: str = "real"


def export(
    made: DistilledSet, output: Path, form: str = "hub", expanded: bool = False, card: Card = Card()
) -> ImageSet:
    """Write a set to a new or empty folder, and return the images that were written. Raises OutputError."""
    if form not in FORMS:
        raise PlanError(f"`form` should be one of {', '.join(FORMS)}; found {form!r}")
    images = training_set(made) if expanded else made.images
    if form != "npz" and images.shape[0] not in (1, 3):
        raise DataError(f"pictures have 1 or 3 channels; found {images.shape[0]}: export them as npz")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise OutputError(f"{output} should be a new or empty folder; found something there: name another")
    if form != "npz":
        images = ImageSet(as_uint8(images.images), images.labels, images.classes)
    FORMS[form](made, images, output, card)
    return images


def _hub(made: DistilledSet, images: ImageSet, output: Path, card: Card) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = list(images.classes)
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    pictures = [{"bytes": _png(pixels), "path": f"{i:05d}.png"} for i, pixels in enumerate(images.images.numpy())]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(pictures, kind), "label": pa.array(images.labels.tolist(), pa.int64())})
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    atomic_write_with(output / "data" / "train-00000-of-00001.parquet", lambda file: pq.write_table(table, file))
    sheet = contact_sheet(images, 10, max(1, 64 // images.shape[1]))
    atomic_write_with(output / "preview.png", lambda file: sheet.save(file, format="PNG"))
    atomic_write(output / "README.md", card_text(made, images, card).encode())


def _folder(made: DistilledSet, images: ImageSet, output: Path, card: Card) -> None:
    names = [name.replace("/", "-").replace("\\", "-").strip(". ") or "-" for name in images.classes]
    if len(set(names)) != len(names):
        raise DataError(f"class names should give distinct folders; found {sorted(names)}: export another form")
    for y, name in enumerate(names):
        for i, index in enumerate(images.of_class(y).tolist()):
            atomic_write(output / name / f"{i:05d}.png", _png(images.images[index].numpy()))


def _npz(made: DistilledSet, images: ImageSet, output: Path, card: Card) -> None:
    arrays = {"images": images.images.numpy(), "labels": images.labels.numpy(), "classes": np.array(images.classes)}
    atomic_write_with(output / "train.npz", lambda file: np.savez_compressed(file, allow_pickle=False, **arrays))


FORMS: dict[str, Callable[[DistilledSet, ImageSet, Path, Card], None]] = {"hub": _hub, "folder": _folder, "npz": _npz}


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).save(buffer, format="PNG")
    return buffer.getvalue()


def card_text(made: DistilledSet, images: ImageSet, card: Card) -> str:
    """The data set card: front matter that the hub reads, then what a person should know."""
    plan = made.plan
    size = f"{len(images)} images of {plan.image.side} x {plan.image.side} pixels, {len(images.classes)} classes"
    lines = [
        "---",
        *([f"license: {card.licence}"] if card.licence else []),
        "task_categories:\n- image-classification",
        "tags:\n- dataset-distillation\n- synthetic\n- federated-learning",
        "size_categories:\n- "
        + ("n<1K" if len(images) < 1000 else "1K<n<10K" if len(images) < 10_000 else "10K<n<100K"),
        "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*",
        "---",
        "\n# A distilled training set\n",
        f"{size}, made by {len(made.sites)} sites in one round of collabdm (method {made.method}). The images are "
        "synthetic: train on them as on any labelled images.\n",
        "![Up to ten images of each class](preview.png)\n",
        _about_pae(made, images),
        f"- normalise with mean {list(plan.image.mean)} and std {list(plan.image.std)} (pixels in 0 .. 1)",
        f"- plan `{plan.digest}`, seed {plan.seed}, {plan.steps} steps, ipc {plan.ipc}",
        *_accuracy(card),
        "" if card.licence else "\nNo licence was named: ask whoever made the set before you use it.",
        *_counts(made, card),
        "\n## The plan\n",
        "```json\n" + json.dumps(plan.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n```",
    ]
    return "\n".join(line for line in lines if line) + "\n"


def _about_pae(made: DistilledSet, images: ImageSet) -> str:
    small = made.plan.pae**2
    if small == 1:
        return ""
    if len(images) != len(made.images):
        return f"Each stored image held {small} small ones (partition and expand); they are enlarged here.\n"
    return (
        f"**Each image holds {small} small ones** (partition and expand): cut every image into "
        f"{made.plan.pae} x {made.plan.pae} tiles and enlarge each before training.\n"
    )


def _accuracy(card: Card) -> list[str]:
    return [
        f"- trained on {s.what}, {s.network}: accuracy {100 * s.mean:.1f} % on {card.data} test images "
        f"(std {100 * s.std:.1f}, n = {s.n})"
        for s in card.scores
    ]


def _counts(made: DistilledSet, card: Card) -> list[str]:
    if not card.counts:
        return []
    rows = [f"| {site} | " + " | ".join(map(str, held)) + " |" for site, held in made.sites.items()]
    head = "| site | " + " | ".join(made.plan.classes) + " |"
    return ["\n## Images that the sites hold\n", head, "|---|" + "---:|" * len(made.plan.classes), *rows]

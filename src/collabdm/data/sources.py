"""Load a data set as an ImageSet: by name, from files, from the hub, or from a Python object.

    digits                            scikit-learn's 8 x 8 digits; test: last fifth of each class
    mnist fashion_mnist cifar10 svhn  the folder of that name in COLLABDM_DATA, or the hub's copy
    hub:owner/name[:config]           any data set of the Hugging Face hub
    folder of parquet files           the hub's layouts: train-*.parquet, default/train/0000.parquet
    folder of images                  one subfolder per class, below train/ and test/ for splits
    file.npz, folder of .npy files    images, labels[, classes]; or train_images, train_labels, ...
    file.tar, folder of .tar files    WebDataset shards: KEY.jpg with KEY.cls or KEY.json
    folder of `save_to_disk`          as `datasets` writes it
    Python objects                    datasets.Dataset, DatasetDict, torch Dataset, DataFrame, ...

Only `hub:` asks the public hub for a data set: a path that is misspelt or not mounted must not,
since anyone could have published a data set under its name. Files are decoded once and cached
(`collabdm.data.cache`).

References: Q. Lhoest et al., "Datasets: a community library for natural language processing", EMNLP
2021 (the layout); E. Alpaydin, C. Kaynak, "Optical recognition of handwritten digits", UCI, 1998.
"""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from collabdm.data.cache import cache_folder, cache_key, read_cached, write_cached
from collabdm.data.conversion import Conversion
from collabdm.data.decoding import Undecoded, decode
from collabdm.data.formats import open_file, open_folder
from collabdm.data.selection import Selection, class_name
from collabdm.data.splits import choose_split
from collabdm.data.tables import dataset_rows, open_object
from collabdm.data.tally import Remark, Tally
from collabdm.errors import DataError, did_you_mean
from collabdm.images import ImageSet
from collabdm.seeds import Stream

HUB_IDS = {
    "mnist": "ylecun/mnist",
    "fashion_mnist": "zalando-datasets/fashion_mnist",
    "cifar10": "uoft-cs/cifar10",
    "svhn": "ufldl-stanford/svhn:cropped_digits",
}

MOST_ADVISED = 8  # class names in an advice

HUB = "hub:"  # begins the location of a data set of the hub
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+(:[\w.-]+)?")

DIGIT_NAMES = tuple("0123456789")

PUBLISHED_CLASSES = {
    "mnist": DIGIT_NAMES,
    "svhn": DIGIT_NAMES,
    "fashion_mnist": (
        *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
        *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    ),
    "cifar10": (
        *("airplane", "automobile", "bird", "cat", "deer"),
        *("dog", "frog", "horse", "ship", "truck"),
    ),
}


def load(
    source: Any,
    split: str = "train",
    *,
    cache: Path | None = None,
    side: int | None = None,
    channels: int | None = None,
    selection: Selection = Selection(),
) -> ImageSet:
    """Load one split of a data set.

    Args:
        source: A name, a path or a Python object, as listed in the module's docstring.
        split: The name of the split. An object without splits (a torch Dataset, an ImageSet) is
            taken as the requested split.
        cache: The folder of decoded sets; by default COLLABDM_CACHE, or the user's cache folder.
        side: Resize to side x side pixels, bilinear with antialiasing, by the rules' `fit`.
        channels: Convert to grey (1) or RGB (3).
        selection: The columns, class names and splits to use, and the rules for pictures.

    Returns:
        The images, uint8; an ImageSet that needs no change is returned unchanged.

    Raises:
        DataError: The source or the split does not exist, or an image in it cannot be read.
    """
    return load_tallied(
        source, split, cache=cache, side=side, channels=channels, selection=selection
    )[0]


def load_tallied(
    source: Any,
    split: str = "train",
    *,
    cache: Path | None = None,
    side: int | None = None,
    channels: int | None = None,
    selection: Selection = Selection(),
) -> tuple[ImageSet, Tally]:
    """Load one split of a data set, and count what was read, skipped and changed.

    Args:
        source: As in `load`.
        split: As in `load`.
        cache: As in `load`.
        side: As in `load`.
        channels: As in `load`.
        selection: As in `load`.

    Returns:
        The images, and the tally.

    Raises:
        DataError: As in `load`.
    """
    if (side is not None and side < 1) or channels not in (None, 1, 3):
        raise DataError(
            "`side` should be 1 or more and `channels` 1 or 3, or None; "
            f"found {side} and {channels}"
        )
    if isinstance(source, ImageSet) and side is None and channels is None:
        return source, _tally(type(source).__name__, source, ())

    undecoded = find(source, split, selection)
    conversion = Conversion(side, channels, selection.rules)
    folder = cache or cache_folder()
    key = None
    if undecoded.files and folder is not None:
        key = cache_key(undecoded, split, conversion, selection)

    stored = read_cached(folder, key) if folder is not None and key is not None else None
    if stored is None:
        stored = decode(undecoded, conversion, selection.skip_unreadable)
        if folder is not None and key is not None:
            write_cached(folder, key, *stored)
    data, remarks = stored
    return data, _tally(undecoded.where, data, (*undecoded.remarks, *remarks))


def _tally(where: str, data: ImageSet, remarks: tuple[Remark, ...]) -> Tally:
    return Tally(where, data.classes, tuple(data.counts().tolist()), remarks)


def column_values(
    source: Any, column: str, split: str = "train", selection: Selection = Selection()
) -> tuple[str, ...]:
    """Read an additional column of a source, such as the site of each image.

    Args:
        source: As in `load`; it should have columns.
        column: The name of the column.
        split: The name of the split.
        selection: As in `load`; all pictures should be readable.

    Returns:
        One text per image, in the order of `load`, for example for `partition.by_column`.

    Raises:
        DataError: There is no such column.
    """
    undecoded = find(source, split, selection)
    if undecoded.column is None:
        raise DataError(
            f"{undecoded.where} should have a column `{column}`; this kind of source has no columns"
        )
    return tuple(str(value) for value in undecoded.column(column))


def fit_classes(data: ImageSet, classes: tuple[str, ...]) -> ImageSet:
    """Relabel images with the Plan's classes, of which a site need not have all.

    Names are compared in Unicode's composed form, without spaces at the ends. Raises DataError if
    the data has a class that the Plan lacks.
    """
    if data.classes == classes:
        return data

    positions = {class_name(name): y for y, name in enumerate(classes)}
    positions |= {name: y for y, name in enumerate(classes)}
    if unknown := [name for name in data.classes if class_name(name) not in positions]:
        raise DataError(
            f"classes of the data should be among the plan's {list(classes)}; "
            f"found {list(data.classes)}, of which the plan lacks {unknown}: "
            f"{_class_advice(unknown, classes)}"
        )

    found = [positions.get(name, positions.get(class_name(name))) for name in data.classes]
    return ImageSet(data.images, torch.tensor(found, dtype=torch.int64)[data.labels], classes)


def _class_advice(unknown: list[str], classes: tuple[str, ...]) -> str:
    """Advise what to do about classes that the plan lacks."""
    if all(name.isdigit() for name in unknown):
        return "label numbers need names: add `--class-names` with the names of 0, 1, …, in order"
    near = [name + did_you_mean(name, classes) for name in unknown[:MOST_ADVISED]]
    meant = [text for name, text in zip(unknown, near, strict=False) if text != name]
    return "; ".join([*meant, "rename or leave out those classes"])


def limit(data: ImageSet, per_class: int | None, stream: Stream) -> ImageSet:
    """Draw a random subset with a limited number of images per class.

    Args:
        data: The set to draw from.
        per_class: The largest number of images per class; None keeps all.
        stream: The random stream; images are drawn without replacement.

    Returns:
        The subset, in the order of `data`.

    Raises:
        DataError: `per_class` is below 1.
    """
    if per_class is None:
        return data
    if per_class < 1:
        raise DataError(f"`per_class` should be 1 or more, or None for all; found {per_class}")

    members = [data.of_class(y) for y in range(len(data.classes))]
    drawn = [index[stream.permutation(len(index))[:per_class]] for index in members]
    return data.subset(torch.cat(drawn).sort().values)


def find(source: Any, split: str, selection: Selection = Selection()) -> Undecoded:
    """Locate one split of a source, without reading it. Raises DataError if it does not exist."""
    if not isinstance(source, (str, os.PathLike)):
        return open_object(source, split, selection)

    name = os.fspath(source)
    if name == "digits":
        return _digits(split, selection)
    if name in HUB_IDS:
        folder = Path(os.environ.get("COLLABDM_DATA") or os.devnull) / name
        if folder.is_dir():
            return open_folder(folder, split, PUBLISHED_CLASSES[name], selection)
        return _hub(name, split, selection)

    if isinstance(source, str) and name.startswith(HUB):
        return _hub(name, split, selection)

    path = Path(name).expanduser()
    if path.is_dir():
        return open_folder(path, split, None, selection)
    if path.is_file():
        return open_file(path, split, selection)

    advice = f": for a data set of the hub, use {HUB}{name}" if HUB_NAME.fullmatch(name) else ""
    raise DataError(
        f"`{name}` should be a folder, a file or one of {', '.join(['digits', *HUB_IDS])}; it does "
        f"not exist{advice}"
    )


def _digits(split: str, selection: Selection) -> Undecoded:
    from sklearn.datasets import load_digits  # takes a second to import

    chosen_split = choose_split(
        {"train": "train", "test": "test"}, split, selection.test_split, "digits"
    )
    bunch = load_digits()
    labels = bunch.target.astype(np.int64)

    is_test = np.zeros(len(labels), dtype=bool)
    for y in range(len(DIGIT_NAMES)):
        members = np.flatnonzero(labels == y)
        is_test[members[len(members) - len(members) // 5 :]] = True

    chosen = is_test if chosen_split == "test" else ~is_test
    images = np.round(bunch.images[chosen] * 255 / 16).astype(np.uint8)  # its levels are 0 .. 16
    return Undecoded(
        "digits", len(images), lambda: zip(images, labels[chosen], strict=True), DIGIT_NAMES
    )


def _hub(name: str, split: str, selection: Selection) -> Undecoded:
    """Locate one split of a data set of the hub, `hub:owner/name[:config]` or a name of `HUB_IDS`.

    Raises DataError if the name is not valid, or the hub does not return the data set.
    """
    published = HUB_IDS.get(name, name.removeprefix(HUB))
    if not HUB_NAME.fullmatch(published):
        raise DataError(f"`{name}` should be {HUB}owner/name or {HUB}owner/name:config")

    import datasets  # takes a second to import

    identity, _, config = published.partition(":")
    try:
        splits = datasets.load_dataset(identity, config or None)
    except Exception as error:  # the library passes on every error of its network stack
        raise DataError(
            f"`{name}` should be a data set of the hub; the hub did not return it "
            f"({type(error).__name__}: {error}): set COLLABDM_DATA, or pass a path"
        ) from error

    rows = choose_split(splits, split, selection.test_split, f"`{name}`")
    located = dataset_rows(rows, f"`{name}`", PUBLISHED_CLASSES.get(name), selection)
    return replace(located, files=tuple(Path(f["filename"]) for f in rows.cache_files))

"""Load a data set as an ImageSet: by name, from files, from the hub, or from a Python object.

    digits                            scikit-learn's 8 x 8 digits; test: last fifth of each class
    mnist fashion_mnist cifar10 svhn  the folder of that name in COLLABDM_DATA, or the hub's copy
    hub:owner/name[:config]           any data set of the Hugging Face hub
    folder of parquet files           the hub's layout: train-*.parquet, test-*.parquet
    folder of images                  one subfolder per class, below train/ and test/ for splits
    file.npz                          images, labels[, classes]; or train_images, train_labels, ...
    Python objects                    datasets.Dataset, DatasetDict, torch Dataset, ImageSet

Only `hub:` asks the public hub for a data set: a path that is misspelt or not mounted must not,
since anyone could have published a data set under its name. Files are decoded once and cached
(`collabdm.data.cache`).

References: Q. Lhoest et al., "Datasets: a community library for natural language processing", EMNLP
2021 (the layout); E. Alpaydin, C. Kaynak, "Optical recognition of handwritten digits", UCI, 1998.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from collabdm.data.cache import cache_folder, cache_key, read_cached, write_cached
from collabdm.data.decoding import Undecoded, decode
from collabdm.data.formats import need_split, open_file, open_folder, pick_columns
from collabdm.errors import DataError
from collabdm.images import ImageSet, as_uint8
from collabdm.seeds import Stream

HUB_IDS = {
    "mnist": "ylecun/mnist",
    "fashion_mnist": "zalando-datasets/fashion_mnist",
    "cifar10": "uoft-cs/cifar10",
    "svhn": "ufldl-stanford/svhn:cropped_digits",
}

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
) -> ImageSet:
    """Load one split of a data set.

    Args:
        source: A name, a path or a Python object, as listed in the module's docstring.
        split: The name of the split. An object without splits (a torch Dataset, an ImageSet) is
            taken as the requested split.
        cache: The folder of decoded sets; by default COLLABDM_CACHE, or the user's cache folder.
        side: Resize to side x side pixels, bilinear with antialiasing, ignoring the aspect ratio.
        channels: Convert to grey (1) or RGB (3).

    Returns:
        The images, uint8; an ImageSet that needs no change is returned unchanged.

    Raises:
        DataError: The source or the split does not exist, or an image in it cannot be read.
    """
    if (side is not None and side < 1) or channels not in (None, 1, 3):
        raise DataError(
            "`side` should be 1 or more and `channels` 1 or 3, or None; "
            f"found {side} and {channels}"
        )
    if isinstance(source, ImageSet) and side is None and channels is None:
        return source

    undecoded = find(source, split)
    folder = cache or cache_folder()
    if not undecoded.files or folder is None:
        return decode(undecoded, side, channels)

    key = cache_key(undecoded, split, side, channels)
    data = read_cached(folder, key)
    if data is None:
        data = decode(undecoded, side, channels)
        write_cached(folder, key, data)
    return data


def column_values(source: Any, column: str, split: str = "train") -> tuple[str, ...]:
    """Read an additional column of a source, such as the site of each image.

    Args:
        source: As in `load`; it should have columns.
        column: The name of the column.
        split: The name of the split.

    Returns:
        One text per image, in the order of `load`, for example for `partition.by_column`.

    Raises:
        DataError: There is no such column.
    """
    undecoded = find(source, split)
    if undecoded.column is None:
        raise DataError(
            f"{undecoded.where} should have a column `{column}`; this kind of source has no columns"
        )
    return tuple(str(value) for value in undecoded.column(column))


def fit_classes(data: ImageSet, classes: tuple[str, ...]) -> ImageSet:
    """Relabel images with the Plan's classes, of which a site need not have all.

    Raises DataError if the data has a class that the Plan lacks.
    """
    if data.classes == classes:
        return data

    if unknown := [name for name in data.classes if name not in classes]:
        raise DataError(
            f"classes of the data should be among the plan's {list(classes)}; "
            f"found {list(data.classes)}, of which the plan lacks {unknown}: "
            "rename or leave out those classes"
        )

    positions = [classes.index(name) for name in data.classes]
    return ImageSet(data.images, torch.tensor(positions, dtype=torch.int64)[data.labels], classes)


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


def find(source: Any, split: str) -> Undecoded:
    """Locate one split of a source, without reading it. Raises DataError if it does not exist."""
    if not isinstance(source, (str, os.PathLike)):
        return _object(source, split)

    name = os.fspath(source)
    if name == "digits":
        return _digits(split)
    if name in HUB_IDS:
        folder = Path(os.environ.get("COLLABDM_DATA") or os.devnull) / name
        local = folder.is_dir()
        return open_folder(folder, split, PUBLISHED_CLASSES[name]) if local else _hub(name, split)

    if isinstance(source, str) and name.startswith(HUB):
        return _hub(name, split)

    path = Path(name).expanduser()
    if path.is_dir():
        return open_folder(path, split)
    if path.is_file():
        return open_file(path, split)

    advice = f": for a data set of the hub, use {HUB}{name}" if HUB_NAME.fullmatch(name) else ""
    raise DataError(
        f"`{name}` should be a folder, a file or one of {', '.join(['digits', *HUB_IDS])}; it does "
        f"not exist{advice}"
    )


def _digits(split: str) -> Undecoded:
    from sklearn.datasets import load_digits  # takes a second to import

    need_split(split, ("train", "test"), "digits")
    bunch = load_digits()
    labels = bunch.target.astype(np.int64)

    is_test = np.zeros(len(labels), dtype=bool)
    for y in range(len(DIGIT_NAMES)):
        members = np.flatnonzero(labels == y)
        is_test[members[len(members) - len(members) // 5 :]] = True

    chosen = is_test if split == "test" else ~is_test
    images = np.round(bunch.images[chosen] * 255 / 16).astype(np.uint8)  # its levels are 0 .. 16
    return Undecoded(
        "digits", len(images), lambda: zip(images, labels[chosen], strict=True), DIGIT_NAMES
    )


def _hub(name: str, split: str) -> Undecoded:
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

    need_split(split, splits, f"`{name}`")
    rows = _rows(splits[split], f"`{name}`", PUBLISHED_CLASSES.get(name))
    return replace(rows, files=tuple(Path(f["filename"]) for f in splits[split].cache_files))


def _object(source: Any, split: str) -> Undecoded:
    """Locate a split of a Python object; only a mapping (DatasetDict) has several splits."""
    kind = type(source).__name__

    if isinstance(source, ImageSet):
        images, labels = as_uint8(source.images), source.labels.tolist()
        return Undecoded(
            kind, len(source), lambda: zip(images, labels, strict=True), source.classes
        )

    if isinstance(source, Mapping):
        need_split(split, source, kind)
        return find(source[split], split)

    if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
        raise DataError(
            "`source` should be a name, a path, an ImageSet or a data set with a length and "
            f"numbered items; found {kind}"
        )
    return _rows(source, kind) if hasattr(source, "cast_column") else _items(source, kind)


def _rows(dataset: Any, where: str, names: tuple[str, ...] | None = None) -> Undecoded:
    """Read a `datasets.Dataset`, without applying its format and transforms."""
    from datasets import Image

    plain = dataset.with_format(None)
    image, label = pick_columns(plain.column_names, where)
    if isinstance(plain.features[image], Image):
        plain = plain.cast_column(image, Image(decode=False))

    def pairs() -> Iterator[tuple[object, object]]:
        return ((row[image], row[label]) for row in plain.select_columns([image, label]))

    def column(name: str) -> list[object]:
        if name not in plain.column_names:
            raise DataError(
                f"{where} should have a column `{name}`; found {', '.join(plain.column_names)}"
            )
        return list(plain[name])

    own_names = getattr(plain.features[label], "names", None)
    names = tuple(own_names or names or ()) or None
    return Undecoded(where, len(plain), pairs, names, (), column)


def _items(dataset: Any, where: str) -> Undecoded:
    """Read a map-style data set of (image, label), such as a torch Dataset."""

    def pairs() -> Iterator[tuple[object, object]]:
        for i in range(len(dataset)):
            item = dataset[i]
            if not isinstance(item, (tuple, list)) or len(item) != 2:
                raise DataError(
                    f"items of {where} should be (image, label); found {type(item).__name__} at {i}"
                )
            yield item[0], item[1]

    classes = getattr(dataset, "classes", None)
    names = tuple(map(str, classes)) if classes else None
    return Undecoded(where, len(dataset), pairs, names)

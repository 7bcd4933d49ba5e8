"""Load a data set as an ImageSet: by name, from files, from the hub, or from a Python object.

    digits                             scikit-learn's 8×8 digits; the last fifth of a class is for the test
    mnist fashion_mnist cifar10 svhn   the folder of that name in COLLABDM_DATA, else the hub's copy
    owner/name or owner/name:config    any data set of the Hugging Face hub
    folder of parquet files            the hub's layout: train-*.parquet, test-*.parquet
    folder of images                   class = subfolder; train/ and test/ above them if there are splits
    file.npz                           images, labels[, classes]; or train_images, train_labels, ...
    datasets.Dataset, DatasetDict, torch map-style Dataset, ImageSet

Files are decoded once and remembered (collabdm.decoding), so the next load takes well under a second.

References: Q. Lhoest et al., "Datasets: a community library for natural language processing", EMNLP 2021
(the layout); E. Alpaydin, C. Kaynak, "Optical recognition of handwritten digits", UCI, 1998 (the digits).
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from collabdm.data.decoding import Undecoded, cache_folder, cache_key, decode, recall, remember
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
    """The images of one split of `source` (see the module's docstring for what it may be), uint8.

    `cache`: folder for decoded sets (default: COLLABDM_CACHE, else the user's cache folder). `side`,
    `channels`: resize to side × side pixels; convert to 1 or 3 channels. An object without splits of its
    own (a torch Dataset, an ImageSet) is taken as the split asked for. Raises DataError.
    """
    if (side is not None and side < 1) or channels not in (None, 1, 3):
        raise DataError(f"`side` should be 1 or more and `channels` 1 or 3, or None; found {side} and {channels}")
    if isinstance(source, ImageSet) and side is None and channels is None:
        return source
    found = find(source, split)
    folder = cache or cache_folder()
    if not found.files or folder is None:
        return decode(found, side, channels)
    key = cache_key(found, split, side, channels)
    data = recall(folder, key)
    if data is None:
        data = decode(found, side, channels)
        remember(folder, key, data)
    return data


def column_values(source: Any, column: str, split: str = "train") -> tuple[str, ...]:
    """Another column of a source that has columns, as text, one value per image in the order of `load`.

    For `collabdm.partition.by_column`: a column that names the site. Raises DataError if there is none.
    """
    found = find(source, split)
    if found.column is None:
        raise DataError(f"{found.where} should have a column `{column}`; this kind of source has no columns")
    return tuple(str(value) for value in found.column(column))


def fit_classes(data: ImageSet, classes: tuple[str, ...]) -> ImageSet:
    """The same images, labelled by the Plan's class names; a site may lack some of them.

    Raises DataError if the data has a class name that the Plan has not.
    """
    if data.classes == classes:
        return data
    if unknown := [name for name in data.classes if name not in classes]:
        raise DataError(
            f"classes of the data should be among the plan's {list(classes)}; found {list(data.classes)}, "
            f"of which the plan lacks {unknown}. Rename or leave out those classes"
        )
    places = torch.tensor([classes.index(name) for name in data.classes], dtype=torch.int64)
    return ImageSet(data.images, places[data.labels], classes)


def limit(data: ImageSet, per_class: int | None, stream: Stream) -> ImageSet:
    """At most `per_class` images of each class, drawn without replacement, in their order in `data`."""
    if per_class is None:
        return data
    if per_class < 1:
        raise DataError(f"`per_class` should be 1 or more, or None for all; found {per_class}")
    members = [data.of_class(y) for y in range(len(data.classes))]
    drawn = torch.cat([index[stream.permutation(len(index))[:per_class]] for index in members])
    return data.subset(drawn.sort().values)


def find(source: Any, split: str) -> Undecoded:
    """One split of `source`, found but not read. Raises DataError if it is not there."""
    if not isinstance(source, (str, os.PathLike)):
        return _object(source, split)
    name = os.fspath(source)
    if name == "digits":
        return _digits(split)
    if name in HUB_IDS:
        folder = Path(os.environ.get("COLLABDM_DATA") or os.devnull) / name
        return open_folder(folder, split, PUBLISHED_CLASSES[name]) if folder.is_dir() else _hub(name, split)
    path = Path(name).expanduser()
    if path.is_dir():
        return open_folder(path, split)
    if path.is_file():
        return open_file(path, split)
    if isinstance(source, os.PathLike) or not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+(:[\w.-]+)?", name):
        raise DataError(
            f"`{name}` should be a folder or a file; nothing is there, and it is neither one of "
            f"{', '.join(['digits', *HUB_IDS])} nor a hub's owner/name"
        )
    return _hub(name, split)


def _digits(split: str) -> Undecoded:
    from sklearn.datasets import load_digits  # takes a second to import

    need_split(split, ("train", "test"), "digits")
    bunch = load_digits()
    labels = bunch.target.astype(np.int64)
    is_test = np.zeros(len(labels), dtype=bool)
    for y in range(10):
        members = np.flatnonzero(labels == y)
        is_test[members[len(members) - len(members) // 5 :]] = True
    keep = is_test if split == "test" else ~is_test
    images = np.round(bunch.images[keep] * 255 / 16).astype(np.uint8)
    return Undecoded("digits", len(images), lambda: zip(images, labels[keep], strict=True), DIGIT_NAMES)


def _hub(name: str, split: str) -> Undecoded:
    import datasets  # takes a second to import

    identity, _, config = HUB_IDS.get(name, name).partition(":")
    try:
        splits = datasets.load_dataset(identity, config or None)
    except Exception as error:  # the library passes on whatever its network stack raised
        raise DataError(
            f"`{name}` is neither a folder, a file nor a data set that the hub could give "
            f"({type(error).__name__}: {error}); set COLLABDM_DATA or pass a path"
        ) from error
    need_split(split, splits, f"`{name}`")
    files = tuple(Path(file["filename"]) for file in splits[split].cache_files)
    return replace(_rows(splits[split], f"`{name}`", PUBLISHED_CLASSES.get(name)), files=files)


def _object(source: Any, split: str) -> Undecoded:
    """Something made in Python. A mapping (a DatasetDict is one) holds splits; anything else is one split."""
    kind = type(source).__name__
    if isinstance(source, ImageSet):
        images, labels = as_uint8(source.images), source.labels.tolist()
        return Undecoded(kind, len(source), lambda: zip(images, labels, strict=True), source.classes)
    if isinstance(source, Mapping):
        need_split(split, source, kind)
        return find(source[split], split)
    if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
        raise DataError(
            "`source` should be a name, a path, an ImageSet or a data set with a length and numbered items; "
            f"found {kind}"
        )
    return _rows(source, kind) if hasattr(source, "cast_column") else _items(source, kind)


def _rows(dataset: Any, where: str, names: tuple[str, ...] | None = None) -> Undecoded:
    """A `datasets.Dataset`; its format and transforms are not applied."""
    from datasets import Image

    plain = dataset.with_format(None)
    image, label = pick_columns(plain.column_names, where)
    if isinstance(plain.features[image], Image):
        plain = plain.cast_column(image, Image(decode=False))
    names = tuple(getattr(plain.features[label], "names", None) or names or ()) or None

    def pairs() -> Iterator[tuple[object, object]]:
        return ((row[image], row[label]) for row in plain.select_columns([image, label]))

    def column(name: str) -> list[object]:
        if name not in plain.column_names:
            raise DataError(f"{where} should have a column `{name}`; found {', '.join(plain.column_names)}")
        return list(plain[name])

    return Undecoded(where, len(plain), pairs, names, (), column)


def _items(dataset: Any, where: str) -> Undecoded:
    """A map-style data set of (image, label), such as torch's."""

    def pairs() -> Iterator[tuple[object, object]]:
        for i in range(len(dataset)):
            item = dataset[i]
            if not isinstance(item, (tuple, list)) or len(item) != 2:
                raise DataError(f"items of {where} should be (image, label); found {type(item).__name__} at {i}")
            yield item[0], item[1]

    classes = getattr(dataset, "classes", None)
    return Undecoded(where, len(dataset), pairs, tuple(map(str, classes)) if classes else None)

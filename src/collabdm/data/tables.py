"""Locate images in Python objects: datasets, torch Datasets, DataFrames; and `save_to_disk`.

References: Q. Lhoest et al., "Datasets: a community library for natural language processing", EMNLP
2021.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from collabdm.data.columns import IMAGE_COLUMNS, need_column, pick_columns
from collabdm.data.decoding import Undecoded
from collabdm.data.selection import Selection
from collabdm.data.splits import choose_split
from collabdm.errors import DataError
from collabdm.images import ImageSet, as_uint8

PATH_COLUMNS = ("path", "file", "filename", "file_name", "image_path", "filepath")


def open_saved(folder: Path, split: str, selection: Selection) -> Undecoded:
    """Locate one split of a data set that `save_to_disk` wrote. Raises DataError."""
    import datasets  # takes a second to import

    where = f"`{folder}`"
    try:
        saved = datasets.load_from_disk(str(folder))
    except Exception as error:  # a damaged file raises errors of any kind
        raise DataError(
            f"{where} should be a data set as `save_to_disk` writes it; it is damaged "
            f"({type(error).__name__}): save it again"
        ) from error

    splits = saved if isinstance(saved, Mapping) else {"train": saved}
    chosen = choose_split(splits, split, selection.test_split, where)
    rows = dataset_rows(chosen, where, None, selection)
    return replace(rows, files=tuple(Path(f["filename"]) for f in chosen.cache_files))


def open_object(source: Any, split: str, selection: Selection) -> Undecoded:
    """Locate a split of a Python object; only a mapping (DatasetDict) has several splits.

    Raises DataError if it is not a data set.
    """
    kind = type(source).__name__

    if isinstance(source, ImageSet):
        images, labels = as_uint8(source.images), source.labels.tolist()
        return Undecoded(
            kind, len(source), lambda: zip(images, labels, strict=True), source.classes
        )
    if isinstance(source, Mapping):
        chosen = choose_split(source, split, selection.test_split, kind)
        return open_object(chosen, split, selection)
    if hasattr(source, "iterrows") and hasattr(source, "columns"):
        return _frame(source, kind, selection)

    if not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
        raise DataError(
            "`source` should be a name, a path, an ImageSet, a DataFrame or a data set with a "
            f"length and numbered items; found {kind}"
        )
    if hasattr(source, "cast_column"):
        return dataset_rows(source, kind, None, selection)
    return _items(source, kind, selection)


def dataset_rows(
    dataset: Any, where: str, names: tuple[str, ...] | None, selection: Selection
) -> Undecoded:
    """Read a `datasets.Dataset`, without applying its format and transforms.

    Args:
        dataset: the data set.
        where: its name, for errors.
        names: the class names, used if it has none.
        selection: the choices of the user.

    Raises:
        DataError: the columns are not found.
    """
    from datasets import ClassLabel, Image

    plain = dataset.with_format(None)
    features = plain.features
    typed = tuple(
        [name for name in plain.column_names if isinstance(features[name], kind)]
        for kind in (Image, ClassLabel)
    )
    image, label = pick_columns(plain.column_names, where, selection, (typed[0], typed[1]))
    if isinstance(features[image], Image):
        plain = plain.cast_column(image, Image(decode=False))

    def pairs() -> Iterator[tuple[object, object]]:
        return ((row[image], row[label]) for row in plain.select_columns([image, label]))

    def column(name: str) -> list[object]:
        need_column(name, plain.column_names, where)
        return list(plain[name])

    own = getattr(features[label], "names", None)
    names = tuple(selection.class_names or own or names or ()) or None
    return Undecoded(where, len(plain), pairs, names, (), column)


def _frame(frame: Any, where: str, selection: Selection) -> Undecoded:
    """Read a pandas DataFrame whose images are paths, encoded bytes, pictures or arrays."""
    present = [str(name) for name in frame.columns]
    paths = [name for name in present if name.lower() in PATH_COLUMNS]
    usual = any(name.lower() in IMAGE_COLUMNS for name in present)
    image, label = pick_columns(present, where, selection, ([] if usual else paths, ()))

    def values(name: str) -> list[object]:
        need_column(name, present, where)
        return frame.iloc[:, present.index(name)].tolist()

    def pairs() -> Iterator[tuple[object, object]]:
        return zip(values(image), values(label), strict=True)

    names = selection.class_names or _categories(frame.iloc[:, present.index(label)])
    return Undecoded(where, len(frame), pairs, names, (), values)


def _categories(column: Any) -> tuple[str, ...] | None:
    """Return the categories of a categorical column of text, in order; None for other columns."""
    categories = getattr(getattr(column, "cat", None), "categories", None)
    if categories is None or not all(isinstance(name, str) for name in categories):
        return None
    return tuple(categories)


def _items(dataset: Any, where: str, selection: Selection) -> Undecoded:
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
    return Undecoded(where, len(dataset), pairs, selection.class_names or names)

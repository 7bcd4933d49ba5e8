"""Locate images in NumPy arrays: .npz archives, and folders of .npy files.

    images, labels[, classes]        train_images, train_labels, test_images, …      (MedMNIST)
    x_train, y_train, …              X_train.npy, y_train.npy, …

Reference: J. Yang et al., "MedMNIST v2", Scientific Data 10, 2023.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from collabdm.data.archives import npy_array, npz_arrays, npz_names
from collabdm.data.decoding import Undecoded
from collabdm.data.selection import Selection, class_name
from collabdm.data.splits import SPLIT_OF, choose_split
from collabdm.errors import DataError

KEYS = (
    ("{}_images", "{}_labels"),
    ("x_{}", "y_{}"),
    ("X_{}", "y_{}"),
    ("X_{}", "Y_{}"),
    ("{}_x", "{}_y"),
    ("{}_data", "{}_labels"),
    ("images_{}", "labels_{}"),
)
WHOLE = (("images", "labels"), ("x", "y"), ("X", "y"), ("data", "labels"))

Read = Callable[[Sequence[str]], list[np.ndarray]]


def open_npz(path: Path, split: str, selection: Selection) -> Undecoded:
    """Locate one split of an .npz archive. It is not cached, because arrays need no decoding.

    Raises DataError.
    """
    return _open(path, split, selection, npz_names(path), lambda names: npz_arrays(path, names))


def open_npy_folder(folder: Path, split: str, selection: Selection) -> Undecoded:
    """Locate one split of a folder of .npy files. Raises DataError."""
    names = sorted(path.stem for path in folder.glob("*.npy"))
    return _open(
        folder,
        split,
        selection,
        names,
        lambda chosen: [npy_array(folder / f"{name}.npy") for name in chosen],
    )


def _open(
    path: Path, split: str, selection: Selection, present: Sequence[str], read: Read
) -> Undecoded:
    images, labels = read(_keys(path, split, selection, present))
    _check_shapes(path, images, labels)
    values = labels.reshape(-1).tolist()

    def column(name: str) -> list[object]:
        if name not in present:
            raise DataError(f"`{path}` should contain `{name}`; found {', '.join(present)}")
        return read([name])[0].tolist()

    def pairs() -> Iterable[tuple[object, object]]:
        return zip(images, values, strict=True)

    names = selection.class_names
    if names is None and "classes" in present:
        names = tuple(class_name(str(name)) for name in read(["classes"])[0].reshape(-1))
    return Undecoded(f"`{path}`", len(images), pairs, names, (), column)


def _check_shapes(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Check that there is one picture and one label for each row. Raises DataError."""
    several = labels.ndim == 2 and labels.shape[1] > 1
    if several and images.shape[:1] == labels.shape[:1]:
        raise DataError(
            f"`{path}` should contain one label per image; found {labels.shape} labels, "
            f"{labels.shape[1]} for each image: sets with several labels per image are not "
            "supported; for one-hot labels, write their positions instead"
        )
    if labels.ndim == 0 or labels.size != len(labels) or images.shape[:1] != labels.shape[:1]:
        raise DataError(
            f"`{path}` should contain one label per image; "
            f"found {images.shape} images and {labels.shape} labels"
        )
    if images.ndim == 5 or (images.ndim == 4 and min(images.shape[1], images.shape[3]) > 4):
        raise DataError(
            f"`{path}` should contain pictures (n, h, w), (n, h, w, c) or (n, c, h, w) with c = 1 "
            f"or 3; found {images.shape}, which are volumes: choose slices of them"
        )


def _keys(path: Path, split: str, selection: Selection, arrays: Sequence[str]) -> tuple[str, str]:
    """Find the names of the images and labels of a split. Raises DataError."""
    keys = {
        word: (images.format(name), labels.format(name))
        for images, labels in reversed(KEYS)
        for word in SPLIT_OF
        for name in (word, word.capitalize(), word.upper())
        if images.format(name) in arrays and labels.format(name) in arrays
    }
    whole = next((pair for pair in WHOLE if set(pair) <= set(arrays)), None)
    if whole is not None and not keys:
        keys = {"train": whole}
    if selection.image_column is not None and selection.label_column is not None:
        keys = {"train": (selection.image_column, selection.label_column)}

    if not keys or any(set(pair) - set(arrays) for pair in keys.values()):
        raise DataError(
            f"`{path}` should contain `images` and `labels`, or `train_images` and `train_labels`; "
            f"found {', '.join(arrays) or 'nothing'}: rename them, or name them with "
            "`--image-column` and `--label-column`"
        )
    return choose_split(keys, split, selection.test_split, f"`{path}`")

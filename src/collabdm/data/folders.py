"""Find pictures in folders: one subfolder for each class, below one for each split if any.

    pets/cat/1.jpg                      no splits: all pictures are for training
    pets/Training/cat/1.jpg             splits, in any spelling (`splits`)

Links to folders are followed. Everything that is skipped is counted (`tally`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from collabdm.data.selection import Selection, class_name
from collabdm.data.splits import SPLIT_OF, choose_split
from collabdm.data.tally import Remarks
from collabdm.errors import DataError

IMAGE_SUFFIXES = frozenset(
    (
        *(".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".bmp", ".gif", ".webp"),
        *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm"),
        *(".dcm", ".dicom"),
    )
)

#: what operating systems and archives leave among pictures
FOREIGN = frozenset(
    (
        *("__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin"),
        *("system volume information", "ehthumbs.db", "lost+found"),
    )
)
MOST_SHOWN = 8  # names in an error

LAYOUT = (
    "one subfolder of pictures for each class (ROOT/cat/1.jpg), below train and test if there are "
    "splits (ROOT/train/cat/1.jpg)"
)


@dataclass(frozen=True)
class PictureFolder:
    """The pictures of one split: each with its class, and the names of the classes."""

    root: Path
    pictures: list[tuple[Path, str]]
    classes: tuple[str, ...]


def is_foreign(name: str) -> bool:
    """Whether a name is hidden, or belongs to an operating system."""
    return name.startswith(".") or name.lower() in FOREIGN


def entries(folder: Path) -> list[Path]:
    """List a folder, sorted by name. Raises DataError if that is not allowed."""
    try:
        return sorted(folder.iterdir(), key=lambda path: path.name)
    except OSError as error:
        raise DataError(
            f"`{folder}` should be a readable folder; it cannot be listed ({error.strerror})"
        ) from error


def subfolders(folder: Path) -> list[Path]:
    """List the subfolders that are neither hidden nor foreign, sorted by name."""
    return [path for path in entries(folder) if path.is_dir() and not is_foreign(path.name)]


def is_picture(path: Path) -> bool:
    """Whether a file has one of the endings of pictures."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def pictures_below(folder: Path, remarks: Remarks) -> list[Path]:
    """List all pictures of a folder and its subfolders, sorted; links to folders are followed.

    A folder that several links lead to is read once. `remarks` counts what is skipped.
    """
    return sorted(_walk(folder, remarks, set()))


def _walk(folder: Path, remarks: Remarks, seen: set[tuple[int, int]]) -> Iterator[Path]:
    status = folder.stat()
    if (status.st_dev, status.st_ino) in seen:
        remarks.add("repeated_link", str(folder))
        return
    seen.add((status.st_dev, status.st_ino))

    for path in entries(folder):
        if is_foreign(path.name):
            remarks.add("foreign", str(path))
        elif path.is_dir():
            yield from _walk(path, remarks, seen)
        elif path.is_symlink() and not path.exists():
            remarks.add("dead_link", str(path))
        elif is_picture(path):
            yield path
        else:
            remarks.add("unknown_ending", str(path))


def find_pictures(root: Path, split: str, selection: Selection, remarks: Remarks) -> PictureFolder:
    """Locate the pictures of one split of a folder.

    Args:
        root: the folder.
        split: the name of the split.
        selection: the choices of the user.
        remarks: counts what is skipped.

    Returns:
        The pictures, sorted by class and name.

    Raises:
        DataError: there is no such split, there are no pictures, or the folders are not classes.
    """
    folder = _split_folder(root, split, selection)
    found: dict[str, list[Path]] = {}
    only_folders = []

    for path in entries(folder):
        if is_foreign(path.name):
            remarks.add("foreign", str(path))
        elif not path.is_dir():
            remarks.add("outside", str(path))
        else:
            pictures = pictures_below(path, remarks)
            found.setdefault(class_name(path.name), []).extend(pictures)
            if pictures and not any(picture.parent == path for picture in pictures):
                only_folders.append(path)
            if not pictures:
                remarks.add("empty_class", str(path))

    classes = tuple(name for name, pictures in found.items() if pictures)
    _check_found(folder, found, remarks)
    if len(only_folders) == len(classes):
        _check_level(folder, only_folders)

    labelled = [(path, name) for name in classes for path in found[name]]
    return PictureFolder(folder, labelled, classes)


def _check_found(folder: Path, found: dict[str, list[Path]], remarks: Remarks) -> None:
    """Check that there are pictures. Raises DataError with what was found instead."""
    if any(found.values()):
        return

    skipped = "; ".join(remark.line for remark in remarks.frozen())
    ending, advice = "" if len(found) == 1 else "s", ""
    if not found and any(map(is_picture, entries(folder))):
        advice = ": if it is the folder of one class, name the folder that contains it"
    raise DataError(
        f"`{folder}` should contain {LAYOUT}, or parquet, .npy or .tar files; found "
        f"{len(found)} subfolder{ending} without a picture{f' ({skipped})' if skipped else ''}"
        f"{advice}"
    )


def _check_level(root: Path, folders: list[Path]) -> None:
    """Check that folders which contain only folders are classes. Raises DataError.

    They are classes if there are several, if their folders are not splits, and if no name repeats
    in different classes: class/patient/1.dcm is a class, and site/class/1.png is not. Exactly one
    folder of the same name in each, such as `images`, is allowed too.
    """
    inner = [[path.name for path in subfolders(folder)] for folder in folders]
    names = [name for one in inner for name in one]
    splits = any(name.lower() in SPLIT_OF for name in names)
    one_each = len(set(names)) == 1 and len(names) == len(folders)
    if len(folders) > 1 and not splits and (one_each or len(set(names)) == len(names)):
        return

    shown = "; ".join(
        f"{folder.name} with {', '.join(one[:MOST_SHOWN])}"
        for folder, one in list(zip(folders, inner, strict=True))[:MOST_SHOWN]
    )
    raise DataError(
        f"`{root}` should contain {LAYOUT}; found subfolders that contain only folders: {shown}: "
        "name the folder one level below, or put the pictures of each class into its folder"
    )


def _split_folder(root: Path, split: str, selection: Selection) -> Path:
    """Find the folder of a split; a folder without splits contains training pictures.

    Raises DataError if there is no such split, or if only some folders are splits.
    """
    folders = subfolders(root)
    splits = {
        path.name: path for path in folders if path.name.lower() in SPLIT_OF and subfolders(path)
    }
    named = selection.test_split
    if named is not None and (root / named).is_dir():
        splits[named] = root / named

    others = [path.name for path in folders if path.name not in splits]
    flat = [name for name in others if name.lower() in SPLIT_OF]
    if splits and flat:
        raise DataError(
            f"every split of `{root}` should contain {LAYOUT}; found no class folders in "
            f"{', '.join(flat)}: sort its pictures into class folders, or move it away"
        )
    if splits and others:
        raise DataError(
            f"`{root}` should contain only splits or only classes; found the splits "
            f"{', '.join(splits)} and also {', '.join(others[:MOST_SHOWN])}: move one kind away"
        )
    if splits:
        return choose_split(splits, split, named, f"`{root}`")
    if folders and all(path.name.lower() in SPLIT_OF for path in folders):
        raise DataError(
            f"`{root}` should contain {LAYOUT}; found {', '.join(p.name for p in folders)}, in "
            "which there are no class folders"
        )

    if split != "train" and folders:
        raise DataError(
            f"image folder `{root}` should have a split `{split}`; found one folder for each class "
            f"and no splits: put the folders of the {split} images into {root / split}"
        )
    return root

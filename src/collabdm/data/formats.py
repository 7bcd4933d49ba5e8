"""Locate data sets in files and folders, by their layout.

    folder of parquet files, of .npy arrays, of .tar shards, of pictures; `save_to_disk` of datasets
    .parquet, .npz, .tar

Nothing is decoded here: each function returns an `Undecoded`, or raises an error that states which
files were expected.
"""

from pathlib import Path

from collabdm.data.arrays import open_npy_folder, open_npz
from collabdm.data.decoding import Undecoded
from collabdm.data.folders import find_pictures, is_picture
from collabdm.data.parquet import (
    file_split,
    open_parquet_files,
    open_parquet_folder,
    parquet_files,
)
from collabdm.data.selection import Selection
from collabdm.data.shards import is_shard, open_shard_files, open_shards, shard_files
from collabdm.data.splits import need_split
from collabdm.data.tables import open_saved
from collabdm.data.tally import Remarks
from collabdm.errors import DataError

SAVED = ("dataset_dict.json", "state.json")  # files of `save_to_disk`


def open_folder(
    folder: Path,
    split: str,
    names: tuple[str, ...] | None = None,
    selection: Selection = Selection(),
) -> Undecoded:
    """Locate one split in a folder, by the files that it contains.

    Args:
        folder: The folder.
        split: The name of the split.
        names: The class names, used if parquet files have none.
        selection: The choices of the user.

    Raises:
        DataError: There is no such split, or the folder contains no data set.
    """
    if any((folder / name).is_file() for name in SAVED):
        return open_saved(folder, split, selection)
    if tables := parquet_files(folder):
        return open_parquet_folder(folder, tables, split, names, selection)
    if any(folder.glob("*.npy")):
        return open_npy_folder(folder, split, selection)
    if shards := shard_files(folder):
        return open_shards(folder, shards, split, selection)
    return _pictures(folder, split, selection)


def _pictures(root: Path, split: str, selection: Selection) -> Undecoded:
    """Locate one split of a folder of pictures."""
    remarks = Remarks()
    found = find_pictures(root, split, selection, remarks)
    files = tuple(path for path, _ in found.pictures)
    return Undecoded(
        f"`{found.root}`",
        len(files),
        lambda: found.pictures,
        selection.class_names or found.classes,
        files,
        remarks=remarks.frozen(),
    )


def open_file(path: Path, split: str, selection: Selection = Selection()) -> Undecoded:
    """Locate one split of an archive, a shard or a parquet file. Raises DataError."""
    if path.suffix == ".npz":
        return open_npz(path, split, selection)

    where = f"`{path}`"
    if path.suffix == ".parquet":
        need_split(split, file_split(path), selection.test_split, where)
        return open_parquet_files([path], None, selection)
    if is_shard(path):
        need_split(split, file_split(path), selection.test_split, where)
        return open_shard_files([path], selection)
    raise DataError(
        f"{where} should be a folder, or an .npz, .parquet or .tar file; found a `{path.suffix}` "
        f"file{_advice(path)}"
    )


def _advice(path: Path) -> str:
    """Return what to do with a file of another kind, as the end of a message."""
    if path.suffix.lower() in (".zip", ".7z", ".rar", ".gz"):
        return ": extract it"
    if path.suffix == ".npy":
        return ": name the folder, with images.npy and labels.npy in it"
    return ": name the folder of the class folders" if is_picture(path) else ""

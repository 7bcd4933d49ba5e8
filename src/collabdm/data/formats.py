"""Locate data sets in files and folders, by their layout.

    folder of parquet files, of .npy arrays, of IDX files, of .tar shards, of pictures in class
    folders or with a table of labels; `save_to_disk` of datasets
    .parquet, .npz, .tar

Nothing is decoded here: each function returns an `Undecoded`, or raises an error that states which
files were expected.
"""

from pathlib import Path

from collabdm.data.arrays import open_npy_folder, open_npz
from collabdm.data.decoding import Undecoded
from collabdm.data.folders import find_pictures, is_picture
from collabdm.data.idx import idx_files, open_idx
from collabdm.data.parquet import (
    file_split,
    open_parquet_files,
    open_parquet_folder,
    parquet_files,
)
from collabdm.data.picture_table import labelled_tables, open_picture_table
from collabdm.data.selection import Selection
from collabdm.data.shards import is_shard, open_shard_files, open_shards, shard_files
from collabdm.data.splits import need_split
from collabdm.data.tables import open_saved
from collabdm.data.tally import Remarks
from collabdm.errors import DataError

SAVED = ("dataset_dict.json", "state.json")  # files of `save_to_disk`

_CONVERT = "convert it to an .npz file with `images` and `labels`, or to class folders"

#: what to do with files of other kinds, by ending
ADVICE = {
    **dict.fromkeys((".zip", ".7z", ".rar", ".gz"), "extract it"),
    **dict.fromkeys((".h5", ".hdf5", ".mat", ".tfrecord", ".lmdb", ".beton"), _CONVERT),
    **dict.fromkeys((".pkl", ".pickle", ".pt", ".pth"), f"it may contain code; {_CONVERT}"),
    ".npy": "name the folder, with images.npy and labels.npy in it",
    ".csv": f"if its cells are pixels, {_CONVERT}; a table of file names and labels should be "
    "called metadata.csv, in the folder of the pictures; a table of flows needs `--flows`",
}


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
    if sets := idx_files(folder):
        return open_idx(folder, sets, split, names, selection)
    if shards := shard_files(folder):
        return open_shards(folder, shards, split, selection)
    if labelled := labelled_tables(folder, selection):
        return open_picture_table(folder, labelled, split, selection)
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
    advice = ADVICE.get(path.suffix.lower())
    if is_picture(path):
        advice = "name the folder of the class folders"
    return f": {advice}" if advice else ""

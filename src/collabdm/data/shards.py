"""Locate images in WebDataset shards, .tar files in which a key names the parts of a sample.

    000.jpg  000.cls              000.png  000.json {"label": 3}

Reference: A. Aizman, G. Maltby, T. Breuel, "High performance I/O for large scale deep learning",
IEEE Big Data 2019.
"""

import json
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from collabdm.data.columns import LABEL_COLUMNS
from collabdm.data.decoding import Undecoded
from collabdm.data.folders import IMAGE_SUFFIXES, is_foreign
from collabdm.data.selection import Selection
from collabdm.data.splits import choose_split, split_of
from collabdm.documents.regular_file import check_regular
from collabdm.errors import DataError

TEXT_LABELS = ("cls", "txt", "label")
MOST_LABEL_BYTES, MOST_IMAGE_BYTES = 2**16, 2**28
MOST_SAMPLES = 10**7
SUFFIXES = (".tar", ".tar.gz", ".tgz")

_ERRORS = (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError)


def is_shard(path: Path) -> bool:
    """Whether a file has the ending of a shard."""
    return path.name.lower().endswith(SUFFIXES)


def shard_files(folder: Path) -> list[Path]:
    """List the shards of a folder, and of the folders of its splits."""
    found = sorted([*folder.glob("*"), *folder.glob("*/*")])
    return [path for path in found if is_shard(path) and not is_foreign(path.name)]


def open_shards(folder: Path, files: list[Path], split: str, selection: Selection) -> Undecoded:
    """Locate one split in a folder of shards.

    Args:
        folder: the folder.
        files: its shards; their names or folders determine the splits.
        split: the name of the split.
        selection: the choices of the user.

    Raises:
        DataError: there is no such split, or a shard is damaged.
    """
    splits: dict[str, list[Path]] = {}
    for file in files:
        name = split_of(file.name) or split_of(file.parent.name) or "train"
        splits.setdefault(name, []).append(file)
    chosen = choose_split(splits, split, selection.test_split, f"`{folder}`")
    return open_shard_files(chosen, selection)


def open_shard_files(files: list[Path], selection: Selection) -> Undecoded:
    """Locate the samples of shards: the labels are read, the images are not. Raises DataError."""
    where = f"`{files[0].parent}`" if len(files) > 1 else f"`{files[0]}`"
    labels: dict[str, object] = {}
    images: dict[str, int] = {}

    for number, file in enumerate(files):
        for key, kind, content in _members(file, number, images_too=False):
            if f".{kind}" in IMAGE_SUFFIXES:
                images[key] = images.get(key, 0) + 1
            elif kind == "json":
                labels.setdefault(key, _json_label(content, f"`{file}`: {key}", selection))
            elif kind in TEXT_LABELS:
                labels[key] = _text_label(content)
        if len(images) > MOST_SAMPLES:
            raise DataError(f"{where} should have at most {MOST_SAMPLES:,} samples")

    _check_samples(images, labels, where)

    def pairs() -> Iterator[tuple[object, object]]:
        for number, file in enumerate(files):
            for key, kind, content in _members(file, number, images_too=True):
                if f".{kind}" in IMAGE_SUFFIXES:
                    yield content, labels[key]

    return Undecoded(where, len(images), pairs, selection.class_names, tuple(files))


def _check_samples(images: dict[str, int], labels: dict[str, object], where: str) -> None:
    """Check that each sample has one image and one label. Raises DataError."""
    if not images:
        raise DataError(
            f"{where} should contain samples KEY.jpg and KEY.cls; found no picture in it"
        )
    unlabelled = [key for key in images if labels.get(key) is None]
    if unlabelled:
        raise DataError(
            f"samples of {where} should have a label KEY.cls, or KEY.json with a `label`; "
            f"{len(unlabelled):,} of {len(images):,} have none, the first is "
            f"{unlabelled[0].partition(':')[2]}: for another key of the JSON, add "
            "`--label-column`; extract an archive of class folders"
        )
    if doubled := [key for key, count in images.items() if count > 1]:
        raise DataError(
            f"samples of {where} should have one picture; {len(doubled):,} have several, the first "
            f"is {doubled[0].partition(':')[2]}"
        )


def _members(file: Path, number: int, images_too: bool) -> Iterator[tuple[str, str, bytes]]:
    """Yield the key, the ending and the content of each member of a shard. Raises DataError.

    `number` is the position of the shard, which makes keys distinct between shards.
    """
    try:
        check_regular(file)
        with tarfile.open(file, "r:*") as archive:
            for member in archive:
                path = PurePosixPath(member.name)
                stem, _, kind = path.name.partition(".")
                if not member.isfile() or not stem or is_foreign(path.name):
                    continue
                kind = kind.lower().rpartition(".")[2]
                picture = f".{kind}" in IMAGE_SUFFIXES
                if picture and not images_too:
                    yield f"{number}:{path.parent / stem}", kind, b""
                elif picture or kind == "json" or kind in TEXT_LABELS:
                    most = MOST_IMAGE_BYTES if picture else MOST_LABEL_BYTES
                    yield f"{number}:{path.parent / stem}", kind, _content(archive, member, most)
    except DataError:
        raise
    except _ERRORS as error:
        raise DataError(
            f"`{file}` should be a .tar file; it is damaged or cut off: copy it again"
        ) from error


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo, most: int) -> bytes:
    """Read a member. Raises ValueError or OSError if it is larger than allowed or cut off."""
    file = archive.extractfile(member)
    if file is None or member.size > most:
        raise DataError(
            f"`{member.name}` should have at most {most:,} bytes; found {member.size:,}"
        )
    content = file.read(most + 1)
    if len(content) != member.size:
        raise EOFError("cut off")
    return content


def _text_label(content: bytes) -> object:
    """Read a whole number, or a class name; None if it is empty or not text."""
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        return None
    if text.isascii() and text.removeprefix("-").isdecimal() and len(text) < 18:
        return int(text)
    return text or None


def _json_label(content: bytes, where: str, selection: Selection) -> object:
    """Read the label of a sample's JSON; None if it has none. Raises DataError if ambiguous."""
    try:
        values: Any = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict):
        return values if isinstance(values, (int, str)) else None
    if selection.label_column is not None:
        return values.get(selection.label_column)

    candidates = [name for name in values if name.lower() in LABEL_COLUMNS]
    if len(candidates) > 1:
        raise DataError(
            f"{where}.json should have one label; found {', '.join(candidates)}: choose one with "
            "`--label-column`"
        )
    return values[candidates[0]] if candidates else None

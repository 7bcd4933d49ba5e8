"""Read arrays of .npz archives and rows of parquet files in memory that their files justify.

A small compressed file can expand to any size. Here the shape and the type of an array are checked
before it is read, against the largest ratio of DEFLATE, and only the arrays that are asked for are
read. Rows of parquet are read in batches that fit in memory even if every row contains the largest
value.

Reference: P. Deutsch, "DEFLATE compressed data format specification", RFC 1951, 1996.
"""

import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from collabdm.documents.regular_file import check_regular
from collabdm.errors import DataError

DEFLATE_RATIO = 1032  # uncompressed over compressed bytes, at most
HEADER_ALLOWANCE = 2**16  # bytes

BATCH_BYTES, BATCH_ROWS = 2**28, 2**16  # of parquet in memory at a time, at most

#: the errors raised by damaged archives, and by those that are not of plain arrays
_NPZ_ERRORS = (
    *(OSError, ValueError, EOFError, AttributeError, TypeError, KeyError, OverflowError),
    *(RuntimeError, NotImplementedError),  # encrypted, or compressed by an unknown method
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
)


def npz_names(path: Path) -> list[str]:
    """List the names of the arrays in an archive. Raises DataError."""
    try:
        check_regular(path)
        with zipfile.ZipFile(path) as archive:
            return [name.removesuffix(".npy") for name in archive.namelist()]
    except _NPZ_ERRORS as error:
        raise _unreadable(path, error) from error


def npz_arrays(path: Path, names: Sequence[str]) -> list[np.ndarray]:
    """Read some arrays of an archive. Raises DataError."""
    try:
        most = check_regular(path) * DEFLATE_RATIO + HEADER_ALLOWANCE
        with zipfile.ZipFile(path) as archive:
            return [_array(archive, name, most) for name in names]
    except _NPZ_ERRORS as error:
        raise _unreadable(path, error) from error


def _array(archive: zipfile.ZipFile, name: str, most: int) -> np.ndarray:
    """Read one array, if it has at most `most` bytes. Raises ValueError and others."""
    if archive.getinfo(f"{name}.npy").compress_type not in (
        zipfile.ZIP_STORED,
        zipfile.ZIP_DEFLATED,
    ):
        raise ValueError(f"`{name}` should be stored, or compressed by DEFLATE")

    with archive.open(f"{name}.npy") as file:
        version = np.lib.format.read_magic(file)
        readers = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }
        if version not in readers:
            raise ValueError(f"`{name}` has an unknown version of the format, {version}")
        shape, _, dtype = readers[version](file)

    size = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or size > most:
        raise ValueError(f"`{name}` has shape {shape} of {dtype}, more than the file can contain")
    with archive.open(f"{name}.npy") as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def npy_array(path: Path) -> np.ndarray:
    """Map an .npy file of a plain array into memory. Raises DataError."""
    try:
        check_regular(path)
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except _NPZ_ERRORS as error:
        raise DataError(
            f"`{path}` should be an .npy file of a plain array; it is damaged or contains objects"
        ) from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"`{path}` should be an .npy file; found an archive: call it .npz")
    return array


def _unreadable(path: Path, error: Exception) -> DataError:
    return DataError(f"`{path}` should be an .npz of plain arrays; it cannot be read ({error})")


def open_parquet(path: Path) -> Any:
    """Open a parquet file. Raises DataError."""
    import pyarrow.parquet as pq  # here, so that the command line starts fast

    try:
        check_regular(path)
        file = pq.ParquetFile(path)
        _ = (file.schema_arrow.names, file.metadata.num_rows)  # read now, not when they are used
        return file
    except Exception as error:  # damaged bytes raise errors of any kind
        raise DataError(
            f"{path} should be a parquet file; it cannot be read ({_reason(error)})"
        ) from error


def _reason(error: Exception) -> str:
    """Explain why a file cannot be read: the system's reason, or that it is damaged."""
    return getattr(error, "strerror", None) or "it is damaged, cut off or of another kind"


def parquet_batches(path: Path, file: Any, columns: Sequence[str]) -> Iterator[Any]:
    """Read columns of an open parquet file batch by batch.

    Args:
        path: the file, named in errors.
        file: the open file.
        columns: the names of the columns.

    Yields:
        Arrow record batches.

    Raises:
        DataError: the rows cannot be read.
    """
    try:
        batches = file.iter_batches(_rows_at_once(file.metadata, columns), columns=list(columns))
    except Exception as error:  # damaged bytes raise errors of any kind
        raise _damaged_rows(path) from error

    while True:
        try:
            batch = next(batches, None)
        except Exception as error:
            raise _damaged_rows(path) from error
        if batch is None:
            return
        yield batch


def _damaged_rows(path: Path) -> DataError:
    return DataError(f"rows of {path} should be readable; the file is damaged: copy it again")


def _rows_at_once(metadata: Any, columns: Sequence[str]) -> int:
    """Choose the rows of a batch, if each row may repeat the largest value of its column.

    A dictionary of few values can stand for many rows, so the size of the file bounds only the
    values, each by the uncompressed size of its part of the file.
    """
    largest = 1
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        parts = (row_group.column(i) for i in range(row_group.num_columns))
        largest = max(
            largest,
            sum(
                part.total_uncompressed_size
                for part in parts
                if part.path_in_schema.split(".")[0] in columns
            ),
        )
    return min(max(BATCH_BYTES // largest, 1), BATCH_ROWS)

"""Find grids by name, and the records of cells that ship with them.

    EXPERIMENTS/NAME.toml                the grids
    EXPERIMENTS/../results/grids/        records of their cells, and pictures of sets

EXPERIMENTS is the first that exists of: `experiments` in the current folder or in a folder above it
up to the root of its repository; `collabdm/experiments` of the installed package; `experiments` of
the repository that this package is run from. Records are identified by the settings of their cell,
so a record of other settings is never used.
"""

import json
import shutil
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from collabdm.documents.atomic_write import atomic_write
from collabdm.errors import PlanError
from collabdm.lab.reproduce.grids import Cell, Grid, picture_path, pictured_cells
from collabdm.lab.reproduce.records import CellRecord, read_records, records_of
from collabdm.planning.settings import read_toml

SHIPPED = "shipped.jsonl"  # in a folder of results: the records taken over

FOLDER = "experiments"


def grid_folder(here: Path) -> Path | None:
    """Find the folder of the grids, as seen from the folder `here`; None without one."""
    package = Path(str(files("collabdm")))
    candidates = [*_in_repository(here.resolve()), package / FOLDER, package.parents[1] / FOLDER]
    return next((folder for folder in candidates if _grid_paths(folder)), None)


def _in_repository(here: Path) -> list[Path]:
    folders = [here, *here.parents]
    root = next((i for i, folder in enumerate(folders) if (folder / ".git").exists()), 0)
    return [folder / FOLDER for folder in folders[: root + 1]]


def _grid_paths(folder: Path) -> list[Path]:
    """List the TOML files of a folder that are grids: those with a title and axes."""
    return [path for path in sorted(folder.glob("*.toml")) if _is_grid(path)]


def _is_grid(path: Path) -> bool:
    try:
        return {"title", "axes"} <= read_toml(path).keys()
    except PlanError:  # another program's file
        return False


def known_grids(here: Path) -> dict[str, Path]:
    """List the files of the known grids by name."""
    folder = grid_folder(here)
    return {path.stem: path for path in _grid_paths(folder)} if folder else {}


def shipped_folder(here: Path) -> Path | None:
    """Find the folder of the records that ship with the grids; None without one."""
    folder = grid_folder(here)
    records = folder.parent / "results" / "grids" if folder else None
    return records if records is not None and records.is_dir() else None


def take_shipped(
    folder: Path, cells: Sequence[Cell], grids: Sequence[Grid], output: Path
) -> list[CellRecord]:
    """Copy the records of cells, and the pictures of their sets, into a folder of results.

    Args:
        folder: The folder of the shipped records.
        cells: The cells whose records are wanted; failed records are not taken.
        grids: The grids, which choose the pictures.
        output: The folder of results, in which `SHIPPED` is written if a record is new to it.

    Returns:
        The records that were copied now.
    """
    if folder.resolve() == output.resolve():
        return []

    own, shipped = read_records(output), read_records(folder)
    wanted = dict.fromkeys(cell.experiment.digest for cell in cells)
    new = [
        shipped[digest]
        for digest in wanted
        if digest in shipped and not shipped[digest].failed and digest not in own
    ]
    if new:
        lines = [json.dumps(record.document()) + "\n" for record in new]
        path = output / SHIPPED
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        atomic_write(path, (before + "".join(lines)).encode())
        _copy_pictures(folder, {record.digest for record in new}, grids, output)
    return new


def _copy_pictures(folder: Path, digests: set[str], grids: Sequence[Grid], output: Path) -> None:
    for grid in grids:
        for cell in pictured_cells(grid).values():
            source, target = picture_path(folder, cell), picture_path(output, cell)
            if cell.experiment.digest in digests and source.exists() and not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)


def read_shipped(output: Path) -> set[str]:
    """Return the digests of the records in a folder of results that were taken over."""
    path = output / SHIPPED
    return {record.digest for record in records_of(path)} if path.exists() else set()

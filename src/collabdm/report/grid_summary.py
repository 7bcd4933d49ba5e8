"""Summarise the results of grids, for the page of a folder and for docs/results.md."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from collabdm.documents.regular_file import read_regular
from collabdm.errors import DocumentError
from collabdm.lab.reproduce.grid_results import GridResults
from collabdm.lab.reproduce.grids import Grid
from collabdm.lab.reproduce.records import CellRecord, read_records

GRID_FILE = re.compile(r"[\w-]+\.(paper|cpu)\.json")

#: settings that `scale_settings` omits: those of methods, and those shown elsewhere
NOT_OF_THE_SCALE = frozenset({"plan", "compare", "augment", "curve"})


def contains_grids(folder: Path) -> bool:
    """Return whether a folder contains grids that `collabdm reproduce` wrote."""
    return bool(_grid_files(folder))


def read_grids(folder: Path) -> list[GridResults]:
    """Read the results of every grid in a folder.

    Raises:
        DocumentError: A file that is named like a grid does not contain one.
        DataError: A record is damaged.
    """
    records, results = read_records(folder), []

    for path in _grid_files(folder):
        try:
            grid = Grid.model_validate_json(read_regular(path))
        except (OSError, ValidationError) as error:
            raise DocumentError(
                f"{path} should be a grid: run `collabdm reproduce` again; {error}"
            ) from error
        results.append(GridResults(grid, records))

    return results


def _grid_files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.json")) if GRID_FILE.fullmatch(path.name)]


def settings_line(grid: Grid) -> str:
    """Write the sentence that states the common settings of a grid."""
    return f"Settings, unless a row or column states otherwise: {scale_settings(grid)}."


def scale_settings(grid: Grid) -> str:
    """Describe the settings that apply to all rows and columns of a grid."""
    changed_by_axis = [
        set.intersection(*(set(at) | set(at.get("plan", {})) for at in values.values()))
        for values in grid.axes.values()
    ]
    left_out = NOT_OF_THE_SCALE.union(*changed_by_axis)
    settings = grid.settings | grid.settings.get("plan", {})
    shown = {key: value for key, value in settings.items() if key not in left_out}

    tests = shown.pop("test_per_class", None)
    words = [_words(key, value) for key, value in shown.items()]
    words.append(
        "all test images"
        if tests is None
        else f"the same {tests} test images of each class for all cells"
    )
    return "; ".join(words)


def _words(name: str, value: Any) -> str:
    name = name.replace("_", " ")
    if isinstance(value, dict):
        return f"{name} ({', '.join(_words(key, item) for key, item in value.items())})"
    return f"{name} {value}"


class Costs(NamedTuple):
    """The upload, rounds and seconds of a row, combined over its columns, as text."""

    upload: str
    rounds: str
    seconds: str


def row_costs(results: GridResults, row: str, places: Sequence[Mapping[str, str]]) -> Costs:
    """Compute the costs of a row; a dash marks a cost that does not apply or is unknown.

    Args:
        results: The results of the grid.
        row: The row.
        places: Values on all axes, one combination for each column.
    """
    if row not in results.grid.lines:
        return Costs("-", "-", "-")

    entries = [results.entry(row, at) for at in places]
    upload = max((entry.bytes for entry in entries if entry.bytes is not None), default=None)
    sites = [seconds for entry in entries for seconds in entry.site_seconds]
    server = [seconds for entry in entries for seconds in entry.server_seconds]

    seconds = f"{sum(sites) / len(sites):.0f} / {sum(server) / len(server):.0f}" if sites else "-"
    if row in results.grid.central:
        return Costs("pooled", "-", seconds)

    rounds = max(entry.rounds for entry in entries)
    return Costs("-" if upload is None else f"{upload:,}", str(rounds), seconds)


def provenance_rows(results: Sequence[GridResults]) -> list[tuple[str, ...]]:
    """Count the cells for each combination of machine, device, versions and commit."""
    records = {record.digest: record for each in results for record in each.records}
    cells = Counter(map(_origin, records.values()))

    return [(*origin, f"{n:,}") for origin, n in sorted(cells.items())]


def _origin(record: CellRecord) -> tuple[str, str, str, str]:
    compute = record.compute.document()
    device = ", ".join(
        str(value) for key, value in compute.items() if value is not None and key != "compiled"
    )
    versions = ", ".join(f"{name} {number}" for name, number in record.versions.items())

    return record.machine, device, versions, str(record.commit)


def commands(results: Sequence[GridResults]) -> Iterator[str]:
    """Yield, for each scale, the command that runs the missing cells."""
    for scale in dict.fromkeys(each.grid.scale for each in results):
        names = [each.grid.name for each in results if each.grid.scale == scale]
        files = " ".join(f"experiments/{name}.toml" for name in names)
        yield f"collabdm reproduce {files} --scale {scale} -o FOLDER"

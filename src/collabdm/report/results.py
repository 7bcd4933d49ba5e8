"""A folder of results as one HTML page: every grid beside the paper's numbers, and what is not run.

    GRID.SCALE.json (what `collabdm reproduce` was asked for) + *.jsonl (records) -> tables, plots, provenance

At the paper's scale a number is coloured by whether it is within the spread of the paper's or above it; a smaller
scale has the same columns and no colours, since it is another measurement. Nothing is computed anew.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from collabdm.documents.atomic_write import atomic_write
from collabdm.errors import DocumentError
from collabdm.lab.reproduce.grid_results import Entry, GridResults
from collabdm.lab.reproduce.grids import Grid, picture_of, pictured, told
from collabdm.lab.reproduce.records import CellRecord, read_records
from collabdm.report import grid_plots, page, plots

WITHIN = 1.5  # points below the paper's number that still count as its number, and never less than two deviations


SCALE_TOLD = {
    "paper": "the paper's scale",
    "cpu": "a small scale for a CPU: fewer and other steps, images, networks and epochs, so not the paper's numbers",
}


def holds_results(folder: Path) -> bool:
    """Whether `collabdm reproduce` wrote into a folder."""
    return bool(_grid_paths(folder))


def _grid_paths(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.json")) if re.fullmatch(r"[\w-]+\.(paper|cpu)\.json", path.name)]


def read_findings(folder: Path) -> list[GridResults]:
    """What a folder holds of each grid. Raises DocumentError where a file is not what it should be."""
    records, found = read_records(folder), []
    for path in _grid_paths(folder):
        try:
            grid = Grid.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise DocumentError(f"{path} should be a grid: run `collabdm reproduce` again; {error}") from error
        found.append(GridResults(grid, records))
    return found


def write_results(folder: Path, output: Path) -> list[Path]:
    """Write the page, and its plots as SVG and PNG into a folder named after it; returns the files."""
    found = read_findings(folder)
    drawn = {name: made for one in found for name, made in figures(one).items()}
    svgs: dict[str, bytes] = {}
    written = [output]
    for name, made in drawn.items():
        for kind in ("svg", "png"):
            content = plots.rendered(made, kind)
            written.append(output.with_suffix("") / f"{name}.{kind}")
            atomic_write(written[-1], content)
            svgs[name] = content if kind == "svg" else svgs[name]
    shown = [(one, pictures(folder, one.grid)) for one in found]
    sections = [summary(found), *(grid_section(one, svgs, sets) for one, sets in shown), provenance(found)]
    atomic_write(output, page.page("Results beside the paper's", filter(None, sections)).encode())
    return written


def figures(found: GridResults) -> dict[str, Any]:
    """Names of the plots of a grid, and the plots."""
    grid, drawn = found.grid, {}
    for i, sheet in enumerate(grid.sheets):
        name = f"{grid.name}-{grid.scale}-{i + 1}"
        if grid.kind == "curve":
            drawn[name] = grid_plots.refinement(found, sheet)
        elif grid.along is not None:
            drawn[name] = grid_plots.along_axis(found, sheet)
        elif grid.bytes_at is not None:
            drawn[name] = grid_plots.all_methods(found, sheet | grid.bytes_at)
    return {name: made for name, made in drawn.items() if made is not None}


def summary(found: Sequence[GridResults]) -> str:
    """How much of each grid is run."""
    rows = [
        (
            f'<a href="#{_anchor(one.grid)}">{escape(one.grid.title)}</a>', escape(one.grid.scale),
            f"{one.done:,} of {one.all:,}", f"{sum(record.failed for record in one.records):,}",
            f"{len(one.grid.seeds)}",
        )
        for one in found
    ]  # fmt: skip
    said = "A cell is one line on one split with one seed; what was not run stands as “not run”."
    return page.section("What is run", page.table(("table or figure", "scale", "cells", "failed", "seeds"), rows, said))


def _anchor(grid: Grid) -> str:
    return f"{grid.name}-{grid.scale}"


def pictures(folder: Path, grid: Grid) -> dict[tuple[str, ...], bytes]:
    """The pictures of sets that the folder holds, by line and values on the axes."""
    paths = {place: picture_of(folder, cell) for place, cell in pictured(grid).items()}
    return {place: path.read_bytes() for place, path in paths.items() if path.exists()}


def gallery(grid: Grid, sheet: Mapping[str, str], shown: Mapping[tuple[str, ...], bytes]) -> str:
    """The sets of one table beside each other; nothing where the grid says of no place that it shows them."""
    at = dict(sheet) | (grid.pictures_at or {})
    if grid.pictures_at is None or set(at) != set(grid.axes):
        return ""
    places = {line: (line, *(at[axis] for axis in grid.axes)) for line in grid.rows}
    sets = [page.image(shown[place], line) for line, place in places.items() if place in shown]
    if not sets:
        return ""
    told_at = f"{told(grid.pictures_at)}, seed {grid.seeds[0]}"
    said = f"Distilled images, a row for each class, up to ten of it ({told_at}). pae: four small ones in each."
    return f'<p>{escape(said)}</p><div class="gallery">{"".join(sets)}</div>'


def grid_section(found: GridResults, svgs: Mapping[str, bytes], shown: Mapping[tuple[str, ...], bytes]) -> str:
    """One table or figure."""
    grid = found.grid
    said = f"{SCALE_TOLD[grid.scale]}. Where a row or column says nothing else: {scale_of(grid)}"
    scale = f'<p class="scale {escape(grid.scale)}">{escape(said)}</p>'
    about = f"<p>{escape(grid.text.strip())}</p>" if grid.text else ""
    parts = [f'<a id="{_anchor(grid)}"></a>{scale}', about]
    for i, sheet in enumerate(grid.sheets):
        title = ", ".join(sheet.values())
        parts.append(f"<h3>{escape(title)}</h3>" if title else "")
        parts.append(sheet_table(found, sheet))
        name = f"{grid.name}-{grid.scale}-{i + 1}"
        if name in svgs:
            at = f" ({told(grid.bytes_at)})" if grid.bytes_at else ""
            against = grid.along or "the bytes that a site sends at most"
            said = f"{title or grid.title}{at}: accuracy against {against}"
            parts.append(page.plot(svgs[name], said))
        parts.append(gallery(grid, sheet, shown))
    return page.section(f"{grid.title} ({grid.scale} scale)", *parts)


def scale_of(grid: Grid) -> str:
    """The settings that make the scale, in words: those that hold where no axis and no line says otherwise."""
    axes = [[set(at) | set(at.get("plan", {})) for at in values.values()] for values in grid.axes.values()]
    left_out = {"plan", "compare", "augment", "curve"}.union(*(set.intersection(*keys) for keys in axes))
    plan = {k: v for k, v in grid.settings.get("plan", {}).items() if k not in left_out}
    said = {k: v for k, v in grid.settings.items() if k not in left_out}
    tests = said.pop("test_per_class", None)
    words = [_words(k, v) for k, v in (said | plan).items()]
    words.append("all test images" if tests is None else f"the same {tests} test images of each class for all cells")
    return "; ".join(words)


def _words(name: str, value: Any) -> str:
    name = name.replace("_", " ")
    if isinstance(value, dict):
        return f"{name} ({', '.join(_words(k, v) for k, v in value.items())})"
    return f"{name} {value}"


def sheet_table(found: GridResults, sheet: dict[str, str]) -> str:
    """Rows by columns: ours with spread and n, the paper's and the difference, and how far above random images."""
    grid = found.grid
    columns = [told(column) or "accuracy, %" for column in grid.columns]
    rows = []
    for row in grid.rows:
        places = [{axis: (sheet | column)[axis] for axis in grid.axes} for column in grid.columns]
        rows.append((escape(row), *(cell(found, row, at) for at in places), *costs(found, row, places)))
    heads = (*columns, "bytes per site, at most", "rounds", "seconds, sites / server")
    return page.table(("trained on", *heads), rows)


def cell(found: GridResults, row: str, at: Mapping[str, str]) -> str:
    """One place of a table, as HTML."""
    own, against = found.entry(row, at), found.above_paper(row, at)
    published = found.grid.published(row, at)
    lines = [escape(str(own)) if own.n else f'<span class="absent">{own}</span>']
    if published is not None:
        gap = "" if against is None else f", {against:+.1f}"
        lines.append(f"<small>paper {published.accuracy:.1f}{gap}</small>")
    above = found.over_random(row, at)
    if above is not None:
        lines.append(f"<small>{above:+.1f} over random</small>")
    return f'<td class="{standing(found.grid, own, against)}">{"<br>".join(lines)}</td>'


def standing(grid: Grid, own: Entry, against: float | None) -> str:
    """How a number of ours stands to the paper's: `reached` or `below`; nothing at another scale."""
    if grid.scale != "paper" or against is None:
        return "plain"
    return "reached" if against >= -max(WITHIN, 2 * own.std) else "below"


def costs(found: GridResults, row: str, places: Sequence[Mapping[str, str]]) -> tuple[str, str, str]:
    """Bytes, rounds and seconds of a row, over its columns."""
    own = [found.entry(row, at) for at in places]
    sent = max((one.bytes for one in own if one.bytes is not None), default=None)
    sites, server = [s for one in own for s in one.site_seconds], [s for one in own for s in one.server_seconds]
    times = f"{sum(sites) / len(sites):.0f} / {sum(server) / len(server):.0f}" if sites else "-"
    if row not in found.grid.lines:
        return "-", "-", "-"
    pooled = row in found.grid.central
    rounds = str(max(one.rounds for one in own))
    return "pooled" if pooled else "-" if sent is None else f"{sent:,}", "-" if pooled else rounds, times


def provenance_rows(found: Sequence[GridResults]) -> list[tuple[str, ...]]:
    """Machine, device and precision, versions, commit, and the number of cells that were so made."""
    records = {record.digest: record for one in found for record in one.records}
    made = Counter(_made_by(record) for record in records.values())
    return [(*key, f"{n:,}") for key, n in sorted(made.items())]


def provenance(found: Sequence[GridResults]) -> str:
    """Where the numbers come from, and what went wrong."""
    rows = [tuple(map(escape, row)) for row in provenance_rows(found)]
    wrong = {record.digest: record.error for one in found for record in one.records if record.error is not None}
    errors = [(escape(d[:16]), f'<td class="told">{escape(text)}</td>') for d, text in wrong.items()]
    return page.section(
        "Where the numbers come from",
        page.table(("machine", "computed in", "versions", "commit", "cells"), rows),
        page.table(("cell", "error"), errors, "Cells that failed:") if errors else "",
        "<p>Each line of the folder's <code>.jsonl</code> files holds the settings of a cell, its scores, bytes "
        "and seconds. The command goes on where it stopped:</p>",
        *(f"<pre>{escape(command)}</pre>" for command in commands(found)),
    )


def _made_by(record: CellRecord) -> tuple[str, str, str, str]:
    compute = ", ".join(str(v) for k, v in record.compute.document().items() if v is not None and k != "compiled")
    versions = ", ".join(f"{k} {v}" for k, v in record.versions.items())
    return record.machine, compute, versions, str(record.commit)


def commands(found: Sequence[GridResults]) -> Iterator[str]:
    """What makes the missing cells, for each scale."""
    for scale in dict.fromkeys(one.grid.scale for one in found):
        names = " ".join(f"experiments/{one.grid.name}.toml" for one in found if one.grid.scale == scale)
        yield f"collabdm reproduce {names} --scale {scale} -o FOLDER"

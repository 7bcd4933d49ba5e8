"""The page of a folder of results: ours beside the paper's, cells not run, and a browser."""

import base64
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from command import done
from PIL import Image

from browser import state_of
from collabdm.errors import DocumentError
from collabdm.lab.reproduce.grid_results import Entry
from collabdm.lab.reproduce.grids import (
    Cell,
    Grid,
    Published,
    cells_of,
    picture_path,
    pictured_cells,
)
from collabdm.lab.reproduce.records import CellRecord, append
from collabdm.report.grid_page import standing, write_grid_page
from collabdm.report.grid_plots import grid_figures
from collabdm.report.grid_summary import contains_grids, read_grids, settings_line

SETTINGS = {
    "data": "digits",
    "sites": 2,
    "compare": (),
    "test_per_class": 3,
    "plan": {"steps": 4, "ipc": 1},
}
AXES = {
    "data": {"Digits": {}, "<b>Others</b>": {"side": 9}},
    "beta": {"0.1": {"beta": 0.1}, "0.5": {"beta": 0.5}},
}
LINES = {
    "collabdm": {"method": "collabdm"},
    "fedavg": {"method": "fedavg"},
    "localdm": {"method": "localdm"},
    "central": {"method": "central", "sites": 1, "beta": 0, "compare": ["random"]},
}


def grid(scale: str = "paper", **changes: Any) -> Grid:
    published = (
        Published(
            place="Table 9", row="collabdm", at={"data": "Digits", "beta": "0.1"}, accuracy=50.0
        ),
        Published(place="Table 9", row="localdm", accuracy=40.0),
    )
    fields: dict[str, Any] = {
        "name": "table9",
        "scale": scale,
        "title": "Table 9",
        "text": "Made for a test.",
        "seeds": (0, 1),
        "rows": ("central", "collabdm", "localdm", "fedavg", "random real"),
        "lines": LINES,
        "axes": AXES,
        "tables": ("data",),
        "settings": SETTINGS,
        "paper": published,
        "central": ("central",),
        "against": {"collabdm": "random real", "localdm": "random real"},
        "bytes_at": {"beta": "0.1"},
        "pictures_at": {"beta": "0.1"},
    }
    return Grid(**fields | changes)


def record(cell: Cell, accuracy: float) -> CellRecord:
    """A record with invented numbers: localdm fails, others have `accuracy` plus the seed."""
    experiment = cell.experiment
    about = {
        "digest": experiment.digest,
        "experiment": experiment.model_dump(mode="json"),
        "seconds": {"sites": 2.0},
        "compute": {"device": "cpu", "precision": "float32", "compiled": None},
        "machine": "a machine",
        "threads": 1,
        "versions": {"collabdm": "0"},
        "commit": "abc",
    }
    if experiment.method == "localdm":
        return CellRecord.model_validate_json(json.dumps(about | {"error": "DataError: <none>"}))
    share = (accuracy + cell.seed) / 100
    names = [experiment.method] + (["random real"] if experiment.compare else [])
    scores = [
        {"what": w, "network": "ConvNet", "accuracies": [share - 0.1 * i], "images": 1}
        for i, w in enumerate(names)
    ]
    made = {
        "plan": "ab",
        "bytes_per_site": {"site-1": 1000, "site-2": 2000},
        "bytes": 500,
        "images": 1,
        "sites": {},
    }
    made |= {"rounds": 10} if experiment.method == "fedavg" else {}
    curve = (
        [{"step": t, "accuracies": [share - 0.01 * (4 - t)]} for t in (1, 2, 4)]
        if experiment.curve
        else []
    )
    results = {
        "scores": scores,
        "sets": {experiment.method: made},
        "bytes_per_step": 400,
        "curve": curve,
    }
    return CellRecord.model_validate_json(json.dumps(about | results))


def write(folder: Path, made: Grid, accuracy: float = 60.0) -> None:
    """The grid and records of its first column, as `reproduce` leaves them."""
    folder.mkdir(exist_ok=True)
    (folder / f"{made.name}.{made.scale}.json").write_text(made.model_dump_json(), encoding="utf-8")
    first = [
        c
        for c in cells_of(made)
        if c.at.get("data", "Digits") == "Digits" and c.at.get("beta", "0.1") == "0.1"
    ]
    for cell in first:
        append(folder / "any.jsonl", record(cell, accuracy))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("results") / "grids"
    write(place, grid())
    write(place, grid("cpu", settings=SETTINGS | {"per_class": 7}))
    path = picture_path(place, pictured_cells(grid())["collabdm", "Digits", "0.1"])
    path.parent.mkdir()
    Image.new("RGB", (20, 30), "red").save(path, format="WEBP", lossless=True)
    axes = {"panel": {"5 sites": {"sites": 5}}}
    lines = {
        "collabdm": {"method": "collabdm", "curve": 2},
        "central": {"method": "central", "sites": 1},
    }
    paper = (Published(place="Text", row="collabdm", accuracy=57.0, bytes=1500.0),)
    write(
        place,
        grid(
            name="figure9",
            title="Figure 9",
            kind="curve",
            axes=axes,
            lines=lines,
            tables=("panel",),
            rows=("collabdm", "central"),
            paper=paper,
            bytes_at=None,
            pictures_at=None,
        ),
    )
    return place


@pytest.fixture(scope="module")
def html(folder) -> str:
    result = done("report", folder)
    assert "3 plots as SVG and PNG" in result.out
    return (folder / "report.html").read_text(encoding="utf-8")


def rows(html: str, section: str) -> dict[str, list[str]]:
    """The cells of the first table of a section, by row."""
    text = html[html.index(f"<h2>{section}") :]
    found = re.findall(
        r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', text[: text.index("</table>")], flags=re.DOTALL
    )
    return {name: re.findall(r"<td[^>]*>(.*?)</td>", rest, flags=re.DOTALL) for name, rest in found}


def test_a_result_is_shown_beside_the_papers_with_their_difference(html) -> None:
    table = rows(html, "Table 9 (paper scale)")
    assert table["collabdm"][0] == (
        "60.5 ± 0.7 (2)<br><small>paper 50.0, +10.5</small><br><small>+10.0 over random</small>"
    )
    assert table["collabdm"][2:] == ["2,000", "1", "2 / 0"]
    assert table["fedavg"][2:4] == ["2,000", "10"]
    assert table["central"][2] == "pooled"
    assert table["random real"][0] == "50.5 ± 0.7 (2)"


def test_cells_that_failed_or_were_not_run_are_marked(html) -> None:
    table = rows(html, "Table 9 (paper scale)")
    assert table["collabdm"][1] == '<span class="absent">not run</span>'
    assert table["localdm"][:2] == [
        '<span class="absent">failed</span><br><small>paper 40.0</small>',
        '<span class="absent">not run</span><br><small>paper 40.0</small>',
    ]
    assert "DataError: &lt;none&gt;" in html


def test_accuracy_is_drawn_along_an_axis_of_numbers_with_the_papers_points(tmp_path) -> None:
    axes = {"images per class": {ipc: {"plan": {"ipc": int(ipc)}} for ipc in ("1", "10")}}
    paper = (Published(place="Text", row="collabdm", at={"images per class": "10"}, accuracy=99.0),)
    made = grid(
        name="figure8",
        along="images per class",
        axes=axes,
        tables=(),
        paper=paper,
        bytes_at=None,
        pictures_at=None,
    )
    write(tmp_path, made)
    (drawn,) = grid_figures(read_grids(tmp_path)[0]).values()
    (axis,) = drawn.axes
    lines = {line.get_label(): line for line in drawn.axes[0].containers}
    assert list(lines) == ["central", "collabdm", "fedavg", "random real"]  # localdm failed
    assert lines["collabdm"].lines[0].get_xydata().tolist() == [[1.0, 60.5], [10.0, 60.5]]
    star = next(line for line in axis.lines if line.get_marker() == "*")
    assert (list(star.get_xdata()), list(star.get_ydata())) == ([10.0], [99.0])
    assert [text.get_text() for text in axis.get_xticklabels()] == ["1", "10"]
    (written, *_) = write_grid_page(tmp_path, tmp_path / "report.html")
    assert "accuracy against images per class" in written.read_text(encoding="utf-8")


def test_a_plot_along_an_axis_needs_an_axis_of_numbers() -> None:
    axes = AXES | {"from zero": {"0": {}, "1": {}}}
    for along in ("data", "nothing", "from zero"):
        with pytest.raises(ValueError, match="`along` should be an axis of numbers above 0"):
            grid(along=along, axes=axes)


def test_points_of_the_paper_beyond_a_curve_are_at_its_edge(folder) -> None:
    found = next(one for one in read_grids(folder) if one.grid.name == "figure9")
    (drawn,) = grid_figures(found).values()
    (axis,) = drawn.axes
    star = next(line for line in axis.lines if line.get_marker() == "*")
    assert list(star.get_ydata()) == [57.0]
    assert [text.get_text() for text in axis.texts] == ["paper 57"]
    beyond = found.grid.model_copy(
        update={"paper": (found.grid.paper[0].model_copy(update={"bytes": 5000.0}),)}
    )
    found.grid = beyond
    (drawn,) = grid_figures(found).values()
    assert [text.get_text() for text in drawn.axes[0].texts] == ["paper 57 at 5 kB"]


def test_a_number_with_bytes_is_not_that_of_the_end_of_a_curve() -> None:
    point = Published(place="Text", row="collabdm", accuracy=57.0, bytes=1500.0)
    end = Published(place="Text", row="collabdm", accuracy=59.0)
    assert grid(kind="curve", paper=(point, end)).published("collabdm", {}) == end
    assert grid(paper=(point, end)).published("collabdm", {}) == point


def test_a_picture_of_a_set_is_on_the_page(html) -> None:
    (picture,) = re.findall(
        r'<figure><img src="data:image/webp;base64,([^"]*)" alt="([^"]*)">', html
    )
    with Image.open(io.BytesIO(base64.b64decode(picture[0]))) as image:
        assert image.size == (20, 30)
        assert image.convert("RGB").getpixel((3, 3)) == (255, 0, 0)
    assert picture[1] == "collabdm"
    assert "up to ten images in each (beta 0.1, seed 0)" in html


def test_a_small_scale_is_marked_and_has_no_colours(html) -> None:
    paper, cpu = html.index("<h2>Table 9 (paper scale)"), html.index("<h2>Table 9 (cpu scale)")
    sections = {"paper": html[paper:], "cpu": html[cpu:]}
    ends = {name: text.index("</section>") for name, text in sections.items()}
    assert "not the paper&#39;s numbers." in sections["cpu"][: ends["cpu"]]
    assert 'class="reached"' in sections["paper"][: ends["paper"]]
    assert not re.search('class="(reached|below)"', sections["cpu"][: ends["cpu"]])


@pytest.mark.parametrize(
    ("accuracies", "said"),
    [
        ((50.0, 50.0), "reached"),
        ((48.6,), "reached"),
        ((48.4,), "below"),
        ((46.0, 50.0), "reached"),
        ((90.0,), "reached"),
    ],
)
def test_a_number_is_reached_within_the_spread_of_the_paper_or_above_it(accuracies, said) -> None:
    found = Entry(dict(enumerate(accuracies)))
    assert standing(grid(), found, found.mean - 50.0) == said
    assert standing(grid("cpu"), found, found.mean - 50.0) == "plain"


def test_names_are_text_and_not_markup(html) -> None:
    assert "<b>Others</b>" not in html
    assert "&lt;b&gt;Others" in html


def test_the_page_loads_nothing_and_is_the_same_each_time(folder, html, tmp_path) -> None:
    for address in re.findall(r'(?:src|href|xlink:href)="([^"]*)"', html):
        assert address.startswith(("data:", "#")), address
    written = write_grid_page(folder, tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == html
    names = {path.stem for path in written[1:]}
    assert names == {"table9-paper-1", "table9-cpu-1", "figure9-paper-1"}


def test_the_summary_counts_cells_and_failures(html) -> None:
    table = rows(html, "Completed cells")
    counts = {
        re.sub("<.*?>", "", name): cells[1:] for name, cells in table.items() if "Figure 9" in name
    }
    assert counts == {"Figure 9": ["4 of 4", "0", "2"]}
    assert any(cells[1:3] == ["6 of 28", "2"] for cells in table.values())


def test_the_page_states_the_settings_of_the_scale(html) -> None:
    line = (
        "Settings, unless a row or column states otherwise: data digits; sites 2; steps 4; ipc 1; "
        "the same 3 test images of each class for all cells."
    )
    assert settings_line(grid()) == line
    assert f"The paper&#39;s scale. {line}" in html


def test_a_damaged_grid_is_refused(folder, tmp_path) -> None:
    shutil.copytree(folder, tmp_path / "bad")
    (tmp_path / "bad" / "table9.cpu.json").write_text('{"name": "table9"}')
    assert contains_grids(tmp_path / "bad")
    with pytest.raises(DocumentError, match="should be a grid"):
        read_grids(tmp_path / "bad")


@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_results_without_errors_and_without_overflow(
    html, tmp_path, width
) -> None:
    state = state_of(html, tmp_path, width)
    assert state["problems"] == []
    assert state["seen"] == width
    assert state["width"] <= width
    assert state["plots"] == 3

"""The page of several rounds, pages next to foreign files, and rounds of tables."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from command import done, run
from traffic import row, tiny_schema, write_csv

from browser import state_of
from collabdm.data.flows.schemas import with_changes
from collabdm.lab.experiment import Experiment
from collabdm.lab.settings import experiment_of
from collabdm.lab.simulate import simulate
from collabdm.report.palette import look_of
from collabdm.report.refinement_plots import MOST_CLASSES, images_by_step
from collabdm.report.round_page import write_report
from collabdm.report.rounds import read_round

PLAN: dict[str, Any] = {
    "ipc": 1,
    "steps": 2,
    "batch": 8,
    "network": {"width": 8, "depth": 1},
    "local": {"steps": 2, "batch": 4},
    "refinement": {"passes": 2},
}


def simulated(folder: Path, **settings: Any) -> Path:
    """A small simulation in a folder."""
    tiny = {"data": "digits", "method": "collabdm", "sites": 2, "beta": 0.5, "per_class": 12}
    scored = {"trials": 2, "recipe": "short", "epochs": 1, "compare": ("localdm", "random")}
    simulate(Experiment(**tiny | scored | {"plan": PLAN} | settings), folder)
    return folder


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two rounds that differ in their method, ipc and curve."""
    root = tmp_path_factory.mktemp("two")
    first = simulated(root / "first", curve=2)
    return first, simulated(
        root / "second", method="localdm", compare=("collabdm",), plan=PLAN | {"ipc": 12}
    )


@pytest.fixture(scope="module")
def page(rounds, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("page") / "several.html"
    write_report(rounds, path)
    return path.read_text(encoding="utf-8")


# --- several rounds ------------------------------------------------------------------------------


def test_several_rounds_have_one_comparison_table_and_one_pair_of_plots(page) -> None:
    assert page.count("<h2>All rounds</h2>") == 1
    assert (
        len(re.findall(r'<th scope="col">1: first</th><th scope="col">2: second</th>', page)) == 1
    )
    assert page.count("Accuracy against bytes sent per site, at most, digits</figcaption>") == 1
    assert page.count("Accuracy against the size of the set, digits</figcaption>") == 1


def test_every_round_has_a_verdict_above_the_tables(page) -> None:
    verdicts, _, rest = page.partition("<h2>All rounds</h2>")
    assert verdicts.count('<p class="lead"><b>') == 2
    assert "random real images were not scored".casefold() in verdicts.casefold()
    assert "lead" not in rest


def test_sections_of_what_was_not_run_are_absent(page) -> None:
    first, second = page.split('<h2 class="round">')[1:]
    assert "Images along the refinement" in first
    assert "Images along the refinement" not in second
    assert "Audit" not in page
    assert "on other networks" not in page
    assert not re.findall(r"<h2>[^<]*</h2>\s*</section>", page)


def test_more_than_ten_images_of_a_class_are_unfolded(page) -> None:
    second = page.split('<h2 class="round">')[2]
    assert second.count("<summary>2 more</summary>") == 10  # of the round's own set
    assert second.count("<p>The first 10 images of each class</p>") == 1  # of the compared one
    assert second.count('class="zoom"') == 10 * (12 + 10)


def test_a_page_of_several_rounds_never_replaces_that_of_one(rounds, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in rounds:
        shutil.copytree(folder, folder.name)
    done("report", "first")
    own = Path("first/report.html").read_bytes()
    assert "comparison.html" in done("report", "first", "second").out
    assert Path("first/report.html").read_bytes() == own
    refused = run("report", "first", "second", "-o", "first/report.html")
    assert refused.code == 2
    assert "should be new or a page of several rounds; found a page of one round" in refused.err
    assert Path("first/report.html").read_bytes() == own
    done("report", "first", "second")  # its own page is replaced
    assert run("report", "first", "-o", "comparison.html").code == 2


@pytest.mark.parametrize("content", ["<html>mine</html>", "", "%PDF"])
def test_a_foreign_file_is_never_replaced(rounds, tmp_path, content) -> None:
    path = tmp_path / "notes.html"
    path.write_text(content)
    refused = run("report", rounds[0], "-o", path)
    assert refused.code == 2
    assert "should be new or a page of one round; found another file: name another" in refused.err
    assert path.read_text() == content


# --- simulate ------------------------------------------------------------------------------------

SIMULATED = (
    *("simulate", "--data", "digits", "--method", "collabdm", "--sites", 2, "--per-class", 8),
    *("--ipc", 1, "--steps", 2, "--batch", 4, "--local-steps", 2),
    *("--network", "ConvNet:width=8,depth=1", "--trials", 1, "--recipe", "short", "--epochs", 1),
    *("--compare", "random", "-q"),
)


def test_a_simulation_writes_its_report_and_says_where(tmp_path) -> None:
    out = done(*SIMULATED, "-o", tmp_path / "a").out
    page = tmp_path / "a" / "report.html"
    assert f"report: {page}, and " in out
    assert "No interval: n = 1 and 1 networks" in page.read_text(encoding="utf-8")
    assert list((tmp_path / "a" / "report").glob("*.svg"))


def test_a_simulation_writes_no_report_if_it_shall_not(tmp_path) -> None:
    out = done(*SIMULATED, "-o", tmp_path / "a", "--no-report").out
    assert "report:" not in out
    assert not (tmp_path / "a" / "report.html").exists()


def test_a_foreign_report_is_refused_before_any_work(tmp_path) -> None:
    (tmp_path / "report.html").write_text("mine")
    refused = run(*SIMULATED, "-o", tmp_path)
    assert refused.code == 2
    assert "found another file" in refused.err
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


# --- plots and tables ----------------------------------------------------------------------------


def test_the_strip_has_a_row_for_each_of_some_classes_and_a_column_for_each_step(rounds) -> None:
    snapshots = read_round(rounds[0]).snapshots
    assert sorted(snapshots) == [1, 2, 4]
    drawn = images_by_step(snapshots)
    assert len(drawn.axes) == 3 * MOST_CLASSES
    assert [axes.get_title() for axes in drawn.axes[:3]] == ["step 1", "2", "4"]
    assert images_by_step({1: snapshots[1]}) is None
    assert read_round(rounds[1]).snapshots == {}


def test_marks_of_a_plot_are_inside_its_axes(rounds) -> None:
    from collabdm.report.accuracy_plots import accuracy_against_bytes, accuracy_against_size
    from collabdm.report.round_plots import accuracy_by_class

    numbered = list(enumerate(map(read_round, rounds), 1))
    figures = [draw(numbered) for draw in (accuracy_against_bytes, accuracy_against_size)]
    figures.append(accuracy_by_class(numbered[0][1]))

    for drawn in figures:
        (axes,) = drawn.axes
        drawn.canvas.draw()
        frame = axes.get_window_extent()
        marks = [
            line for line in axes.lines if line.get_marker() not in ("None", None, "", "_", "|")
        ]
        assert marks
        for line in marks:
            for x, y in line.get_transform().transform(line.get_xydata()):
                assert frame.x0 + 3 < x < frame.x1 - 3
                assert frame.y0 + 3 < y < frame.y1 - 3


def test_a_round_of_rows_shows_rows_and_no_images(tmp_path) -> None:
    rows = [row(i, "bad" if i % 5 == 0 else "ok") for i in range(90)]
    tables = [write_csv(tmp_path / f"{name}.csv", rows) for name in ("north", "south")]
    schema = with_changes(
        tiny_schema(split="time", block=2, held_out=3), {"form": "rows", "block": 2}
    )
    settings = {"data": ",".join(map(str, tables)), "flows": schema, "method": "collabdm"}
    scored = {"trials": 1, "recipe": "short", "epochs": 1, "compare": ("random",)}
    plan = {key: PLAN[key] for key in ("ipc", "steps", "batch", "local")}
    folder = tmp_path / "rows"
    simulate(experiment_of(settings | scored | {"plan": plan}), folder)
    write_report([folder], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<h2>The distilled rows</h2>" in page
    assert "<h2>Rows at each site</h2>" in page
    assert "The distilled images" not in page
    assert "<img src" not in page


# --- in a browser --------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_several_rounds_with_the_same_colours_in_all_tables(
    page, tmp_path, width
) -> None:
    state = state_of(page, tmp_path, width)
    assert state["problems"] == []
    assert state["width"] <= width
    assert state["hints"] == state["scrolling"]
    assert state["scrolling"] > 0 or width == 1280

    colours: dict[str, set[str]] = {}
    for name, colour in state["colours"]:
        colours.setdefault(name.split()[-1], set()).add(colour)
    expected = {
        name: {
            f"rgb({', '.join(str(int(look_of(name).colour[i : i + 2], 16)) for i in (1, 3, 5))})"
        }
        for name in ("collabdm", "localdm")
    }
    assert colours == expected

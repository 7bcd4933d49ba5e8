"""Choosing cells of `reproduce`: names of grids, lines, values of axes, and shipped records."""

import json
from pathlib import Path

import pytest
from command import done, run

from collabdm.errors import PlanError
from collabdm.lab.reproduce.grid_files import read_grid
from collabdm.lab.reproduce.grids import Cell, Grid, ordered_cells, picture_path, pictured_cells
from collabdm.lab.reproduce.records import read_records
from collabdm.lab.reproduce.selection import Selection, read_selection
from collabdm.lab.reproduce.shipped import (
    SHIPPED,
    grid_folder,
    known_grids,
    shipped_folder,
    take_shipped,
)
from collabdm.lab.reproduce.timing import TimeEstimates

REPOSITORY = Path(__file__).parents[2]
EXPERIMENTS = REPOSITORY / "experiments"
NAMES = sorted(path.stem for path in EXPERIMENTS.glob("*.toml"))

GRID = """
title = "Tiny"
rows = ["collabdm"]
tables = ["data"]
[lines.collabdm]
method = "collabdm"
[lines."collabdm, twice"]
method = "collabdm"
plan = { refinement = { passes = 2 } }
[axes.data]
"Digits" = { data = "digits" }
[axes.beta]
"0.5" = { beta = 0.5 }
"1.0" = { beta = 1.0 }
[settings]
sites = 2
per_class = 8
trials = 1
recipe = "short"
epochs = 1
compare = []
[settings.plan]
ipc = 1
steps = 2
batch = 4
network = { width = 8, depth = 1 }
local = { steps = 2, batch = 4 }
[cpu]
seeds = [0, 1]
[paper]
seeds = [0]
"""


@pytest.fixture(scope="module")
def table2() -> Grid:
    return read_grid(EXPERIMENTS / "table2.toml", "cpu")


@pytest.fixture
def repository(tmp_path, monkeypatch) -> Path:
    """A repository with a grid of its own; the current folder is below its root."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "tiny.toml").write_text(GRID, encoding="utf-8")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    return tmp_path


def allowed(grid: Grid, selection: Selection) -> list[Cell]:
    return [cell for cell in ordered_cells([grid]) if selection.allows(cell)]


# --- lines and axes ------------------------------------------------------------------------------


def test_lines_are_split_at_commas_that_are_not_in_their_names(table2) -> None:
    text = "collabdm, uniform, localdm,collabdm-pae,ours"
    selection = read_selection([table2], text, None)
    assert selection.lines == {"collabdm, uniform", "localdm", "collabdm-pae, ours"}
    assert {cell.line for cell in allowed(table2, selection)} == selection.lines


def test_values_of_one_axis_add_up_and_those_of_two_axes_both_hold(table2) -> None:
    where = ["data=cifar-10,MNIST", "data=Fashion-MNIST", "beta=0.1", "seed=0"]
    cells = allowed(table2, read_selection([table2], None, where))
    assert {cell.at["data"] for cell in cells} == {"CIFAR-10", "MNIST", "Fashion-MNIST"}
    assert {(cell.at["beta"], cell.seed) for cell in cells} == {("0.1", 0)}
    assert len(cells) == 3 * 2 * len(table2.lines)  # data, splits, lines


def test_a_grid_without_an_axis_is_not_restricted_by_it(table2) -> None:
    figure3 = read_grid(EXPERIMENTS / "figure3.toml", "cpu")
    assert "data" not in figure3.axes
    selection = read_selection([table2, figure3], None, ["data=MNIST"])
    assert allowed(figure3, selection) == ordered_cells([figure3])


@pytest.mark.parametrize(
    ("lines", "where", "message"),
    [
        ("colabdm", [], "`--lines` should be among .*; found 'colabdm': did you mean collabdm"),
        (None, ["dat=x"], "axis .*data, split, beta, seed; found 'dat': did you mean data"),
        (
            None,
            ["data=CIFAR"],
            "CIFAR-10, Fashion-MNIST, MNIST; found 'CIFAR': did you mean CIFAR-10",
        ),
        (None, ["data"], "should be AXIS=VALUE, as in data=CIFAR-10; found 'data'"),
        (None, ["data="], "`--where data=` should be among CIFAR-10"),
        ("", [], "`--lines` should be among"),
    ],
)
def test_an_unknown_line_axis_or_value_is_refused_with_the_known_ones(
    table2, lines, where, message
) -> None:
    with pytest.raises(PlanError, match=message):
        read_selection([table2], lines, where)


# --- names of grids ------------------------------------------------------------------------------


def test_grids_are_found_in_the_repository_of_the_current_folder_first(repository) -> None:
    assert grid_folder(Path()) == repository / "experiments"
    assert list(known_grids(Path())) == ["tiny"]
    assert shipped_folder(Path()) is None


def test_elsewhere_the_grids_of_this_package_are_found(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert list(known_grids(Path())) == NAMES
    folder = shipped_folder(Path())
    assert folder is not None
    assert (folder / "cpu.jsonl").is_file()


def test_without_a_name_the_grids_are_listed_with_their_cells(repository) -> None:
    out = done("reproduce").out
    assert "tiny" in out
    assert "Tiny" in out
    assert "0 of 8" in out


def test_an_unknown_name_is_refused_with_the_nearest(repository) -> None:
    result = run("reproduce", "tinny")
    assert result.code == 2
    assert "the grid should be one of tiny; found 'tinny': did you mean tiny?" in result.err
    assert not (repository / "below" / "reproduced").exists()


# --- running -------------------------------------------------------------------------------------


def test_chosen_cells_run_into_the_default_folder_and_each_is_announced(repository) -> None:
    chosen = ("--lines", "collabdm, twice", "--where", "beta=0.5", "--where", "seed=0,1")
    out = done("reproduce", "tiny", *chosen, "--device", "cpu", "-q").out
    assert "0 of 2 chosen cells are done; 2 to run here, time not known before the first" in out
    assert "1 of 2: collabdm, twice, Digits, beta 0.5, seed 0: time not known; with the rest" in out
    assert "2 of 2: collabdm, twice, Digits, beta 0.5, seed 1: about" in out

    folder = repository / "below" / "reproduced" / "tiny"
    assert len(read_records(folder)) == 2
    grid = Grid.model_validate_json((folder / "tiny.cpu.json").read_text())
    assert grid == read_grid(repository / "experiments" / "tiny.toml", "cpu")
    assert "2 of 8" in done("reproduce").out


def test_shipped_records_are_used_counted_and_copied_once(tmp_path) -> None:
    command = ("reproduce", "strong", "-o", tmp_path, "--minutes", 0)
    first = done(*command).out
    assert "96 results ship with the grids and are used as they are (shipped.jsonl)" in first
    assert "96 of 96 cells are done; 0 to run here" in first
    copied = (tmp_path / SHIPPED).read_bytes()
    assert read_records(tmp_path).keys() <= read_records(REPOSITORY / "results" / "grids").keys()
    assert "96 results ship" in done(*command).out
    assert (tmp_path / SHIPPED).read_bytes() == copied
    done("report", tmp_path)
    assert "96 of 96" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_fresh_runs_do_not_use_shipped_records(tmp_path) -> None:
    out = done("reproduce", "strong", "-o", tmp_path, "--minutes", 0, "--fresh").out
    assert "0 of 96 cells are done; 96 to run here, time not known before the first" in out
    assert not (tmp_path / SHIPPED).exists()


def test_only_records_of_the_chosen_cells_are_taken(tmp_path) -> None:
    chosen = ("--where", "data=CIFAR-10", "--lines", "localdm")
    out = done("reproduce", "table2", "-o", tmp_path, "--minutes", 0, *chosen).out
    records = read_records(tmp_path).values()
    assert f"{len(records)} of {len(records)} chosen cells are done" in out
    assert {(r.experiment.data, r.experiment.method) for r in records} == {("cifar10", "localdm")}


def test_failed_and_own_records_are_not_replaced_and_pictures_are_copied(tmp_path) -> None:
    grid = read_grid(EXPERIMENTS / "comparison.toml", "cpu")
    shipped = REPOSITORY / "results" / "grids"
    known = read_records(shipped)
    cells = [c for c in pictured_cells(grid).values() if c.experiment.digest in known][:3]
    source = tmp_path / "shipped"
    (source / "pictures").mkdir(parents=True)
    records = [known[cell.experiment.digest].document() for cell in cells]
    lines = [records[0] | {"error": "stopped"}, *records[1:]]
    (source / "cpu.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for cell in cells:
        picture_path(source, cell).write_bytes(cell.experiment.digest.encode())

    output = tmp_path / "own"
    output.mkdir()
    (output / "cpu.jsonl").write_text(json.dumps(records[1]) + "\n")
    taken = take_shipped(source, cells, [grid], output)
    assert [record.digest for record in taken] == [cells[2].experiment.digest]
    assert picture_path(output, cells[2]).read_bytes() == taken[0].digest.encode()
    assert not picture_path(output, cells[1]).exists()
    assert take_shipped(source, cells, [grid], source) == []


def test_estimates_are_corrected_by_the_cells_that_this_machine_ran(table2) -> None:
    cell = ordered_cells([table2])[0]
    shipped = read_records(REPOSITORY / "results" / "grids")[cell.experiment.digest]
    estimates = TimeEstimates([shipped])
    before = estimates.seconds(cell)
    assert before == pytest.approx(sum(shipped.seconds.values()))
    seconds = {part: 3 * value for part, value in shipped.seconds.items()}
    slow = shipped.model_copy(update={"seconds": seconds, "taken_over": None})
    estimates.correct(before, slow)
    assert estimates.seconds(cell) == pytest.approx(3 * before)

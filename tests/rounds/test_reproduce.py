"""Grids of published tables: cells, running and reuse, records, and results."""

from pathlib import Path
from typing import Any

import pytest
from command import cells as table_cells
from command import done, run
from PIL import Image

from collabdm.errors import DataError, PlanError
from collabdm.lab.experiment import Experiment
from collabdm.lab.reproduce import cell_runner, running
from collabdm.lab.reproduce.cell_runner import CellRunner, results_of
from collabdm.lab.reproduce.grid_files import SCALES, read_grid, read_published
from collabdm.lab.reproduce.grid_results import Entry, GridResults
from collabdm.lab.reproduce.grids import (
    Grid,
    cells_of,
    combinations,
    ordered_cells,
    picture_path,
    pictured_cells,
)
from collabdm.lab.reproduce.records import CellRecord, append, read_records
from collabdm.lab.reproduce.reuse import site_settings, take_over
from collabdm.lab.reproduce.running import missing, run_cells, share_out
from collabdm.lab.reproduce.timing import TimeEstimates
from collabdm.lab.results import AccuracyRecord, ComputeRecord, SetRecord
from collabdm.lab.simulate import simulate
from collabdm.methods.registry import METHODS
from collabdm.planning.cost import cost
from collabdm.planning.make import plan_for_flows
from collabdm.planning.settings import read_toml

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
GRIDS = sorted(path.stem for path in EXPERIMENTS.glob("*.toml"))
PLAN = {
    "ipc": 1,
    "steps": 2,
    "batch": 4,
    "network": {"width": 8, "depth": 1},
    "local": {"steps": 2, "batch": 4},
}
TINY = """
shared = "tiny-scales.toml"
published = "tiny-paper.toml"
title = "Tiny"
chosen = ["collabdm", "ours", "central", "wrong"]
rows = ["central", "ours", "collabdm", "wrong", "random real"]
bytes_at = { beta = "0.5" }
pictures_at = { beta = "0.5" }
[axes.beta]
"0.5" = { beta = 0.5 }
"1.0" = { beta = 1.0 }
[[stages]]
beta = ["1.0"]
seed = [1]
[cpu]
seeds = [0, 1]
[paper]
seeds = [1, 2]
[paper.settings]
trials = 2
"""
SHARED = """
central = ["central"]
[against]
collabdm = "random real"
[lines.collabdm]
method = "collabdm"
[lines.ours]
method = "collabdm"
plan = { merging = "uniform", refinement = { passes = 2 } }
[lines.central]
method = "central"
sites = 1
beta = 0
compare = ["random"]
[lines.wrong]
method = "fedd3"
plan = { options = { bytes = 1 } }
[settings]
data = "digits"
sites = 2
per_class = 10
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
"""
PAPER = """
[[tiny]]
place = "Table 9"
row = "collabdm"
at = { beta = ["0.5", "1.0"] }
accuracy = [12.5, 50.0]
"""


def record_of(experiment: Experiment, **fields: Any) -> CellRecord:
    """A record of one score, or of an error, that no network gave."""
    made = SetRecord(plan="", bytes_per_site={"a": 9}, bytes=9, images=1, sites={"a": [1]})
    score = AccuracyRecord(what=experiment.method, network="ConvNet", accuracies=(0.5,), images=1)
    result = {"scores": (score,), "sets": {experiment.method: made}, "bytes_per_step": 1}
    about = {
        "digest": experiment.digest,
        "experiment": experiment,
        "seconds": {"sites": 1.0},
        "versions": {},
        "compute": ComputeRecord(device="cpu", precision="float32"),
        "machine": "a",
        "threads": 1,
        "commit": None,
    }
    return CellRecord(**about | ({} if "error" in fields else result) | fields)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("grids")
    for name, text in (("tiny", TINY), ("tiny-scales", SHARED), ("tiny-paper", PAPER)):
        (folder / f"{name}.toml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def grid(place) -> Grid:
    return read_grid(place / "tiny.toml", "cpu")


@pytest.fixture(scope="module")
def results(place) -> Path:
    """The tiny grid, run to the end by the command in two goes."""
    folder = place / "results"
    command = (
        "reproduce",
        place / "tiny.toml",
        "-o",
        folder,
        "--device",
        "cpu",
        "--precision",
        "float32",
        "-q",
    )
    first = done(*command, "--minutes", "0.0001")
    assert "0 of 14 cells are done; 14 to run here, time not known before the first" in first.out
    assert len(read_records(folder)) == 1
    second = done(*command)
    assert "1 of 14 cells are done; 13 to run here, about" in second.out
    return folder


# --- grids ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", GRIDS)
def test_every_grid_of_the_paper_is_complete_at_both_scales(name, scale) -> None:
    grid = read_grid(EXPERIMENTS / f"{name}.toml", scale)
    cells = cells_of(grid)
    assert len(cells) == len(grid.lines) * len(
        combinations({a: tuple(v) for a, v in grid.axes.items()})
    ) * len(grid.seeds)
    assert len(grid.seeds) >= 3
    for published in grid.paper:
        assert published.row in grid.rows
        assert all(value in grid.axes[axis] for axis, value in published.at.items())
    assert set(grid.against) >= {
        row for row in grid.rows if row in grid.lines and row.startswith("collabdm")
    }


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", GRIDS)
def test_no_two_lines_of_a_grid_are_the_same_cell_in_one_place(name, scale) -> None:
    places: dict[tuple[Any, ...], dict[str, str]] = {}
    for cell in cells_of(read_grid(EXPERIMENTS / f"{name}.toml", scale)):
        lines = places.setdefault((*cell.at.values(), cell.seed), {})
        assert cell.experiment.digest not in lines, (cell.name, lines[cell.experiment.digest])
        lines[cell.experiment.digest] = cell.line


@pytest.mark.parametrize("name", ["figure3", "table3"])
def test_no_station_sends_more_than_the_papers_nine_megabytes(name) -> None:
    for cell in cells_of(read_grid(EXPERIMENTS / f"{name}.toml", "paper")):
        schema = cell.experiment.flows
        assert schema is not None
        method = METHODS[cell.experiment.method]
        plan = plan_for_flows(schema, **method.adapt({"sites": 2} | cell.experiment.plan))
        assert cost(plan).bytes <= 9.42e6, cell.name


def test_the_paper_has_all_sixteen_numbers_of_table_3() -> None:
    grid = read_grid(EXPERIMENTS / "table3.toml", "paper")
    trained = [{"trained": name} for name in grid.axes["trained"]]
    numbers = [[grid.published(line, at) for at in trained] for line in grid.lines]
    assert [p.accuracy for p in numbers[0] if p] == [98.84, 96.49, 98.18, 97.60]
    assert sum(p is not None for row in numbers for p in row) == 16


def test_the_paper_has_a_number_for_six_rows_in_every_column_of_table_2() -> None:
    numbers = read_published(EXPERIMENTS / "shared" / "paper.toml", "table2")
    assert len({(p.row, p.at["data"], p.at["beta"]) for p in numbers}) == 6 * 4 * 3
    grid = read_grid(EXPERIMENTS / "table2.toml", "paper")
    found = grid.published(
        "collabdm-pae, uniform", {"data": "CIFAR-10", "split": "pure", "beta": "0.3"}
    )
    assert found is not None
    assert (found.accuracy, found.place) == (64.67, "Table 2")


def test_a_value_that_a_scale_sets_to_false_is_not_there() -> None:
    paper, cpu = (read_grid(EXPERIMENTS / "table2.toml", scale) for scale in ("paper", "cpu"))
    assert set(paper.axes["data"]) - set(cpu.axes["data"]) == {"SVHN"}
    assert {p.at["data"] for p in cpu.paper} == set(cpu.axes["data"])


def test_settings_of_a_line_win_over_those_of_the_axes_and_these_over_the_scale(grid) -> None:
    by_name = {cell.name: cell.experiment for cell in cells_of(grid)}
    assert by_name["collabdm, beta 0.5, seed 0"].beta == 0.5
    assert by_name["central, beta 0.5, seed 0"].beta is None
    assert by_name["ours, beta 1.0, seed 1"].plan["merging"] == "uniform"
    assert by_name["ours, beta 1.0, seed 1"].plan["steps"] == 2


def test_the_scales_differ_in_their_own_settings(place, grid) -> None:
    paper = read_grid(place / "tiny.toml", "paper")
    assert (paper.settings["trials"], grid.settings["trials"]) == (2, 1)
    assert (paper.seeds, grid.seeds) == ((1, 2), (0, 1))
    with pytest.raises(PlanError, match="`--scale` should be one of paper, cpu; found 'tpu'"):
        read_grid(place / "tiny.toml", "tpu")


def test_cells_of_a_stage_come_first_and_every_cell_once(grid) -> None:
    cells = cells_of(grid)
    assert [cell.name for cell in cells[:4]] == [f"{line}, beta 1.0, seed 1" for line in grid.lines]
    assert len({cell.name for cell in cells}) == len(cells) == 16
    assert len(ordered_cells([grid, grid])) == 16


def test_a_line_of_pooled_data_has_one_cell_for_all_columns(grid) -> None:
    left = missing(cells_of(grid), {})
    assert len(left) == 14
    assert [cell.name for cell in left[:4]] == [f"{line}, beta 1.0, seed 1" for line in grid.lines]


def test_a_digest_does_not_depend_on_the_grid_that_names_the_cell() -> None:
    table, compared = (
        read_grid(EXPERIMENTS / f"{name}.toml", "cpu") for name in ("table2", "comparison")
    )
    digests = [{cell.experiment.digest for cell in cells_of(grid)} for grid in (table, compared)]
    assert len(digests[0] & digests[1]) > 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            'chosen = ["nobody"]',
            "`chosen` should be among collabdm, ours, central, wrong; found nobody",
        ),
        ('tables = ["moon"]', "`tables` should be among beta; found moon"),
        ('bytes_at = { beta = "7" }', "`beta` should be among"),
        ("moon = 3", "`moon` is not a setting"),
        ("seeds = []\ncpu = {}", "at least one of `lines` and one of `seeds`"),
    ],
)
def test_a_wrong_grid_is_refused(place, tmp_path, change, message) -> None:
    for name in ("tiny-scales", "tiny-paper"):
        (tmp_path / f"{name}.toml").write_bytes((place / f"{name}.toml").read_bytes())
    key = change.partition(" = ")[0]
    kept = [line for line in TINY.splitlines() if not line.startswith(key)]
    if "cpu" in change:
        kept = kept[: kept.index("[cpu]")]
    (tmp_path / "tiny.toml").write_text(change + "\n" + "\n".join(kept), encoding="utf-8")
    with pytest.raises(PlanError) as error:
        read_grid(tmp_path / "tiny.toml", "cpu")
    assert message in str(error.value)


# --- running -------------------------------------------------------------------------------------


def test_cells_that_are_done_are_not_run_again(place, results) -> None:
    before = (results / "cpu.jsonl").read_bytes()
    again = done("reproduce", place / "tiny.toml", "-o", results, "-q")
    assert "14 of 14 cells are done; 0 to run here, about 0 s" in again.out
    assert (results / "cpu.jsonl").read_bytes() == before


def test_a_record_contains_everything_to_repeat_its_cell(results) -> None:
    for digest, record in read_records(results).items():
        assert record.experiment.digest == digest
        document = record.document()
        assert {"seconds", "compute", "machine", "threads", "versions", "commit"} <= document.keys()
        assert Experiment(**document["experiment"]).digest == digest


def test_the_sets_shown_by_a_grid_are_written_as_pictures(grid, results) -> None:
    shown = pictured_cells(grid)
    assert sorted(shown) == [
        ("central", "0.5"),
        ("collabdm", "0.5"),
        ("ours", "0.5"),
        ("wrong", "0.5"),
    ]
    assert {cell.seed for cell in shown.values()} == {0}
    kept = {place for place, cell in shown.items() if picture_path(results, cell).exists()}
    assert kept == set(shown) - {("wrong", "0.5")}
    assert len(list((results / "pictures").iterdir())) == len(kept)
    with Image.open(picture_path(results, shown["collabdm", "0.5"])) as picture:
        assert picture.size == (
            8 + 2 * 2,
            10 * (8 + 2) + 2,
        )  # one image of each of ten classes, 8 pixels wide


def test_a_failed_cell_is_recorded_and_the_others_run(grid, results) -> None:
    records = read_records(results)
    errors = [record.error for record in records.values() if record.error is not None]
    assert len(records) == 14
    assert len(errors) == 4
    assert all(
        error.startswith("PlanError: `options.bytes` should be at least") for error in errors
    )
    assert len(missing(cells_of(grid), records, retry=True)) == 4
    assert missing(cells_of(grid), records) == []


def test_a_cell_scores_what_a_simulation_of_its_settings_scores(grid, results, tmp_path) -> None:
    for name in ("ours, beta 0.5, seed 0", "central, beta 0.5, seed 1"):
        cell = next(cell for cell in cells_of(grid) if cell.name == name)
        alone = simulate(cell.experiment, tmp_path / cell.line)
        record = read_records(results)[cell.experiment.digest]
        assert record.scores == results_of(alone)["scores"]
        assert record.main_set.bytes_per_site == alone.sets[cell.experiment.method].bytes_per_site


def test_reused_contributions_give_the_same_set_as_new_ones(grid, results, tmp_path) -> None:
    plain, ours = (
        next(cell.experiment for cell in cells_of(grid) if cell.name == f"{line}, beta 0.5, seed 0")
        for line in ("collabdm", "ours")
    )
    simulate(plain, tmp_path / "plain")
    take_over(tmp_path / "plain", plain, tmp_path / "ours", ours)
    taken = {p.name: p.read_bytes() for p in (tmp_path / "ours" / "contributions").iterdir()}
    simulate(ours, tmp_path / "ours")
    simulate(ours, tmp_path / "anew")
    assert taken == {
        p.name: p.read_bytes() for p in (tmp_path / "anew" / "contributions").iterdir()
    }
    sets = [(tmp_path / name / "distilled.safetensors").read_bytes() for name in ("ours", "anew")]
    assert sets[0] == sets[1]
    assert read_records(results)[ours.digest].taken_over == plain.digest


def test_another_recipe_reuses_the_set(tmp_path) -> None:
    common = Experiment(
        data="digits",
        method="collabdm",
        sites=2,
        per_class=10,
        trials=1,
        recipe="short",
        epochs=1,
        compare=(),
        plan=PLAN,
    )
    strong = common.model_copy(update={"recipe": "strong"})
    runner = CellRunner(tmp_path)
    first, second = runner.run(common), runner.run(strong)
    assert second.taken_over == common.digest
    assert first.sets == second.sets
    places = [tmp_path / e.digest[:16] / "distilled.safetensors" for e in (common, strong)]
    assert places[0].read_bytes() == places[1].read_bytes()


def test_old_folders_of_cells_are_removed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(cell_runner, "FOLDERS_KEPT", 2)
    runner = CellRunner(tmp_path)
    for seed in range(4):
        runner.run(
            Experiment(
                data="digits",
                method="localdm",
                sites=1,
                beta=None,
                per_class=3,
                trials=1,
                recipe="short",
                epochs=1,
                compare=(),
                plan=PLAN,
                seed=seed,
            )
        )
    assert len(list(tmp_path.iterdir())) == 2


def test_no_cell_starts_that_would_exceed_the_time(grid, tmp_path, monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr(running.time, "monotonic", lambda: now[0])

    def slow(self: CellRunner, experiment: Experiment) -> CellRecord:
        now[0] += 40
        error = {"error": "none"} if experiment.method == "fedd3" else {}
        return record_of(experiment, seconds={"sites": 40.0}, **error)

    monkeypatch.setattr(CellRunner, "run", slow)
    cells = cells_of(grid)
    ran = list(run_cells(cells, tmp_path / "cpu.jsonl", CellRunner(tmp_path), 100 / 60))
    assert [one.cell.name for one in ran] == [cells[0].name, cells[1].name]
    assert (ran[-1].cells_left, ran[-1].time_left) == (14, (14 * 40, 0))
    assert len(read_records(tmp_path)) == 2


def test_the_time_of_a_cell_is_estimated_from_the_most_similar_ones(grid) -> None:
    cells = {cell.name: cell for cell in cells_of(grid)}

    def record(name: str, seconds: float) -> CellRecord:
        return record_of(cells[name].experiment, seconds={"sites": seconds})

    estimates = TimeEstimates([])
    assert estimates.total(list(cells.values())) == (0.0, len(cells))
    estimates = TimeEstimates(
        [record("collabdm, beta 0.5, seed 0", 10.0), record("ours, beta 0.5, seed 0", 2.0)]
    )
    assert estimates.seconds(cells["collabdm, beta 1.0, seed 1"]) == 10
    assert estimates.seconds(cells["ours, beta 1.0, seed 1"]) == 2
    assert estimates.seconds(cells["central, beta 1.0, seed 1"]) in (2, 10)
    failed = record_of(
        cells["central, beta 1.0, seed 1"].experiment, seconds={"sites": 99.0}, error="no"
    )
    estimates.add(failed)
    assert estimates.seconds(cells["central, beta 1.0, seed 1"]) in (2, 10)


def test_the_time_of_a_cell_is_not_estimated_from_another_scale(place, grid) -> None:
    (cell,) = (cell for cell in cells_of(grid) if cell.name == "collabdm, beta 0.5, seed 0")
    known = record_of(cell.experiment, seconds={"sites": 10.0})
    others = cells_of(read_grid(place / "tiny.toml", "paper"))
    assert TimeEstimates([known]).total([*others, cell]) == (10.0, len(others))


def test_parts_share_the_cells_and_write_files_of_their_own(place, results, tmp_path) -> None:
    counts = [
        int(
            done("reproduce", place / "tiny.toml", "-o", tmp_path, "--minutes", 0, "--part", part)
            .out.split(";")[1]
            .split()[0]
        )
        for part in ("1/3", "2/3", "3/3")
    ]
    assert sum(counts) == 14
    assert min(counts) > 0
    assert run("reproduce", place / "tiny.toml", "-o", tmp_path, "--part", "4/3").code == 2


def test_cells_with_common_contributions_are_in_one_part(grid) -> None:
    parts = share_out(cells_of(grid), 3)
    assert sorted(cell.name for part in parts for cell in part) == sorted(
        cell.name for cell in cells_of(grid)
    )
    for part in parts:
        for other in parts:
            if other is not part:
                mine, theirs = (
                    [site_settings(cell.experiment) for cell in cells] for cells in (part, other)
                )
                assert not [settings for settings in mine if settings in theirs]


def test_the_networks_of_one_set_are_in_one_part() -> None:
    parts = share_out(cells_of(read_grid(EXPERIMENTS / "table3.toml", "cpu")), 4)
    assert [len(part) for part in parts] == [12] * 4
    assert all({cell.line for cell in part} == {part[0].line} for part in parts)


def test_failed_cells_are_reported_with_the_option_that_runs_them(place, results) -> None:
    command = ("reproduce", place / "tiny.toml", "-o", results, "--minutes", 0)
    assert "4 failed before: `--retry` runs them again" in done(*command).out
    assert "failed before" not in done(*command, "--retry").out


def test_one_machine_runs_the_cells_of_the_stages_first(place, tmp_path) -> None:
    grid = EXPERIMENTS / "comparison.toml"
    out = done("reproduce", grid, "-o", tmp_path, "--minutes", "0", "--fresh").out
    assert "time not known before the first" in out
    grid = read_grid(EXPERIMENTS / "comparison.toml", "cpu")
    (share,) = share_out(cells_of(grid), 1)
    assert [cell.line for cell in share].index("rounds-gradients") > 80


# --- records -------------------------------------------------------------------------------------


def test_records_of_several_files_are_merged_and_success_wins(tmp_path) -> None:
    about = Experiment(data="digits")
    append(tmp_path / "a.jsonl", record_of(about, digest="1", error="no"))
    append(tmp_path / "a.jsonl", record_of(about, digest="2", machine="a"))
    append(tmp_path / "b.jsonl", record_of(about, digest="1", machine="b"))
    append(tmp_path / "b.jsonl", record_of(about, digest="2", error="no"))
    found = {digest: (r.machine, r.error) for digest, r in read_records(tmp_path).items()}
    assert found == {"1": ("b", None), "2": ("a", None)}


def test_an_incomplete_last_line_is_ignored_and_replaced(tmp_path) -> None:
    path = tmp_path / "a.jsonl"
    about = Experiment(data="digits")
    append(path, record_of(about, digest="1"))
    with path.open("a") as file:
        file.write('{"digest": "2", "sc')
    assert read_records(tmp_path).keys() == {"1"}
    append(path, record_of(about, digest="3"))
    assert read_records(tmp_path).keys() == {"1", "3"}
    assert path.read_text().count("\n") == 2


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("[1]", r"should be an object, in Python a dictionary; found \[1\]"),
        ("{}", "`digest` should be present; found nothing"),
        ("word", "should be JSON; expected value at line 1 column 1"),
    ],
)
def test_a_line_that_is_no_record_is_refused(tmp_path, line, problem) -> None:
    append(tmp_path / "a.jsonl", record_of(Experiment(data="digits")))
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(
        DataError, match=f"a.jsonl, line 2: {problem}: remove that line, and run the cell again"
    ):
        read_records(tmp_path)


# --- results -------------------------------------------------------------------------------------


def test_results_are_means_over_seeds_of_the_records(grid, results) -> None:
    records = read_records(results)
    found = GridResults(grid, records)
    assert (found.done, found.all) == (10, 14)
    at = {"beta": "0.5"}
    scores = [
        100 * records[cell.experiment.digest].scores[0].accuracies[0]
        for cell in cells_of(grid)
        if cell.line == "collabdm" and cell.at == at
    ]
    own = found.entry("collabdm", at)
    assert sorted(own.accuracies.values()) == sorted(scores)
    assert own.n == 2
    assert own.bytes is not None
    gap = found.above_paper("collabdm", at)
    assert gap is not None
    assert gap == pytest.approx(sum(scores) / 2 - 12.5)
    random = found.entry("random real", at)
    assert random.accuracies == found.entry("random real", {"beta": "1.0"}).accuracies
    assert found.over_random("collabdm", at) == pytest.approx(own.mean - random.mean)
    assert str(found.entry("wrong", at)) == "failed"
    assert str(Entry()) == "not run"


def test_points_along_the_refinement_end_at_the_bytes_that_are_sent(tmp_path) -> None:
    settings = {
        "data": "digits",
        "sites": 2,
        "per_class": 10,
        "trials": 1,
        "recipe": "short",
        "epochs": 1,
        "curve": 2,
        "compare": (),
        "plan": PLAN | {"steps": 4},
    }
    grid = Grid(
        name="curve",
        scale="cpu",
        title="Curve",
        kind="curve",
        rows=("collabdm",),
        seeds=(0,),
        lines={"collabdm": {"method": "collabdm"}},
        axes={"split": {"even": {"beta": 0}}},
        settings=settings,
    )
    (cell,) = cells_of(grid)
    record = CellRunner(tmp_path).run(cell.experiment)
    found = GridResults(grid, {record.digest: record})
    points = found.curve("collabdm", {"split": "even"})
    sent = record.main_set.largest_upload
    assert sent is not None
    assert record.bytes_per_step is not None
    assert [point.bytes for point in points] == [
        sent - left * record.bytes_per_step for left in (3, 2, 0)
    ]
    assert points[-1].mean == pytest.approx(found.entry("collabdm", {"split": "even"}).mean)


def test_the_command_names_what_is_wrong(place, tmp_path) -> None:
    result = run("reproduce", tmp_path / "nowhere.toml", "-o", tmp_path / "results")
    assert result.code == 2
    assert "should be a readable TOML file" in result.err
    assert table_cells(result.out) == []
    assert read_toml(place / "tiny.toml")["title"] == "Tiny"

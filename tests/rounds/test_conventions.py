"""Conventions of the command line: logs, JSON, heartbeat, colours, classes that are left out."""

import json
import logging
from pathlib import Path

import pytest
from command import OPEN, TINY, cells, done, picture_folder, run

from collabdm.cli import console
from collabdm.cli.console import Heartbeat
from collabdm.documents.plan_file import read_plan
from collabdm.progress import Progress, Stage
from collabdm.rounds.contributions import read_contribution


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[Path, Path]:
    """A plan of three classes, and the data of a site."""
    data = picture_folder(tmp_path / "data", cat=5, dog=4, ship=6)
    plan = tmp_path / "plan.json"
    done("plan", "--classes", "cat,dog,ship", "--image-size", "3x8", *TINY, "-o", plan)
    return plan, data


def contribute(inputs: tuple[Path, Path], *options: object) -> tuple[object, ...]:
    plan, data = inputs
    output = plan.with_name("a.safetensors")
    return ("contribute", plan, *OPEN, "--data", data, "--site", "a", "-o", output, *options)


def rows(path: Path) -> dict[str, str]:
    (table,) = json.loads(path.read_text())["tables"]
    assert table["columns"] == list(table["rows"][0])
    return {row[table["columns"][0]]: row[table["columns"][1]] for row in table["rows"]}


# --- JSON ----------------------------------------------------------------------------------------


def test_the_json_of_a_command_has_the_rows_of_its_table(inputs, tmp_path) -> None:
    printed = done(*contribute(inputs, "--json", tmp_path / "t.json"))
    assert [row[0] for row in cells(printed.out) if row[0]] == list(rows(tmp_path / "t.json"))
    assert rows(tmp_path / "t.json")["withheld"] == "no class"


@pytest.mark.parametrize("command", ["inspect", "check", "contribute", "distill", "ledger"])
def test_json_on_standard_output_replaces_the_tables(
    command: str, inputs, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("COLLABDM_SITE_FOLDER", str(tmp_path / "private"))  # without releases
    plan, data = inputs
    done(*contribute(inputs))
    words = {
        "inspect": ("inspect", plan),
        "check": ("check", plan, *OPEN, "--data", data, "--site", "a"),
        "contribute": contribute(inputs, "--dry-run"),
        "distill": ("distill", plan, tmp_path / "a.safetensors", "-o", tmp_path / "set"),
        "ledger": ("ledger",),
    }
    tables = json.loads(done(*words[command], "--json", "-").out)["tables"]
    assert all(set(row) == set(table["columns"]) for table in tables for row in table["rows"])
    assert bool(tables) == (command != "ledger")


def test_a_file_for_json_that_cannot_be_written_is_refused_before_any_work(
    inputs, tmp_path
) -> None:
    result = run(*contribute(inputs, "--json", tmp_path))
    assert result.code == 2
    assert "should be a file to write; found a folder" in result.err
    assert not (tmp_path / "a.safetensors").exists()


# --- classes that are left out -------------------------------------------------------------------


def test_a_class_that_is_left_out_is_listed_and_not_sent(inputs, tmp_path) -> None:
    result = done(*contribute(inputs, "--without", "ship", "--json", tmp_path / "t.json"))
    assert "withheld: ship: left out by this site" in result.err
    assert rows(tmp_path / "t.json")["withheld: ship"] == "left out by this site"
    sent = read_contribution(tmp_path / "a.safetensors", read_plan(inputs[0]))
    assert sent.statistics.classes.tolist() == [0, 1]
    assert set(sent.images.labels.tolist()) <= {0, 1}


def test_check_lists_a_class_that_is_left_out(inputs) -> None:
    plan, data = inputs
    words = ("check", plan, *OPEN, "--data", data, "--site", "a", "--without", "dog")
    assert "withheld: dog" in done(*words).out


def test_an_unknown_class_to_leave_out_is_refused_with_the_nearest_name(inputs) -> None:
    result = run(*contribute(inputs, "--without", "shp"))
    assert result.code == 2
    assert "found shp: did you mean ship?" in result.err
    assert "the classes are cat, dog, ship" in run(*contribute(inputs, "--without", "x")).err


def test_a_policy_file_and_the_option_leave_out_classes_together(inputs, tmp_path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text(f'{Path(OPEN[1]).read_text()}\nwithout = ["dog"]\n')
    result = done(*contribute(inputs, "--policy", policy, "--without", "ship"))
    assert "withheld: dog: left out" in result.err
    assert "withheld: ship: left out" in result.err


# --- logs ----------------------------------------------------------------------------------------


@pytest.fixture
def _log_as_before():
    """Undo what a command set up."""
    logger = logging.getLogger("collabdm")
    before = (logger.handlers[:], logger.level, logger.propagate)
    yield
    for handler in logger.handlers:
        handler.close()
    logger.handlers[:], logger.level, logger.propagate = before


@pytest.mark.usefixtures("_log_as_before")
def test_a_log_file_has_times_and_the_number_of_threads(inputs, tmp_path) -> None:
    log = tmp_path / "log.txt"
    quiet = done(*contribute(inputs), "--log-file", log)
    assert "thread" not in quiet.err
    assert log.read_text().startswith("20")
    assert "INFO cpu, float32, 1 thread (OMP_NUM_THREADS)" in log.read_text().replace(
        "bfloat16", "float32"
    )
    assert "1 thread (OMP_NUM_THREADS)" in done("--verbose", *contribute(inputs)).err


@pytest.mark.usefixtures("_log_as_before")
def test_a_log_file_that_cannot_be_written_is_an_error(tmp_path) -> None:
    result = run("--log-file", tmp_path, "version")
    assert (result.code, "should be a file to write" in result.err) == (2, True)


def test_without_a_terminal_a_line_every_half_minute_shows_the_time_left(monkeypatch) -> None:
    now = 0.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    heartbeat, lines = Heartbeat(), []
    for step in range(1, 13):
        now += 10.0
        lines.append(heartbeat.line(Progress(Stage.STATISTICS, step, 100, site="north")))
    assert [line for line in lines if line] == [
        "north: statistics: 3 of 100, 0:16:10 left",
        "north: statistics: 6 of 100, 0:15:40 left",
        "north: statistics: 9 of 100, 0:15:10 left",
        "north: statistics: 12 of 100, 0:14:40 left",
    ]
    now = 125.0
    assert heartbeat.line(Progress(Stage.STATISTICS, 100, 100, site="north")) == (
        "north: statistics: 100 of 100, in 0:01:55"
    )


def test_work_that_resumes_counts_only_its_own_steps_for_the_time_left(monkeypatch) -> None:
    now = 0.0
    monkeypatch.setattr(console.time, "monotonic", lambda: now)
    heartbeat = Heartbeat()
    assert heartbeat.line(Progress(Stage.REFINEMENT, 90, 100)) is None
    now = 40.0
    assert heartbeat.line(Progress(Stage.REFINEMENT, 94, 100)) == (
        "refinement: 94 of 100, 0:01:00 left"
    )


def test_no_color_leaves_escape_sequences_out(monkeypatch) -> None:
    from collabdm.cli.logs import colour

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert colour() is None
    monkeypatch.setenv("NO_COLOR", "1")
    assert colour() is False

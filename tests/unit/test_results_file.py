"""Results as records: the same bytes as ever, and one error for anything that is damaged."""

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from collabdm.documents.canonical_json import canonical_json
from collabdm.errors import CollabDMError, DataError
from collabdm.lab import results_file as results_module
from collabdm.lab.experiment import Experiment
from collabdm.lab.reproduce.cell_runner import results_of
from collabdm.lab.reproduce.records import CellRecord, append, read_records
from collabdm.lab.results import (
    ComputeRecord,
    CurvePoint,
    EvaluationResults,
    RobustnessRecord,
    ScoreRecord,
    SetRecord,
    SimulationResults,
    read_results,
    write_results,
)
from collabdm.lab.results_file import ResultsFile
from collabdm.matching.compute import Compute
from collabdm.matching.run_context import RunContext
from collabdm.report.round_page import write_report
from collabdm.scoring.dd_ranking import Robustness
from collabdm.scoring.evaluation import Score

GOLDEN = Path(__file__).parent / "golden"
EXPERIMENT = Experiment(
    data="digits é",
    method="collabdm",
    sites=2,
    beta=None,
    plan={"steps": 2, "batch": None},
    trials=2,
    compare=("random",),
    curve=1,
)
SETS = {
    "collabdm": SetRecord(
        plan="ab",
        bytes_per_site={"a": 10, "b": 12},
        bytes=7,
        images=2,
        sites={"a": [1, 0], "b": [0, 3]},
    ),
    "fedavg": SetRecord(
        plan="cd",
        bytes_per_site={"a": 20},
        bytes=8,
        images=0,
        sites={"a": [1, 0]},
        rounds=10,
        bytes_to_each_site={"a": 20},
    ),
}
MAIN = Score("collabdm", "ConvNet", (0.5, 1.0), 2, ((1, 1), (0, 0)))
RANDOM = Score("random real", "ConvNet", (0.25,), 2)
POINT = Score("collabdm", "ConvNet", (0.125,), 2, ((1, 0), (1, 1)))


@pytest.fixture(autouse=True)
def _versions_of_the_golden_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results_module, "versions", lambda: {"collabdm": "0.1.0", "torch": "2.13"})


def golden_file(path: Path) -> ResultsFile:
    file = ResultsFile(path, EXPERIMENT, Compute())
    file.sets.update(SETS)
    file.score("collabdm", lambda _: [MAIN], RunContext())
    file.score("random real", lambda _: [RANDOM], RunContext())
    file.curve.append(CurvePoint.at(1, POINT))
    return file


# --- bytes ---------------------------------------------------------------------------------------


def test_results_have_the_bytes_that_they_always_had(tmp_path) -> None:
    golden_file(tmp_path / "results.json").write(complete=True)
    assert (tmp_path / "results.json").read_bytes() == (GOLDEN / "results.json").read_bytes()


def test_results_that_are_read_are_written_with_the_same_bytes(tmp_path) -> None:
    results = read_results(GOLDEN / "results.json")
    assert isinstance(results, SimulationResults)
    assert results.experiment == EXPERIMENT
    assert [record.score for record in results.scores] == [MAIN, RANDOM]
    write_results(results, tmp_path / "results.json")
    assert (tmp_path / "results.json").read_bytes() == (GOLDEN / "results.json").read_bytes()


def test_records_of_cells_have_the_bytes_that_they_always_had(tmp_path) -> None:
    about = {
        "digest": EXPERIMENT.digest,
        "experiment": EXPERIMENT,
        "seconds": {"sites": 1.5, "scoring": 0.25},
        "compute": ComputeRecord.of(Compute()),
        "machine": "m",
        "threads": 1,
        "versions": {"torch": "2.13"},
        "commit": None,
    }
    results = golden_file(tmp_path / "results.json").write()
    append(tmp_path / "cells.jsonl", CellRecord(**about, **results_of(results), bytes_per_step=400))
    append(tmp_path / "cells.jsonl", CellRecord(**about, error="DataError: no"))
    assert (tmp_path / "cells.jsonl").read_bytes() == (GOLDEN / "cells.jsonl").read_bytes()
    for line in (GOLDEN / "cells.jsonl").read_text().splitlines():
        assert json.dumps(CellRecord.model_validate_json(line).document()) == line


def test_an_evaluation_has_its_keys_in_the_order_that_they_always_had(tmp_path) -> None:
    robustness = Robustness(0.1, 0.2, 0.3, 0.4, {"hlr": 0.0}, 2, {"all the data": 0.5})
    fields: dict[str, Any] = {
        "set": "s",
        "plan": "ab",
        "data": "digits",
        "seed": 0,
        "bytes": 9,
        "versions": {"torch": "2"},
        "recipe": {"epochs": 2, "learning_rate": 0.5},
        "compute": ComputeRecord.of(Compute()),
        "scores": (ScoreRecord.of(MAIN),),
    }
    keys = [
        "set",
        "plan",
        "data",
        "seed",
        "sets",
        "bytes",
        "versions",
        "recipe",
        "compute",
        "scores",
    ]
    assert list(EvaluationResults(**fields).document()) == keys
    results = EvaluationResults(**fields, robustness=RobustnessRecord.of(robustness))
    assert list(results.document()) == [*keys, "robustness"]
    assert list(results.document()["robustness"]) == [
        "hlr",
        "ior",
        "lrs",
        "ars",
        "std",
        "n",
        "accuracies",
    ]
    write_results(results, tmp_path / "scores.json")
    assert read_results(tmp_path / "scores.json") == results


def test_older_results_are_read(tmp_path) -> None:
    document = json.loads((GOLDEN / "results.json").read_text())
    del document["curve"], document["experiment"]["curve"]
    for score in document["scores"]:
        del score["confusion"], score["per_class"]
    (tmp_path / "results.json").write_text(json.dumps(document | {"later": 1}))
    results = read_results(tmp_path / "results.json")
    assert [record.score.mean for record in results.scores] == [0.75, 0.25]
    assert "curve" not in results.document()


# --- resuming ------------------------------------------------------------------------------------


def test_scores_in_the_file_are_not_measured_again(tmp_path) -> None:
    written = golden_file(tmp_path / "results.json").write(complete=True)

    def never(_: RunContext) -> list[Score]:
        pytest.fail("measured again")

    again = ResultsFile(tmp_path / "results.json", EXPERIMENT, Compute())
    again.sets.update(SETS)
    again.score("collabdm", never, RunContext())
    again.score("random real", never, RunContext())
    assert again.write(complete=True) == written


# --- damage --------------------------------------------------------------------------------------


def damaged(document: Any) -> Iterator[tuple[str, Any]]:
    """Copies of a document with one value removed or of another type, each with its place."""
    for path in list(places(document)):
        for change in (None, "x", -1, [], {}, [None], "remove"):
            copy = deepcopy(document)
            inner = copy
            for key in path[:-1]:
                inner = inner[key]
            if change == "remove":
                del inner[path[-1]]
            else:
                inner[path[-1]] = change
            yield f"{'.'.join(map(str, path))} = {change!r}", copy


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, item in items:
        yield (*path, key)
        yield from places(item, (*path, key))


def refusal(read: Callable[[Path], object], path: Path) -> str | None:
    """The DataError of reading a path, as text; None where it is read."""
    try:
        read(path)
    except DataError as error:
        return str(error)
    return None


def test_damaged_results_give_one_error_or_are_read(tmp_path) -> None:
    """Whatever is changed, a DataError names the file, or the results can be written again."""
    path, refused = tmp_path / "results.json", 0
    document = json.loads((GOLDEN / "results.json").read_text())
    for name, changed in damaged(document):
        path.write_text(json.dumps(changed))
        problem = refusal(read_results, path)
        if problem is None:
            results = ResultsFile(path, EXPERIMENT, Compute()).write()
            assert canonical_json(results.document()), name
        else:
            refused += 1
            assert problem.startswith(f"{path}: "), name
            assert "\n" not in problem, name
            assert refusal(lambda path: ResultsFile(path, EXPERIMENT, Compute()), path), name
    assert refused > 300


@pytest.mark.parametrize(
    ("keys", "value", "problem"),
    [
        (("scores", 0, "accuracies"), [], "`scores.0.accuracies` should have at least 1 item"),
        (
            ("scores", 0, "accuracies", 1),
            "1.0",
            "`scores.0.accuracies.1` should be a number; found '1.0'",
        ),
        (("scores", 1, "what"), None, "`scores.1.what` should be text; found None"),
        (
            ("scores", 0, "confusion"),
            [[1] * 2],
            "`scores.0` should have a `confusion` with as many columns as rows; found {",
        ),
        (
            ("sets", "collabdm", "bytes_per_site", "a"),
            -1,
            "`sets.collabdm.bytes_per_site.a` should be greater than",
        ),
        (
            ("experiment", "trials"),
            0,
            "`experiment.trials` should be greater than or equal to 1; found 0",
        ),
        (("compute",), "cpu", "`compute` should be an object, in Python a dictionary; found 'cpu'"),
        (("curve", 0, "step"), 1.5, "`curve.0.step` should be a whole number"),
    ],
)
def test_the_error_names_the_field(tmp_path, keys, value, problem) -> None:
    document = json.loads((GOLDEN / "results.json").read_text())
    inner = document
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    (tmp_path / "results.json").write_text(json.dumps(document))
    with pytest.raises(DataError) as error:
        read_results(tmp_path / "results.json")
    assert f"results.json: {problem}" in str(error.value)
    assert str(error.value).endswith(
        ": restore the file, or repeat `collabdm simulate` or `collabdm evaluate --json`"
    )


def test_damaged_records_give_one_error_or_are_read(tmp_path) -> None:
    path, refused = tmp_path / "cells.jsonl", 0
    for line in (GOLDEN / "cells.jsonl").read_text().splitlines():
        for name, changed in damaged(json.loads(line)):
            path.write_text(json.dumps(changed) + "\n")
            problem = refusal(read_records, tmp_path)
            if problem is not None:
                refused += 1
                assert problem.startswith(f"{path}, line 1: "), name
    assert refused > 300


def test_results_that_cannot_be_read_are_named(tmp_path) -> None:
    with pytest.raises(DataError, match=r"nowhere.json should be a readable file of results"):
        read_results(tmp_path / "nowhere.json")
    (tmp_path / "cells.jsonl").write_bytes(b"\xff\xfe\n")
    with pytest.raises(DataError, match=r"cells.jsonl should be readable JSON lines"):
        read_records(tmp_path)
    (tmp_path / "results.json").write_bytes(b"\xff")
    with pytest.raises(CollabDMError):
        write_report([tmp_path], tmp_path / "report.html")


def test_a_score_is_read_from_results_old_and_new() -> None:
    score = Score("a", "ConvNet", (0.5, 0.25), 4, ((1, 2), (0, 3)))
    document = json.loads(ScoreRecord.of(score).model_dump_json())
    assert ScoreRecord.model_validate_json(json.dumps(document)).score == score
    older = {
        key: document[key]
        for key in ("what", "network", "accuracies", "images", "mean", "std", "n")
    }
    read = ScoreRecord.model_validate_json(json.dumps(older)).score
    assert read == replace(score, confusion=())
    assert read.per_class == ()

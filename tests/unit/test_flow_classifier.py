"""Predictions of a model for tables of flows, and the commands that lead to them."""

import csv
import io
import re
from pathlib import Path

import pytest
import torch
from command import OPEN, cells, done, run
from traffic import row, tiny_schema, write_csv

from collabdm.data.flows.windows import Flows, windows
from collabdm.documents.flow_schema import FlowSchema
from collabdm.documents.outcome_files import read_distilled
from collabdm.documents.plan import ImageSpec
from collabdm.documents.specs import NetworkSpec
from collabdm.errors import DataError, PlanError
from collabdm.export.flow_classifier import Predictions, classify, confusion_rows, schema_for
from collabdm.matching.networks import build, seed_weights
from collabdm.scoring.confusion import Confusion
from collabdm.scoring.trained_model import TrainedModel, read_model, state_tensors, write_model
from collabdm.seeds import Purpose, Stream

SPEC = NetworkSpec(width=8, depth=1)
IMAGE = ImageSpec(channels=1, side=8, mean=(0.25,), std=(0.25,))


def untrained(schema: FlowSchema | None = None) -> TrainedModel:
    network = build(SPEC, IMAGE.shape, 2)
    seed_weights(network, Stream.of(0, Purpose.NETWORK))
    carried = {} if schema is None else {"flows": schema.model_dump(mode="json")}
    return TrainedModel(SPEC, IMAGE, ("ok", "bad"), state_tensors(network), carried)


# --- counts --------------------------------------------------------------------------------------


def test_precision_recall_and_macro_f1_are_those_of_the_counts() -> None:
    true, said = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 0, 1, 1, 0, 0])
    confusion = Confusion.of(true, said, 4)
    assert confusion.counts.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert confusion.accuracy == pytest.approx(0.5)
    assert confusion.precision[:2].tolist() == [0.5, 0.5]
    assert confusion.recall[:3].tolist() == [pytest.approx(2 / 3), 0.5, 0.0]
    assert confusion.macro_f1 == pytest.approx(
        (4 / 7 + 1 / 2 + 0) / 3
    )  # the class that the test lacks does not count
    rows = confusion_rows(confusion, ("a", "b", "c", "d"))
    assert rows[0] == ("a", "3", "50.0", "66.7", "2", "1", "0", "0")
    assert rows[3][:4] == ("d", "0", "-", "-")


# --- predictions ---------------------------------------------------------------------------------


def test_every_window_gets_the_class_of_the_largest_probability() -> None:
    levels = (Stream.of(0, Purpose.DATA).uniforms(9, 3) * 255).to(torch.uint8)
    found = windows(
        Flows(levels, torch.tensor([0, 0, 1, 1, -1, -1, 0, 1, 0])), tiny_schema(grouping="stream")
    )
    predictions = classify(untrained(), found)
    probabilities = untrained().probabilities(found.images)
    assert torch.equal(predictions.predicted, probabilities.argmax(1))
    assert torch.equal(predictions.confidence, probabilities.max(1).values)
    confusion = predictions.confusion()
    assert confusion is not None
    assert int(confusion.counts.sum()) == 3  # of four windows one has no label
    lines = list(csv.DictReader(io.StringIO(predictions.csv(2))))
    assert [line["first_row"] for line in lines] == ["0", "2", "4", "6"]
    assert [line["last_row"] for line in lines] == ["1", "3", "5", "7"]
    assert [line["true_class"] for line in lines] == ["ok", "bad", "", "ok"]


def test_names_with_commas_are_quoted() -> None:
    one = torch.tensor([1])
    predictions = Predictions(("ok", 'a,"b"'), one, torch.tensor([0.5]), one, one)
    assert next(csv.DictReader(io.StringIO(predictions.csv(1))))["class"] == 'a,"b"'


def test_too_few_rows_for_a_window_are_refused() -> None:
    found = windows(
        Flows(torch.zeros(1, 3, dtype=torch.uint8), torch.tensor([0])),
        tiny_schema(grouping="stream"),
    )
    with pytest.raises(DataError, match="rows for one window"):
        classify(untrained(), found)


def test_a_model_carries_its_schema_or_one_is_named() -> None:
    schema = tiny_schema()
    assert schema_for(untrained(schema), None) == schema
    assert schema_for(untrained(), schema) == schema
    with pytest.raises(PlanError, match="found none: name one with `--flows`"):
        schema_for(untrained(), None)
    with pytest.raises(PlanError, match=r"found good, bad and \(1, 8, 8\)"):
        schema_for(untrained(), tiny_schema(classes=("good", "bad")))


def test_the_command_takes_a_table_without_labels_and_says_what_is_wrong(tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text(tiny_schema().model_dump_json())
    write_model(untrained(), tmp_path / "model")
    rows = [{k: v for k, v in row(i).items() if k != "label"} for i in range(9)]
    table = write_csv(tmp_path / "live.csv", [*rows, rows[0] | {"proto": "gre"}])
    result = done(
        "classify", tmp_path / "model", table, "--flows", schema, "-o", tmp_path / "said.csv", "-q"
    )
    assert "5 windows" in result.out
    assert "10 flows in" in result.out
    assert "Against the labels" not in result.out
    assert "values of `proto` that the schema does not list, taken as other: 1" in result.err
    assert len((tmp_path / "said.csv").read_text().splitlines()) == 6
    assert "name one with `--flows`" in run("classify", tmp_path / "model", table).err
    wrong = run("classify", tmp_path / "model", table, "--flows", schema, "--grouping", "class")
    assert (wrong.code, "`label` missing" in wrong.err) == (2, True)
    assert (
        "`--grouping` should be class or stream; found 'flow'"
        in run("classify", tmp_path / "model", table, "--grouping", "flow").err
    )


def test_rows_of_a_station_belong_to_plans_of_flows(tmp_path: Path) -> None:
    done(
        "plan",
        "--classes",
        "a,b",
        "--image-size",
        "1x8",
        "--network",
        "ConvNet:width=8,depth=1",
        "-o",
        tmp_path / "p",
    )
    answer = run(
        "contribute",
        tmp_path / "p",
        "--data",
        "digits",
        "--site",
        "x",
        "--rows",
        "a=1",
        "-o",
        tmp_path / "c",
    )
    assert (answer.code, "`--rows` belongs to a plan for tables of flows" in answer.err) == (
        2,
        True,
    )


# --- the walk ------------------------------------------------------------------------------------


def test_two_stations_of_one_table_make_a_set_and_a_model_that_separates_the_classes(
    tmp_path: Path,
) -> None:
    """From a raw table with two stations to predictions, by the commands; bad cells are counted."""
    slow = {"dur": 9.0, "bytes": 90, "proto": "udp"}
    rows = [
        row(i, station=i // 40 % 2, **({"label": "bad"} | slow if i // 20 % 2 else {"label": "ok"}))
        for i in range(800)
    ]
    table = write_csv(tmp_path / "flows.csv", [*rows, row(800, dur="?", station=1)])
    schema = tmp_path / "schema.json"
    schema.write_text(
        tiny_schema(split="time", block=7, held_out=4, layout="rows").model_dump_json()
    )
    small = ("--ipc", "2", "--steps", "20", "--network", "ConvNet:width=8,depth=1")
    done("plan", "--flows", schema, "--sites", "a,b", *small, "-o", tmp_path / "plan.json")
    for site, station in (("a", 0), ("b", 1)):
        sent = (
            "--data",
            table,
            "--rows",
            f"station={station}",
            "--site",
            site,
            "-o",
            tmp_path / site,
        )
        result = done("contribute", tmp_path / "plan.json", *OPEN, *sent, "-q")
        assert ("not numbers, taken as missing: 1" in result.err) == (site == "b")
    done(
        "distill",
        tmp_path / "plan.json",
        tmp_path / "a",
        tmp_path / "b",
        "-o",
        tmp_path / "set",
        "-q",
    )
    made = read_distilled(tmp_path / "set")
    assert made.sites == {"a": [66, 71], "b": [66, 71]}
    evaluated = done(
        "evaluate",
        tmp_path / "set",
        "--data",
        table,
        "--recipe",
        "short",
        "--epochs",
        "20",
        "--trials",
        "1",
        "--no-random",
        "-q",
    )
    assert cells(evaluated.out)[-1][0] == "collabdm"
    done(
        "train",
        tmp_path / "set",
        "--recipe",
        "short",
        "--epochs",
        "300",
        "-o",
        tmp_path / "model",
        "-q",
    )
    assert read_model(tmp_path / "model").provenance["flows"] == made.plan.flows.model_dump(
        mode="json"
    )
    said = done("classify", tmp_path / "model", table, "--held-out", "-q").out
    assert float(re.search(r"accuracy ([\d.]+) %", said).group(1)) > 75  # type: ignore[union-attr]

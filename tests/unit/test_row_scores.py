"""Sets of rows are scored by macro F1, balanced accuracy and detection rate, beside accuracy."""

import json

import pytest
import torch
from command import cells, done
from traffic import row, row_schema, write_csv

from collabdm.data.flows.images import load_flows
from collabdm.documents.outcome_files import write_distilled
from collabdm.documents.outcomes import DistilledSet
from collabdm.documents.specs import NetworkSpec
from collabdm.images import ImageSet
from collabdm.lab.results import ScoreRecord, read_results
from collabdm.planning.make import plan_for_flows
from collabdm.scoring.confusion import Confusion
from collabdm.scoring.evaluation import EvaluationConfig, Score, evaluate
from collabdm.scoring.table_judges import JUDGES, benign_class, detection
from collabdm.scoring.training import Recipe

CONFIG = EvaluationConfig((NetworkSpec(name="MLP", width=16, depth=1),), 2, Recipe(epochs=10))


def table(tmp_path):
    """Attacks are long, but for every seventh."""
    rows = [
        row(i, "bad" if i % 3 else "normal", dur=8.0 if i % 3 and i % 7 else 0.1 + i / 1e4)
        for i in range(150)
    ]
    return write_csv(tmp_path / "flows.csv", rows)


def scored_set(path, benign="normal"):
    """A set of real rows, and the test rows."""
    schema = row_schema(classes=(benign, "bad"), merge=(), split="time", block=10)
    plan = plan_for_flows(schema, sites=1, network={"name": "Thresholds", "width": 8}, ipc=10)
    data = load_flows(path, schema)
    data = data.subset(torch.cat([data.of_class(y)[:10] for y in range(2)]))
    return DistilledSet(data, plan, {}, "collabdm"), load_flows(path, schema, "test")


def test_balanced_accuracy_is_the_mean_recall_of_the_tested_classes():
    counts = torch.tensor([[3, 1, 0], [2, 2, 0], [0, 0, 0]])
    assert Confusion(counts).balanced_accuracy == pytest.approx((3 / 4 + 2 / 4) / 2)


def test_the_benign_class_has_a_usual_name_that_no_other_class_has():
    assert benign_class(("DoS", "BENIGN")) == 1
    assert benign_class(("1", "0")) == 1
    assert benign_class(("0", "1", "2")) is None
    assert benign_class(("normal", "background", "bad")) is None


def test_there_is_no_detection_rate_without_benign_rows():
    test = ImageSet(torch.zeros(2, 1, 1, 1), torch.tensor([1, 1]), ("normal", "bad"))
    assert detection(torch.ones(2, 2, dtype=torch.float64), test) is None


def test_every_judge_of_rows_has_all_measures(tmp_path):
    made, test = scored_set(table(tmp_path))
    scores = evaluate(made, test, CONFIG)
    assert [score.network for score in scores] == ["MLP", *JUDGES]
    for score in scores:
        confusion = Confusion(torch.tensor(score.confusion))
        assert score.macro_f1 == confusion.macro_f1
        assert score.balanced_accuracy == confusion.balanced_accuracy
    by_name = {score.network: score for score in scores}
    assert 0.5 < by_name["boosted trees"].detection < 1  # every seventh attack looks benign


def test_without_a_benign_class_there_is_no_detection_rate(tmp_path):
    path = table(tmp_path)
    path.write_text(path.read_text().replace("normal", "scan"))
    made, test = scored_set(path, "scan")
    assert all(score.detection is None for score in evaluate(made, test, CONFIG))


def test_a_record_without_measures_has_no_keys_for_them_and_is_read():
    plain = Score("a", "ConvNet", (0.5,), 4)
    document = json.loads(ScoreRecord.of(plain).model_dump_json())
    assert not {"macro_f1", "balanced_accuracy", "detection"} & set(document)
    assert ScoreRecord.model_validate_json(json.dumps(document)).score == plain
    measured = Score("a", "MLP", (0.5,), 4, (), 0.25, 0.5, 0.75)
    assert ScoreRecord.model_validate_json(ScoreRecord.of(measured).model_dump_json()).score == (
        measured
    )


def test_evaluate_prints_and_stores_the_measures_of_rows(tmp_path):
    made, _ = scored_set(table(tmp_path))
    write_distilled(made, tmp_path / "set")
    data = ("--data", tmp_path / "flows.csv", "--no-random", "--trials", 1, "--epochs", 2)
    out = done("evaluate", tmp_path / "set", *data, "--json", tmp_path / "r.json", "-q").out
    assert "macro F1" in out
    assert "balanced" in out
    assert "false alarms" in out
    records = read_results(tmp_path / "r.json").scores
    printed = {line[1]: line[6:9] for line in cells(out) if line[0] == "collabdm"}
    for record in records:
        shares = (record.macro_f1, record.balanced_accuracy, record.detection)
        assert printed[record.network] == [f"{100 * share:.2f}" for share in shares]

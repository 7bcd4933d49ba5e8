"""Tables of flows that are distilled row by row: encoding, plans, rounds, tables and judges."""

import csv
import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from collabdm.data.flows.built_in import FIVE_G_NIDD
from collabdm.data.flows.draft import Choices, draft
from collabdm.data.flows.images import load_flows
from collabdm.data.flows.rows import (
    OTHER,
    decode_rows,
    decode_set,
    encode_categories,
    encode_numbers,
    snapped,
)
from collabdm.data.flows.schemas import ROW_BLOCK, with_changes
from collabdm.documents.flow_schema import Category, FlowSchema, Number
from collabdm.documents.outcomes import DistilledSet
from collabdm.documents.plan import ImageSpec, Plan
from collabdm.documents.specs import NetworkSpec
from collabdm.errors import DataError, PlanError
from collabdm.export.dataset import export
from collabdm.export.table import csv_text
from collabdm.images import ImageSet
from collabdm.matching.embedding_bound import embedding_bound
from collabdm.matching.networks import build, seed_weights, skeleton
from collabdm.matching.thresholds import Thresholds
from collabdm.methods.collabdm import contribute, distill
from collabdm.planning.make import plan_for_flows
from collabdm.planning.settings import in_form
from collabdm.scoring.evaluation import EvaluationConfig, evaluate
from collabdm.scoring.table_judges import (
    JUDGES,
    confusion_of,
    detection_rate,
    probabilities,
    trained_judge,
)
from collabdm.scoring.training import Recipe
from collabdm.seeds import Purpose, Stream

BYTES = Number(name="bytes", low=0.0, high=1e6, whole=True, complete=True)
SECONDS = Number(name="seconds", low=0.0, high=10.0, unit=1e-3)
PROTOCOL = Category(name="protocol", values=("tcp", "udp"))

SCHEMA = FlowSchema(
    columns=(BYTES, SECONDS, PROTOCOL),
    label="label",
    classes=("benign", "attack"),
    flows=1,
    side=8,
    form="rows",
    block=5,
)

FAST = {
    "network": {"name": "Thresholds", "width": 64},
    "steps": 8,
    "ipc": 4,
    "refinement": {"passes": 10},
}


def table(tmp_path, rows=200):
    """Write a table whose attacks are long, large and mostly UDP."""
    random = np.random.default_rng(0)
    lines = ["bytes,seconds,protocol,label"]
    for i in range(rows):
        attack = i % 3 == 0
        size = int(random.uniform(1e4, 1e5) if attack else random.uniform(10, 1000))
        seconds = "" if i % 10 == 0 else f"{random.uniform(0, 1) + 2 * attack:.4f}"
        protocol = "udp" if attack == (i % 7 != 0) else "tcp"
        lines.append(f"{size},{seconds},{protocol},{'attack' if attack else 'benign'}")
    path = tmp_path / "flows.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def distilled_table(tmp_path):
    """Run a round with one site."""
    plan = plan_for_flows(SCHEMA, sites=1, **FAST)
    data = load_flows(table(tmp_path), SCHEMA)
    return distill(plan, [contribute(plan, data)])


# --- encoding ------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 10) | st.just(float("nan")), min_size=1, max_size=20))
def test_decoding_undoes_the_encoding_of_numbers_to_float32_rounding(values):
    schema = SCHEMA.model_copy(update={"columns": (SECONDS,)})
    encoded = torch.from_numpy(encode_numbers(SECONDS, np.array(values)))
    decoded = decode_rows(schema, encoded)["seconds"]
    for before, after in zip(values, decoded, strict=True):
        if np.isnan(before):
            assert after is None
        else:
            assert after == pytest.approx(before, rel=1e-5, abs=1e-8)


@given(st.lists(st.integers(0, 10**6), min_size=1, max_size=20))
def test_decoding_undoes_the_encoding_of_whole_numbers_to_a_part_in_a_million(values):
    schema = SCHEMA.model_copy(update={"columns": (BYTES,)})
    encoded = torch.from_numpy(encode_numbers(BYTES, np.array(values, dtype=float)))
    decoded = decode_rows(schema, encoded)["bytes"]
    assert all(isinstance(value, int) for value in decoded)
    assert decoded == pytest.approx(values, rel=3e-6, abs=0)


def test_whole_numbers_below_ten_thousand_are_decoded_exactly():
    values = np.arange(10_000, dtype=float)
    encoded = torch.from_numpy(encode_numbers(BYTES, values))
    schema = SCHEMA.model_copy(update={"columns": (BYTES,)})
    assert decode_rows(schema, encoded)["bytes"] == values.astype(int).tolist()


@given(st.lists(st.sampled_from([0, 1, -1, -2]), min_size=1, max_size=20))
def test_decoding_undoes_the_encoding_of_categories(positions):
    schema = SCHEMA.model_copy(update={"columns": (PROTOCOL,)})
    encoded = encode_categories(PROTOCOL, np.array(positions, dtype=np.int32))
    assert (encoded.sum(1) == 1).all()
    texts = {0: "tcp", 1: "udp", -1: OTHER, -2: None}
    decoded = decode_rows(schema, torch.from_numpy(encoded))["protocol"]
    assert decoded == [texts[p] for p in positions]


@given(
    st.lists(st.lists(st.floats(-2, 3, width=32), min_size=7, max_size=7), min_size=1, max_size=8)
)
def test_snapped_rows_decode_as_before_and_are_rows_of_a_table(rows):
    encoded = torch.tensor(rows)
    near = snapped(SCHEMA, encoded)
    assert decode_rows(SCHEMA, near) == decode_rows(SCHEMA, encoded)
    assert torch.equal(snapped(SCHEMA, near), near)
    assert float(near.min()) >= 0
    assert float(near.max()) <= 1
    assert torch.equal(near[:, 3:].sum(1), torch.ones(len(rows)))


def test_a_value_outside_the_range_is_encoded_as_the_bound():
    encoded = encode_numbers(BYTES, np.array([-5.0, 2e6]))
    assert encoded.tolist() == [[0.0], [1.0]]


def test_a_column_without_missing_values_has_no_second_value():
    assert (BYTES.width, SECONDS.width, PROTOCOL.width, SCHEMA.width) == (1, 2, 4, 7)
    assert SCHEMA.image_shape == (7, 1, 1)


# --- schemas and plans ---------------------------------------------------------------------------


def test_a_schema_of_images_has_no_new_fields_in_its_json():
    text = FIVE_G_NIDD.model_dump_json()
    assert not {"form", "whole", "complete"} & set(FIVE_G_NIDD.model_dump(mode="json"))
    assert '"whole"' not in text


def test_a_schema_becomes_one_of_rows():
    schema = with_changes(FIVE_G_NIDD, {"form": "rows"})
    assert (schema.form, schema.flows, schema.block) == ("rows", 1, ROW_BLOCK)


def test_rows_need_one_row_per_image():
    with pytest.raises(PlanError, match="`flows` should be 1 with `form` rows; found 5"):
        with_changes(FIVE_G_NIDD, {"form": "rows", "flows": 5})


def test_a_draft_for_rows_knows_whole_and_complete_columns(tmp_path):
    drafted = draft(table(tmp_path), Choices(rows=True)).schema
    by_name = {column.name: column for column in drafted.columns}
    assert (by_name["bytes"].whole, by_name["bytes"].complete) == (True, True)
    assert (by_name["seconds"].whole, by_name["seconds"].complete) == (None, None)
    plain = draft(table(tmp_path)).schema
    assert all(getattr(column, "whole", None) is None for column in plain.columns)


def test_the_form_is_set_only_where_there_is_a_schema():
    assert in_form({"flows": "5gnidd"}, "rows")["flows"].as_rows
    assert in_form({"flows": "5gnidd"}, "images") == {"flows": "5gnidd"}
    with pytest.raises(PlanError, match="`--as` needs `--flows`"):
        in_form({}, "rows")
    with pytest.raises(PlanError, match="schema of images"):
        in_form({"flows": SCHEMA}, "images")


def test_a_plan_for_rows_has_public_constants_and_sends_statistics_alone():
    plan = plan_for_flows(SCHEMA, sites=2)
    assert plan.image == ImageSpec(channels=7, side=1, mean=(0.5,) * 7, std=(0.25,) * 7)
    assert (plan.local.method, plan.images, plan.augment) == ("none", "float32", ())
    assert Plan.model_validate_json(plan.model_dump_json(), strict=True).digest == plan.digest


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"network": {"name": "ConvNet"}}, "`network` should be MLP or Thresholds for rows"),
        (
            {"network": {"name": "Thresholds", "columns": (1, 2, 3)}},
            "`network.columns` should be the encoded values",
        ),
        ({"images": "uint8"}, "`images` should be float32 for rows; found uint8"),
        ({"augment": ("flip",)}, "`augment` should be empty for rows; found flip"),
    ],
)
def test_settings_for_images_are_refused_in_a_plan_for_rows(setting, message):
    with pytest.raises(PlanError, match=message):
        plan_for_flows(SCHEMA, sites=2, **setting)


def test_images_of_one_pixel_need_a_schema_of_rows():
    image = ImageSpec(channels=7, side=1, mean=(0.5,) * 7, std=(0.25,) * 7)
    with pytest.raises(ValueError, match="`image.side` 1 needs `flows` as rows"):
        Plan(classes=("a", "b"), image=image, network={"name": "MLP"})


def test_images_have_at_most_sixteen_channels_and_eight_pixels_a_side():
    with pytest.raises(ValueError, match="`channels` should be at most 16; found 17"):
        ImageSpec(channels=17, side=8, mean=(0.5,) * 17, std=(0.5,) * 17)
    with pytest.raises(ValueError, match="`side` should be at least 8, or 1 for rows"):
        ImageSpec(channels=1, side=7, mean=(0.5,), std=(0.5,))


# --- embeddings ----------------------------------------------------------------------------------


def thresholds(columns=(1, 2, 4), units=400, seed=0):
    layer = Thresholds(columns, units)
    layer.seed(Stream.of(seed, Purpose.WEIGHTS, 0))
    return layer


def test_a_threshold_unit_uses_one_to_three_columns():
    used = thresholds().weight[:, :, 0, 0] != 0
    columns = torch.stack([used[:, :1].any(1), used[:, 1:3].any(1), used[:, 3:].any(1)])
    counts = columns.sum(0)
    assert int(counts.min()) == 1
    assert int(counts.max()) == 3
    assert used[:, 3:].all(1).logical_or(~used[:, 3:].any(1)).all()


def test_most_threshold_units_separate_rows_at_a_point_within_their_range():
    layer, random = thresholds(), torch.Generator().manual_seed(0)
    values = torch.rand(2000, 2, generator=random)
    missing = torch.zeros(2000, 1)
    category = torch.nn.functional.one_hot(torch.randint(4, (2000,), generator=random), 4)
    rows = torch.cat([values, missing, category], 1)[:, :, None, None]
    found = torch.sigmoid(layer((rows - 0.5) / 0.25)).flatten(1).detach()
    highest, lowest = found.amax(0), found.amin(0)
    assert float((highest - lowest > 0.05).float().mean()) > 0.9
    assert float(((lowest <= 0.5) & (highest >= 0.5)).float().mean()) > 0.95


def test_thresholds_depend_on_the_stream_alone():
    first, second = thresholds(), thresholds()
    assert torch.equal(first.weight, second.weight)
    assert not torch.equal(first.weight, thresholds(seed=1).weight)


def test_embeddings_by_thresholds_are_bounded():
    plan = plan_for_flows(SCHEMA, sites=1, **FAST)
    assert embedding_bound(plan.network, plan.image.shape) == (8.0, 64)


@pytest.mark.parametrize("name", ["ConvNet", "VGG11"])
def test_networks_for_images_do_not_take_rows(name):
    with pytest.raises(PlanError, match="should be MLP or Thresholds for rows of a table"):
        skeleton(NetworkSpec(name=name), (7, 1, 1), 2)


def test_an_mlp_takes_images_too():
    network = build(NetworkSpec(name="MLP", width=16, depth=2), (3, 8, 8), 2)
    seed_weights(network, Stream.of(0, Purpose.WEIGHTS, 0))
    assert network(torch.rand(5, 3, 8, 8)).shape == (5, 2)


def test_an_mlp_has_no_instance_normalisation():
    assert NetworkSpec(name="MLP").norm == "layer"
    with pytest.raises(ValueError, match="`norm` should be layer, group or none for MLP"):
        NetworkSpec(name="MLP", norm="instance")


def test_the_json_of_other_networks_has_no_new_field():
    assert "columns" not in NetworkSpec().model_dump_json()


# --- rounds --------------------------------------------------------------------------------------


def test_the_training_rows_are_those_of_the_table(tmp_path):
    data = load_flows(table(tmp_path), SCHEMA, "all")
    assert data.images.shape == (200, 7, 1, 1)
    columns = decode_set(SCHEMA, data)
    lines = list(csv.DictReader(io.StringIO((tmp_path / "flows.csv").read_text())))
    by_class = sorted(lines, key=lambda line: SCHEMA.classes.index(line["label"]))
    assert columns["bytes"] == pytest.approx([int(line["bytes"]) for line in by_class], rel=1e-5)
    assert columns["protocol"] == [line["protocol"] for line in by_class]
    assert [value is None for value in columns["seconds"]] == [
        line["seconds"] == "" for line in by_class
    ]


def test_sites_together_send_the_means_of_the_pooled_rows(tmp_path):
    plan = plan_for_flows(SCHEMA, sites=2, batch=None, wire="float32", **FAST)
    data = load_flows(table(tmp_path), SCHEMA)
    halves = [data.subset(torch.arange(start, len(data), 2)) for start in (0, 1)]
    together = distill(plan, [contribute(plan, half, f"s{i}") for i, half in enumerate(halves)])
    pooled = distill(plan, [contribute(plan, data, "all")])
    difference = together.images.images - pooled.images.images
    assert float(difference.abs().median()) < 1e-3


def test_a_distilled_set_contains_rows_that_a_table_could_contain(tmp_path):
    made = distilled_table(tmp_path)
    rows = made.images.images.flatten(1)
    assert torch.equal(snapped(SCHEMA, rows), rows)
    columns = decode_set(SCHEMA, made.images)
    sizes = np.array(columns["bytes"], dtype=float)
    attack = np.array(columns["label"]) == "attack"
    assert np.median(sizes[attack]) > 5 * np.median(sizes[~attack])


# --- tables --------------------------------------------------------------------------------------


def test_a_set_is_exported_as_csv_and_parquet_with_the_columns_of_the_schema(tmp_path):
    import pyarrow.parquet as pq

    made = distilled_table(tmp_path)
    export(made, tmp_path / "out", "table")
    text = (tmp_path / "out" / "set.csv").read_text()
    lines = list(csv.DictReader(io.StringIO(text)))
    stored = pq.read_table(tmp_path / "out" / "set.parquet").to_pydict()
    assert list(lines[0]) == ["bytes", "seconds", "protocol", "label"] == list(stored)
    assert [line["label"] for line in lines] == stored["label"] == ["benign"] * 4 + ["attack"] * 4
    assert [int(line["bytes"]) for line in lines] == stored["bytes"]


def test_the_exported_table_is_read_back_by_its_schema(tmp_path):
    made = distilled_table(tmp_path)
    export(made, tmp_path / "out", "table")
    again = load_flows(tmp_path / "out" / "set.csv", SCHEMA, "all")
    assert torch.allclose(again.images, made.images.images, atol=0.05)
    assert torch.equal(again.labels, made.images.labels)


@pytest.mark.parametrize("form", ["hub", "folder"])
def test_rows_are_not_exported_as_pictures(tmp_path, form):
    with pytest.raises(DataError, match="export them as table"):
        export(distilled_table(tmp_path), tmp_path / "out", form)


def test_images_are_not_exported_as_a_table(tmp_path):
    image = ImageSpec(channels=1, side=8, mean=(0.5,), std=(0.5,))
    plan = Plan(classes=("a", "b"), image=image)
    images = ImageSet(torch.zeros(2, 1, 8, 8), torch.tensor([0, 1]), ("a", "b"))
    with pytest.raises(DataError, match="should contain rows of a table"):
        export(DistilledSet(images, plan, {}, "collabdm"), tmp_path / "out", "table")


def test_texts_that_a_spreadsheet_would_compute_are_made_inert():
    text = csv_text({"service": ["-", "=1+1", None], "bytes": [-1, 2, 3]})
    assert text == "service,bytes\n-,-1\n'=1+1,2\n,3\n"


# --- judges --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(JUDGES))
def test_every_judge_learns_the_table(tmp_path, name):
    path = table(tmp_path)
    train, test = load_flows(path, SCHEMA), load_flows(path, SCHEMA, "test")
    assert confusion_of(trained_judge(name, train), test).macro_f1 > 0.95


def test_classes_that_a_judge_has_not_seen_have_probability_zero(tmp_path):
    data = load_flows(table(tmp_path), SCHEMA)
    three = ImageSet(data.images, data.labels * 2, ("benign", "other", "attack"))
    found = probabilities(trained_judge("random forest", three), three)
    assert torch.equal(found[:, 1], torch.zeros(len(data), dtype=torch.float64))
    assert torch.allclose(found.sum(1), torch.ones(len(data), dtype=torch.float64))


def test_the_detection_rate_is_that_at_one_false_alarm_in_a_hundred():
    benign, attacks = torch.arange(100) / 100, torch.tensor([0.5, 0.97, 0.995, 1.0])
    scores = torch.cat([benign, attacks]).double()
    labels = torch.tensor([0] * 100 + [1, 1, 2, 2])
    assert detection_rate(scores, labels, 0) == 0.5
    assert np.isnan(detection_rate(scores[:100], labels[:100], 0))


def test_rows_are_scored_by_networks_and_by_judges(tmp_path):
    made = distilled_table(tmp_path)
    test = load_flows(table(tmp_path), SCHEMA, "test")
    recipe = Recipe(epochs=20, learning_rate=0.02)
    config = EvaluationConfig((NetworkSpec(name="MLP", width=32, depth=1),), 1, recipe)
    scores = evaluate(made, test, config)
    assert [score.network for score in scores] == ["MLP", *JUDGES]
    assert all(sum(map(sum, score.confusion)) == len(test) for score in scores)

"""Tables of flows: pixels, windows, what is wrong in a table, and the walk of a round."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError
from traffic import COLUMNS, row, tiny_schema, write_csv

from collabdm.data.flows.built_in import FIVE_G_NIDD, LEAKING
from collabdm.data.flows.draft import Choices, draft
from collabdm.data.flows.images import load_flows
from collabdm.data.flows.schemas import schema_of
from collabdm.data.flows.synthetic import (
    NAMES,
    PROFILES,
    PUBLISHED_COUNTS,
    sessions,
    write_synthetic,
)
from collabdm.data.flows.tables import Reading, read_flows
from collabdm.data.flows.windows import Flows, lay_out, windows
from collabdm.documents.flow_schema import Category, FlowSchema, Number
from collabdm.documents.plan import ImageSpec, Plan
from collabdm.errors import DataError, PlanError
from collabdm.planning.make import make_plan
from collabdm.planning.settings import new_plan
from collabdm.seeds import Purpose, Stream

ROWS = [row(i, "bad" if i % 3 == 0 else "ok") for i in range(30)]


def lines_of(path: Path, schema: FlowSchema, **reading: Any) -> list[str]:
    return read_flows(path, schema, Reading(**reading))[1].lines()


# --- pixels --------------------------------------------------------------------------------------


def test_a_linear_number_is_spread_evenly_from_1_to_255_and_0_is_missing() -> None:
    column = Number(name="x", low=-10, high=10, scale="linear")
    assert column.levels(np.array([-10.0, 0, 10, np.nan, -99, 99])).tolist() == [
        1,
        128,
        255,
        0,
        1,
        255,
    ]


def test_a_log_number_is_spread_by_the_logarithm_of_its_size_and_keeps_its_sign() -> None:
    column = Number(name="x", low=-999, high=999, unit=1)
    assert column.levels(np.array([-999.0, 0, 999, 9, -9])).tolist() == [1, 128, 255, 170, 86]
    finer = Number(name="x", low=0, high=1, unit=1e-3)
    assert finer.levels(np.array([0.001]))[0] > column.levels(np.array([0.001]))[0] - 128


def test_infinity_is_clipped_to_the_bounds() -> None:
    assert Number(name="x", low=0, high=1).levels(np.array([np.inf, -np.inf])).tolist() == [255, 1]


def test_categories_are_spread_and_another_value_has_a_level_of_its_own() -> None:
    column = Category(name="p", values=("a", "b", "c"))
    levels = column.levels(np.array([0, 1, 2, -1, -2], dtype=np.int32)).tolist()
    assert levels == [86, 170, 255, 1, 0]


def test_as_many_categories_as_levels_have_a_level_each() -> None:
    column = Category(name="p", values=tuple(f"v{k}" for k in range(254)))
    assert len(set(column.levels(np.arange(-2, 254, dtype=np.int32)).tolist())) == 256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"leaking": ("none",)}, "`leaking` should be names of columns; found none"),
        ({"label": "dur"}, "`label` should not be a feature; found `dur` among"),
        ({"merge": (("scan", "worse"),)}, "with a class of `classes`"),
        ({"flows": 22}, "`flows` should be at most 21: 3 features"),
        ({"flows": 9, "layout": "rows"}, "`flows` should be at most 8"),
        ({"columns": (Number(name="a", low=0, high=1),) * 2, "leaking": ()}, "distinct names"),
        ({"leaking": ("dur", "bytes", "proto", "seq")}, "at least one column"),
        ({"classes": ("ok", "ok")}, "distinct"),
    ],
)
def test_an_inconsistent_schema_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        tiny_schema(**changes)


def test_bounds_without_a_range_and_repeated_values_are_refused() -> None:
    with pytest.raises(ValidationError, match="`low` should be below"):
        Number(name="x", low=1, high=1)
    with pytest.raises(ValidationError, match="distinct"):
        Category(name="x", values=("a", "a"))


def test_leaking_columns_are_left_out_and_come_back_when_asked() -> None:
    schema = tiny_schema(flows=21)
    assert [c.name for c in schema.features] == ["dur", "bytes", "proto"]
    kept = schema.with_leaking()
    assert [c.name for c in kept.features] == ["dur", "bytes", "proto", "seq"]
    assert kept.flows == 16
    assert FlowSchema.model_validate(kept.model_dump()) == kept


# --- windows -------------------------------------------------------------------------------------


def flows_of(labels: list[int], features: int = 3) -> Flows:
    levels = torch.arange(len(labels)).view(-1, 1).expand(-1, features).to(torch.uint8).contiguous()
    return Flows(levels, torch.tensor(labels))


def test_packed_rows_follow_each_other_and_what_is_left_is_0() -> None:
    schema = tiny_schema()
    image = lay_out(torch.arange(1, 7, dtype=torch.uint8).view(1, 2, 3), schema)[0, 0]
    assert image.flatten().tolist() == [1, 2, 3, 4, 5, 6] + [0] * 58


def test_the_layout_of_rows_begins_a_line_with_each_flow_and_repeats_it() -> None:
    schema = tiny_schema(layout="rows", flows=3)
    image = lay_out(torch.arange(1, 10, dtype=torch.uint8).view(1, 3, 3), schema)[0, 0]
    assert (
        image[:, :3].tolist()
        == [[1, 2, 3]] * 2 + [[4, 5, 6]] * 2 + [[7, 8, 9]] * 2 + [[0, 0, 0]] * 2
    )
    assert not image[:, 3:].any()


def test_class_windows_contain_rows_of_one_class_in_order() -> None:
    found = windows(flows_of([0, 1, 0, 0, 1, 0, 0]), tiny_schema())
    assert found.labels.tolist() == [0, 0, 1]
    assert found.images[:, 0, 0, [0, 3]].tolist() == [[0, 2], [3, 5], [1, 4]]
    assert (found.mixed, found.leftover) == (0, 1)


def test_stream_windows_take_rows_as_they_come_and_the_majority_names_them() -> None:
    found = windows(
        flows_of([0, 1, 1, 1, 1, 0, 0, -1, -1, -1, -1, 1]), tiny_schema(grouping="stream", flows=3)
    )
    assert found.labels.tolist() == [1, 1, 0, 1]
    assert found.mixed == 2
    assert found.first.tolist() == [0, 3, 6, 9]
    unlabelled = windows(flows_of([-1] * 4), tiny_schema(grouping="stream"))
    assert unlabelled.labels.tolist() == [-1, -1]
    assert len(unlabelled.labelled(("ok", "bad"))) == 0


@pytest.mark.parametrize("grouping", ["class", "stream"])
def test_no_row_of_a_training_image_is_next_to_a_test_block(grouping: str) -> None:
    schema = tiny_schema(split="time", block=3, held_out=3, grouping=grouping)
    flows = flows_of([i // 7 % 2 for i in range(120)])
    used = {
        part: {int(value) for value in windows(flows, schema, part).images.unique().tolist()} - {0}
        for part in ("train", "test")
    }
    assert used["test"]
    assert min(abs(a - b) for a in used["train"] for b in used["test"]) > schema.flows
    assert used["test"] <= set(range(12, 18)) | set(range(30, 36)) | {
        r for k in range(2, 7) for r in range(18 * k + 12, 18 * k + 18)
    }


@pytest.mark.parametrize("split", ["time", "random", "none"])
def test_every_row_is_in_an_image_or_counted(split: str) -> None:
    schema = tiny_schema(split=split, block=2, held_out=3)
    flows = flows_of([i // 5 % 2 for i in range(101)])
    train, test = windows(flows, schema, "train"), windows(flows, schema, "test")
    if split == "time":
        images = (len(train.labels) + len(test.labels)) * schema.flows
        assert images + train.leftover + test.leftover + train.adjacent == 101
    elif split == "random":
        assert (len(train.labels) + len(test.labels)) * schema.flows + train.leftover == 101
        assert not {int(f) for f in train.first} & {int(f) for f in test.first}
        assert len(test.labels) == (len(train.labels) + len(test.labels)) // 3
    else:
        assert torch.equal(train.images, test.images)


def test_the_random_split_is_that_of_its_seed() -> None:
    schema = tiny_schema(split="random")
    flows = flows_of([0] * 60)
    assert torch.equal(
        windows(flows, schema, "test", 1).first, windows(flows, schema, "test", 1).first
    )
    assert not torch.equal(
        windows(flows, schema, "test", 1).first, windows(flows, schema, "test", 2).first
    )


# --- tables --------------------------------------------------------------------------------------


def test_csv_gzip_and_parquet_give_the_same_pixels(tmp_path) -> None:
    path = write_csv(tmp_path / "a.csv", ROWS)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(path.read_bytes()))
    (tmp_path / "misnamed.csv").write_bytes(gzip.compress(path.read_bytes()))
    pq.write_table(pa.table({k: [r[k] for r in ROWS] for k in ROWS[0]}), tmp_path / "a.parquet")
    plain, _ = read_flows(path, tiny_schema())
    for name in ("a.csv.gz", "misnamed.csv", "a.parquet"):
        other, tally = read_flows(tmp_path / name, tiny_schema())
        assert torch.equal(plain.levels, other.levels)
        assert torch.equal(plain.labels, other.labels)
        assert (tally.rows, tally.lines()) == (30, [])


def test_a_byte_order_mark_is_no_part_of_a_name(tmp_path) -> None:
    path = write_csv(tmp_path / "a.csv", ROWS)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert len(read_flows(path, tiny_schema())[0]) == 30
    path.write_bytes(write_csv(path, ROWS).read_text(encoding="utf-8").encode("utf-16"))
    assert len(read_flows(path, tiny_schema())[0]) == 30


def test_columns_are_found_by_name_in_any_order_and_an_unnamed_one_too(tmp_path) -> None:
    number = Number(name="", low=0, high=100, scale="linear")
    schema = tiny_schema(columns=(number, Category(name="p", values=("x",))), leaking=())
    path = tmp_path / "a.csv"
    path.write_text("label,p,,more\nok,x,100,?\nok,y,0,?\n")
    flows, tally = read_flows(path, schema)
    assert flows.levels.tolist() == [[255, 255], [1, 1]]
    assert tally.lines() == ["values of `p` that the schema does not list, taken as other: 1"]


def test_a_missing_column_is_named(tmp_path) -> None:
    path = write_csv(
        tmp_path / "a.csv", [{k: v for k, v in r.items() if k != "bytes"} for r in ROWS]
    )
    with pytest.raises(DataError, match="`bytes` missing; found `dur`, `proto`"):
        read_flows(path, tiny_schema())


@pytest.mark.parametrize(
    ("delimiter", "name"), [(";", "semicolons"), ("\t", "tabs"), ("|", "vertical bars")]
)
def test_another_delimiter_is_read_and_said(tmp_path, delimiter: str, name: str) -> None:
    plain, _ = read_flows(write_csv(tmp_path / "a.csv", ROWS), tiny_schema())
    path = write_csv(tmp_path / "b.csv", ROWS, delimiter)
    flows, tally = read_flows(path, tiny_schema())
    assert torch.equal(flows.levels, plain.levels)
    assert tally.lines() == [f"tables with columns separated by {name}: 1"]


def test_the_first_of_several_columns_of_a_name_keeps_it_and_this_is_said(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("dur,bytes,proto,label,dur\n1,100,tcp,ok,2\n")
    schema = tiny_schema(columns=(*COLUMNS[:2], Number(name="dur.1", low=0, high=2)), leaking=())
    flows, tally = read_flows(path, schema)
    assert flows.levels[0, 1:].tolist() == [255, 255]
    assert tally.lines() == [
        "columns of the same name, the later ones read as `dur.1` and so on: 1"
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"\n", "empty file"),
        (b"dur,bytes,proto,label\n", "should have rows; found none"),
    ],
)
def test_an_empty_file_is_reported(tmp_path, content: bytes, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_flows(tmp_path / "a.csv", tiny_schema())


def test_a_file_that_is_no_table_is_refused(tmp_path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"not parquet")
    (tmp_path / "a.csv").write_bytes(
        gzip.compress(b"dur,bytes,proto,label\n" + b"1,2,tcp,ok\n" * 999)[:-20]
    )
    for name in ("a.parquet", "a.csv", "none.csv"):
        with pytest.raises(DataError, match="cannot be read"):
            read_flows(tmp_path / name, tiny_schema())


def test_text_in_a_numeric_column_is_missing_and_counted(tmp_path) -> None:
    rows = [*ROWS, row(31, dur="fast"), row(32, dur="0x1F"), row(33, dur=""), row(34, dur=" 0.5 ")]
    flows, tally = read_flows(write_csv(tmp_path / "a.csv", rows), tiny_schema())
    assert tally.lines() == ["values of `dur` that are not numbers, taken as missing: 2"]
    assert flows.levels[30:, 0].tolist() == [0, 0, 0, int(flows.levels[0, 0])]


def test_a_numeric_column_of_text_is_refused(tmp_path) -> None:
    rows = [row(i, dur="fast" if i % 4 else "1") for i in range(20)]
    with pytest.raises(DataError, match="found 15 values of `dur` that are not numbers"):
        read_flows(write_csv(tmp_path / "a.csv", rows), tiny_schema())


def test_unknown_categories_and_values_outside_the_bounds_are_counted(tmp_path) -> None:
    rows = [*ROWS, row(1, proto="gre"), row(1, proto="gre"), row(1, bytes=101)]
    assert lines_of(write_csv(tmp_path / "a.csv", rows), tiny_schema()) == [
        "values of `proto` that the schema does not list, taken as other: 2",
        "values of `bytes` outside 0 .. 100, clipped: 1",
    ]


def test_rows_of_another_length_are_counted(tmp_path) -> None:
    path = write_csv(tmp_path / "a.csv", ROWS)
    path.write_text(path.read_text() + "1,2,3\n1,2,tcp,4,ok,more\n")
    flows, tally = read_flows(path, tiny_schema())
    assert len(flows) == 30
    assert tally.lines() == ["rows left out, with another number of fields than 5: 2"]


def test_a_label_that_is_no_class_is_refused_where_labels_count(tmp_path) -> None:
    path = write_csv(
        tmp_path / "a.csv", [*ROWS, row(1, "worm"), row(2, "worm"), row(3, "scan"), row(4, "")]
    )
    with pytest.raises(
        DataError, match="found 2 rows with a label that is no class of the schema, 'worm'"
    ):
        read_flows(path, tiny_schema())
    flows, tally = read_flows(path, tiny_schema(), Reading(labelled=False))
    assert flows.labels[-4:].tolist() == [-1, -1, 1, -1]
    assert tally.lines() == [
        "rows with a label that is no class of the schema, 'worm': 2",
        "rows without a label: 1",
    ]


def test_a_live_table_needs_no_label(tmp_path) -> None:
    path = write_csv(
        tmp_path / "a.csv", [{k: v for k, v in r.items() if k != "label"} for r in ROWS]
    )
    with pytest.raises(DataError, match="`label` missing"):
        read_flows(path, tiny_schema())
    assert read_flows(path, tiny_schema(), Reading(labelled=False))[0].labels.unique().tolist() == [
        -1
    ]


def test_rows_are_sorted_by_time(tmp_path) -> None:
    rows = [row(100 * i, time=t) for i, t in enumerate([3.0, 1.0, 2.0, 1.0])]
    flows, _ = read_flows(
        write_csv(tmp_path / "a.csv", rows), tiny_schema(time="time", keep_leaking=True)
    )
    assert flows.levels[:, 3].argsort().tolist() == [
        3,
        0,
        2,
        1,
    ]  # rows 1, 3 (equal times, as they came), 2, 0


def test_rows_of_a_station_are_picked_by_a_column(tmp_path) -> None:
    path = write_csv(tmp_path / "a.csv", [row(i, station=i % 3) for i in range(9)])
    flows, tally = read_flows(path, tiny_schema(), Reading(rows=("station", "2")))
    assert len(flows) == 3
    assert tally.lines() == ["rows left out, where `station` is not 2: 6"]
    with pytest.raises(
        DataError,
        match="should have rows with station 7; found none; "
        "rows left out, where `station` is not 7: 9",
    ):
        read_flows(path, tiny_schema(), Reading(rows=("station", "7")))


def test_a_class_without_an_image_is_reported(tmp_path) -> None:
    notes: list[str] = []
    path = write_csv(tmp_path / "a.csv", [row(i) for i in range(9)] + [row(9, "bad")])
    data = load_flows(path, tiny_schema(), note=notes.append)
    assert data.counts().tolist() == [4, 0]
    assert notes == [
        "no image of class `bad`: 1 rows in the whole table",
        "4 images for train of 10 rows; rows left over: 2; left out next to the test: 0",
    ]
    with pytest.raises(
        DataError, match="should yield an image of 2 rows for train; found 1 rows that yield none"
    ):
        load_flows(write_csv(tmp_path / "b.csv", [row(1)]), tiny_schema())


def test_a_table_is_read_in_chunks(tmp_path, monkeypatch) -> None:
    path = write_csv(tmp_path / "a.csv", ROWS * 40)
    whole, _ = read_flows(path, tiny_schema())
    monkeypatch.setattr("collabdm.data.flows.chunks.CHUNK_BYTES", 1000)
    steps: list[tuple[int, int]] = []
    parts, _ = read_flows(
        path, tiny_schema(), Reading(report=lambda event: steps.append((event.done, event.total)))
    )
    assert torch.equal(whole.levels, parts.levels)
    assert len(steps) > 10
    assert steps[-1] == (path.stat().st_size,) * 2


# --- 5G-NIDD -------------------------------------------------------------------------------------


def test_the_built_in_schema_is_of_the_columns_of_5g_nidd() -> None:
    known = {column.name for column in FIVE_G_NIDD.columns}
    assert known == set(NAMES) - {"Label", "Attack Type", "Attack Tool"}
    assert set(LEAKING) == {"", "Seq", "Offset", "sVid", "dVid", "SrcTCPBase", "DstTCPBase"}
    assert len(FIVE_G_NIDD.features) == 42
    assert FIVE_G_NIDD.flows * 42 <= 64 * 64
    assert FIVE_G_NIDD.with_leaking().flows == 64 * 64 // 49


def test_images_per_class_of_the_whole_table_are_the_arithmetic_of_table_1() -> None:
    assert sum(PUBLISHED_COUNTS.values()) == 1_215_890
    places = [FIVE_G_NIDD.class_numbers[name] for name in PUBLISHED_COUNTS]
    rows = sessions(list(PUBLISHED_COUNTS.values()), Stream.of(0, Purpose.DATA))
    flows = Flows(
        torch.zeros(len(rows), 42, dtype=torch.uint8), torch.tensor(places)[torch.from_numpy(rows)]
    )
    found = windows(flows, FIVE_G_NIDD).labelled(FIVE_G_NIDD.classes).counts()
    assert found.tolist() == [5082, 1498, 777, 4865, 711]
    published = torch.tensor([5081, 1497, 777, 4865, 706])
    assert int((found - published).abs().max()) <= 5


def test_table_1_is_what_windows_of_each_label_at_each_of_two_stations_give() -> None:
    """The published counts are possible for two stations.

    Rows n = a + b of a label at two stations give floor(a / 94) + floor(b / 94) windows: one less
    than floor(n / 94), or as many. HTTPFlood is a multiple of 94, so one window less needs two
    groups of rows.
    """
    most = [0] * len(FIVE_G_NIDD.classes)
    labels = [0] * len(FIVE_G_NIDD.classes)
    for name, rows in PUBLISHED_COUNTS.items():
        most[FIVE_G_NIDD.class_numbers[name]] += rows // 94
        labels[FIVE_G_NIDD.class_numbers[name]] += 1
    assert PUBLISHED_COUNTS["HTTPFlood"] == 94 * 1498
    published = [5081, 1497, 777, 4865, 706]
    assert most == [5082, 1498, 777, 4865, 710]
    assert all(
        low <= n <= high
        for low, n, high in zip(map(int.__sub__, most, labels), published, most, strict=True)
    )


def test_synthetic_flows_have_the_counts_asked_for_and_are_the_same_again(tmp_path) -> None:
    counts = {name: 40 + 9 * k for k, name in enumerate(PROFILES)}
    write_synthetic(tmp_path / "a.csv", counts, 3)
    write_synthetic(tmp_path / "b.csv", counts, 3)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()
    flows, tally = read_flows(tmp_path / "a.csv", FIVE_G_NIDD)
    assert tally.lines() == []
    merged = [counts[name] for name in ("Benign", "HTTPFlood", "SlowrateDoS", "UDPFlood")]
    assert torch.bincount(flows.labels).tolist() == [*merged, sum(counts.values()) - sum(merged)]
    with pytest.raises(DataError, match="should be among Benign"):
        write_synthetic(tmp_path / "c.csv", {"Worm": 1})


def test_the_subset_of_5g_nidd_is_read_by_the_built_in_schema(real_data) -> None:
    path = real_data / "flows" / "5gnidd_subset.parquet"
    flows, tally = read_flows(path, FIVE_G_NIDD)
    assert torch.bincount(flows.labels).tolist() == [1789, 475, 392, 1522, 258]
    assert tally.lines() == []
    held = {
        k: len(read_flows(path, FIVE_G_NIDD, Reading(rows=("BaseStation", str(k))))[0])
        for k in (0, 1, 2)
    }
    assert held == {0: 1968, 1: 1610, 2: 858}


# --- schemas -------------------------------------------------------------------------------------


def test_a_draft_declares_wide_bounds_and_finds_what_counts_up(tmp_path) -> None:
    rows = [row(i, "bad" if i % 3 == 0 else "ok", stamp=1000 + i, host=f"h{i}") for i in range(200)]
    made = draft(write_csv(tmp_path / "a.csv", rows), Choices(side=16))
    by_name = {column.name: column for column in made.schema.columns}
    assert by_name["bytes"] == Number(name="bytes", low=0, high=100, scale="linear")
    assert by_name["proto"] == Category(name="proto", values=("tcp",))
    assert set(made.schema.leaking) == {"seq", "stamp"}
    assert made.left_out == ("host",)
    assert {c.name: c.reason for c in made.columns if c.reason} == {
        "seq": "leaking: a running number",
        "stamp": "leaking: a running number",
        "host": "left out: text with more than 64 values, or very long ones",
    }
    assert dict(made.schema.reasons or ()) == dict.fromkeys(("seq", "stamp"), "a running number")
    assert made.schema.classes == ("bad", "ok")
    flows, tally = read_flows(tmp_path / "a.csv", made.schema)
    assert tally.lines() == []
    assert len(flows) == 200


def test_a_draft_needs_a_label(tmp_path) -> None:
    path = write_csv(tmp_path / "a.csv", [{"a": 1, "kind": "x"}, {"a": 2, "kind": "y"}])
    with pytest.raises(DataError, match="column of labels"):
        draft(path)
    assert draft(path, Choices(label="kind")).schema.classes == ("x", "y")
    with pytest.raises(DataError, match="the label's column `sort`"):
        draft(path, Choices(label="sort"))


def test_a_schema_is_found_by_name_or_file(tmp_path) -> None:
    assert schema_of("5gnidd") is FIVE_G_NIDD
    path = tmp_path / "schema.json"
    path.write_text(FIVE_G_NIDD.model_dump_json())
    assert schema_of(str(path)) == FIVE_G_NIDD
    path.write_text(json.dumps(FIVE_G_NIDD.model_dump() | {"flows": 500}))
    with pytest.raises(PlanError, match="`flows` should be at most 97"):
        schema_of(str(path))
    path.write_text(
        json.dumps({"format": "collabdm/plan", "flows": FIVE_G_NIDD.model_dump(mode="json")})
    )
    assert schema_of(str(path)) == FIVE_G_NIDD
    with pytest.raises(PlanError, match="one of 5gnidd, or a schema's JSON file; found 'none'"):
        schema_of("none")


# --- the plan ------------------------------------------------------------------------------------


def test_a_plan_carries_the_schema_whole(tmp_path) -> None:
    plan = new_plan(
        None, None, None, {"flows": "5gnidd", "steps": 1, "network": {"width": 8, "depth": 1}}
    )
    again = Plan.model_validate_json(json.dumps(plan.model_dump(mode="json")), strict=True)
    assert again == plan
    assert again.flows == FIVE_G_NIDD
    assert plan.classes == FIVE_G_NIDD.classes
    assert plan.pae == 1
    with pytest.raises(
        PlanError, match="the schema of `--flows` sets the classes and the image size"
    ):
        new_plan(None, "a,b", "1x8", {"flows": "5gnidd"})


def test_a_schema_of_other_classes_or_another_side_is_refused() -> None:
    image = ImageSpec(channels=1, side=8, mean=(0.5,), std=(0.25,))
    for classes, schema in (("a", "b"), tiny_schema()), (("ok", "bad"), tiny_schema(side=16)):
        with pytest.raises(PlanError, match="`flows` should have the plan's `classes`"):
            make_plan(classes, image, flows=schema)


@pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the peak of memory is read from /proc"
)
def test_memory_grows_by_the_pixels_of_a_table_and_not_by_its_text(tmp_path) -> None:
    """A table ten times as long takes less than its text more, in a process of its own."""
    write_synthetic(tmp_path / "short.csv", {"Benign": 10_000, "UDPFlood": 10_000})
    head, body = (tmp_path / "short.csv").read_bytes().split(b"\n", 1)
    (tmp_path / "long.csv").write_bytes(head + b"\n" + body * 10)
    program = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from collabdm.data.flows.built_in import FIVE_G_NIDD\n"
        "from collabdm.data.flows import chunks\n"
        "from collabdm.data.flows.tables import read_flows\n"
        "chunks.CHUNK_BYTES = 2**18\n"
        "for path in sys.argv[1:]:\n"
        "    flows, _ = read_flows(Path(path), FIVE_G_NIDD)\n"
        "    peak = re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text())\n"
        "    print(len(flows), 1024 * int(peak.group(1)))\n"
    )
    command = [
        sys.executable,
        "-c",
        program,
        str(tmp_path / "short.csv"),
        str(tmp_path / "long.csv"),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    (rows, before), (more, after) = (map(int, line.split()) for line in ran.stdout.splitlines())
    assert (rows, more) == (20_000, 200_000)
    assert after - before < 7 * len(body), (before, after, len(body))

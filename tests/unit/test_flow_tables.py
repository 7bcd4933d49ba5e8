"""Tables of flows as people have them: dialects, encodings, labels and times."""

import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError
from traffic import COLUMNS, row, tiny_schema, write_csv

from collabdm.data.flows.built_in import FIVE_G_NIDD
from collabdm.data.flows.draft import Choices, draft
from collabdm.data.flows.names import names_of
from collabdm.data.flows.tables import read_flows
from collabdm.documents.flow_schema import Category, FlowSchema, Number
from collabdm.documents.plan_file import write_plan
from collabdm.errors import DataError
from collabdm.planning.make import plan_for_flows
from collabdm.rounds.inspect import describe_file

ROWS = [row(i, "bad" if i % 3 == 0 else "ok") for i in range(30)]
LABELS = ["ok", "bad"]

CICIDS = [
    " Destination Port",
    " Flow Duration",
    " Total Fwd Packets",
    "Flow Bytes/s",
    " Flow Packets/s",
    " Fwd Header Length",
    " Bwd Header Length",
    " Fwd Header Length",
    " Label",
]


def cicids(encoding: str = "cp1252", dash: str = "\u2013") -> bytes:
    """A table with the names, the doubled column, the infinities and the dashes of CICIDS2017."""
    draw = np.random.default_rng(0)
    lines = [",".join(CICIDS)]
    for i in range(120):
        values = [f"{x:.3f}" for x in draw.lognormal(3, 1, 8)]
        values[3:5] = ["Infinity", "NaN"] if i % 10 == 0 else values[3:5]
        values[7] = values[5]
        lines.append(",".join([*values, "BENIGN" if i % 2 else f"Web Attack {dash} XSS"]))
    return ("\r\n".join(lines) + "\r\n").encode(encoding)


def levels(location: str | Path, schema: FlowSchema | None = None) -> torch.Tensor:
    return read_flows(location, schema or tiny_schema())[0].levels


# --- dialects ------------------------------------------------------------------------------------


def test_a_drafted_schema_reads_a_table_with_the_quirks_of_cicids2017(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(cicids())
    with pytest.raises(DataError, match=r"UTF-8; found 0x96 in line 2: .*cp1252"):
        draft(path)

    made = draft(path, Choices(encoding="cp1252"))
    assert made.schema.label == "Label"
    assert made.schema.classes == ("BENIGN", "Web Attack \u2013 XSS")
    names = [column.name for column in made.schema.columns]
    assert names == [name.strip() for name in CICIDS[:-2]]
    assert all(isinstance(column, Number) for column in made.schema.columns)
    assert {c.name: c.reason for c in made.columns if c.reason} == {
        "Fwd Header Length.1": "left out: the same as `Fwd Header Length`"
    }
    rates = {c.name: c.missing for c in made.columns if c.missing}
    assert rates == pytest.approx({"Flow Bytes/s": 0.1, "Flow Packets/s": 0.1})
    assert "infinite values of `Flow Bytes/s`, taken as missing: 12" in made.tally.lines()
    assert made.tally.rows == 120


def test_a_schema_with_an_encoding_reads_utf_8_and_broken_dashes_too(tmp_path) -> None:
    for name, content in (
        ("a", cicids()),
        ("b", cicids("utf-8")),
        ("c", cicids("utf-8", "\ufffd")),
    ):
        (tmp_path / f"{name}.csv").write_bytes(content)
    schema = draft(tmp_path / "a.csv", Choices(encoding="cp1252")).schema
    read = {name: read_flows(tmp_path / f"{name}.csv", schema) for name in "abc"}
    for flows, _ in read.values():
        assert torch.equal(flows.labels, read["a"][0].labels)
    said = "rows with the label 'Web Attack \ufffd XSS', read as `Web Attack \u2013 XSS`: 60"
    assert said in read["c"][1].lines()
    assert "tables read in cp1252: 1" in read["a"][1].lines()
    assert "tables read in cp1252: 1" not in read["b"][1].lines()


def test_names_are_compared_without_spaces_so_that_older_schemas_read_other_copies(
    tmp_path,
) -> None:
    schema = tiny_schema(columns=(Number(name=" dur", low=0, high=10),), leaking=(), flows=2)
    assert len(levels(write_csv(tmp_path / "a.csv", ROWS), schema)) == 30


def test_a_header_amid_the_rows_is_left_out_and_counted(tmp_path) -> None:
    path = write_csv(tmp_path / "a.csv", ROWS)
    path.write_text(path.read_text() * 3)
    flows, tally = read_flows(path, tiny_schema())
    assert len(flows) == 90
    assert tally.lines() == ["rows left out, which repeat the column names: 2"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_ends_of_lines_blank_lines_and_excels_line_of_the_separator_do_not_matter(
    tmp_path, end: str
) -> None:
    plain = levels(write_csv(tmp_path / "a.csv", ROWS))
    text = (tmp_path / "a.csv").read_text().replace(",", ";").replace("\n", end)
    (tmp_path / "b.csv").write_text(f"{end}sep=;{end}{text}{end}", newline="")
    assert torch.equal(levels(tmp_path / "b.csv"), plain)


def test_a_table_without_a_header_needs_names_and_then_reads_one_with_it_too(tmp_path) -> None:
    path = write_csv(tmp_path / "a.csv", ROWS)
    bare = tmp_path / "b.csv"
    bare.write_text(path.read_text().split("\n", 1)[1])
    with pytest.raises(DataError, match=r"looks like a row, `0.5`.*name the 5 columns"):
        draft(bare)
    with pytest.raises(DataError, match=r"as many columns as `names`, 2; found 5"):
        draft(bare, Choices(names=("a", "label")))

    names = ("dur", "bytes", "proto", "seq", "label")
    schema = draft(bare, Choices(names=names)).schema
    assert schema.names == names
    assert torch.equal(levels(bare, schema), levels(path, schema))


def test_names_come_from_a_list_a_file_or_a_table_of_features(tmp_path) -> None:
    path = tmp_path / "names"
    for text in ("a, b,c\n", "a\nb\nc\n", "No.,Name,Type\n1,a,x\n2,b,y\n3,c,z\n"):
        path.write_text(text)
        assert names_of(str(path)) == ("a", "b", "c")
    assert names_of("a,b, c") == ("a", "b", "c")


def test_texts_that_stand_for_a_missing_number_are_missing_and_a_dash_stays_a_category(
    tmp_path,
) -> None:
    texts = ("-", "?", "(empty)", "", "null", "None", "Infinity", "-inf", "NaN")
    rows = [row(i, LABELS[i % 2], dur=texts[i % 9] if i % 2 else i / 7, proto=LABELS[i % 2])
            for i in range(180)]  # fmt: skip
    rows = [r | {"proto": "-" if i % 4 == 0 else "tcp"} for i, r in enumerate(rows)]
    made = draft(write_csv(tmp_path / "a.csv", rows), Choices(keep=("dur",)))
    kinds = {column.name: column for column in made.schema.columns}
    assert isinstance(kinds["dur"], Number)
    assert kinds["proto"] == Category(name="proto", values=("-", "tcp"))
    assert next(c.missing for c in made.columns if c.name == "dur") == 0.5
    place = [c.name for c in made.schema.features].index("dur")
    assert int((levels(tmp_path / "a.csv", made.schema)[:, place] == 0).sum()) == 90

    declared = draft(tmp_path / "a.csv", Choices(missing=("-",))).schema
    assert Category(name="proto", values=("tcp",)) in declared.columns


def test_an_older_schema_still_clips_infinity_and_keeps_its_json(tmp_path) -> None:
    path = write_csv(tmp_path / "a.csv", [*ROWS, row(1, dur="inf")])
    flows, tally = read_flows(path, tiny_schema())
    assert flows.levels[-1, 0] == 255
    assert tally.lines() == ["values of `dur` outside 0 .. 10, clipped: 1"]
    new = {"missing_numbers", "encoding", "names", "empty_label", "time_format", "reasons"}
    assert not new & set(FIVE_G_NIDD.model_dump(mode="json"))
    assert "encoding" in tiny_schema(encoding="cp1252").model_dump(mode="json")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoding": "zlib"}, "`encoding` should be one of"),
        ({"empty_label": "none"}, "`empty_label` should be one of `classes`"),
        ({"time_format": "noon"}, "`time_format` should be iso"),
    ],
)
def test_a_schema_with_other_files_than_exist_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        tiny_schema(**changes)


# --- labels and times ----------------------------------------------------------------------------


def test_an_empty_label_is_a_class_if_it_has_a_name_and_is_counted_otherwise(tmp_path) -> None:
    rows = [row(i, "" if i % 3 else "worm") for i in range(60)]
    path = write_csv(tmp_path / "a.csv", rows)
    with pytest.raises(DataError, match=r"found 1, `worm` and 40 rows with an empty label"):
        draft(path)
    made = draft(path, Choices(empty_label="Normal"))
    assert made.schema.classes == ("worm", "Normal")
    assert made.tally.lines() == ["rows with an empty label, taken as `Normal`: 40"]
    assert int(read_flows(path, made.schema)[0].labels.sum()) == 40


def test_labels_that_differ_in_case_spaces_or_composition_are_one_class(tmp_path) -> None:
    names = ("Caf\u00e9", " cafe\u0301 ", "CAF\u00c9", "ok")
    path = write_csv(tmp_path / "a.csv", [row(i, names[i % 4]) for i in range(40)])
    made = draft(path)
    assert len(made.schema.classes) == 2
    assert torch.bincount(read_flows(path, made.schema)[0].labels).tolist() in ([30, 10], [10, 30])


def test_a_label_that_is_similar_to_two_classes_stays_unknown(tmp_path) -> None:
    schema = tiny_schema(classes=("ok", "OK"), merge=())
    path = write_csv(tmp_path / "a.csv", [row(0, "ok"), row(1, "Ok")])
    with pytest.raises(DataError, match="1 rows with a label that is no class of the schema, 'Ok'"):
        read_flows(path, schema)


def test_booleans_whole_floats_and_times_of_parquet_are_read(tmp_path) -> None:
    draw = np.random.default_rng(0)
    start = datetime.datetime(2020, 1, 1)
    seconds = draw.permutation(100)
    table = {
        "at": [start + datetime.timedelta(seconds=int(s)) for s in seconds],
        "x": seconds.astype(float) + draw.random(100),
        "flag": (draw.random(100) < 0.5).tolist(),
        "label": draw.integers(0, 2, 100).astype(float),
    }
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    made = draft(tmp_path / "a.parquet", Choices(time="at", keep=("x",)))
    assert made.schema.classes == ("0", "1")
    assert Category(name="flag", values=("false", "true")) in made.schema.columns
    assert dict(made.schema.reasons or ()) == {"at": "a time"}
    read = levels(tmp_path / "a.parquet", made.schema)[:, 0].int()
    assert (read.diff() >= 0).all()

    truths = pa.table({"x": table["x"], "label": pa.array(table["flag"])})
    pq.write_table(truths, tmp_path / "b.parquet")
    assert draft(tmp_path / "b.parquet").schema.classes == ("false", "true")


@pytest.mark.parametrize(
    ("written", "texts"),
    [
        ("%d/%m/%Y %H:%M", ("3/7/2017 9:05", "3/7/2017 10:00", "12/7/2017 1:00")),
        ("iso", ("2017-07-03T09:05:00.5Z", "2017-07-03 10:00:00", "2017-07-12")),
    ],
)
def test_rows_are_sorted_by_a_time_in_its_format(tmp_path, written: str, texts: tuple) -> None:
    rows = [row(100 * i, at=texts[i]) for i in (2, 0, 1)]
    path = write_csv(tmp_path / "a.csv", rows)
    schema = tiny_schema(time="at", time_format=written, keep_leaking=True)
    assert levels(path, schema)[:, 3].diff().gt(0).all()
    with pytest.raises(DataError, match=r"times in the schema's `time_format`; found 3"):
        read_flows(path, schema.model_copy(update={"time_format": "%Y"}))


def test_a_plan_of_flows_is_shown_with_a_line_for_each_column_and_equal_numbers_once(
    tmp_path,
) -> None:
    schema = tiny_schema(
        form="rows",
        flows=1,
        leaking=("", "seq"),
        columns=(Number(name="", low=0, high=1), *COLUMNS),
    )
    write_plan(plan_for_flows(schema, sites=2, steps=2), tmp_path / "plan.json")
    _, rows = describe_file(tmp_path / "plan.json")
    shown = dict(rows)
    assert [line.split(";")[0] for line in shown["flows.columns"].splitlines()] == [
        "name: ''",
        *(f"name: {column.name}" for column in COLUMNS),
    ]
    assert shown["flows.leaking"] == "'', seq"
    assert shown["flows.merge"] == "scan, bad"
    assert shown["image.mean"] == f"0.5, {schema.width} times"

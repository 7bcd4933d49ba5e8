"""Tables of flows as people have them: dialects, encodings, Zeek, compression, several files."""

import bz2
import datetime
import gzip
import json
import lzma
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from pydantic import ValidationError
from traffic import row, tiny_schema, write_csv

from collabdm.data.flows.built_in import FIVE_G_NIDD
from collabdm.data.flows.draft import Choices, draft, names_of
from collabdm.data.flows.tables import Reading, read_flows
from collabdm.documents.flow_schema import Category, FlowSchema, Number
from collabdm.errors import DataError

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

ZEEK_FIELDS = ("ts", "uid", "id.orig_h", "id.orig_p", "proto", "duration", "orig_bytes", "label")


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


def zeek_rows() -> list[list[str]]:
    """Connections as Zeek writes them; `-` is an unset value."""
    draw = np.random.default_rng(0)
    return [
        [f"{1.5e9 + i / 7:.6f}", f"C{i:04d}", f"10.0.0.{i % 7}", str(draw.integers(1024, 65535)),
         "tcp" if draw.random() < 0.5 else "udp",
         *(["-", "-"] if i % 5 == 0 else [f"{draw.lognormal():.4f}", str(draw.integers(0, 999))]),
         "Malicious" if i % 2 else "Benign"]
        for i in range(80)
    ]  # fmt: skip


def zeek_log(rows: list[list[str]]) -> str:
    head = ["#separator \\x09", "#set_separator\t,", "#empty_field\t(empty)", "#unset_field\t-"]
    head += ["#path\tconn", "\t".join(["#fields", *ZEEK_FIELDS]), "\t".join(["#types", "time"])]
    return "\n".join([*head, *("\t".join(r) for r in rows), "#close\t2020-01-01"]) + "\n"


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


# --- Zeek ----------------------------------------------------------------------------------------


def test_zeek_logs_of_both_formats_and_their_csv_give_the_same_numbers(tmp_path) -> None:
    rows = zeek_rows()
    (tmp_path / "conn.log").write_text(zeek_log(rows) + zeek_log(rows[:0]))
    objects = [{k: v for k, v in zip(ZEEK_FIELDS, r, strict=True) if v != "-"} for r in rows]
    (tmp_path / "json.log").write_text("\n".join(map(json.dumps, objects)) + "\n")
    csv = "\n".join(",".join(r) for r in [list(ZEEK_FIELDS), *rows])
    (tmp_path / "conn.csv").write_text(csv)

    made = draft(tmp_path / "conn.log")
    assert [c.name for c in made.schema.features] == ["proto", "duration", "orig_bytes"]
    assert made.tally.rows == 80
    read = [levels(tmp_path / name, made.schema) for name in ("conn.log", "json.log", "conn.csv")]
    assert torch.equal(read[0], read[1])
    assert torch.equal(read[0], read[2])
    assert int((read[0][:, 1] == 0).sum()) == 16


def test_the_labelled_logs_of_iot_23_have_spaces_between_their_last_columns(tmp_path) -> None:
    rows = zeek_rows()
    text = zeek_log(rows).replace("\torig_bytes\tlabel", "\torig_bytes   label   detailed-label")
    for label in ("Benign", "Malicious"):
        text = text.replace(f"\t{label}\n", f"   {label}   {'-' if label == 'Benign' else 'C&C'}\n")
    (tmp_path / "conn.log.labeled").write_text(text)
    made = draft(tmp_path / "conn.log.labeled")
    assert made.tally.rows == 80
    assert made.schema.classes == ("Benign", "Malicious")
    assert dict(made.schema.reasons or ())["detailed-label"].startswith("a second label")


def test_logs_of_different_columns_in_one_file_are_refused(tmp_path) -> None:
    rows = zeek_rows()
    other = zeek_log([]).replace("duration\torig_bytes", "orig_bytes\tduration")
    (tmp_path / "conn.log").write_text(zeek_log(rows) + other)
    with pytest.raises(DataError, match="different columns"):
        draft(tmp_path / "conn.log")


def test_nested_json_has_dotted_names_and_a_column_that_no_row_has_is_said(tmp_path) -> None:
    schema = tiny_schema(
        columns=(
            Number(name="flow.bytes", low=0, high=9, scale="linear"),
            Number(name="gone", low=0, high=1),
        ),
        leaking=(),
    )
    lines = [json.dumps({"flow": {"bytes": i}, "label": "ok"}) for i in range(9)]
    (tmp_path / "a.json").write_text("\n".join([*lines, "broken {"]))
    flows, tally = read_flows(tmp_path / "a.json", schema)
    assert flows.levels[:, 0].int().diff().gt(0).all()
    assert set(tally.lines()) == {
        "lines left out, which are not JSON objects: 1",
        "JSON files in which no row has `gone`, taken as missing: 1",
    }
    (tmp_path / "b.json").write_text(json.dumps([{"label": "ok"}]))
    with pytest.raises(DataError, match="found an array"):
        read_flows(tmp_path / "b.json", schema)


# --- compression, several files ------------------------------------------------------------------


def test_compressed_tables_give_the_same_pixels_whatever_their_name(tmp_path) -> None:
    path = write_csv(tmp_path / "a.csv", ROWS)
    content, plain = path.read_bytes(), levels(path)
    head, body = content.split(b"\n", 1)
    two_parts = gzip.compress(head + b"\n") + gzip.compress(body)
    for name, packed in (
        ("a.csv.gz", two_parts),
        ("b.csv", bz2.compress(content)),
        ("c.xz", lzma.compress(content)),
    ):
        (tmp_path / name).write_bytes(packed)
        assert torch.equal(levels(tmp_path / name), plain)

    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("in/a.csv", content)
        archive.writestr("__MACOSX/in/._a.csv", b"\0")
        archive.writestr("in/readme.md", b"x")
    assert torch.equal(levels(tmp_path / "a.zip"), plain)


def test_an_archive_of_several_tables_lists_them(tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.csv", b"x")
        archive.writestr("b.csv", b"x")
    with pytest.raises(DataError, match=r"contain one table; found 2: a\.csv, b\.csv: unpack it"):
        read_flows(tmp_path / "a.zip", tiny_schema())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xd4\xc3\xb2\xa1" + bytes(20), "found a capture of packets"),
        (b"\xd0\xcf\x11\xe0" + bytes(20), "found an Excel workbook"),
        (b"<!DOCTYPE html><html>", "found a web page"),
        (b"a,b\0c", "found bytes of 0"),
    ],
)
def test_files_that_are_no_tables_are_named(tmp_path, content: bytes, message: str) -> None:
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_flows(tmp_path / "a.csv", tiny_schema())


def test_a_folder_a_pattern_and_a_list_are_one_site_with_columns_in_any_order(tmp_path) -> None:
    days = tmp_path / "days"
    days.mkdir()
    for number in (2, 10, 1):
        rows = [row(number, dur=i % 9) for i in range(4)]
        ordered = [dict(sorted(r.items())) for r in rows] if number == 2 else rows
        write_csv(days / f"day{number}.csv", ordered)
    (days / "notes.md").write_text("x")
    (days / ".hidden.csv").write_text("x")

    schema = tiny_schema(keep_leaking=True)
    in_order = sorted(set(levels(days, schema)[:, 3].tolist()))
    folder, tally = read_flows(days, schema)
    assert folder.levels[::4, 3].tolist() == in_order
    assert tally.lines() == [
        "files of the folder left out, without the ending of a table: notes.md: 1"
    ]
    listed = ",".join(str(days / f"day{number}.csv") for number in (1, 2, 10))
    for location in (f"{days}/*.csv", listed):
        flows, tally = read_flows(location, schema)
        assert torch.equal(flows.levels, folder.levels)
        assert (tally.rows, tally.lines()) == (12, [])


def test_classes_of_later_files_are_in_a_draft_and_a_file_without_a_column_is_named(
    tmp_path,
) -> None:
    write_csv(tmp_path / "a.csv", [row(i, "ok") for i in range(40)])
    write_csv(tmp_path / "b.csv", [row(i, "bad") for i in range(40)])
    made = draft(tmp_path)
    assert made.schema.classes == ("bad", "ok")
    write_csv(tmp_path / "c.csv", [{"dur": 1, "label": "ok"}])
    with pytest.raises(DataError, match=r"c\.csv should have all columns of the schema; `bytes`"):
        read_flows(tmp_path, made.schema)


@pytest.mark.parametrize("name", ["none*.csv", "empty"])
def test_a_pattern_or_a_folder_without_tables_is_refused(tmp_path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"should match a file|should contain tables of flows"):
        read_flows(tmp_path / name, tiny_schema())


def test_a_live_folder_may_mix_files_with_and_without_labels(tmp_path) -> None:
    write_csv(tmp_path / "a.csv", ROWS)
    write_csv(tmp_path / "b.csv", [{k: v for k, v in r.items() if k != "label"} for r in ROWS])
    flows, _ = read_flows(tmp_path, tiny_schema(), Reading(labelled=False))
    assert flows.labels.lt(0).tolist() == [False] * 30 + [True] * 30

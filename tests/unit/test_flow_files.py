"""Tables of flows as people have them: Zeek logs, compression, several files."""

import bz2
import gzip
import json
import lzma
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from traffic import row, tiny_schema, write_csv

from collabdm.data.flows.draft import draft
from collabdm.data.flows.tables import Reading, read_flows
from collabdm.documents.flow_schema import FlowSchema, Number
from collabdm.errors import DataError

ROWS = [row(i, "bad" if i % 3 == 0 else "ok") for i in range(30)]

ZEEK_FIELDS = ("ts", "uid", "id.orig_h", "id.orig_p", "proto", "duration", "orig_bytes", "label")


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
        (b"@relation kdd\n@attribute a real\n@data\n1\n", "found an ARFF file"),
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

"""Flows are classified as they arrive: at standard input, and in a file that grows."""

import csv
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
import torch
from command import PROGRAM, done, run
from hypothesis import given, settings
from hypothesis import strategies as st
from traffic import mixed_rows, row, row_schema, tiny_schema, untrained, write_csv

from collabdm.cli.arrivals import appended, piped
from collabdm.cli.live import LiveClassifier
from collabdm.data.flows.arriving import LONGEST_LINE, ArrivingRows
from collabdm.data.flows.tables import Reading, read_flows
from collabdm.errors import DataError
from collabdm.scoring.trained_model import write_model

UNLABELLED = Reading(labelled=False)
HEAD = b"dur,bytes,proto,seq,label\n"


def arriving(schema=None) -> ArrivingRows:
    return ArrivingRows(Path("live.csv"), schema or row_schema(), UNLABELLED)


def collected(rows: ArrivingRows, *blocks: bytes):
    """The rows of all blocks, to the end of the input."""
    found = [part for block in blocks for part in rows.add(block)] + list(rows.end())
    levels = torch.cat([part.levels for part in found])
    return levels, torch.cat([part.labels for part in found])


def parts_of(content: bytes, cuts: list[int]) -> list[bytes]:
    places = sorted(cut % (len(content) + 1) for cut in cuts)
    return [content[a:b] for a, b in zip([0, *places], [*places, len(content)], strict=True)]


# --- blocks of bytes -----------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, 10_000), max_size=6), end=st.sampled_from([b"\n", b"\r\n"]))
def test_blocks_that_end_anywhere_give_the_rows_of_the_whole_table(tmp_path_factory, cuts, end):
    path = write_csv(tmp_path_factory.mktemp("live") / "a.csv", mixed_rows(40))
    content = path.read_bytes().replace(b"\n", end)
    path.write_bytes(content)
    whole, tally = read_flows(path, row_schema(), UNLABELLED)
    rows = arriving()
    levels, labels = collected(rows, *parts_of(content, cuts))
    assert torch.equal(levels, whole.levels)
    assert torch.equal(labels, whole.labels)
    assert (rows.read, +rows.counts) == (tally.rows, +tally.counts)


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_the_delimiter_is_found_on_the_first_line(tmp_path, delimiter):
    content = write_csv(tmp_path / "a.csv", mixed_rows(10), delimiter).read_bytes()
    rows = arriving()
    levels, _ = collected(rows, b"\xef\xbb\xbf" + content[:7], content[7:])
    assert len(levels) == 10
    assert any("columns separated by" in line for line in rows.tally.lines())


def test_a_row_without_its_newline_waits_for_it():
    rows = arriving()
    (first,) = rows.add(HEAD + b"1,2,tcp,3,ok\n1,2,t")
    assert first.labels.tolist() == [0]
    assert rows.unfinished
    assert not list(rows.add(b"cp,4"))
    (found,) = rows.add(b",bad\n")
    assert found.labels.tolist() == [1]
    assert not rows.unfinished


def test_rows_that_cannot_be_read_are_left_out_and_counted():
    rows = arriving()
    wrong = b'1,2,tcp\n1,2,\xff\xfe,3,ok\n"1,2,tcp,3,ok\n' + HEAD
    levels, _ = collected(rows, HEAD + b"1,2,tcp,3,ok\n" + wrong + b"1,2,udp,3,bad\n")
    assert 1 <= len(levels) <= 2  # an open quote may take the next row with it
    lines = rows.tally.lines()
    assert "rows left out, which cannot be read: bytes that are not UTF-8: 1" in lines
    assert any("another number of fields than 5" in line for line in lines)


def test_rows_in_the_encoding_of_the_schema_are_read():
    schema = row_schema(encoding="cp1252", merge=(("böse", "bad"),))
    line = "1,2,tcp,3,böse\n".encode("cp1252")
    rows = arriving(schema)
    _, labels = collected(rows, HEAD + line, line, "1,2,tcp,3,böse\n".encode())
    assert labels.tolist() == [1, 1, 1]


def test_declared_names_replace_a_line_of_names():
    schema = row_schema(names=("dur", "bytes", "proto", "seq", "label"))
    levels, labels = collected(arriving(schema), b"1,2,tcp,3,ok\n", b"1,2,tcp,4,bad\n")
    assert (len(levels), labels.tolist()) == (2, [0, 1])


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\x1f\x8b\x08\x00", "compressed with gzip"),
        (b"PAR1", "a parquet file"),
        (b'{"dur": 1}\n', "JSON"),
        (b"#separator \\x09\n", "a Zeek log"),
        (b"\xff\xfed\x00", "text in UTF-16"),
        (b"d\x00u\x00", "bytes of 0"),
    ],
)
def test_other_kinds_of_files_are_refused_as_they_arrive(content, kind):
    with pytest.raises(DataError, match=f"should be CSV text .* found .*{kind}"):
        list(arriving().add(content))


def test_an_endless_line_a_missing_column_and_an_empty_input_are_refused():
    with pytest.raises(DataError, match="lines of at most"):
        list(arriving().add(b"x" * (LONGEST_LINE + 1)))
    with pytest.raises(DataError, match=r"live.csv should have all columns .* `proto` missing"):
        list(arriving().add(b"dur,bytes\n1,2\n"))
    with pytest.raises(DataError, match="found an empty file"):
        list(arriving().end())


def test_text_in_most_rows_of_a_numeric_column_is_refused_after_a_thousand_rows():
    rows = arriving()
    with pytest.raises(DataError, match="should contain numbers where"):
        list(rows.add(HEAD + b"many,2,tcp,3,ok\n" * 1001))


# --- pipes and files -----------------------------------------------------------------------------


def test_a_pipe_is_read_to_its_end():
    source, sink = os.pipe()
    os.write(sink, b"one")
    os.close(sink)
    assert b"".join(piped(source, lambda: False)) == b"one"
    os.close(source)


def test_waiting_for_a_silent_pipe_ends_when_asked_to():
    source, sink = os.pipe()
    looks = iter([False, False, True])
    assert list(piped(source, lambda: next(looks))) == []
    os.close(source)
    os.close(sink)


def test_a_file_is_followed_as_it_grows(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"one")
    blocks = appended(path, lambda: False)
    assert next(blocks) == b"one"

    def append() -> None:
        with path.open("ab") as file:
            file.write(b"two")

    later = threading.Timer(0.3, append)
    later.start()
    assert next(blocks) == b"two"
    later.join()
    blocks.close()


@pytest.mark.parametrize("change", ["shortened", "replaced", "removed"])
def test_a_followed_file_that_does_not_only_grow_is_refused(tmp_path, change):
    path = tmp_path / "a.csv"
    path.write_bytes(b"one")
    blocks = appended(path, lambda: False)
    assert next(blocks) == b"one"
    if change == "shortened":
        path.write_bytes(b"")
    elif change == "replaced":
        (tmp_path / "b").write_bytes(b"longer than before")
        (tmp_path / "b").rename(path)
    else:
        path.unlink()
    with pytest.raises(DataError, match=f"should only grow while it is followed; it was {change}"):
        next(blocks)


def test_what_is_not_a_file_cannot_be_followed(tmp_path):
    with pytest.raises(DataError, match="should be a file that can be followed"):
        next(appended(tmp_path / "absent", lambda: False))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(DataError, match="a FIFO"):
        next(appended(tmp_path / "fifo", lambda: False))


# --- the command ---------------------------------------------------------------------------------


def program(*arguments: object, stdin: int) -> subprocess.Popen[bytes]:
    """The command in a process of its own."""
    return subprocess.Popen(
        [*PROGRAM, "classify", *map(str, arguments)],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def verdicts_in(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def until(true, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def model(tmp_path) -> Path:
    write_model(untrained(row_schema()), tmp_path / "model")
    return tmp_path / "model"


def test_every_flow_of_a_table_gets_a_verdict_and_the_labels_a_matrix(tmp_path, model):
    table = write_csv(tmp_path / "flows.csv", mixed_rows(30))
    result = done("classify", model, table, "-o", tmp_path / "out.csv", "-q")
    lines = verdicts_in(tmp_path / "out.csv")
    assert [line["row"] for line in lines] == [str(i) for i in range(30)]
    assert [line["true_class"] for line in lines] == ["bad" if i % 3 else "ok" for i in range(30)]
    assert {line["class"] for line in lines} == {"ok", "bad"}
    assert all(0.5 <= float(line["confidence"]) <= 1 for line in lines)
    assert "30 flows" in result.out
    assert "Against the labels" in result.out
    assert "windows" not in result.out


def test_verdicts_keep_the_order_of_the_file_though_the_schema_names_a_time(tmp_path):
    write_model(untrained(row_schema(time="seq")), tmp_path / "model")
    rows = mixed_rows(20)
    forwards = write_csv(tmp_path / "a.csv", rows)
    backwards = write_csv(tmp_path / "b.csv", rows[::-1])
    verdicts = []
    for table in (forwards, backwards):
        done("classify", tmp_path / "model", table, "-o", tmp_path / "out", "-q")
        verdicts.append([list(line.values())[1:] for line in verdicts_in(tmp_path / "out")])
    assert verdicts[0] == verdicts[1][::-1]


def test_standard_input_gives_the_verdicts_of_the_whole_file(tmp_path, model):
    table = write_csv(tmp_path / "flows.csv", [*mixed_rows(3000), row(1, label="odd")])
    done("classify", model, table, "-o", tmp_path / "whole.csv", "-q")
    with table.open("rb") as stdin:
        process = program(model, "-", stdin=stdin.fileno())
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0
    whole = verdicts_in(tmp_path / "whole.csv")
    live = list(csv.DictReader(out.decode().splitlines()))
    for column in ("row", "class", "true_class"):
        assert [line[column] for line in live] == [line[column] for line in whole]
    assert [float(line["confidence"]) for line in live] == pytest.approx(
        [float(line["confidence"]) for line in whole], abs=2e-4
    )
    assert "3,001 flows in" in err.decode()
    assert "rows with a label that is no class of the schema, 'odd': 1" in err.decode()


def test_a_growing_file_is_classified_until_ctrl_c_which_keeps_the_verdicts(tmp_path, model):
    table, output = tmp_path / "flows.csv", tmp_path / "out.csv"
    table.write_bytes(HEAD + b"1,2,tcp,3,ok\n")
    process = program(model, table, "--follow", "-o", output, stdin=subprocess.DEVNULL)
    until(lambda: output.exists() and output.read_text().count("\n") == 2)
    with table.open("ab") as file:
        file.write(b"1,2,udp,4,bad\n1,2,ud")
    until(lambda: output.read_text().count("\n") == 3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert output.read_text().count("\n") == 3
    assert "2 flows in" in err.decode()
    assert "the last line was not read: it has no newline yet" in err.decode()
    assert "resumes the work" not in err.decode()


def test_windows_of_rows_are_classified_as_they_arrive(tmp_path):
    schema = tiny_schema(grouping="stream")
    rows = ArrivingRows(Path("a"), schema, UNLABELLED)
    classifier = LiveClassifier(untrained(schema), schema)
    lines = b"".join(b"1,%d,tcp,3,ok\n" % i for i in range(7))
    found = "".join(
        classifier.lines(part)
        for block in parts_of(HEAD + lines, [40, 41, 70])
        for part in rows.add(block)
    )
    places = [line.split(",")[:2] for line in found.splitlines()]
    assert places == [["0", "1"], ["2", "3"], ["4", "5"]]
    assert int(classifier.verdicts.predicted.sum()) == 3


def test_options_that_need_all_rows_are_refused_for_rows_as_they_arrive(model):
    for options, message in (
        (("--held-out",), "`--held-out` needs a whole table"),
        (("--grouping", "class"), "`--grouping class` needs a whole table"),
        (("--follow",), "`--follow` needs a file"),
        (("--json", "-"), "`--json -` needs `-o`"),
    ):
        result = run("classify", model, "-", *options)
        assert result.code == 2
        assert message in result.err

"""Columns of a table of flows that give the label away, and those that only predict it."""

import csv
from pathlib import Path

import numpy as np
import pytest

from collabdm.data.flows.alone import score, splits_of
from collabdm.data.flows.draft import Choices, Draft, draft

ROWS = 600
KINDS = ("normal", "ddos", "scanning", "xss")


def table(path: Path, **columns: object) -> Path:
    """A CSV file of noise, of labels of four kinds (`y`), and of further columns."""
    draw = np.random.default_rng(0)
    noise = {f"noise{k}": [f"{x:.4f}" for x in draw.lognormal(3, 1, ROWS)] for k in range(2)}
    cells = noise | {name: list(values) for name, values in columns.items()}  # type: ignore[call-overload]
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(cells)
        writer.writerows(zip(*cells.values(), strict=True))
    return path


@pytest.fixture
def y() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 4, ROWS)


def reasons(made: Draft) -> dict[str, str]:
    return {c.name: c.reason.removeprefix("leaking: ") for c in made.columns if c.reason}


def test_the_second_label_of_unsw_nb15_is_left_out_and_the_rest_is_noise(tmp_path, y) -> None:
    path = table(
        tmp_path / "a.csv",
        id=np.random.default_rng(2).permutation(ROWS),
        attack_cat=[KINDS[k] for k in y],
        label=(y > 0).astype(int),
    )
    made = draft(path)
    assert made.schema.label == "attack_cat"
    assert reasons(made) == {"id": "a running number", "label": "a second label, by its name"}
    assert [c.name for c in made.schema.features] == ["noise0", "noise1"]
    used = [c.score for c in made.columns if c.reason is None]
    assert used == pytest.approx([made.chance] * 2, abs=0.07)


def test_addresses_source_ports_times_and_the_type_of_ton_iot_are_left_out(tmp_path, y) -> None:
    draw = np.random.default_rng(2)
    hosts = [f"192.168.1.{k}" for k in draw.integers(1, 9, ROWS)]
    path = table(
        tmp_path / "a.csv",
        ts=draw.integers(1_554_000_000, 1_555_000_000, ROWS),
        src_ip=hosts,
        src_port=draw.integers(1024, 65535, ROWS),
        mac=["aa:bb:cc:00:11:0" + h[-1] for h in hosts],
        dst_port=draw.choice([53, 80, 443], ROWS),
        label=(y > 0).astype(int),
        type=[KINDS[k] for k in y],
    )
    made = draft(path)
    assert made.schema.label == "label"
    assert reasons(made) == {
        "ts": "a time",
        "src_ip": "addresses",
        "src_port": "a port that a host draws for each connection",
        "mac": "addresses",
        "type": "a second label, by its name",
    }
    assert next(c.score for c in made.columns if c.name == "type") == 1


def test_a_port_that_occurs_at_one_host_each_identifies_it(tmp_path, y) -> None:
    draw = np.random.default_rng(2)
    host = draw.integers(0, 3, ROWS)
    columns = {"dst_ip": [f"10.0.0.{k}" for k in host], "label": (y > 0).astype(int)}
    own = draft(table(tmp_path / "a.csv", dst_port=np.array([22, 80, 8080])[host], **columns))
    assert reasons(own)["dst_port"] == "a port that identifies a host"
    shared = draft(table(tmp_path / "b.csv", dst_port=draw.choice([22, 80], ROWS), **columns))
    assert "dst_port" not in reasons(shared)


def test_a_second_label_is_found_under_any_name(tmp_path, y) -> None:
    coded = np.array([7, 3, 3, 9])[y]
    fine = [f"{k}{i % 3}" for i, k in enumerate(y)]
    path = table(tmp_path / "a.csv", label=[KINDS[k] for k in y], zz=coded, ww=fine)
    found = reasons(draft(path))
    assert set(found) == {"zz", "ww"}
    assert set(found.values()) == {"a second label: its values belong to classes"}


def test_columns_that_predict_the_label_are_kept_and_their_score_is_shown(tmp_path, y) -> None:
    draw = np.random.default_rng(2)
    path = table(
        tmp_path / "a.csv",
        label=[KINDS[k] for k in y],
        rate=10.0 * y + draw.random(ROWS),
        proto=np.array(["tcp", "udp", "icmp", "gre"])[y],
        mostly=np.where(draw.random(ROWS) < 0.9, y, 0),
    )
    made = draft(path)
    assert reasons(made) == {}
    scores = {c.name: c.score for c in made.columns}
    assert min(scores["rate"], scores["proto"]) > 0.98
    assert 0.8 < scores["mostly"] < 1


def test_a_person_keeps_a_leaking_column_and_leaves_out_another(tmp_path, y) -> None:
    path = table(tmp_path / "a.csv", label=(y > 0).astype(int), ts=np.arange(ROWS) + 1.5e9)
    made = draft(path, Choices(keep=("ts",), leave_out=("noise0",)))
    assert [c.name for c in made.schema.features] == ["noise1", "ts"]
    assert reasons(made) == {"noise0": "left out: as requested"}


def test_a_number_that_counts_up_is_found_in_captures_that_follow_each_other(tmp_path, y) -> None:
    counts = np.concatenate([np.arange(200) * 7 % 10_000 + 31 * k for k in range(3)])
    path = table(tmp_path / "a.csv", label=(y > 0).astype(int), tick=counts + y / 10)
    assert reasons(draft(path)) == {"tick": "a running number"}


def test_the_score_of_a_running_number_is_neither_good_nor_bad_by_accident() -> None:
    draw = np.random.default_rng(0)
    mixed, running = draw.integers(0, 2, 2000), np.arange(2000)
    assert score(running, mixed, splits_of(mixed)) == pytest.approx(0.5, abs=0.07)
    in_campaigns = np.arange(2000) // 500 % 2
    assert score(running, in_campaigns, splits_of(in_campaigns)) > 0.95


def test_the_columns_of_5g_nidd_that_count_are_marked(real_data) -> None:
    made = draft(real_data / "flows" / "5gnidd_subset.parquet")
    marked = {"row_in_bts_csv", "Seq", "Offset", "SrcTCPBase", "DstTCPBase", "sVid", "dVid"}
    assert set(reasons(made)) == marked | {"Label", "BaseStation"}
    assert made.tally.lines() == []

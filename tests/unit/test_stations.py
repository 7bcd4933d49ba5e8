"""Tables of several stations in simulations, the demonstration with traffic, small images."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from traffic import row, tiny_schema, write_csv

from collabdm.data.flows.built_in import FIVE_G_NIDD
from collabdm.data.flows.dialect import Rules
from collabdm.data.flows.images import load_flows
from collabdm.data.flows.stations import stations, table_path, values_of
from collabdm.data.flows.synthetic import PUBLISHED_COUNTS
from collabdm.data.flows.tables import Reading
from collabdm.documents.outcome_files import read_distilled
from collabdm.errors import DataError, PlanError
from collabdm.images import pool
from collabdm.lab import demo
from collabdm.lab.experiment import Experiment
from collabdm.lab.reproduce.reuse import site_settings
from collabdm.lab.round_data import load_round_data
from collabdm.lab.settings import experiment_of, simulation
from collabdm.lab.simulate import plan_of, simulate
from collabdm.methods.registry import METHODS
from collabdm.planning.make import with_rates
from collabdm.planning.settings import new_plan

SCHEMA = tiny_schema(split="time", block=2, held_out=3)
PLAN = {
    "ipc": 1,
    "steps": 2,
    "batch": 4,
    "network": {"width": 8, "depth": 1},
    "local": {"steps": 2, "batch": 4},
}


def rows_of(station: str, first: int) -> list[dict[str, object]]:
    return [
        row(i, "bad" if i % 5 == 0 else "ok", station=station) for i in range(first, first + 90)
    ]


@pytest.fixture
def two_files(tmp_path) -> str:
    north, south = (
        write_csv(tmp_path / f"{n}.csv", rows_of(n, k)) for n, k in (("north", 0), ("south", 7))
    )
    return f"{north}, {south}"


def experiment(data: str, **changes: Any) -> Experiment:
    settings: dict[str, Any] = {
        "method": "collabdm",
        "trials": 1,
        "recipe": "short",
        "epochs": 1,
        "compare": (),
    }
    return Experiment(data=data, flows=SCHEMA, plan=PLAN, **settings | changes)


# --- sites ---------------------------------------------------------------------------------------


def test_every_file_is_a_site_with_its_own_windows(two_files) -> None:
    found = stations(two_files, SCHEMA)
    assert found.split is not None
    assert found.split.names == ("north", "south")
    for path, held in zip(
        two_files.split(", "), found.split.sites(found.train).values(), strict=True
    ):
        alone = load_flows(Path(path), SCHEMA)
        assert torch.equal(held.images, alone.images)
        assert torch.equal(held.labels, alone.labels)
    tests = pool([load_flows(Path(path), SCHEMA, "test") for path in two_files.split(", ")])
    assert torch.equal(found.test.images, tests.images)


def test_the_values_of_a_column_are_sites_and_no_window_mixes_them(tmp_path) -> None:
    mixed = [r for pair in zip(rows_of(" 1", 0), rows_of("2", 50), strict=True) for r in pair]
    path = write_csv(tmp_path / "both.csv", [*mixed, row(1, station="")])
    assert values_of(path, "station", Rules.of(SCHEMA)) == ["1", "2"]
    found = stations(str(path), SCHEMA, "station")
    assert found.split is not None
    for name, held in found.split.sites(found.train).items():
        alone = load_flows(path, SCHEMA, reading=Reading(("station", name)))
        assert torch.equal(held.images, alone.images)


def test_only_the_values_that_are_named_are_sites_and_the_other_rows_are_nowhere(
    tmp_path, caplog
) -> None:
    path = write_csv(tmp_path / "three.csv", [*rows_of("1", 0), *rows_of("2", 7), *rows_of("3", 9)])
    chosen, whole = (
        stations(str(path), SCHEMA, "station=3, 1"),
        stations(str(path), SCHEMA, "station"),
    )
    assert chosen.split is not None
    assert whole.split is not None
    assert chosen.split.names == ("1", "3")
    held, all_held = chosen.split.sites(chosen.train), whole.split.sites(whole.train)
    for name in ("1", "3"):
        assert torch.equal(held[name].images, all_held[name].images)
    assert len(chosen.test) < len(whole.test)
    assert not caplog.text


def test_a_table_that_does_not_exist_is_looked_for_in_the_data_folder(
    tmp_path, monkeypatch
) -> None:
    (tmp_path / "data" / "flows").mkdir(parents=True)
    write_csv(tmp_path / "data" / "flows" / "a.csv", rows_of("a", 0))
    monkeypatch.setenv("COLLABDM_DATA", str(tmp_path / "data"))
    assert len(stations("flows/a.csv", SCHEMA).train)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flows").mkdir()
    write_csv(tmp_path / "flows" / "a.csv", rows_of("a", 0)[:60])
    assert table_path("flows/a.csv") == Path(
        "flows/a.csv"
    )  # what is there as it is said goes first
    with pytest.raises(
        DataError,
        match=r"flows/b\.csv should be a table of flows; it does not exist, nor in COLLABDM_DATA",
    ):
        stations("flows/b.csv", SCHEMA)
    monkeypatch.delenv("COLLABDM_DATA")
    with pytest.raises(DataError, match="COLLABDM_DATA names no folder"):
        stations("flows/b.csv", SCHEMA)


def test_a_random_split_depends_on_the_seed(two_files) -> None:
    schema = SCHEMA.model_copy(update={"split": "random"})
    first, again, other = (
        stations(two_files, schema, seed=seed).train.images for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_files_of_one_name_are_named_after_their_folders(tmp_path) -> None:
    for name in ("east", "west"):
        (tmp_path / name).mkdir()
        write_csv(tmp_path / name / "flows.csv", rows_of(name, 0))
    found = stations(
        ",".join(str(tmp_path / name / "flows.csv") for name in ("west", "east")), SCHEMA
    )
    assert found.split is not None
    assert found.split.names == ("east", "west")


def test_one_table_without_a_column_is_left_to_the_split(two_files) -> None:
    assert stations(two_files.split(",")[0], SCHEMA).split is None


def test_what_is_wrong_in_a_stations_table_is_logged(tmp_path, caplog) -> None:
    path = write_csv(tmp_path / "a.csv", [*rows_of("a", 0), row(1, bytes=1000, station="a")])
    stations(str(path), SCHEMA)
    assert "values of `bytes` outside 0 .. 100, clipped: 1" in caplog.text


@pytest.mark.parametrize(
    ("data", "column", "message"),
    [
        ("{0},{0}", None, "files or folders differ in name"),
        ("", None, "files or folders differ in name"),
        ("{0},{1}", "station", "should be used with one table; found 2"),
        ("{0}", "place", "`place` missing"),
        ("{0}", "station=", "should be NAME, or NAME=VALUE,VALUE; found 'station='"),
        ("{0}", "station=north,west", "should contain north, west; found no west in it"),
        ("{0}", "seq", "at most 5 sites; found `0`, `1`"),
        ("{2}", None, "images of 2 rows for training and for the test; found 3 and 0"),
    ],
)
def test_tables_that_are_no_sites_are_refused(
    tmp_path, two_files, monkeypatch, data, column, message
) -> None:
    monkeypatch.setattr("collabdm.data.flows.stations.MOST_STATIONS", 5)
    short = write_csv(tmp_path / "short.csv", rows_of("s", 0)[:6])
    with pytest.raises(DataError, match=message):
        stations(
            data.format(*(path.strip() for path in two_files.split(",")), short), SCHEMA, column
        )


# --- simulate ------------------------------------------------------------------------------------


def test_a_round_of_two_tables_is_simulated_through_files(two_files, tmp_path) -> None:
    results = simulate(experiment(two_files, compare=("random", "sites", "all")), tmp_path / "sim")
    made = read_distilled(tmp_path / "sim" / "distilled.safetensors")
    assert made.plan.flows == SCHEMA
    assert (made.plan.augment, made.plan.pae) == ((), 1)
    assert set(made.sites) == {"north", "south"}
    assert [score.what for score in results.scores] == [
        *("collabdm", "random real", "north alone", "south alone", "all the data"),
    ]
    simulate(
        experiment(two_files, compare=("random", "sites", "all")), tmp_path / "sim"
    )  # it goes on


def test_the_sites_of_one_table_are_drawn_by_dirichlet(two_files) -> None:
    asked = experiment(two_files.split(",")[0], sites=3, beta=0.5, per_class=3)
    data = load_round_data(asked)
    assert data.train.counts().tolist() == [3, 3]
    assert len(data.split.names) == 3


def test_settings_that_do_not_go_with_tables_are_refused(two_files) -> None:
    with pytest.raises(PlanError, match="should be used without `per_class` and `partition`"):
        load_round_data(experiment(two_files, per_class=3))
    with pytest.raises(ValidationError, match="`side` should be left to the schema"):
        experiment(two_files, side=16)
    with pytest.raises(ValidationError, match="`plan` should leave flows to the simulation"):
        Experiment(data=two_files, plan={"flows": SCHEMA})


def test_an_experiment_without_tables_keeps_its_digest() -> None:
    assert "flows" not in Experiment(data="digits").model_dump(mode="json")


def test_a_rate_of_ones_own_replaces_the_recipes_and_an_experiment_without_keeps_its_digest() -> (
    None
):
    plain, own = (
        Experiment(data="digits", recipe="short"),
        Experiment(data="digits", recipe="short", learning_rate=0.5),
    )
    assert (plain.evaluation().recipe.learning_rate, own.evaluation().recipe.learning_rate) == (
        0.02,
        0.5,
    )
    assert "learning_rate" not in plain.model_dump(mode="json")
    assert plain.digest != own.digest
    assert site_settings(plain) == site_settings(own)


def test_a_simulation_takes_a_schema_by_name_and_then_the_method_without_pae(two_files) -> None:
    made = simulation(None, None, {"data": two_files, "flows": "5gnidd"}, {})
    assert (made.flows, made.method) == (FIVE_G_NIDD, "collabdm")
    assert Experiment.model_validate(made.model_dump(mode="json")) == made


def test_a_schema_in_settings_may_be_another_with_changes(two_files) -> None:
    flows = {"schema": "5gnidd", "flows": 5, "side": 16, "layout": "rows"}
    made = experiment_of({"data": two_files, "flows": flows})
    assert made.flows == FIVE_G_NIDD.model_copy(update={"flows": 5, "side": 16, "layout": "rows"})
    assert experiment_of(made.model_dump(mode="json")) == made
    assert new_plan(None, None, None, {"flows": flows}).flows == made.flows
    with pytest.raises(PlanError, match="`flows` should be at most 1"):
        experiment_of({"data": two_files, "flows": {"schema": "5gnidd", "side": 8}})


def test_the_demonstration_writes_synthetic_traffic_that_differs_between_stations(tmp_path) -> None:
    asked = demo.traffic(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "synthetic-north.csv",
        "synthetic-south.csv",
    ]
    held = load_round_data(asked)
    north, south = held.split.counts(held.train).tolist()
    assert (north[1], south[2]) == (0, 0)
    assert min(held.test.counts()) > 0
    assert {label for labels in demo.STATIONS.values() for label in labels} < set(PUBLISHED_COUNTS)


# --- small images --------------------------------------------------------------------------------


def test_rates_of_small_images_are_filled_in_only_if_none_are_given() -> None:
    assert with_rates({"local": {"steps": 3}}, (1, 32, 32)) == {"local": {"steps": 3}}
    assert with_rates({"local": {"steps": 3}}, (1, 16, 16)) == {
        "local": {"steps": 3, "matching": {"learning_rate": 0.2}},
        "refinement": {"matching": {"learning_rate": 1.0}},
    }
    said = {
        "local": {"steps": 3, "matching": {"learning_rate": 5.0}},
        "refinement": {"matching": {"momentum": 0.1}},
    }
    assert with_rates(said, (1, 8, 8)) == {
        "local": said["local"],
        "refinement": {"matching": {"momentum": 0.1, "learning_rate": 1.0}},
    }
    adam = {"matching": {"optimiser": "adam"}}
    assert with_rates({"refinement": adam}, (1, 8, 8))["refinement"] == {"passes": 16} | adam


@pytest.mark.parametrize(
    ("channels", "side", "rate"), [(1, 8, 3.0), (3, 23, 3.0), (1, 28, 10.0), (3, 24, 30.0)]
)
def test_a_rate_that_falls_suits_the_size_and_the_colours(channels, side, rate) -> None:
    shape, falls = (channels, side, side), {"refinement": {"matching": {"schedule": "cosine"}}}
    matching = with_rates(falls, shape)["refinement"]["matching"]
    assert matching == {"schedule": "cosine", "learning_rate": rate}
    assert with_rates({}, shape)["refinement"] == {"passes": 16, "matching": matching}


def test_a_plan_asks_for_averages_unless_it_says_otherwise_and_refines_them_for_longer() -> None:
    network = {"network": {"width": 8, "depth": 1}, "steps": 1}
    plan = new_plan(None, "a,b", "1x8", network)
    assert (plan.local.method, plan.local.images_sent) == ("averages", 10)
    assert (plan.refinement.passes, plan.refinement.matching.schedule) == (16, "cosine")
    own = new_plan(None, "a,b", "1x8", network | {"refinement": {"passes": 2}})
    assert (own.refinement.passes, own.refinement.matching.schedule) == (2, "cosine")


def test_a_plan_gets_the_rates_of_its_images() -> None:
    network = {"network": {"width": 8, "depth": 1}, "steps": 1, "local": {"steps": 2}}
    rates = {
        size: [new_plan(None, "a,b", f"1x{size}", dict(network)).refinement.matching.learning_rate,
               new_plan(None, "a,b", f"1x{size}", dict(network)).local.matching.learning_rate]
        for size in (8, 16, 28, 32)
    }  # fmt: skip
    assert rates == {8: [1.0, 0.2], 16: [1.0, 0.2], 28: [10.0, 1.0], 32: [10.0, 1.0]}


def test_a_simulation_gets_them_too(two_files) -> None:
    asked = simulation(None, "real", {"data": two_files, "flows": "5gnidd"}, {}).model_copy(
        update={"flows": SCHEMA}
    )
    plan = plan_of(asked, METHODS["collabdm"], load_round_data(asked))
    assert plan.refinement.matching.learning_rate == 1.0
    assert json.loads(plan.model_dump_json())["local"]["matching"]["learning_rate"] == 0.2

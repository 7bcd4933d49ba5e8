"""The round over Flower in one process: the bytes of the files, and no fault loses anything."""

import json
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("flwr", reason="flwr is not installed: pip install 'collabdm[flower]'")

from command import OPEN as OPEN_FILE
from flwr.app import ArrayRecord, ConfigRecord, Message, RecordDict
from in_process import Hours, InProcess, Node, data_node, failing, saying, site_node
from tiny import GREY, OPEN, tiny_data, tiny_plan
from traffic import row, tiny_schema, write_csv

from collabdm.documents.contribution_file import contribution_bytes
from collabdm.documents.outcome_files import read_distilled
from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import plan_bytes, write_plan
from collabdm.errors import DocumentError, PlanError
from collabdm.flower import collecting
from collabdm.flower.collecting import Collected, CollectionError, collect, contribution_path
from collabdm.flower.server import outcome_path, serve
from collabdm.flower.settings import SettingsError
from collabdm.flower.wire import (
    BYTES,
    DOCUMENT,
    HEADER,
    Answer,
    answer_content,
    plan_content,
    read_answer,
    read_question,
)
from collabdm.images import ImageSet
from collabdm.matching.run_context import RunContext
from collabdm.methods.collabdm import contribute
from collabdm.methods.registry import METHODS
from collabdm.privacy.site_secret import secret_seed
from collabdm.rounds.contributions import ContributionFiles, read_contribution
from collabdm.rounds.exchange import Site, contribute_file, distill_files, prepare_site
from collabdm.scoring.distilled_model_file import read_distilled_model

SITES = ("east", "north", "south", "west")
DEADLINE = 100.0


def a_plan(quorum: int = 3, **settings: object) -> Plan:
    collection = {"quorum": quorum, "deadline": DEADLINE}
    return tiny_plan(sites=4, site_names=SITES, collection=collection, **settings)


PLAN = a_plan()
DENSE = {
    "local": {"epochs": 1, "batch": 4},
    "epochs": 1,
    "batch": 8,
    "generator": {"batch": 8, "steps": 1, "noise": 4},
}


def held_by(site: str) -> ImageSet:
    return tiny_data((5, 4, 3 + SITES.index(site)), seed=SITES.index(site))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for site in SITES:
        held = held_by(site)
        np.savez(
            folder / f"{site}.npz",
            images=held.images.numpy(),
            labels=held.labels.numpy(),
            classes=held.classes,
        )
    return folder


@pytest.fixture(scope="module")
def by_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same round between folders."""
    folder = tmp_path_factory.mktemp("by-file")
    for site in SITES:
        contribute_file(
            prepare_site(PLAN, held_by(site), Site(site, OPEN)),
            contribution_path(folder, site),
            RunContext(),
        )
    sent = ContributionFiles(PLAN, [contribution_path(folder, site) for site in SITES])
    distill_files(PLAN, sent, outcome_path(PLAN, folder), RunContext())
    return folder


def honest(data: Path) -> dict[int, Node]:
    return {100 + k: data_node(site, data) for k, site in enumerate(SITES)}


def content_of(site: str, plan: Plan = PLAN) -> bytes:
    """The contribution that an honest node sends, with the secret draws of this machine."""
    context = RunContext(site_seed=secret_seed(plan.digest, site))
    return contribution_bytes(contribute(plan, held_by(site), site, context))


def gather(grid: InProcess, folder: Path, plan: Plan = PLAN) -> Collected:
    return collect(plan, folder, grid, grid.hours.clock)


def settings(folder: Path, plan: Plan = PLAN, **more: object) -> dict[str, object]:
    write_plan(plan, folder / "given.json")
    return {
        "plan": str(folder / "given.json"),
        "folder": str(folder / "round"),
        "device": "cpu",
    } | {
        "precision": "float32",
        **more,
    }


# --- the same documents --------------------------------------------------------------------------


def test_what_came_by_flower_is_what_came_by_file_to_the_byte(data, by_file, tmp_path) -> None:
    grid = InProcess(honest(data))
    outcome = serve(grid, settings(tmp_path), grid.hours.clock)
    folder = tmp_path / "round"
    assert (outcome.state, outcome.came, outcome.missing, outcome.notes) == (
        "complete",
        SITES,
        (),
        (),
    )
    for site in SITES:
        assert (
            contribution_path(folder, site).read_bytes()
            == contribution_path(by_file, site).read_bytes()
        )
    assert outcome_path(PLAN, folder).read_bytes() == outcome_path(PLAN, by_file).read_bytes()
    assert json.loads((folder / "collection.json").read_text())["state"] == "complete"
    assert grid.hours.seconds == 0


def test_the_log_of_the_server_compares_the_sites_printably(data, tmp_path, caplog) -> None:
    caplog.set_level(logging.INFO, "flwr.collabdm")
    grid = InProcess(honest(data) | {999: saying("\x1b[31mevil", b"nothing")})
    serve(grid, settings(tmp_path, distill=False), grid.hours.clock)
    for site in SITES:
        assert f"{site}: {sum(held_by(site).counts().tolist())} images, distance" in caplog.text
    assert "\x1b" not in caplog.text


def test_files_may_be_left_for_later(data, tmp_path) -> None:
    grid = InProcess(honest(data))
    serve(grid, settings(tmp_path, distill=False), grid.hours.clock)
    assert {path.name for path in (tmp_path / "round").iterdir()} == {
        "plan.json",
        "contributions",
        "collection.json",
    }


def test_a_node_that_appears_later_is_asked(data, tmp_path) -> None:
    nodes = honest(data)
    late = {103: nodes.pop(103)}
    grid = InProcess(nodes)
    grid.before_pull = lambda: grid.nodes.update(late)
    assert gather(grid, tmp_path).state == "complete"
    assert sorted(grid.asked) == [100, 101, 102, 103]


def test_question_and_answer_are_read_as_they_were_written() -> None:
    question = Message(plan_content(b"a plan", ["north"]), 5, "query.contribute")
    assert read_question(question) == (b"a plan", ["north"])
    for answer in (Answer("north", b"\0\1"), Answer("north", None, "no"), Answer("north")):
        assert read_answer(Message(answer_content(answer), 5, "query.contribute"), 2) == answer


def test_nodes_of_a_simulation_find_their_data_by_their_number(data, tmp_path, monkeypatch) -> None:
    plan = tiny_plan(sites=2)
    for site, number in (("north", 1), ("south", 2)):
        (tmp_path / f"site-{number}.npz").write_bytes((data / f"{site}.npz").read_bytes())
    monkeypatch.setenv("COLLABDM_SITES", str(tmp_path / "{site}.npz"))
    nodes = {
        k: site_node(**{"partition-id": k, "num-partitions": 2, "policy": OPEN_FILE[1]})
        for k in range(2)
    }
    assert gather(InProcess(nodes), tmp_path / "round", plan).came == ("site-1", "site-2")


# --- the site decides ----------------------------------------------------------------------------


def refusal_of(node: Node, plan: bytes = plan_bytes(PLAN)) -> str:
    grid = InProcess({1: node})
    grid.push_messages([Message(plan_content(plan, []), 1, "query.contribute")])
    (reply,) = grid.pull_messages(["message-0"])
    assert not reply.has_error()
    assert DOCUMENT not in reply.content
    return str(reply.content[HEADER]["refusal"])


def test_a_policy_is_obeyed_and_the_log_names_what_it_withholds(data, tmp_path, caplog) -> None:
    policy = tmp_path / "site.toml"
    policy.write_text("largest_steps = 2\n")
    assert (
        refusal_of(data_node("north", data, policy=str(policy)))
        == "the site's policy does not allow this plan"
    )
    policy.write_text("smallest_class = 5\nraw_images = true\nlargest_ratio = 9\n")
    outcome = gather(
        InProcess({1: data_node("north", data, policy=str(policy))}), tmp_path / "round"
    )
    sent = read_contribution(contribution_path(tmp_path / "round", "north"), PLAN)
    assert outcome.came == ("north",)
    assert sent.statistics.classes.tolist() == [0]
    assert "withheld: dog: it has 4 images; at least 5 are needed" in caplog.text


def test_a_node_without_a_policy_lets_no_real_image_leave(data, caplog) -> None:
    node = site_node(site="north", data=str(data / "north.npz"), device="cpu")
    assert refusal_of(node) == "the site's policy does not allow this plan"
    assert "only `raw_images = true` in its policy file does" in caplog.text
    assert "every class would be withheld" in caplog.text


def test_an_error_at_a_site_tells_nothing_of_its_files(data, tmp_path, caplog) -> None:
    secret = str(tmp_path / "patients.npz")
    for node in (
        site_node(site="north", data=secret),
        site_node(site="north", data=secret, policy=secret),
    ):
        said = refusal_of(node)
        assert said
        assert "patients" not in said
        assert "patients" in caplog.text
    assert refusal_of(data_node("north", data), b"{") == "the site did not get a whole plan"
    assert refusal_of(data_node("stranger", data)) == "the site cannot carry out this plan"


WRONG_SETTINGS: dict[str, tuple[dict[str, object], str]] = {
    "misspelt": (
        {"polcy": "site.toml"},
        "`polcy` is not a setting of the node: did you mean policy?",
    ),
    "capital": (
        {"Policy": "site.toml"},
        "`Policy` is not a setting of the node: did you mean policy?",
    ),
    "plural": (
        {"policies": "site.toml"},
        "`policies` is not a setting of the node: did you mean policy?",
    ),
    "underscore": (
        {"partition_id": 1},
        "`partition_id` is not a setting of the node: did you mean partition-id?",
    ),
    "unknown": (
        {"colour": "red"},
        "`colour` is not a setting of the node: choose from device, precision, threads,",
    ),
    "no Boolean": (
        {"resize": "False"},
        "`resize` of the node should be true or false; found 'False'",
    ),
    "a number for a Boolean": (
        {"resize": 1},
        "`resize` of the node should be true or false; found 1",
    ),
    "threads in words": (
        {"threads": "all"},
        "`threads` of the node should be a whole number, 0 or more; found 'all'",
    ),
    "threads below 0": (
        {"threads": -1},
        "`threads` of the node should be a whole number, 0 or more; found -1",
    ),
    "threads by a half": (
        {"threads": 1.5},
        "`threads` of the node should be a whole number, 0 or more; found 1.5",
    ),
    "threads by a Boolean": (
        {"threads": True},
        "`threads` of the node should be a whole number, 0 or more; found",
    ),
    "policy by a number": (
        {"policy": 3},
        '`policy` of the node should be a text in quotes, KEY="VALUE"; found 3',
    ),
    "no policy": (
        {"policy": ""},
        "`policy` of the node should be a text in quotes, KEY=\"VALUE\"; found ''",
    ),
    "no rows": (
        {"rows": False},
        '`rows` of the node should be a text in quotes, KEY="VALUE"; found False',
    ),
    "precision": (
        {"precision": "float64"},
        "`precision` of the node should be 'auto', 'float32' or 'bfloat16'; found",
    ),
    "device": (
        {"device": "abacus"},
        "`device` should be one that this machine has; found 'abacus'",
    ),
}


@pytest.mark.parametrize("fault", WRONG_SETTINGS)
def test_a_node_with_wrong_settings_refuses_and_computes_nothing(
    fault, data, tmp_path, caplog
) -> None:
    wrong, message = WRONG_SETTINGS[fault]
    config = {"site": "north", "data": str(data / "north.npz"), "folder": str(tmp_path / "kept")}
    outcome = gather(InProcess({1: site_node(**config | wrong)}), tmp_path / "round")
    assert outcome.refused == {"north": "the site's node is configured wrongly"}
    assert message in caplog.text
    assert not (tmp_path / "kept").exists()


def test_all_wrong_settings_of_a_node_are_in_its_log(data, caplog) -> None:
    assert (
        refusal_of(data_node("north", data, polcy="a", resize="no"))
        == "the site's node is configured wrongly"
    )
    assert (
        "`resize` of the node should be true or false; found 'no'\n`polcy` is not a setting"
        in caplog.text
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"data": "north.npz"},
            '`site` of the node should be its name; found none: add site="NAME"',
        ),
        ({"site": "../north", "data": "north.npz"}, "`site` of the node should be 1 to 64 letters"),
        ({"site": 1, "data": "north.npz"}, "`site` of the node should be 1 to 64 letters"),
        ({"partition-id": "x"}, "`partition-id` of the node should be a whole number"),
    ],
)
def test_a_node_without_a_valid_name_refuses_without_one(config, message, tmp_path, caplog) -> None:
    outcome = gather(InProcess({1: site_node(**config)}), tmp_path)
    assert outcome.refused == {"": "the site's node is configured wrongly"}
    assert outcome.notes == (
        "a site without a name did not contribute: the site's node is configured wrongly",
    )
    assert message in caplog.text


def test_a_node_without_data_refuses(monkeypatch, caplog) -> None:
    monkeypatch.delenv("COLLABDM_SITES", raising=False)
    assert refusal_of(site_node(site="north")) == "the site's node is configured wrongly"
    assert '`data` of the node should locate its data; found none: add data="…"' in caplog.text


@pytest.mark.parametrize(
    ("resize", "answers"), [(True, True), ("true", True), (False, False), ("false", False)]
)
def test_images_are_resized_where_the_settings_say_true(resize, answers, tmp_path) -> None:
    large = np.zeros((6, 1, 12, 12), dtype=np.uint8)
    labels, classes = held_by("north").labels.numpy()[:6], held_by("north").classes
    np.savez(tmp_path / "north.npz", images=large, labels=labels, classes=classes)
    outcome = gather(
        InProcess({1: data_node("north", tmp_path, resize=resize, threads="1")}), tmp_path / "round"
    )
    refused = {"north": "the site's data cannot be read, or do not fit the plan"}
    assert (outcome.came, outcome.refused) == ((("north",), {}) if answers else ((), refused))


def test_an_exception_that_nobody_foresaw_is_a_refusal(data, monkeypatch) -> None:
    monkeypatch.setattr("collabdm.flower.site.contribute_file", lambda *_: 1 / 0)
    assert refusal_of(data_node("north", data)) == "the site failed"


def test_a_site_sends_again_what_it_kept(data, tmp_path, monkeypatch) -> None:
    node = data_node("north", data, folder=str(tmp_path / "kept"))
    gather(InProcess({1: node}), tmp_path / "one")
    monkeypatch.setattr(
        "collabdm.flower.site.contribute_file", lambda *_: pytest.fail("it was made again")
    )
    gather(InProcess({1: node}), tmp_path / "two")
    one, two = (contribution_path(tmp_path / name, "north").read_bytes() for name in ("one", "two"))
    assert one == two


def test_what_a_site_kept_is_made_anew_where_it_is_damaged(data, tmp_path) -> None:
    node = data_node("north", data, folder=str(tmp_path / "kept"))
    gather(InProcess({1: node}), tmp_path / "one")
    (path,) = (tmp_path / "kept").iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert gather(InProcess({1: node}), tmp_path / "two").came == ("north",)


# --- faults --------------------------------------------------------------------------------------


def with_nan() -> bytes:
    sent = contribute(PLAN, held_by("west"), "west")
    content = bytearray(contribution_bytes(sent))
    codes = sent.statistics.codes.numpy().tobytes()
    at = bytes(content).index(codes)
    content[at : at + 4] = np.float32("nan").tobytes()
    return bytes(content)


def of_another_plan() -> bytes:
    return content_of("west", a_plan(seed=8))


def too_large() -> bytes:
    return bytes(collecting.contribution_limit(PLAN) + 1)


def records(content: RecordDict) -> Node:
    return lambda message: [Message(content, reply_to=message)]


FAULTS: dict[str, tuple[Callable[[], Node], str]] = {
    "garbage": (lambda: saying("west", b"garbage" * 100), "damaged, cut off or of another kind"),
    "nothing": (lambda: saying("west", b""), "damaged, cut off or of another kind"),
    "NaN": (lambda: saying("west", with_nan()), "finite"),
    "another plan": (lambda: saying("west", of_another_plan()), "it answers another plan"),
    "too large": (lambda: saying("west", too_large()), "should have at most"),
    "the name of another": (lambda: saying("west", content_of("north")), "found one of 'north'"),
    "no records": (lambda: records(RecordDict()), "should contain the name of its site"),
    "other records": (
        lambda: records(RecordDict({HEADER: ArrayRecord()})),
        "should contain the name of its site",
    ),
    "two arrays": (
        lambda: records(
            RecordDict(
                {
                    HEADER: ConfigRecord({"site": "west", "refusal": ""}),
                    DOCUMENT: ArrayRecord({BYTES: torch_array(), "more": torch_array()}),
                }
            )
        ),
        "one document",
    ),
}


def torch_array() -> object:
    return ArrayRecord([np.zeros(1)])["0"]


@pytest.mark.parametrize("fault", FAULTS)
def test_an_answer_that_is_none_harms_nobody_and_is_named(fault, data, tmp_path, caplog) -> None:
    caplog.set_level(logging.WARNING)
    make, said = FAULTS[fault]
    grid = InProcess(honest(data) | {103: make()})
    outcome = gather(grid, tmp_path)
    assert (outcome.state, outcome.came, outcome.missing) == ("enough", SITES[:3], ("west",))
    assert said in outcome.notes[0]
    assert any(said in why for why in outcome.refused.values())
    assert sorted(path.stem for path in (tmp_path / "contributions").iterdir()) == list(SITES[:3])
    assert grid.hours.seconds < 1  # everybody has answered: nobody is waited for
    again = gather(InProcess(honest(data)), tmp_path)
    assert (again.state, again.refused) == ("complete", {})


def test_a_program_that_is_killed_is_asked_again(data, tmp_path) -> None:
    nodes = honest(data)
    outcome = gather(InProcess(nodes | {103: failing(8, 2, nodes[103])}), tmp_path)
    assert outcome.state == "complete"
    assert [note.count("code 8") for note in outcome.notes] == [1, 1]


def test_a_program_that_is_always_killed_is_given_up(data, tmp_path) -> None:
    nodes = honest(data)
    grid = InProcess(nodes | {103: failing(5, 9, nodes[103])})
    outcome = gather(grid, tmp_path)
    assert (outcome.state, outcome.missing) == ("enough", ("west",))
    assert grid.asked.count(103) == collecting.ATTEMPTS
    assert grid.hours.seconds < DEADLINE


def test_of_two_answers_the_first_stays(data, tmp_path, caplog) -> None:
    other = contribution_bytes(contribute(PLAN, tiny_data((9, 9, 9), seed=5), "west"))
    twice = {103: saying("west", content_of("west"), times=2), 104: saying("west", other)}
    plan = a_plan(quorum=4)
    assert plan.digest != PLAN.digest
    nodes = {n: node for n, node in honest(data).items() if n != 102}
    outcome = gather(
        InProcess(nodes | twice | {105: failing(5, 1, data_node("south", data))}), tmp_path
    )
    assert outcome.state == "complete"
    assert contribution_path(tmp_path, "west").read_bytes() == content_of("west")
    assert "an answer to no question arrived: it is dropped" in outcome.notes
    assert (
        "two nodes answer as 'west', 103 and then 104, with different contributions: "
        "the first counts" in outcome.notes
    )


def test_two_nodes_with_one_name_are_named_and_the_first_stays(data, tmp_path, caplog) -> None:
    other = contribution_bytes(contribute(PLAN, tiny_data((9, 9, 9), seed=5), "west"))
    grid = InProcess(honest(data) | {200: saying("west", other), 201: data_node("north", data)})
    outcome = gather(grid, tmp_path)
    assert outcome.state == "complete"
    assert outcome.nodes == {site: 100 + k for k, site in enumerate(SITES)}
    assert contribution_path(tmp_path, "west").read_bytes() == content_of("west")
    assert set(outcome.notes) <= {
        "two nodes answer as 'west', 103 and then 200, with different contributions: "
        "the first counts",
        "two nodes answer as 'north', 101 and then 201, with the same contribution: "
        "the first counts",
    }
    assert outcome.notes


def test_a_node_with_a_name_that_the_plan_does_not_have_is_nobody(data, tmp_path, caplog) -> None:
    nodes = {n: node for n, node in honest(data).items() if n != 103}
    grid = InProcess({50: data_node("stranger", data), 51: saying("../west", b"garbage"), **nodes})
    outcome = gather(grid, tmp_path)
    assert (outcome.state, outcome.missing, outcome.refused) == ("enough", ("west",), {})
    assert outcome.notes == (
        "node 50 answers as 'stranger', which is not a site of the plan: its answer is dropped",
        "node 51 answers as '../west', which is not a site of the plan: its answer is dropped",
    )
    assert grid.hours.seconds == pytest.approx(DEADLINE)  # the real one may still come


def test_a_site_that_is_bound_to_a_node_answers_from_there_alone(data, tmp_path, caplog) -> None:
    other = contribution_bytes(contribute(PLAN, tiny_data((9, 9, 9), seed=5), "west"))
    nodes = {50: saying("west", other), **honest(data)}
    bound = "east=100, north=101,west=103"
    grid = InProcess(nodes)
    outcome = serve(grid, settings(tmp_path, nodes=bound, distill=False), grid.hours.clock)
    assert (outcome.state, outcome.came) == ("complete", SITES)
    assert outcome.notes == ("node 50 answers as 'west', whose node is 103: its answer is dropped",)
    assert contribution_path(tmp_path / "round", "west").read_bytes() == content_of("west")
    failed = InProcess(honest(data) | {103: failing(8, 9, honest(data)[103])})
    (tmp_path / "more").mkdir()
    outcome = serve(
        failed, settings(tmp_path / "more", nodes=bound, distill=False), failed.hours.clock
    )
    assert outcome.notes[-1] == "node 103, west failed, Flower's code 8"


@pytest.mark.parametrize(
    ("nodes", "found"),
    [
        ("west", "'west'"),
        ("west=x", "'west=x'"),
        ("west=1,west=2", "'west=2'"),
        ("west=1,east=1", "each node once"),
    ],
)
def test_a_list_of_nodes_is_understood_or_refused(nodes, found, tmp_path) -> None:
    grid = InProcess({})
    with pytest.raises(SettingsError, match=f"`nodes` of the run should .*{found}"):
        serve(grid, settings(tmp_path, nodes=nodes), grid.hours.clock)
    with pytest.raises(PlanError, match="found 'stranger'"):
        serve(grid, settings(tmp_path, nodes="stranger=1"), grid.hours.clock)


def test_an_outcome_is_named_by_its_kind(data, tmp_path) -> None:
    asked = {"sites": 2, "site_names": ("east", "north"), "batch": 4, "options": DENSE}
    plan = tiny_plan(**METHODS["dense"].adapt(asked))
    grid = InProcess({k: data_node(site, data) for k, site in enumerate(("east", "north"))})
    serve(grid, settings(tmp_path, plan), grid.hours.clock)
    made = tmp_path / "round" / "model.safetensors"
    assert outcome_path(plan, tmp_path / "round") == made
    assert set(read_distilled_model(made).sites) == {"east", "north"}
    assert not (tmp_path / "round" / "distilled.safetensors").exists()


def test_a_node_answers_from_its_rows_of_a_table(tmp_path) -> None:
    rows = [row(i, "bad" if i % 3 == 0 else "ok", station=1 if i < 20 else 2) for i in range(60)]
    table = write_csv(tmp_path / "flows.csv", rows)
    plan = tiny_plan(GREY, ("ok", "bad"), sites=2, flows=tiny_schema())
    for site in ("1", "2"):
        words = {"site": f"cell-{site}", "data": str(table), "rows": f"station={site}"}
        words["policy"] = OPEN_FILE[1]
        grid = InProcess({1: site_node(**words, device="cpu", precision="float32")})
        collect(plan, tmp_path / "round", grid, grid.hours.clock)
    east, west = (
        read_contribution(path, plan)
        for path in sorted((tmp_path / "round/contributions").iterdir())
    )
    assert sum(east.statistics.totals.tolist()) == 9  # of 20 rows, two of a class an image
    assert sum(west.statistics.totals.tolist()) == 19


def test_who_is_too_late_is_missing_and_comes_with_the_next_run(data, tmp_path, by_file) -> None:
    grid = InProcess(honest(data), late={101: DEADLINE + 1})
    outcome = serve(grid, settings(tmp_path), grid.hours.clock)
    assert (outcome.state, outcome.missing) == ("enough", ("north",))
    assert grid.hours.seconds == pytest.approx(DEADLINE)
    assert set(read_distilled(outcome_path(PLAN, tmp_path / "round")).sites) == {
        "east",
        "south",
        "west",
    }
    again = InProcess(honest(data))
    outcome = serve(again, settings(tmp_path), again.hours.clock)
    assert outcome.state == "complete"
    assert (
        outcome_path(PLAN, tmp_path / "round").read_bytes()
        == outcome_path(PLAN, by_file).read_bytes()
    )


def test_without_a_quorum_the_missing_are_named_and_what_came_is_kept(data, tmp_path) -> None:
    grid = InProcess({100: honest(data)[100], 101: honest(data)[101]})
    with pytest.raises(CollectionError, match=r"missing: south, west") as error:
        serve(grid, settings(tmp_path), grid.hours.clock)
    assert "2 sites contributed (east, north)" in str(error.value)
    assert not outcome_path(PLAN, tmp_path / "round").exists()
    assert len(list((tmp_path / "round" / "contributions").iterdir())) == 2
    assert json.loads((tmp_path / "round" / "collection.json").read_text())["missing"] == [
        "south",
        "west",
    ]


def test_a_plan_without_names_says_how_many_are_missing(data, tmp_path) -> None:
    plan = tiny_plan(sites=4, collection={"quorum": 2, "deadline": 5})
    outcome = gather(InProcess({1: data_node("north", data)}), tmp_path, plan)
    assert outcome.state == "too few"
    assert outcome.missing == ("3 of 4 sites, which the plan does not name",)


class ServerKilled(BaseException):
    """As the signal: nothing of the server runs on."""


def test_a_server_that_is_killed_goes_on_with_the_missing_sites(data, tmp_path, by_file) -> None:
    def killed() -> None:
        if len(list((tmp_path / "round" / "contributions").glob("*.safetensors"))) == 2:
            raise ServerKilled

    grid = InProcess(honest(data), late={102: 5.0, 103: 5.0}, before_pull=killed)
    with pytest.raises(ServerKilled):
        serve(grid, settings(tmp_path), grid.hours.clock)
    worked = []
    nodes = {n: counted(node, n, worked) for n, node in honest(data).items()}
    again = InProcess(nodes)
    outcome = serve(again, settings(tmp_path), again.hours.clock)
    assert outcome.state == "complete"
    assert worked == [102, 103]  # the others say that they have answered
    assert (
        outcome_path(PLAN, tmp_path / "round").read_bytes()
        == outcome_path(PLAN, by_file).read_bytes()
    )


def counted(node: Node, number: int, worked: list[int]) -> Node:
    def count(message: Message) -> list[Message]:
        replies = node(message)
        worked.extend(number for reply in replies if DOCUMENT in reply.content)
        return replies

    return count


def test_a_round_that_is_complete_is_not_made_again(data, tmp_path) -> None:
    grid = InProcess(honest(data))
    serve(grid, settings(tmp_path), grid.hours.clock)
    at = outcome_path(PLAN, tmp_path / "round").stat().st_mtime_ns
    nobody = InProcess({})
    assert serve(nobody, settings(tmp_path), nobody.hours.clock).state == "complete"
    assert outcome_path(PLAN, tmp_path / "round").stat().st_mtime_ns == at


def test_a_file_that_was_damaged_on_the_server_is_asked_for_again(data, tmp_path) -> None:
    gather(InProcess(honest(data)), tmp_path)
    contribution_path(tmp_path, "south").write_bytes(b"half")
    grid = InProcess(honest(data))
    assert gather(grid, tmp_path).state == "complete"
    assert contribution_path(tmp_path, "south").read_bytes() == content_of("south")


def test_a_folder_of_another_round_is_refused(data, tmp_path) -> None:
    gather(InProcess(honest(data)), tmp_path)
    with pytest.raises(DocumentError, match="choose another folder"):
        gather(InProcess({}), tmp_path, a_plan(seed=8))


WRONG_RUNS: dict[str, tuple[dict[str, object], str]] = {
    "plan": ({"plan": "here"}, "`plan` of the run should be an absolute path; found 'here'"),
    "no plan": ({"plan": ""}, "`plan` of the run should be an absolute path; found ''"),
    "folder": ({"folder": "here"}, "`folder` of the run should be an absolute path; found 'here'"),
    "misspelt": (
        {"distil": False},
        "`distil` is not a setting of the run: did you mean distill?",
    ),
    "underscore": (
        {"allow_missing": True},
        "`allow_missing` is not a setting of the run: did you mean allow-missing?",
    ),
    "unknown": (
        {"colour": "red"},
        "`colour` is not a setting of the run: choose from device, precision, threads,",
    ),
    "distill": ({"distill": "no"}, "`distill` of the run should be true or false; found 'no'"),
    "allow-missing": (
        {"allow-missing": 0},
        "`allow-missing` of the run should be true or false; found 0",
    ),
    "threads": (
        {"threads": "all"},
        "`threads` of the run should be a whole number, 0 or more; found 'all'",
    ),
    "nodes": ({"nodes": 1}, "`nodes` of the run should be SITE=NODE,SITE=NODE, in quotes; found 1"),
    "device": (
        {"device": "abacus"},
        "`device` should be one that this machine has; found 'abacus'",
    ),
}


@pytest.mark.parametrize("fault", WRONG_RUNS)
def test_a_run_with_wrong_settings_asks_nobody(fault, data, tmp_path) -> None:
    wrong, message = WRONG_RUNS[fault]
    grid = InProcess(honest(data))
    with pytest.raises(SettingsError, match=re.escape(message)):
        serve(grid, settings(tmp_path) | wrong, grid.hours.clock)
    assert grid.asked == []
    assert not (tmp_path / "round").exists()


def test_a_run_without_plan_and_folder_names_both() -> None:
    with pytest.raises(
        SettingsError, match=r"`plan` of the run should be given.*\n`folder` of the run should be"
    ):
        serve(InProcess({}), {}, Hours().clock)


def test_the_words_true_and_false_are_boolean_settings(data, tmp_path) -> None:
    grid = InProcess(honest(data))
    serve(grid, settings(tmp_path, distill="false", threads="1", nodes=""), grid.hours.clock)
    assert not outcome_path(PLAN, tmp_path / "round").exists()


def test_a_class_that_no_site_has_is_refused_unless_allowed(tmp_path) -> None:
    held = tiny_data((5, 4, 0))
    np.savez(
        tmp_path / "north.npz",
        images=held.images.numpy(),
        labels=held.labels.numpy(),
        classes=held.classes,
    )
    plan = tiny_plan(sites=1, site_names=("north",))
    grid = InProcess({1: data_node("north", tmp_path)})
    with pytest.raises(DocumentError, match="no contribution has owl"):
        serve(grid, settings(tmp_path, plan, **{"allow-missing": "false"}), grid.hours.clock)
    serve(grid, settings(tmp_path, plan, **{"allow-missing": "true"}), grid.hours.clock)
    assert read_distilled(outcome_path(plan, tmp_path / "round")).images.counts().tolist() == [
        2,
        2,
        0,
    ]


def test_a_message_that_flower_does_not_take_is_sent_again(data, tmp_path, monkeypatch) -> None:
    grid = InProcess(honest(data))
    took = grid.push_messages
    turns = iter([False])
    monkeypatch.setattr(
        grid,
        "push_messages",
        lambda m: took(m) if next(turns, True) else ["" for _ in m],
        raising=True,
    )
    assert gather(grid, tmp_path).state == "complete"


def test_a_site_whose_data_changed_answers_anew(data, tmp_path) -> None:
    kept = tmp_path / "kept"
    (tmp_path / "north.npz").write_bytes((data / "north.npz").read_bytes())
    gather(InProcess({1: data_node("north", tmp_path, folder=str(kept))}), tmp_path / "one")
    held = replace(held_by("north"), labels=torch.zeros(len(held_by("north")), dtype=torch.int64))
    np.savez(
        tmp_path / "north.npz",
        images=held.images.numpy(),
        labels=held.labels.numpy(),
        classes=held.classes,
    )
    gather(InProcess({1: data_node("north", tmp_path, folder=str(kept))}), tmp_path / "two")
    assert len(list(kept.iterdir())) == 2

"""A site answers a plan with noise once, and its policy limits what it spends over several plans."""

from pathlib import Path
from typing import Any

import pytest
import torch
from command import NETWORK, cells, done, run
from tiny import tiny_data, tiny_plan

from collabdm.documents.outcome_files import read_distilled
from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import read_plan
from collabdm.errors import PlanError
from collabdm.export.card import Card, card_text
from collabdm.images import ImageSet
from collabdm.matching.run_context import RunContext
from collabdm.planning.make import make_plan
from collabdm.planning.private import PRIVATE_DEFAULTS, public_distance
from collabdm.privacy.ledger import Ledger, LedgerError
from collabdm.rounds.contributions import read_contribution
from collabdm.rounds.exchange import Site, contribute_file, prepare_site
from collabdm.rounds.policy import Policy, PolicyError
from collabdm.rounds.preview import preview_contribution

NORTH = Site("north")


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLLABDM_SITE_FOLDER", str(tmp_path / "private"))


def private_plan(**changes: Any) -> Plan:
    return tiny_plan(
        **{"privacy": {"epsilon": 1.0, "clip": 2.0}, "local": {"method": "none"}} | changes
    )


def answer(plan: Plan, data: ImageSet, output: Path, site: Site = NORTH) -> bytes:
    contribute_file(prepare_site(plan, data, site), output, RunContext())
    return output.read_bytes()


# --- one answer to a plan ------------------------------------------------------------------------


def test_a_repeated_contribution_is_the_same_file(tmp_path: Path) -> None:
    plan, data = private_plan(), tiny_data((5, 4, 0))
    first = answer(plan, data, tmp_path / "first")
    assert answer(plan, data, tmp_path / "second") == first
    (tmp_path / "first").unlink()
    assert answer(plan, data, tmp_path / "first") == first
    assert len(Ledger().releases()) == 1


def test_a_plan_with_other_data_is_refused_before_any_work(tmp_path: Path) -> None:
    plan, data = private_plan(), tiny_data((5, 4, 0))
    answer(plan, data, tmp_path / "first")
    fewer = data.subset(torch.arange(len(data) - 1))
    with pytest.raises(LedgerError, match="with other data"):
        prepare_site(plan, fewer, NORTH)


def test_the_first_of_two_computations_is_released(tmp_path: Path) -> None:
    plan, data = private_plan(), tiny_data((5, 4, 0))
    prepared = [prepare_site(plan, data, NORTH) for _ in range(2)]  # neither is answered yet
    for site, name in zip(prepared, ("first", "second"), strict=True):
        contribute_file(site, tmp_path / name, RunContext())
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


def test_small_classes_are_sent_because_noise_protects_them(tmp_path: Path) -> None:
    plan, data = private_plan(), tiny_data((5, 1, 0))
    site = Site("north", Policy(smallest_class=5))
    content = answer(plan, data, tmp_path / "answer", site)
    read = read_contribution(tmp_path / "answer", plan)
    assert read.statistics.classes.tolist() == [0, 1, 2]

    release = prepare_site(plan, data, site).release
    assert preview_contribution(plan, release, "north").total_bytes == len(content)


# --- the sum over plans --------------------------------------------------------------------------


def test_a_policy_limits_the_sum_over_plans(tmp_path: Path) -> None:
    data, site = tiny_data((5, 4, 3)), Site("north", Policy(largest_epsilon=1.2))
    answer(private_plan(), data, tmp_path / "first", site)

    with pytest.raises(PolicyError, match=r"is 1.2, but the plan asks for 1\.4\d+, with 1 earlier"):
        prepare_site(private_plan(seed=8), data, site)
    with pytest.raises(PolicyError, match=r"with 1 earlier"):  # the same images are not all new
        prepare_site(private_plan(seed=8), data.subset(torch.arange(9)), site)
    assert prepare_site(private_plan(), data, site).spending is not None  # already spent
    prepare_site(private_plan(seed=8), tiny_data((5, 4, 3), 1), Site("south", site.policy))


def test_a_limit_allows_itself_and_refuses_plans_without_noise() -> None:
    data, site = tiny_data((30, 30, 30)), Site("north", Policy(largest_epsilon=1.0))
    prepare_site(private_plan(), data, site)
    with pytest.raises(PolicyError, match="the plan has no privacy budget"):
        prepare_site(tiny_plan(local={"method": "none"}, steps=1, sketch=8), data, site)


# --- plans ---------------------------------------------------------------------------------------


def test_a_budget_alone_makes_a_plan() -> None:
    plan = make_plan(("cat", "dog"), tiny_plan().image, privacy={"epsilon": 2.0}, sites=2)
    assert plan.privacy is not None
    assert plan.privacy.clip == public_distance(plan.model_copy(update={"privacy": None}))
    assert (plan.batch, plan.local.images_sent) == (None, 0)
    assert plan.steps == PRIVATE_DEFAULTS["steps"]


def test_what_the_user_sets_is_kept() -> None:
    privacy = {"epsilon": 2.0, "clip": 3.0}
    plan = make_plan(("cat", "dog"), tiny_plan().image, privacy=privacy, steps=2)
    assert plan.privacy is not None
    assert (plan.privacy.clip, plan.steps) == (3.0, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 5}, "`batch` of all images"),
        ({"merging": "uniform"}, "`merging` weighted"),
        ({"steps": 0}, "`steps` of at least 1"),
        ({"method": "localdm"}, "`method` that adds noise"),
        ({"local": {"method": "dm", "images": 1}}, "nothing else"),
        ({"privacy": {"epsilon": 1.0, "delta": 1.0}}, "delta"),
        ({"privacy": {"delta": 1e-6}}, "epsilon"),
    ],
)
def test_settings_that_noise_does_not_protect_are_refused(changes, message) -> None:
    with pytest.raises(PlanError, match=message):
        private_plan(**changes)


# --- the command line ----------------------------------------------------------------------------


def test_a_round_with_a_budget_on_the_command_line(tmp_path: Path) -> None:
    plan, made = tmp_path / "plan.json", tmp_path / "set.safetensors"
    small = ("--network", NETWORK, "--steps", "2", "--ipc", "1", "--passes", "1")
    printed = done(
        *("plan", "--classes", "0,1,2,3,4,5,6,7,8,9", "--image-size", "1x8", "--epsilon", "1"),
        *("--sites", "north,south", *small, "-o", plan),
    )
    assert "epsilon 1 at delta 1e-05: leaving any one image out" in " ".join(printed.out.split())

    site = ("--data", "digits", "--site", "north")
    checked = done("check", plan, *site)
    assert "epsilon 1 at delta 1e-05, including 0 earlier releases" in checked.out
    for name in ("first", "second"):
        done("contribute", plan, *site, "-o", tmp_path / name, "-q")
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()

    listed = done("ledger")
    rows = [row for row in cells(listed.out) if row[0] == "north"]
    assert [row[3:5] for row in rows] == [["noised", "epsilon 1 at delta 1e-05"]]
    assert "north: epsilon 1 at delta 1e-05 for each image, from 1 release with noise" in listed.out

    policy = tmp_path / "policy.toml"
    policy.write_text("largest_epsilon = 0.5\n")
    refused = run("contribute", plan, *site, "-o", tmp_path / "third", "--policy", policy)
    assert (refused.code, (tmp_path / "third").exists()) == (2, False)
    assert "`largest_epsilon` is 0.5, but the plan asks for 1" in refused.err

    done("distill", plan, tmp_path / "first", "-o", made, "-q")
    for file in (plan, tmp_path / "first", made):
        shown = {row[0] for row in cells(done("inspect", file).out)}
        assert "privacy of each image" in shown
    assert read_plan(plan).privacy is not None

    distilled = read_distilled(made)
    text = " ".join(card_text(distilled, distilled.images, Card()).split())
    assert "protected by differential privacy with epsilon 1 at delta 1e-05" in text
    assert "not a guarantee of privacy" not in text


def test_a_simulated_round_has_a_budget_too(tmp_path: Path) -> None:
    small = ("--network", NETWORK, "--steps", "2", "--ipc", "1", "--passes", "1")
    done(
        *("simulate", "--data", "digits", "--sites", "2", "--per-class", "12", "--epsilon", "5"),
        *("--trials", "1", "--recipe", "short", "--epochs", "1", *small, "-o", tmp_path / "round"),
        "-q",
    )
    plan = read_plan(tmp_path / "round" / "plan.json")
    assert plan.privacy is not None
    assert (plan.privacy.epsilon, plan.batch) == (5.0, None)
    assert plan.refinement.matching.learning_rate == 3.0  # for small images
    for site in ("site-1", "site-2"):
        sent = read_contribution(tmp_path / "round" / "contributions" / f"{site}.safetensors", plan)
        assert sent.noise is not None
    assert not Ledger().releases()  # a simulation releases nothing


def test_an_empty_ledger_says_so() -> None:
    assert "no release with noise or masks" in done("ledger").out.replace("\n", " ")

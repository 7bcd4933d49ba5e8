"""The methods that CollabDM is compared with: their documents, options, presets and policies.

`test_properties` covers what all methods have in common, `test_method_mathematics` what each
computes.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import OPEN, OPTIONS, method_plan, tiny_data, tiny_plan

from collabdm.documents.contribution import Contribution
from collabdm.documents.contribution_file import contribution_bytes
from collabdm.documents.extra_tensors import declared_bytes
from collabdm.documents.plan import Plan
from collabdm.errors import DocumentError, PlanError
from collabdm.lab.settings import simulation
from collabdm.matching.run_context import RunContext
from collabdm.methods.base import parse_options
from collabdm.methods.dense import Dense
from collabdm.methods.dosfl_steps import Dosfl
from collabdm.methods.registry import METHODS, contribute, contribution_spec, method_of
from collabdm.planning.cost import cost
from collabdm.planning.presets import preset_settings
from collabdm.planning.settings import merge_settings, new_plan
from collabdm.report.rounds import EXTRA, part_sizes
from collabdm.rounds.contributions import (
    ContributionFiles,
    contribution_limit,
    parse_contribution,
    read_contribution,
)
from collabdm.rounds.exchange import (
    Site,
    contribute_file,
    distill_files,
    prepare_site,
)
from collabdm.rounds.policy import Policy, PolicyError
from collabdm.rounds.preview import preview_contribution
from collabdm.rounds.shown_files import picture_path
from collabdm.scoring.outcomes import OUTCOME_KINDS

#: methods of one round with tensors of their own
OWN_TENSORS = sorted(name for name in OPTIONS if METHODS[name].run_rounds is None)
HOLDINGS = [[4, 3, 0], [0, 2, 5]]


def contribution_to(plan: Plan) -> Contribution:
    return contribute(plan, tiny_data(HOLDINGS[0]), "site-0")


def sent_with(sent: Contribution, tensors: dict[str, torch.Tensor]) -> bytes:
    """The contribution with other extra tensors, as a file."""
    return contribution_bytes(replace(sent, extra_tensors=tensors))


# --- documents -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", OWN_TENSORS)
def test_a_contribution_is_read_as_it_was_written(method: str) -> None:
    plan = method_plan(method)
    sent = contribution_to(plan)
    content = contribution_bytes(sent)
    assert len(content) <= contribution_limit(plan)

    read = parse_contribution(content, plan)
    assert set(read.extra_tensors) == set(sent.extra_tensors)
    for name, tensor in sent.extra_tensors.items():
        assert torch.equal(read.extra_tensors[name], tensor)


@pytest.mark.parametrize("method", OWN_TENSORS)
def test_tensors_that_the_plan_does_not_declare_are_refused(method: str) -> None:
    plan = method_plan(method)
    sent = contribution_to(plan)
    own = sent.extra_tensors
    name, tensor = next(iter(own.items()))

    for tensors in ({}, {**own, "more": tensor}, {**own, name: tensor[:1].clone()[:0]}):
        with pytest.raises(DocumentError, match="parts"):
            parse_contribution(sent_with(sent, tensors), plan)

    floats = [name for name, tensor in own.items() if tensor.is_floating_point()]
    assert bool(floats) == (method in ("dosfl", "dense"))
    for name in floats:
        broken = own[name].clone()
        broken.view(-1)[0] = float("nan")
        with pytest.raises(DocumentError, match=f"`parts.{name}` should be finite"):
            parse_contribution(sent_with(sent, {**own, name: broken}), plan)


def test_tensors_are_refused_where_the_method_has_none() -> None:
    plan = tiny_plan()
    sent = contribute(plan, tiny_data([1, 1, 1]), "a")
    with pytest.raises(DocumentError, match="unknown"):
        parse_contribution(sent_with(sent, {"more": torch.zeros(1)}), plan)


@pytest.mark.parametrize("method", OWN_TENSORS)
def test_the_server_writes_the_outcome_of_files_and_a_picture_of_its_images(
    method: str, tmp_path: Path
) -> None:
    plan, sent = method_plan(method), []
    for k, counts in enumerate(HOLDINGS):
        sent.append(tmp_path / f"{k}.safetensors")
        prepared = prepare_site(plan, tiny_data(counts, k), Site(f"site-{k}", OPEN))
        contribute_file(prepared, sent[-1], RunContext())

    outputs = [tmp_path / "a" / "made.safetensors", tmp_path / "b" / "made.safetensors"]
    for output, order in zip(outputs, (sent, sent[::-1]), strict=True):
        distill_files(plan, ContributionFiles(plan, order), output, RunContext())

    own = read_contribution(sent[0], plan).extra_tensors.values()
    assert part_sizes(sent[0])[1][EXTRA] == sum(tensor.nbytes for tensor in own) > 0

    outcome = OUTCOME_KINDS[METHODS[method].outcome].read(outputs[0])
    assert (outcome.plan, outcome.method) == (plan, method)
    assert outcome.sites == {"site-0": HOLDINGS[0], "site-1": HOLDINGS[1]}
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    assert picture_path(outputs[0]).exists() == (method != "dense")


@pytest.mark.parametrize("method", ["fedavg", "rounds-means", "rounds-gradients"])
def test_a_site_refuses_a_plan_that_needs_several_rounds(method: str) -> None:
    with pytest.raises(PlanError, match="needs a single round"):
        prepare_site(method_plan(method), tiny_data([1, 1, 1]), Site("a"))


def test_a_plan_with_options_is_hashed_by_its_digest() -> None:
    plan = tiny_plan(method="dense", options={"epochs": 1})
    plans = [plan.model_copy(update={"options": {"epochs": n}}) for n in (1, 1.0, True, 2)]
    assert plans[0].digest == plans[1].digest
    assert len({plan.digest for plan in plans}) == 3
    assert hash(plans[0]) == hash(plans[1]) == hash(plans[0].model_copy())


# --- options and presets -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("coreset", {"rule": "best"}),
        ("fedd3", {"images": 0}),
        ("fedd3", {"images": 1, "bytes": 1}),
        ("dosfl", {"mask": 1}),
        ("dosfl", {"steps": 2, "passes": 3, "window": 7}),
        ("dense", {"epoch": 1}),
    ],
)
def test_options_that_do_not_fit_are_refused(method: str, options: dict[str, Any]) -> None:
    with pytest.raises(
        PlanError, match=r"`options\.|either `images` or `bytes`|`window` should be"
    ):
        method_plan(method, options=options)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        (
            "fedd3",
            {"images": 10_001},
            "images of a site should be at most 10,000, because kernels are k x k; found 10,001",
        ),
        (
            "dense",
            {"epochs": 10**6, "generator": {"batch": 10**6}},
            "should have at most 8,589,934,592 bytes, .* found 64,000,000,000,000: set fewer",
        ),
    ],
)
def test_plans_that_need_too_much_memory_are_refused(
    method: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(PlanError, match=message):
        method_plan(method, options=options)

    small = method_plan(method)
    plan = small.model_copy(update={"options": (small.options or {}) | options})
    with pytest.raises(PlanError, match=message):
        contribute(plan, tiny_data([1, 1, 1]), "site-0")


def test_options_of_a_method_without_options_are_refused() -> None:
    with pytest.raises(PlanError, match="`options` should be left out for method collabdm"):
        method_of(tiny_plan(options={"a": 1}))


def test_presets_of_the_compared_methods_are_as_published() -> None:
    ten = ",".join(f"class {y}" for y in range(10))
    plans = {
        name: new_plan(None, ten, "3x32", dict(preset_settings(name)))
        for name in ("fedd3", "dosfl", "dense")
    }
    extra = {name: contribution_spec(plan).extra for name, plan in plans.items()}
    assert all(plan.method == name for name, plan in plans.items())
    assert extra["fedd3"]["images"].shape == (100, 3, 32, 32)  # IPC 50 from 5 sites
    assert extra["dosfl"]["images"].shape == (10, 10, 3, 32, 32)
    assert sum(spec.nbytes for spec in extra["dense"].values()) == 1_276_968  # 1.28 MB

    options = parse_options(plans["dosfl"].options, Dosfl)
    assert (options.passes * 10, options.window) == (200, 60)  # T and W of Feng et al.

    for name, plan in plans.items():
        model = METHODS[name].options or Dense
        settings = parse_options(plan.options, model).model_dump(mode="json")
        assert merge_settings(settings, preset_settings(name)["options"]) == settings


def test_a_preset_selects_its_method_unless_another_is_given() -> None:
    given = {"data": "fashion_mnist", "beta": 0.5}
    chosen = simulation(None, "dosfl", given, {"ipc": 10})
    assert (chosen.method, chosen.plan["ipc"]) == ("dosfl", 10)
    assert chosen.plan["options"]["window"] == 60
    assert simulation(None, "dosfl", given | {"method": "localdm"}, {}).method == "localdm"
    assert simulation(None, "best", given, {}).method == "collabdm-pae"


# --- policies ------------------------------------------------------------------------------------


def allowing(**settings: Any) -> Policy:
    """A policy that allows everything apart from these settings."""
    return OPEN.model_copy(update=settings)


@pytest.mark.parametrize("method", OWN_TENSORS)
def test_a_policy_counts_the_tensors_of_a_method_and_their_origin(method: str) -> None:
    plan, data = method_plan(method), tiny_data(HOLDINGS[0])
    size = len(contribution_bytes(contribution_to(plan)))
    release = OPEN.release(plan, data, "site-0")
    assert preview_contribution(plan, release, "site-0").total_bytes == size
    assert cost(plan).file_bytes + declared_bytes(contribution_spec(plan).extra) >= size

    with pytest.raises(PolicyError, match="largest_bytes"):
        allowing(largest_bytes=size // 2).release(plan, data, "site-0")
    with pytest.raises(PolicyError, match=r"the time of .* is not estimated"):
        allowing(largest_minutes=60).release(plan, data, "site-0")

    if method == "dense":  # its sites send no images
        allowing(raw_images=False, largest_bytes=10**7).release(plan, data, "site-0")
        return
    message = "the plan sends images that are real, or start from real ones"
    with pytest.raises(PolicyError, match=message):
        allowing(raw_images=False).release(plan, data, "site-0")


def test_steps_that_start_from_noise_show_no_real_image() -> None:
    plan = method_plan("dosfl", options=OPTIONS["dosfl"] | {"start": "noise"})
    allowing(raw_images=False).release(plan, tiny_data(HOLDINGS[0]), "site-0")

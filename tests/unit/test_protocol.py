import json
import re
import struct
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies
from pydantic import ValidationError
from tiny import (
    CLASSES,
    COLOUR,
    GREY,
    WIDTH,
    fixed_contribution,
    fixed_plan,
    fixed_statistics,
    ramp,
    tiny_data,
    tiny_plan,
)

from collabdm.documents.canonical_json import canonical_json
from collabdm.documents.contribution import (
    Contribution,
    Statistics,
    check_contribution,
    check_contributions,
)
from collabdm.documents.contribution_file import contribution_bytes
from collabdm.documents.distillation import Local
from collabdm.documents.flow_schema import FlowSchema, Number
from collabdm.documents.frozen_model import validation_message
from collabdm.documents.plan import Collection, Plan, Probe
from collabdm.documents.specs import NetworkSpec
from collabdm.errors import DocumentError, PlanError, ProbeError
from collabdm.images import ImageSet
from collabdm.methods.collabdm import contribute
from collabdm.methods.registry import contribution_spec
from collabdm.planning.cost import cost
from collabdm.planning.make import make_plan, plan_for
from collabdm.planning.probe import check_probe, probe
from collabdm.seeds import participants

DIGITS = tuple(str(digit) for digit in range(10))
EMBEDDING = (
    *(0.378323, 0.0, 0.427564, 0.931948, 0.46083, 0.462253, 0.365144, 0.455401),
    *(0.553524, 0.0, 0.0, 0.0, 0.478004, 1.30859, 0.129802, 0.916835),
)

# canonical JSON


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-7, "1e-7"),
        (1e21, "1e+21"),
        (0.1, "0.1"),
        (1.0, "1"),
        (100, "100"),
        (100.0, "100"),
        (-2.5, "-2.5"),
        (-0.0, "0"),
        (True, "true"),
        (None, "null"),
        ([], "[]"),
        ({}, "{}"),
        ((1, [2.0, "x"]), '[1,[2,"x"]]'),
        ({"b": {"d": 1, "c": 2}, "a": [], "B": 0}, '{"B":0,"a":[],"b":{"c":2,"d":1}}'),
        ("é\u2028€😀", '"é\u2028€😀"'),
        ('"\\/\b\f\n\r\t\x0f\x7f', '"\\"\\\\/\\b\\f\\n\\r\\t\\u000f\x7f"'),
    ],
)
def test_canonical_json_is_that_of_rfc_8785(value: Any, text: str) -> None:
    assert canonical_json(value) == text


@pytest.mark.parametrize(
    ("bits", "text"),
    [
        (0x0000000000000001, "5e-324"),
        (0x8000000000000001, "-5e-324"),
        (0x7FEFFFFFFFFFFFFF, "1.7976931348623157e+308"),
        (0x4340000000000000, "9007199254740992"),
        (0x4430000000000000, "295147905179352830000"),
        (0x44B52D02C7E14AF5, "9.999999999999997e+22"),
        (0x44B52D02C7E14AF6, "1e+23"),
        (0x444B1AE4D6E2EF4F, "999999999999999900000"),
        (0x444B1AE4D6E2EF50, "1e+21"),
        (0x3EB0C6F7A0B5ED8C, "9.999999999999997e-7"),
        (0x3EB0C6F7A0B5ED8D, "0.000001"),
        (0x41B3DE4355555554, "333333333.33333325"),
        (0xBECBF647612F3696, "-0.0000033333333333333333"),
        (0x43143FF3C1CB0959, "1424953923781206.2"),
    ],
)
def test_numbers_are_written_as_in_the_samples_of_rfc_8785(bits: int, text: str) -> None:
    (value,) = struct.unpack(">d", struct.pack(">Q", bits))
    assert canonical_json(value) == text


@settings(max_examples=200, deadline=None, database=None, derandomize=True)
@given(strategies.floats(allow_nan=False, allow_infinity=False))
def test_every_number_can_be_read_back(value: float) -> None:
    text = canonical_json(value)
    assert float(json.loads(text)) == value
    assert re.fullmatch(r"-?(0|[1-9]\d*)(\.\d*[1-9])?(e[+-][1-9]\d*)?", text)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (2**53, "9007199254740992 exceeds"),
        (-(2**53), "-9007199254740992 exceeds"),
        (float("nan"), "nan is not representable"),
        (float("-inf"), "-inf is not representable"),
        ("\ud800", "non-UTF-8"),
    ],
)
def test_a_value_without_a_canonical_form_is_refused(value: Any, reason: str) -> None:
    assert canonical_json(2**53 - 1) == "9007199254740991"
    for inside in (value, [value], {"a": {"b": value}}):
        with pytest.raises(
            PlanError, match=f"settings should be finite numbers, .*; .*{reason}.*: change it"
        ):
            canonical_json(inside)
    refused = (
        "`options.a.float` should be a finite number"
        if isinstance(value, float)
        else (r"`options` should have whole numbers of at most 2\^53 - 1 and Unicode text")
    )
    with pytest.raises(PlanError, match=f"^{refused}; found "):
        tiny_plan(options={"a": value})


# the Plan


def test_the_digest_of_a_plan_never_changes() -> None:
    assert fixed_plan().digest == "885ca72c37dc2ced86eba23f2e2c8faa65b4a9e2d9e76fb7c26c3a3b6b6ed575"


TRAFFIC = FlowSchema(
    columns=(Number(name="bytes", low=0, high=9),),
    label="kind",
    classes=("cat", "dog", "owl"),
    flows=2,
    side=8,
)


def test_every_field_of_a_plan_moves_its_digest() -> None:
    changes: list[dict[str, Any]] = [
        {"classes": ("dog", "cat", "owl")},
        {"image": COLOUR},
        {"seed": 8},
        {"sites": 3},
        {"site_names": ("a", "b")},
        {"method": "localdm"},
        {"ipc": 2},
        {"pae": 2},
        {"steps": 3},
        {"fraction": 0.5, "site_names": ("a", "b")},
        {"batch": None},
        {"network": {"width": 16, "depth": 1}},
        {"augment": ("crop",)},
        {"sketch": None},
        {"wire": "int8"},
        {"images": "float32"},
        {"merging": "uniform"},
        {"local": {"images": 2}},
        {"refinement": {"passes": 2}},
        {"probe": Probe(weights="0" * 64, embedding=(1.0,))},
        {"collection": Collection(quorum=2)},
        {"flows": TRAFFIC},
        {"options": {"iterations": 1}},
        {"largest_class": 1000},
        {"merging": "trimmed", "trim": 1, "sites": 3},
        {"pictures": {"fit": "crop"}},
        {"privacy": {"epsilon": 1.0, "clip": 2.0}, "batch": None, "local": {"method": "none"}},
        {
            "masking": {"keys": {"a": "0" * 64, "b": "1" * 64}, "threshold": 2},
            "site_names": ("a", "b"),
            "largest_class": 1000,
            "local": {"method": "none"},
            "wire": "float32",
        },
    ]
    assert {name for change in changes for name in change} == set(Plan.model_fields)
    digests = {fixed_plan(**change).digest for change in changes} | {fixed_plan().digest}
    assert len(digests) == len(changes) + 1


def test_a_plan_parsed_from_its_own_json_has_the_same_digest() -> None:
    plan = tiny_plan(image=COLOUR, local={"matching": {"learning_rate": 0.1}})
    again = Plan.model_validate(json.loads(json.dumps(plan.model_dump(mode="json"))))
    assert again == plan
    assert again.digest == plan.digest


def test_a_plan_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        fixed_plan().seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("velocity", {"velocity": 1}),
        ("local.step", {"local": {"step": 1}}),
        ("network.strides", {"network": {"strides": 1}}),
        ("refinement.matching.eta", {"refinement": {"matching": {"eta": 1}}}),
    ],
)
def test_an_unknown_key_is_refused_by_name(name: str, bad: dict) -> None:
    with pytest.raises(
        PlanError, match=f"`{name}` is not a setting: remove it, or check its spelling"
    ):
        make_plan(CLASSES, GREY, **bad)


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("seed", -1), ("seed", 2**53), ("seed", "x"), ("seed", 0.5), ("sites", 0),
        ("sites", 10**6 + 1), ("method", "Collab DM"), ("ipc", 0), ("ipc", 10_001), ("pae", 0),
        ("pae", 9), ("pae", 3), ("steps", -1), ("steps", 100_001), ("fraction", 0),
        ("fraction", 1.5), ("fraction", float("nan")), ("batch", 0), ("network.width", 4),
        ("network.name", "LeNet"), ("augment.0", "blur"), ("sketch", 0), ("wire", "float64"),
        ("images", "uint16"), ("merging", "mean"), ("local.method", "gan"),
        ("local.start", "zero"), ("local.images", -1), ("local.steps", -1), ("local.batch", 0),
        ("local.matching.learning_rate", 0), ("local.matching.spread", -1),
        ("refinement.passes", -1), ("refinement.batch", 0), ("refinement.matching.momentum", 1),
        ("refinement.matching.optimiser", "lbfgs"),
        ("refinement.matching.learning_rate", float("inf")),
        ("refinement.matching.schedule", "step"), ("site_names.0", "a b"), ("site_names.0", ""),
        ("site_names.0", "é"), ("site_names.0", "a/b"),
    ],
)  # fmt: skip
def test_a_bad_value_is_refused_by_name(name: str, bad: Any) -> None:
    field: Any = bad
    for part in reversed(name.split(".")):
        field = (field,) if part == "0" else {part: field}
    with pytest.raises(PlanError, match=rf"^`{re.escape(name)}` .*should .*; found "):
        tiny_plan(**field)


@pytest.mark.parametrize(
    ("message", "bad"),
    [
        ("`classes` should be distinct names", {"classes": ("a", "a")}),
        ("`classes` should be distinct names, none empty", {"classes": ("a", "")}),
        (
            "`network.norm` should not be batch",
            {"network": {"width": 8, "depth": 1, "norm": "batch"}},
        ),
        ("`classes` .* at least 2 items", {"classes": ("a",)}),
        ("`augment` should name every operation once", {"augment": ("crop", "crop")}),
        ("`site_names` should be 2 distinct names", {"site_names": ("a", "a")}),
        ("`site_names` should be 2 distinct names", {"site_names": ("a", "b", "c")}),
        ("`fraction` below 1 needs `site_names`", {"fraction": 0.5}),
        ("`pae` should divide the image side 8; found 3", {"pae": 3}),
        (
            "`mean` and `std` should have 3 values, one per channel",
            {"image": {**COLOUR.model_dump(), "mean": (0.5,)}},
        ),
        (
            "`image.std.0` .* greater than or equal to 0.000001",
            {"image": {**GREY.model_dump(), "std": (0.0,)}},
        ),
        ("`image.mean.0` .* finite", {"image": {**GREY.model_dump(), "mean": (float("nan"),)}}),
        (
            "`image`: `side` should be at least 8, .*; found 7$",
            {"image": {**GREY.model_dump(), "side": 7}},
        ),
        (
            "`image.side` .* less than or equal to 512",
            {"image": {**GREY.model_dump(), "side": 513}},
        ),
        (
            "`image`: `channels` should be at most 16; found 17$",
            {"image": {**GREY.model_dump(), "channels": 17}},
        ),
    ],
)
def test_parts_that_do_not_agree_are_refused(message: str, bad: dict) -> None:
    with pytest.raises(ValidationError) as refusal:
        fixed_plan(**bad)
    assert re.search(message, validation_message(refusal.value))


def test_all_wrong_fields_are_reported_at_once() -> None:
    with pytest.raises(PlanError, match=r"`ipc` .*; found 0\n`wire` .*; found 'text'"):
        tiny_plan(ipc=0, wire="text")


def test_the_pixels_of_a_plan_have_a_type_and_no_images_are_sent_by_the_method_none() -> None:
    assert fixed_plan(images="uint8").image_dtype is torch.uint8
    assert fixed_plan(images="float32").image_dtype is torch.float32
    assert (
        Local(method="dm", images=7).images_sent
        == Local(method="random", images=7).images_sent
        == 7
    )
    assert Local(method="none", images=7).images_sent == 0


def test_a_site_takes_part_in_the_steps_that_its_name_draws() -> None:
    names = ("a", "b", "c")
    plan = fixed_plan(sites=3, site_names=names, fraction=0.4, steps=30)
    drawn = [participants(plan.seed, t, names, 0.4) for t in range(30)]
    for site in names:
        assert plan.steps_of(site) == [t for t, chosen in enumerate(drawn) if site in chosen]
    assert sorted(t for site in names for t in plan.steps_of(site)) == list(range(30))


def test_every_site_takes_part_in_every_step_by_default() -> None:
    assert fixed_plan().steps_of("anyone") == [0, 1]
    assert fixed_plan(site_names=("a", "b")).steps_of("a") == [0, 1]


@pytest.mark.parametrize(
    "site", ["", "-a", ".a", "a b", "a/b", "..", "a" * 65, "a\n", "é", "a\n\n"]
)
def test_a_name_that_is_no_site_name_is_refused(site: str) -> None:
    with pytest.raises(
        PlanError, match=r"`site` should be 1 to 64 letters, digits, '\.', '_' or '-'"
    ):
        fixed_plan().check_site(site)


def test_a_plan_that_names_its_sites_has_no_others() -> None:
    plan = fixed_plan(site_names=("a", "b"))
    plan.check_site("b")
    with pytest.raises(PlanError, match="`site` should be one of a, b; found 'c'"):
        plan.check_site("c")


# making a plan


def test_digits_are_not_flipped_by_default() -> None:
    assert "flip" not in make_plan(DIGITS, GREY).augment
    assert "flip" in make_plan((*DIGITS, "none"), GREY).augment
    assert make_plan(DIGITS, GREY, augment=("flip",)).augment == ("flip",)


@pytest.mark.parametrize(
    ("ipc", "sites", "images"), [(10, 5, 3), (10, 3, 5), (10, 1, 10), (1, 5, 1), (50, 20, 4)]
)
def test_a_site_sends_its_share_of_images_and_one_more(ipc: int, sites: int, images: int) -> None:
    assert tiny_plan(ipc=ipc, sites=sites).local.images == images


def test_a_given_number_of_images_is_used_and_method_none_sends_none() -> None:
    assert tiny_plan(local={"images": 7}).local.images == 7
    assert tiny_plan(local={"method": "none"}).local.images == 0


def test_a_plan_for_data_has_its_classes_shape_mean_and_spread() -> None:
    pixels = torch.tensor([0, 255], dtype=torch.uint8).repeat(32).reshape(1, 1, 8, 8)
    data = ImageSet(torch.cat([pixels, pixels // 255 * 51]), torch.tensor([0, 1]), ("a", "b"))
    plan = plan_for(data, network={"width": 8, "depth": 1})
    assert plan.classes == ("a", "b")
    assert plan.image.shape == (1, 8, 8)
    assert plan.image.mean == pytest.approx((0.3,), abs=1e-4)
    assert plan.image.std == pytest.approx((0.4123,), abs=1e-4)


def test_a_network_that_the_images_are_too_small_for_is_refused() -> None:
    with pytest.raises(
        PlanError, match="`depth` should be at most 3 for images of side 8; found 4"
    ):
        tiny_plan(network={"width": 8, "depth": 4})


# the probe


def with_probe(plan: Plan, **changes: Any) -> Plan:
    assert plan.probe is not None
    return plan.model_copy(update={"probe": plan.probe.model_copy(update=changes)})


def test_the_probe_never_changes() -> None:
    found = probe(fixed_plan(sketch=None))
    assert found.weights == "680af7dbfe3e7e506780729d97dec698405137892f2b192c89108b4560145d12"
    assert found.embedding == pytest.approx(EMBEDDING, rel=1e-3, abs=1e-3)


def test_a_plan_that_this_machine_agrees_with_passes() -> None:
    plan = tiny_plan()
    check_probe(plan)
    check_probe(
        with_probe(plan, embedding=tuple(v * (1 + 1e-5) + 1e-6 for v in plan.probe.embedding))
    )


def test_other_weights_are_refused() -> None:
    with pytest.raises(ProbeError, match="the weights of step 0 should have digest ffffffff"):
        check_probe(with_probe(tiny_plan(), weights="f" * 64))


@pytest.mark.parametrize(
    "change", [lambda v: (v[0] + 0.01, *v[1:]), lambda v: v[:-1], lambda v: v[::-1]]
)
def test_another_embedding_is_refused(change: Any) -> None:
    plan = tiny_plan()
    with pytest.raises(ProbeError, match="should agree with the plan's to 1 in 1000"):
        check_probe(with_probe(plan, embedding=change(plan.probe.embedding)))


@pytest.mark.parametrize(
    "change", [{"seed": 8}, {"augment": ("cutout",)}, {"network": NetworkSpec(width=16, depth=1)}]
)
def test_a_plan_changed_after_its_probe_was_made_is_refused(change: dict) -> None:
    with pytest.raises(ProbeError):
        check_probe(tiny_plan().model_copy(update=change))


def test_a_plan_without_a_probe_is_refused() -> None:
    with pytest.raises(ProbeError, match="should contain a probe; found none"):
        check_probe(fixed_plan())


# what a site will send


def sent_bytes(contribution: Contribution) -> int:
    statistics = contribution.statistics
    parts = [statistics.codes, contribution.images.images]
    parts += [] if statistics.scales is None else [statistics.scales]
    return sum(part.numel() * part.element_size() for part in parts)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"wire": "int8", "sketch": 6},
        {"wire": "float16", "images": "float32", "pae": 2},
        {"sketch": 2 * WIDTH, "image": COLOUR},
        {"local": {"method": "none"}},
        {"local": {"method": "random", "images": 5}},
        {"steps": 0},
    ],
)
def test_the_estimated_bytes_are_those_that_a_site_with_every_class_sends(changes: dict) -> None:
    plan = tiny_plan(**changes)
    contribution = contribute(plan, tiny_data([3, 2, 4], plan=plan))
    assert sent_bytes(contribution) == cost(plan).bytes
    assert cost(plan).bytes < len(contribution_bytes(contribution)) <= cost(plan).file_bytes


def test_the_estimated_work_counts_real_images_and_local_steps() -> None:
    statistics = tiny_plan(steps=5, batch=4, local={"method": "none"})
    assert cost(statistics, images_per_class=3).forward_images == 3 * 5 * 3
    assert cost(statistics, images_per_class=9).forward_images == 3 * 5 * 4
    local = tiny_plan(steps=0, pae=2, local={"steps": 7, "batch": 6, "images": 2})
    assert cost(local, images_per_class=9).forward_images == 3 * 7 * (6 + 2 * 4 * 3)
    assert cost(local, 9).multiplications == cost(local, 9).forward_images * (9 * 8 * 64)


# answers to a plan


PLAN = fixed_plan()
INT8 = fixed_plan(wire="int8")


def image_set(**changes: Any) -> ImageSet:
    fields: dict[str, Any] = {
        "images": torch.zeros(2, 1, 8, 8, dtype=torch.uint8),
        "labels": torch.tensor([0, 2]),
    }
    return ImageSet(**{**fields, "classes": CLASSES} | changes)


def counted(batch_counts: list[int], totals: list[int]) -> Statistics:
    statistics = fixed_statistics(ramp(2, 2, 4).half(), [0, 2], totals)
    return replace(statistics, batch_counts=torch.tensor(batch_counts))


def test_an_answer_that_fits_is_accepted() -> None:
    for plan in (
        PLAN,
        INT8,
        fixed_plan(images="float32"),
        fixed_plan(local={"method": "none", "images": 1}),
    ):
        images = (
            image_set(images=torch.zeros(2, 1, 8, 8)) if plan.images == "float32" else image_set()
        )
        images = images.subset(torch.arange(0)) if plan.local.method == "none" else images
        check_contribution(contribution_spec(plan), fixed_contribution(plan, images=images))


@pytest.mark.parametrize(
    ("message", "bad"),
    [
        ("plan digest should be 885ca72c37dc2ced…; found 0000", {"plan_digest": "0" * 64}),
        ("`site` should be 1 to 64 letters", {"site": "a b"}),
        (
            "steps should be the 2 of the plan; found 1",
            {"statistics": fixed_statistics(ramp(1, 2, 4).half(), [0, 2])},
        ),
        (
            "steps should be the 2 of the plan; found 3",
            {"statistics": fixed_statistics(ramp(3, 2, 4).half(), [0, 2])},
        ),
        (
            "at least one class should be present",
            {"statistics": fixed_statistics(ramp(2, 0, 4).half(), [])},
        ),
        (
            "class numbers should be below 3; found 3",
            {"statistics": fixed_statistics(ramp(2, 2, 4).half(), [0, 3])},
        ),
        (
            "wire type should be float16; found float32",
            {"statistics": fixed_statistics(ramp(2, 2, 4), [0, 2])},
        ),
        (
            "wire type should be float16; found int8",
            {"statistics": fixed_contribution(INT8).statistics},
        ),
        (
            "a class mean should have 4 numbers; found 5",
            {"statistics": fixed_statistics(ramp(2, 2, 5).half(), [0, 2])},
        ),
        (
            r"batch counts should be \[256, 9\]; found \[300, 9\]",
            {"statistics": counted([300, 9], [300, 9])},
        ),
        (
            r"batch counts should be \[256, 9\]; found \[256, 8\]",
            {"statistics": counted([256, 8], [300, 9])},
        ),
        (
            "totals should be at most 1,099,511,627,776; found",
            {"statistics": counted([256, 9], [2**40 + 1, 9])},
        ),
        (
            "classes should be .*; found .*'cow'",
            {"images": image_set(classes=("cat", "cow", "owl"))},
        ),
        (
            "images should be .*; found .1, 9, 9.",
            {"images": image_set(images=torch.zeros(2, 1, 9, 9).byte())},
        ),
        (
            "images should be .*; found .3, 8, 8.",
            {"images": image_set(images=torch.zeros(2, 3, 8, 8).byte())},
        ),
        (
            "images should be uint8; found torch.float32",
            {"images": image_set(images=torch.zeros(2, 1, 8, 8))},
        ),
        (
            r"images per class should be \[1, 0, 1\]; found \[1, 1, 0\]",
            {"images": image_set(labels=torch.tensor([0, 1]))},
        ),
        (
            r"images per class .* \[1, 0, 1\]; found \[0, 0, 0\]",
            {"images": image_set().subset(torch.arange(0))},
        ),
    ],
)
def test_an_answer_that_does_not_fit_is_refused_by_name(message: str, bad: dict) -> None:
    with pytest.raises(DocumentError, match=rf"contribution of '.*': .*{message}"):
        check_contribution(contribution_spec(PLAN), fixed_contribution(PLAN, **bad))


def test_steps_of_another_site_are_refused() -> None:
    plan = fixed_plan(site_names=("a", "b"), fraction=0.5, steps=8)
    wrong = plan.steps_of("b")
    codes = ramp(len(wrong), 2, 4).half()
    statistics = replace(fixed_statistics(codes, [0, 2]), steps=torch.tensor(wrong))
    check_contribution(
        contribution_spec(plan), fixed_contribution(plan, site="b", statistics=statistics)
    )
    with pytest.raises(DocumentError, match="contribution of 'a': steps should be the"):
        check_contribution(
            contribution_spec(plan), fixed_contribution(plan, site="a", statistics=statistics)
        )


@pytest.mark.parametrize(
    ("sites", "message"),
    [
        ([], "at least one contribution; found none"),
        (["a", "b", "a"], "each site should contribute once; found a more than once"),
        (["a", "b", "c"], "the plan is for 2 sites; found 3 contributions"),
    ],
)
def test_a_round_of_no_site_of_one_site_twice_or_of_too_many_is_refused(
    sites: list[str], message: str
) -> None:
    with pytest.raises(DocumentError, match=message):
        check_contributions(PLAN, sites)


def test_a_round_may_lack_sites() -> None:
    check_contributions(PLAN, ["b"])
    check_contributions(PLAN, ["b", "a"])


def test_an_extension_is_in_the_document_only_if_it_has_a_value() -> None:
    plain = tiny_plan()
    waits = plain.model_copy(update={"collection": Collection(quorum=2, deadline=60)})
    assert "collection" not in plain.model_dump(mode="json")
    assert waits.model_dump(mode="json")["collection"] == {"quorum": 2, "deadline": 60.0}
    assert plain.digest != waits.digest
    assert Plan.model_validate_json(json.dumps(waits.model_dump(mode="json")), strict=True) == waits


def test_a_quorum_above_the_number_of_sites_is_refused() -> None:
    with pytest.raises(ValidationError, match="quorum"):
        Plan.model_validate(tiny_plan().model_dump() | {"collection": {"quorum": 99}})

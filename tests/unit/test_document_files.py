import contextlib
import copy
import errno
import hashlib
import io
import json
import os
import socket
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings, strategies
from tiny import (
    CLASSES,
    COLOUR,
    answers,
    fixed_contribution,
    fixed_distilled,
    fixed_model,
    fixed_plan,
    fixed_statistics,
    fixed_steps,
    ramp,
    tiny_data,
    tiny_plan,
)

from collabdm.checkpoint import Checkpoint
from collabdm.documents.atomic_write import atomic_write_with, check_writable
from collabdm.documents.contribution import Contribution
from collabdm.documents.contribution_file import contribution_bytes, write_contribution
from collabdm.documents.outcome_files import (
    read_distilled,
    read_steps,
    write_distilled,
    write_steps,
)
from collabdm.documents.outcomes import DistilledModel, DistilledSet, DistilledSteps
from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import read_plan, write_plan
from collabdm.errors import DocumentError, OutputError
from collabdm.images import ImageSet
from collabdm.methods.collabdm import contribute, distill
from collabdm.planning.cost import cost
from collabdm.rounds.contributions import contribution_limit, parse_contribution, read_contribution
from collabdm.rounds.resumable import read_state, write_state
from collabdm.scoring.distilled_model_file import read_distilled_model, write_distilled_model

PLAN = fixed_plan()
INT8 = fixed_plan(wire="int8")
LEAST = -(2**63)  # its difference to 1 overflows


@pytest.fixture(autouse=True)
def _as_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signatures are checked in the tests only: a file must be refused without them."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


# documents as bytes, and readers of bytes


def plan_bytes(plan: Plan, folder: Path) -> bytes:
    write_plan(plan, folder / "plan.json")
    return (folder / "plan.json").read_bytes()


def distilled_bytes(distilled: DistilledSet, folder: Path) -> bytes:
    write_distilled(distilled, folder / "set")
    return (folder / "set").read_bytes()


def state_bytes(folder: Path) -> bytes:
    tensors = {"images": ramp(2, 1, 8, 8), "optimizer.0.momentum_buffer": -ramp(2, 1, 8, 8)}
    parts = {"": Checkpoint(3, tensors), "a/b": Checkpoint(5, {}, "a/b")}
    write_state(parts, "this run", folder / "state")
    return (folder / "state").read_bytes()


def from_bytes(read: Callable[[Path], Any], content: bytes, folder: Path) -> Any:
    (folder / "document").write_bytes(content)
    return read(folder / "document")


def changed(
    content: bytes, header: Callable[[dict], dict] = lambda h: h, **tensors: torch.Tensor | None
) -> bytes:
    """A safetensors document with another header and other tensors.

    In names, '.' is written '__'; None leaves a tensor out.
    """
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length])["__metadata__"]
    found = header(json.loads(metadata["collabdm"]))
    parts = safetensors.torch.load(content)
    parts |= {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    kept = {name: tensor for name, tensor in parts.items() if tensor is not None}
    return safetensors.torch.save(kept, {"collabdm": json.dumps(found)})


def refuse_contribution(content: bytes, message: str, plan: Plan = PLAN) -> None:
    with pytest.raises(DocumentError, match=message):
        parse_contribution(content, plan, "a.safetensors")


def refuse_distilled(content: bytes, message: str, folder: Path) -> None:
    with pytest.raises(DocumentError, match=message):
        from_bytes(read_distilled, content, folder)


def refuse_plan(content: bytes, message: str, folder: Path) -> None:
    with pytest.raises(DocumentError, match=message):
        from_bytes(read_plan, content, folder)


# round trips


def check_same(a: Contribution, b: Contribution) -> None:
    for name in ("steps", "classes", "codes", "batch_counts", "totals"):
        assert torch.equal(getattr(a.statistics, name), getattr(b.statistics, name))
    assert (a.statistics.scales is None) == (b.statistics.scales is None)
    assert a.statistics.scales is None or torch.equal(a.statistics.scales, b.statistics.scales)
    check_same_images(a.images, b.images)
    assert (a.site, a.plan_digest, a.versions) == (b.site, b.plan_digest, b.versions)


def check_same_images(a: ImageSet, b: ImageSet) -> None:
    assert a.images.dtype == b.images.dtype
    assert torch.equal(a.images, b.images)
    assert torch.equal(a.labels, b.labels)
    assert a.classes == b.classes


VARIANTS = [
    {},
    {"wire": "int8", "pae": 2},
    {"wire": "float16", "sketch": 6, "images": "float32"},
    {"image": COLOUR, "local": {"method": "none"}},
    {
        "fraction": 0.4,
        "site_names": ("site-1", "site-2", "site-3"),
        "classes": ("ä ö", '"', "😀"),
    },
]


@pytest.mark.parametrize("changes", VARIANTS)
def test_a_round_read_from_files_is_the_round(changes: dict, tmp_path: Path) -> None:
    plan = tiny_plan(**changes)
    write_plan(plan, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == plan
    for k, contribution in enumerate(answers(plan, [[2, 1, 0], [0, 2, 3], [1, 1, 1]])):
        write_contribution(contribution, tmp_path / f"{k}.safetensors")
        check_same(read_contribution(tmp_path / f"{k}.safetensors", plan), contribution)
    contributions = [read_contribution(tmp_path / f"{k}.safetensors", plan) for k in range(3)]
    distilled = distill(plan, contributions)
    write_distilled(distilled, tmp_path / "set.safetensors")
    found = read_distilled(tmp_path / "set.safetensors")
    check_same_images(found.images, distilled.images)
    assert replace(found, images=distilled.images) == distilled


def test_a_missing_class_is_missing_in_the_file_too(tmp_path: Path) -> None:
    plan = tiny_plan()
    distilled = distill(plan, answers(plan, [[2, 0, 1]]), allow_missing=True)
    write_distilled(distilled, tmp_path / "set")
    assert read_distilled(tmp_path / "set").images.counts().tolist() == [2, 0, 2]


def test_the_same_inputs_give_the_same_bytes(tmp_path: Path) -> None:
    plan = tiny_plan(wire="int8", batch=2)
    first, second = (contribute(plan, tiny_data([3, 2, 1]), "a") for _ in range(2))
    assert contribution_bytes(first) == contribution_bytes(second)
    written = [distilled_bytes(distill(plan, [sent]), tmp_path) for sent in (first, second)]
    assert written[0] == written[1]
    assert plan_bytes(plan, tmp_path) == plan_bytes(plan, tmp_path)


def test_parts_that_are_views_are_written_too() -> None:
    sent = fixed_contribution(PLAN)
    wide = sent.images.images.repeat(1, 1, 1, 2)[..., ::2]
    narrow = ImageSet(wide, sent.images.labels, CLASSES)
    assert contribution_bytes(replace(sent, images=narrow)) == contribution_bytes(
        replace(sent, images=ImageSet(wide.contiguous(), sent.images.labels, CLASSES))
    )


# golden bytes


def test_the_bytes_of_a_plan_never_change(tmp_path: Path) -> None:
    digest = hashlib.sha256(plan_bytes(PLAN, tmp_path)).hexdigest()
    assert digest == "6cfb9324bf2272e6c6a48a9462c624b6dd50b5b0578608122e93192f7ee92d6f"


@pytest.mark.parametrize(
    ("plan", "expected"),
    [
        (PLAN, "1f3dd947f4ed925f1631969f6e7d85339ebd7eedbca5f62b35d3e254429e34f7"),
        (INT8, "d7782e210c1e8ec43f85dc0dfba4981009b64c7bcaf5db57257e536f271a7d2e"),
    ],
)
def test_the_bytes_of_a_contribution_never_change(plan: Plan, expected: str) -> None:
    content = contribution_bytes(fixed_contribution(plan))
    check_same(parse_contribution(content, plan), fixed_contribution(plan))
    assert hashlib.sha256(content).hexdigest() == expected


def test_the_bytes_of_a_distilled_set_never_change(tmp_path: Path) -> None:
    digest = hashlib.sha256(distilled_bytes(fixed_distilled(PLAN), tmp_path)).hexdigest()
    assert digest == "ef8ce2bfda53e5f07d4ee2e0d207267d276ca58c022a088696ae99eaa16e483b"


# damaged files


def test_a_file_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    sent, made = (
        contribution_bytes(fixed_contribution(PLAN)),
        distilled_bytes(fixed_distilled(PLAN), tmp_path),
    )
    plan = plan_bytes(PLAN, tmp_path).rstrip()
    for length in [*range(40), *range(40, len(sent), 29), len(sent) - 1]:
        refuse_contribution(sent[:length], "a.safetensors should be a whole safetensors file")
    for length in [*range(40), *range(40, len(made), 37), len(made) - 1]:
        refuse_distilled(made[:length], "document should be a whole safetensors file", tmp_path)
    for length in [*range(40), *range(40, len(plan), 31), len(plan) - 1]:
        refuse_plan(plan[:length], "document should be a plan, JSON", tmp_path)


@dataclass(frozen=True)
class Document:
    content: bytes
    read: Callable[[bytes], Any]


@pytest.fixture(scope="module", params=["plan", "contribution", "distilled", "steps", "model"])
def document(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Document:
    folder = tmp_path_factory.mktemp("documents")
    if request.param == "plan":
        return Document(plan_bytes(PLAN, folder), lambda b: from_bytes(read_plan, b, folder))
    if request.param == "contribution":
        return Document(
            contribution_bytes(fixed_contribution(INT8)), lambda b: parse_contribution(b, INT8)
        )
    if request.param == "steps":
        write_steps(fixed_steps(PLAN), folder / "steps")
        return Document(
            (folder / "steps").read_bytes(), lambda b: from_bytes(read_steps, b, folder)
        )
    if request.param == "model":
        write_distilled_model(fixed_model(PLAN), folder / "model")
        return Document(
            (folder / "model").read_bytes(), lambda b: from_bytes(read_distilled_model, b, folder)
        )
    return Document(
        distilled_bytes(fixed_distilled(PLAN), folder),
        lambda b: from_bytes(read_distilled, b, folder),
    )


def test_bytes_after_the_end_are_refused(document: Document) -> None:
    with pytest.raises(DocumentError):
        document.read(document.content + b"}")


def reads_or_refuses(read: Callable[[bytes], Any], content: bytes) -> None:
    """Anything but a DocumentError goes through to the test."""
    with contextlib.suppress(DocumentError):
        assert isinstance(
            read(content), Plan | Contribution | DistilledSet | DistilledSteps | DistilledModel
        )


fuzzing = settings(
    max_examples=150,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture
    ],  # `_as_in_use` holds for all examples
)


@fuzzing
@given(content=strategies.binary(max_size=200))
def test_arbitrary_bytes_are_refused(document: Document, content: bytes) -> None:
    with pytest.raises(DocumentError):
        document.read(content)


@fuzzing
@given(
    flips=strategies.lists(
        strategies.tuples(strategies.integers(0), strategies.integers(1, 255)), min_size=1
    )
)
def test_flipped_bytes_read_fine_or_are_refused(
    document: Document, flips: list[tuple[int, int]]
) -> None:
    damaged = bytearray(document.content)
    for position, bits in flips:
        damaged[position % len(damaged)] ^= bits
    reads_or_refuses(document.read, bytes(damaged))


def places(value: Any, at: tuple = ()) -> Iterator[tuple]:
    """Every place in a JSON value, as the keys that lead to it."""
    yield at
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, part in items:
        yield from places(part, (*at, key))


def put(value: Any, where: int, new: Any) -> Any:
    """A copy with `new` at place number `where`."""
    found = list(places(value))
    *keys, last = ("all", *found[where % len(found)])
    whole = {"all": copy.deepcopy(value)}
    part = whole
    for key in keys:
        part = part[key]
    part[last] = new
    return whole["all"]


JSON = strategies.recursive(
    strategies.sampled_from(
        [None, True, 0, -1, 1, 2**63, 10**30, 0.5, 1e300, float("nan"), "", "x", "0" * 64]
    )
    | strategies.sampled_from(
        ["F64", "F32", "F16", "BF16", "I64", "I32", "U64", "U32", "U8", "I8", "BOOL", "C64"]
    ),
    lambda inner: (
        strategies.lists(inner, max_size=3)
        | strategies.dictionaries(strategies.text("ab"), inner, max_size=2)
    ),
    max_leaves=4,
)


def with_value(content: bytes, where: int, new: Any) -> bytes:
    """The document with one JSON value replaced.

    The value is in the plan, in the table of tensors, or in the header within it.
    """
    if content.startswith(b"{"):
        return json.dumps(put(json.loads(content), where, new)).encode()
    length = int.from_bytes(content[:8], "little")
    table, body = json.loads(content[8 : 8 + length]), content[8 + length :]
    if where % 2:
        inner = json.loads(table["__metadata__"]["collabdm"])
        table["__metadata__"]["collabdm"] = json.dumps(put(inner, where // 2, new))
    else:
        table = put(table, where // 2, new)
    text = json.dumps(table).encode()
    return len(text).to_bytes(8, "little") + text + body


@fuzzing
@given(where=strategies.integers(0, 10**6), new=JSON)
def test_a_document_with_one_value_replaced_reads_fine_or_is_refused(
    document: Document, where: int, new: Any
) -> None:
    reads_or_refuses(document.read, with_value(document.content, where, new))


# other documents


def test_a_file_of_another_kind_is_refused_by_name(tmp_path: Path) -> None:
    sent, made = (
        contribution_bytes(fixed_contribution(PLAN)),
        distilled_bytes(fixed_distilled(PLAN), tmp_path),
    )
    refuse_contribution(
        made, "a.safetensors: format should be collabdm/contribution; found 'collabdm/distilled'"
    )
    refuse_distilled(
        sent,
        "document: format should be collabdm/distilled; found 'collabdm/contribution'",
        tmp_path,
    )
    refuse_plan(b"{}", "document: format should be collabdm/plan; found None", tmp_path)
    refuse_plan(b"[]", "document should be a plan, a JSON object; found list", tmp_path)
    refuse_plan(b"\xff\xfe", "document should be a plan, JSON", tmp_path)
    other = safetensors.torch.save({"weight": torch.zeros(2)})
    refuse_contribution(other, "with a `collabdm` header")
    refuse_contribution(
        safetensors.torch.save({"weight": torch.zeros(2)}, {"format": "pt"}), "`collabdm` header"
    )


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_version_is_refused_by_name(version: Any, tmp_path: Path) -> None:
    message = f"version should be 1; found {version!r}: it was made by another version of collabdm"
    sent, made = (
        contribution_bytes(fixed_contribution(PLAN)),
        distilled_bytes(fixed_distilled(PLAN), tmp_path),
    )
    refuse_contribution(changed(sent, lambda h: h | {"version": version}), message)
    refuse_distilled(changed(made, lambda h: h | {"version": version}), message, tmp_path)
    document = json.loads(plan_bytes(PLAN, tmp_path)) | {"version": version}
    refuse_plan(json.dumps(document).encode(), message, tmp_path)


def test_an_answer_to_another_plan_is_refused() -> None:
    sent = contribution_bytes(fixed_contribution(fixed_plan(seed=8)))
    refuse_contribution(
        sent, f"a.safetensors: contribution of 'site-1': plan digest should be {PLAN.digest[:16]}…"
    )


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        (r"missing \['local.labels'\], unknown \[\]", {"local__labels": None}),
        (r"missing \['statistics.codes'\], unknown \[\]", {"statistics__codes": None}),
        (r"missing \[\], unknown \['weights'\]", {"weights": torch.zeros(1)}),
        (
            "statistics should be finite",
            {"statistics__codes": torch.full((2, 2, 4), float("nan")).half()},
        ),
        (
            "should be float16, float32 or int8; found torch.float64",
            {"statistics__codes": torch.ones(2, 2, 4).double()},
        ),
        (
            "should be float16, .* found torch.bool",
            {"statistics__codes": torch.ones(2, 2, 4).bool()},
        ),
        ("wire type should be float16; found float32", {"statistics__codes": torch.ones(2, 2, 4)}),
        ("found torch.float16 with scales", {"statistics__scales": torch.ones(2, 2)}),
        (
            "found torch.int8 without scales",
            {"statistics__codes": torch.ones(2, 2, 4).to(torch.int8)},
        ),
        (
            "`statistics.steps` should be int64 .* found torch.int32",
            {"statistics__steps": torch.arange(2).int()},
        ),
        (
            "`statistics.totals` should be int64 .* found torch.float32",
            {"statistics__totals": torch.ones(2)},
        ),
        (
            "`statistics.batch_counts` should be int64 of one dim",
            {"statistics__batch_counts": torch.tensor(1)},
        ),
        (
            "`statistics.classes` should be int64 of one dim",
            {"statistics__classes": torch.tensor([[0, 2]])},
        ),
        ("class numbers should be below 3; found 3", {"statistics__classes": torch.tensor([0, 3])}),
        (
            f"numbers should ascend from 0; found {LEAST} after 1",
            {"statistics__classes": torch.tensor([1, LEAST])},
        ),
        (
            f"steps should ascend from 0; found {LEAST} after 1",
            {"statistics__steps": torch.tensor([1, LEAST])},
        ),
        ("counts should be 1 <= ", {"statistics__totals": torch.tensor([-1, 5])}),
        ("`local.labels` should be int64", {"local__labels": torch.tensor([0.0, 2.0])}),
        (
            "`local.labels` should be int64",
            {"local__labels": torch.tensor([0, 2]).to(torch.uint64)},
        ),
        (
            "`local.labels` should ascend; found them in another order",
            {"local__labels": torch.tensor([2, 0])},
        ),
        ("`local.labels` should be int64 of one dimension", {"local__labels": torch.tensor(0)}),
        (
            "`local.labels` should ascend; found them in another order",
            {"local__labels": torch.tensor([1, LEAST])},
        ),
        (
            r"`labels` should be int64, one per image, \(2,\)",
            {"local__labels": torch.tensor([0, 2, 2])},
        ),
        (r"labels should be in 0 .. 2 .*; found 0 .. 3", {"local__labels": torch.tensor([0, 3])}),
        (
            "`images` should be uint8 or float32 .* found torch.int16",
            {"local__images": torch.ones(2, 1, 8, 8).short()},
        ),
        (
            "`images` should be uint8 or float32 of shape",
            {"local__images": torch.ones(2, 64).byte()},
        ),
        ("images should be finite", {"local__images": torch.full((2, 1, 8, 8), float("inf"))}),
        (
            "images should be .1, 8, 8.; found .1, 4, 4.",
            {"local__images": torch.ones(2, 1, 4, 4).byte()},
        ),
        (
            "a class mean should have 4 numbers; found 0",
            {"statistics__codes": torch.zeros(2, 2, 0).half()},
        ),
        (
            "totals should be at most 1,099,511,627,776",
            {"statistics__totals": torch.tensor([3, 2**40 + 1])},
        ),
        (
            r"batch counts should be \[3, 5\]; found \[3, 4\]",
            {"statistics__batch_counts": torch.tensor([3, 4])},
        ),
    ],
)
def test_wrong_parts_of_a_contribution_are_refused_by_name(message: str, parts: dict) -> None:
    content = contribution_bytes(fixed_contribution(PLAN))
    refuse_contribution(changed(content, **parts), f"a.safetensors: .*{message}")


@pytest.mark.parametrize(
    ("message", "scales"),
    [
        ("scales should be finite; found NaN or infinity", torch.full((2, 2), float("nan"))),
        ("scales should be 0 or more; found -1.0", torch.full((2, 2), -1.0)),
        (r"scales should be float32 of shape \(2, 2\); found .* \(2,\)", torch.ones(2)),
        (
            "scales should be present with int8 statistics, and absent otherwise; "
            "found torch.int8 without scales",
            None,
        ),
        (
            "scales should be float32 of shape .* found torch.int64",
            torch.ones(2, 2, dtype=torch.int64),
        ),
    ],
)
def test_wrong_scales_are_refused(message: str, scales: torch.Tensor | None) -> None:
    content = contribution_bytes(fixed_contribution(INT8))
    refuse_contribution(changed(content, statistics__scales=scales), message, INT8)


@pytest.mark.parametrize(
    ("message", "header"),
    [
        (
            r"classes should be \('cat', 'dog', 'owl'\); found \('cat', 'cow', 'owl'\)",
            {"classes": ["cat", "cow", "owl"]},
        ),
        ("labels should be in 0 .. 1", {"classes": ["cat", "dog"]}),
        ("header: `plan_digest` .* should match pattern", {"plan_digest": "x"}),
        ("plan digest should be", {"plan_digest": "0" * 64}),
        ("header: `site` .* text; found 5", {"site": 5}),
        ("`site` should be 1 to 64 letters", {"site": "a/b"}),
        ("header: `colour` is not a setting", {"colour": 1}),
        ("header: `versions` .* found None", {"versions": None}),
    ],
)
def test_wrong_headers_of_a_contribution_are_refused_by_name(message: str, header: dict) -> None:
    content = contribution_bytes(fixed_contribution(PLAN))
    refuse_contribution(changed(content, lambda h: h | header), f"a.safetensors: .*{message}")


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        (
            r"tensors should be \['images', 'labels'\]; missing \['labels'\], unknown \[\]",
            {"labels": None},
        ),
        (r"missing \[\], unknown \['prices'\]", {"prices": torch.zeros(1)}),
        ("`labels` should be int64", {"labels": torch.tensor([0.0, 1.0, 2.0])}),
        ("`labels` should be int64", {"labels": torch.tensor([0, 1, 2]).to(torch.uint64)}),
        ("`labels` should be int64", {"labels": torch.tensor([0, 1, 2]).byte()}),
        ("labels should be in 0 .. 2", {"labels": torch.tensor([0, 1, 3])}),
        ("there should be 1 images of a class; found", {"labels": torch.tensor([0, 1, 1])}),
        (
            r"images should be \(1, 8, 8\), as in the plan; found \(1, 4, 4\)",
            {"images": torch.zeros(3, 1, 4, 4).byte()},
        ),
        ("images should be finite", {"images": torch.full((3, 1, 8, 8), float("nan"))}),
        (
            "there should be 1 images of a class",
            {"images": torch.zeros(0, 1, 8, 8).byte(), "labels": torch.arange(0)},
        ),
        ("images should be uint8; found torch.float32", {"images": torch.zeros(3, 1, 8, 8)}),
        ("labels should ascend; found them in another order", {"labels": torch.tensor([0, 2, 1])}),
        (
            f"labels should be in 0 .. 2 .*; found {LEAST} .. 1",
            {"labels": torch.tensor([0, 1, LEAST])},
        ),
    ],
)
def test_wrong_parts_of_a_distilled_set_are_refused_by_name(
    message: str, parts: dict, tmp_path: Path
) -> None:
    content = distilled_bytes(fixed_distilled(PLAN), tmp_path)
    refuse_distilled(changed(content, **parts), f"document: .*{message}", tmp_path)


@pytest.mark.parametrize(
    ("message", "header"),
    [
        (
            r"classes should be those of the plan, .*; found \('cat', 'cow', 'owl'\)",
            {"classes": ["cat", "cow", "owl"]},
        ),
        ("each site should have 3 counts, none negative", {"sites": {"a": [1, 2]}}),
        ("each site should have 3 counts, none negative", {"sites": {"a": [1, 2, -1]}}),
        ("header: `sites` .* found 3", {"sites": 3}),
        ("`ipc` .* found 0", {"plan": PLAN.model_dump(mode="json") | {"ipc": 0}}),
        ("`hurry` is not a setting", {"plan": PLAN.model_dump(mode="json") | {"hurry": True}}),
    ],
)
def test_wrong_headers_of_a_distilled_set_are_refused_by_name(
    message: str, header: dict, tmp_path: Path
) -> None:
    content = distilled_bytes(fixed_distilled(PLAN), tmp_path)
    refuse_distilled(changed(content, lambda h: h | header), f"document: .*{message}", tmp_path)


# plans that were changed


def test_an_edited_plan_is_refused(tmp_path: Path) -> None:
    content = plan_bytes(PLAN, tmp_path)
    edited = content.replace(b'"seed": 7', b'"seed": 8')
    refuse_plan(
        edited,
        "document: digest should be .*, that of its content; found 885ca72c37dc2ced…",
        tmp_path,
    )
    missing = content.replace(f'  "digest": "{PLAN.digest}",\n'.encode(), b"")
    refuse_plan(missing, "document: digest should be 885ca72c37dc2ced…, .*; found None", tmp_path)


def test_a_plan_laid_out_otherwise_is_the_same_plan(tmp_path: Path) -> None:
    document = json.loads(plan_bytes(PLAN, tmp_path))
    shuffled = json.dumps(dict(reversed(document.items()))).encode()
    assert from_bytes(read_plan, shuffled, tmp_path) == PLAN


@pytest.mark.parametrize(
    ("message", "old", "new"),
    [
        ("a key occurs twice", '"seed": 7', '"seed": 7, "seed": 7'),
        ("a key occurs twice", '"side": 8', '"side": 8, "side": 9'),
        ("`hurry` is not a setting", '"seed": 7', '"seed": 7, "hurry": 1'),
        ("`ipc` .*; found 0", '"ipc": 1', '"ipc": 0'),
        ("`image.mean.0` .* finite", "0.5\n    ],", "NaN\n    ],"),
        ("`network.width` .*; found '8'", '"width": 8', '"width": "8"'),
        ("should be a plan, JSON", '"seed": 7', '"seed": ' + "7" * 5000),
        ("should be a plan, JSON", '"cat"', "[" * 100_000),
        ("Invalid JSON: unexpected end of hex escape", '"owl"', '"\\ud800"'),
    ],
)
def test_a_plan_with_a_wrong_value_is_refused_by_name(
    message: str, old: str, new: str, tmp_path: Path
) -> None:
    content = plan_bytes(PLAN, tmp_path)
    assert old.encode() in content
    refuse_plan(content.replace(old.encode(), new.encode(), 1), f"document.*{message}", tmp_path)


def test_a_header_with_a_key_twice_is_refused() -> None:
    content = contribution_bytes(fixed_contribution(PLAN))
    length = int.from_bytes(content[:8], "little")
    table = json.loads(content[8 : 8 + length])
    header = table["__metadata__"]["collabdm"].replace('"site":', '"site":"other","site":')
    refuse_contribution(
        safetensors.torch.save(safetensors.torch.load(content), {"collabdm": header}), "twice"
    )


# sizes


def test_a_file_larger_than_any_answer_is_refused_before_it_is_read(tmp_path: Path) -> None:
    limits = {"a": contribution_limit(PLAN), "b": 2**32, "c": 4 * 2**20}
    for name, limit in limits.items():
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, limit + 1)  # takes no room on the disk
    with pytest.raises(DocumentError, match=f"a should have at most {limits['a']:,} bytes; found"):
        read_contribution(tmp_path / "a", PLAN)
    with pytest.raises(DocumentError, match="b should have at most 4,294,967,296 bytes"):
        read_distilled(tmp_path / "b")
    with pytest.raises(DocumentError, match="c should have at most 4,194,304 bytes"):
        read_plan(tmp_path / "c")


@pytest.mark.parametrize("changes", [*VARIANTS[:4], {"steps": 40, "sketch": 2}])
def test_the_limit_is_above_every_answer(changes: dict) -> None:
    plan = tiny_plan(**changes)
    content = contribution_bytes(contribute(plan, tiny_data([3, 2, 4], plan=plan)))
    assert cost(plan).bytes < len(content) <= cost(plan).file_bytes < contribution_limit(plan)


def test_the_limit_is_above_the_answer_of_a_site_that_takes_part_more_often_than_expected() -> None:
    plan = fixed_plan(
        sites=3, site_names=("a", "b", "c"), fraction=0.5, steps=4000, wire="float32", sketch=128
    )
    steps = plan.steps_of("a")
    statistics = replace(
        fixed_statistics(ramp(len(steps), 3, 128), [0, 1, 2]), steps=torch.tensor(steps)
    )
    images = fixed_distilled(plan).images
    content = contribution_bytes(
        fixed_contribution(plan, site="a", statistics=statistics, images=images)
    )
    assert len(content) <= contribution_limit(plan)


@pytest.mark.parametrize(
    "read", [read_plan, read_distilled, lambda path: read_contribution(path, PLAN)]
)
def test_a_place_without_a_file_is_refused(read: Callable[[Path], Any], tmp_path: Path) -> None:
    with pytest.raises(DocumentError, match="absent should be a readable file; No such file"):
        read(tmp_path / "absent")
    with pytest.raises(DocumentError, match="should be a readable file; Is a directory"):
        read(tmp_path)


# writing


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that has no room when a file is flushed to it."""

    def refuse(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)


WRITERS: dict[str, Callable[[Path], None]] = {
    "plan": lambda path: write_plan(PLAN, path),
    "contribution": lambda path: write_contribution(fixed_contribution(PLAN), path),
    "distilled": lambda path: write_distilled(fixed_distilled(PLAN), path),
    "steps": lambda path: write_steps(fixed_steps(PLAN), path),
    "model": lambda path: write_distilled_model(fixed_model(PLAN), path),
    "state": lambda path: write_state(
        {"": Checkpoint(1, {"images": ramp(1, 1, 8, 8)})}, "run", path
    ),
}


@pytest.mark.usefixtures("full_disk")
@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    (tmp_path / "old").write_bytes(b"old")
    for name in ("old", "new"):
        with pytest.raises(
            OutputError, match=f"{name} should be writable; the disk is full: choose another place"
        ):
            write(tmp_path / name)
    assert files_in(tmp_path) == {"old": b"old"}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_a_place_that_cannot_be_written_leaves_no_file(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    for place in (tmp_path / "file" / "x", tmp_path / "folder", tmp_path / ("x" * 300)):
        with pytest.raises(
            OutputError, match=r"should be writable; .*: choose another place for the output"
        ):
            write(place)
    assert files_in(tmp_path) == {"file": b"old"}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_a_file_replaces_an_older_one_and_folders_are_made_for_it(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    write(tmp_path / "a" / "b" / "document")
    first = files_in(tmp_path / "a" / "b")
    (tmp_path / "a" / "b" / "document").write_bytes(b"x" * 10_000)
    write(tmp_path / "a" / "b" / "document")
    assert files_in(tmp_path / "a" / "b") == first
    assert list(first) == ["document"]


def test_an_output_path_is_checked_before_the_work_and_nothing_changes(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    check_writable(tmp_path / "old")
    check_writable(tmp_path / "new")
    assert files_in(tmp_path) == {"old": b"old"}
    with pytest.raises(
        OutputError, match="should be a file to write; found a folder: name a file in it"
    ):
        check_writable(tmp_path)
    with pytest.raises(OutputError, match="should be writable"):
        check_writable(tmp_path / "old" / "x")


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    """Sets the umask of the process; it is as before after the test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


PRIVATE = {"contribution", "state"}


@pytest.mark.parametrize("mask", [0o000, 0o002, 0o022, 0o027, 0o077])
@pytest.mark.parametrize("document", WRITERS)
def test_a_file_has_the_mode_of_the_umask_and_a_private_one_is_for_its_owner(
    document: str, mask: int, umask: Callable[[int], int], tmp_path: Path
) -> None:
    umask(mask)
    for _ in range(2):  # a new file, and one that replaces it
        WRITERS[document](tmp_path / "file")
        expected = 0o600 if document in PRIVATE else 0o666 & ~mask
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == expected
    (tmp_path / "file").chmod(0o666)
    WRITERS[document](tmp_path / "file")
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == expected


def test_a_private_file_is_never_open_to_others(
    umask: Callable[[int], int], tmp_path: Path
) -> None:
    umask(0)
    modes: list[int] = []

    def fill(file: io.BufferedWriter) -> None:
        modes.append(stat.S_IMODE(os.fstat(file.fileno()).st_mode))

    atomic_write_with(tmp_path / "private", fill, private=True)
    atomic_write_with(tmp_path / "public", fill)
    assert modes == [0o600, 0o666]


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS.keys())
def test_a_symbolic_link_is_kept_and_its_target_is_written(
    write: Callable[[Path], None], tmp_path: Path
) -> None:
    for folder in ("links", "targets", "plain"):
        (tmp_path / folder).mkdir()
    link, old, new = (
        tmp_path / "links" / "link",
        tmp_path / "targets" / "old",
        tmp_path / "targets" / "deep" / "new",
    )
    write(tmp_path / "plain" / "document")
    expected = (tmp_path / "plain" / "document").read_bytes()
    old.write_bytes(b"old")
    for target in (old, new):
        link.unlink(missing_ok=True)
        link.symlink_to(os.path.relpath(target, link.parent))
        check_writable(link)
        write(link)
        assert link.is_symlink()
        assert target.read_bytes() == expected
    assert [path.name for path in (tmp_path / "links").iterdir()] == ["link"]
    assert files_in(tmp_path / "targets") == {"old": expected}


SPECIAL_FILES = {
    "fifo": "a FIFO",
    "link-to-fifo": "a FIFO",
    "socket": "a socket",
    "link-to-socket": "a socket",
    "folder": "a folder",
    "link-to-folder": "a folder",
    "link-to-device": "a character device",
    os.devnull: "a character device",
}


@pytest.fixture
def special_files(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    folder = tmp_path_factory.mktemp("special")
    monkeypatch.chdir(folder)  # the path of a socket has at most 107 bytes
    os.mkfifo("fifo")
    Path("folder").mkdir()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
    for name in ("fifo", "socket", "folder"):
        Path(f"link-to-{name}").symlink_to(name)
    Path("link-to-device").symlink_to(os.devnull)
    return folder


@pytest.mark.parametrize("place", SPECIAL_FILES)
def test_only_regular_files_are_replaced(place: str, special_files: Path) -> None:
    def kinds() -> dict[str, int]:
        return {path.name: stat.S_IFMT(path.lstat().st_mode) for path in special_files.iterdir()}

    before = kinds()
    kind = SPECIAL_FILES[place]
    reason = f"it is {kind}, not a regular file"
    message = f"^{place} should be writable; {reason}: choose another place for the output$"
    for write in WRITERS.values():
        with pytest.raises(OutputError, match=message):
            write(Path(place))
    with pytest.raises(
        OutputError, match=f"^{place} should be a file to write" if kind == "a folder" else message
    ):
        check_writable(Path(place))
    assert kinds() == before
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)


def test_a_circle_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for use in (check_writable, lambda path: write_plan(PLAN, path)):
        with pytest.raises(
            OutputError, match=r"a should be writable; Too many levels of symbolic links: choose"
        ):
            use(tmp_path / "a")
    assert (tmp_path / "a").is_symlink()


def test_a_leftover_temporary_file_does_not_matter(tmp_path: Path) -> None:
    left = tmp_path / f".plan.json.{os.getpid()}.0.part"
    left.write_bytes(b"half")
    write_plan(PLAN, tmp_path / "plan.json")
    assert read_plan(tmp_path / "plan.json") == PLAN
    assert files_in(tmp_path).keys() == {"plan.json", left.name}
    assert left.read_bytes() == b"half"


def test_a_long_name_in_any_script_can_be_written(tmp_path: Path) -> None:
    write_plan(PLAN, tmp_path / ("😀" * 63))
    assert [path.name for path in tmp_path.iterdir()] == ["😀" * 63]


# states of a run


def test_a_state_is_read_back_by_the_run_that_wrote_it(tmp_path: Path) -> None:
    state_bytes(tmp_path)
    state = read_state(tmp_path / "state", "this run")
    assert state is not None
    assert state.threads == torch.get_num_threads()
    assert state.parts["a/b"] == Checkpoint(5, {}, "a/b")
    found = state.parts[""]
    assert found.done == 3
    assert set(found.tensors) == {"images", "optimizer.0.momentum_buffer"}
    assert torch.equal(found.tensors["images"], ramp(2, 1, 8, 8))
    assert torch.equal(found.tensors["optimizer.0.momentum_buffer"], -ramp(2, 1, 8, 8))


def test_a_state_of_another_run_or_none_at_all_is_none(tmp_path: Path) -> None:
    state_bytes(tmp_path)
    assert read_state(tmp_path / "state", "another run") is None
    assert read_state(tmp_path / "absent", "this run") is None
    assert read_state(tmp_path, "this run") is None


def test_a_state_cut_off_anywhere_is_none(tmp_path: Path) -> None:
    content = state_bytes(tmp_path)
    for length in [*range(40), *range(40, len(content), 23), len(content) - 1]:
        assert (
            from_bytes(lambda path: read_state(path, "this run"), content[:length], tmp_path)
            is None
        )


def test_a_file_that_is_no_state_is_none(tmp_path: Path) -> None:
    for content in (
        b"{}",
        b"\x00" * 100,
        plan_bytes(PLAN, tmp_path),
        contribution_bytes(fixed_contribution(PLAN)),
    ):
        assert from_bytes(lambda path: read_state(path, "this run"), content, tmp_path) is None


@pytest.mark.parametrize("name", [b"parts", b"identity"])
def test_a_state_with_a_damaged_name_is_none(name: bytes, tmp_path: Path) -> None:
    damaged = state_bytes(tmp_path).replace(name, name.upper())
    assert from_bytes(lambda path: read_state(path, "this run"), damaged, tmp_path) is None

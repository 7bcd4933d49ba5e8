"""Steps and models on disk: files are read back as written, and damage is refused by name."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxtyping
import pytest
import torch
from test_document_files import changed, from_bytes
from tiny import fixed_model, fixed_plan, fixed_steps

from collabdm.documents.outcome_files import read_steps, write_steps
from collabdm.documents.outcomes import DistilledModel, DistilledSteps
from collabdm.documents.plan import Plan
from collabdm.documents.specs import NetworkSpec
from collabdm.errors import DocumentError
from collabdm.methods.registry import METHODS
from collabdm.scoring.distilled_model_file import read_distilled_model, write_distilled_model
from collabdm.scoring.outcomes import OUTCOME_KINDS, find_outcome

PLAN = fixed_plan()
WITH_BATCHES = NetworkSpec(width=8, depth=2, norm="batch")

Read = Callable[[Path], Any]


@pytest.fixture(autouse=True)
def _as_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signatures are checked in the tests only: a file must be refused without them."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def steps_bytes(folder: Path, plan: Plan = PLAN) -> bytes:
    write_steps(fixed_steps(plan), folder / "steps")
    return (folder / "steps").read_bytes()


def model_bytes(folder: Path, spec: NetworkSpec | None = None) -> bytes:
    write_distilled_model(fixed_model(PLAN, spec or PLAN.network), folder / "model")
    return (folder / "model").read_bytes()


def refuse(read: Read, content: bytes, message: str, folder: Path) -> None:
    with pytest.raises(DocumentError, match=message):
        from_bytes(read, content, folder)


def tensor_bytes(content: bytes) -> int:
    return len(content) - 8 - int.from_bytes(content[:8], "little")


def test_steps_read_from_a_file_are_the_steps_and_have_the_bytes_of_the_page(
    tmp_path: Path,
) -> None:
    made, content = fixed_steps(PLAN), steps_bytes(tmp_path)
    found = read_steps(tmp_path / "steps")
    assert all(
        torch.equal(getattr(found, name), getattr(made, name))
        for name in ("images", "labels", "rates")
    )
    assert replace(found, images=made.images, labels=made.labels, rates=made.rates) == made
    assert content == steps_bytes(tmp_path)
    steps, images, pixels, classes = 3, 2, 64, 3
    assert tensor_bytes(content) == steps * images * (pixels + 4 * classes) + 4 * steps


@pytest.mark.parametrize(
    "spec", [PLAN.network, NetworkSpec(width=8, depth=2, norm="batch"), NetworkSpec(name="AlexNet")]
)
def test_a_model_read_from_a_file_is_the_model_and_has_the_bytes_of_the_page(
    spec, tmp_path: Path
) -> None:
    made, content = fixed_model(PLAN, spec), model_bytes(tmp_path, spec)
    found = read_distilled_model(tmp_path / "model")
    assert found.spec == spec
    assert {n: w.tolist() for n, w in found.weights.items()} == {
        n: w.tolist() for n, w in made.weights.items()
    }
    assert replace(found, weights=made.weights) == made
    assert content == model_bytes(tmp_path, spec)
    assert tensor_bytes(content) == 4 * sum(math.prod(w.shape) for w in made.weights.values())


@pytest.mark.parametrize(
    ("read", "write"), [(read_steps, steps_bytes), (read_distilled_model, model_bytes)]
)
def test_a_file_cut_off_anywhere_or_of_another_kind_is_refused(
    read: Read, write: Callable[[Path], bytes], tmp_path: Path
) -> None:
    content = write(tmp_path)
    for length in [*range(40), *range(40, len(content), 97), len(content) - 1]:
        refuse(read, content[:length], "document should be a whole safetensors file", tmp_path)
    other = model_bytes(tmp_path) if read is read_steps else steps_bytes(tmp_path)
    refuse(
        read, other, "format should be collabdm/(steps|distilled-model); found 'collabdm/", tmp_path
    )
    with pytest.raises(DocumentError, match="absent should be a readable file"):
        read(tmp_path / "absent")


@pytest.mark.parametrize("version", [0, 2, "1", None, True])
def test_another_version_is_refused_by_name(version: Any, tmp_path: Path) -> None:
    for read, content in (
        (read_steps, steps_bytes(tmp_path)),
        (read_distilled_model, model_bytes(tmp_path)),
    ):
        refuse(
            read,
            changed(content, lambda h: h | {"version": version}),
            "version should be 1; found",
            tmp_path,
        )


WRONG_HEADERS: list[tuple[str, dict[str, Any]]] = [
    ("classes should be those of the plan", {"classes": ["cat", "cow", "owl"]}),
    (
        "classes should be those of the plan",
        {"plan": fixed_plan(classes=("a", "b", "c")).model_dump(mode="json")},
    ),
    ("each site should have 3 counts, none negative", {"sites": {"a": [1, 2]}}),
    ("each site should have 3 counts, none negative", {"sites": {"a": [1, 2, -1]}}),
    ("header: `sites` .* found 3", {"sites": 3}),
    ("header: `colour` is not a setting", {"colour": 1}),
    ("`ipc` .* found 0", {"plan": PLAN.model_dump(mode="json") | {"ipc": 0}}),
    ("`hurry` is not a setting", {"plan": PLAN.model_dump(mode="json") | {"hurry": True}}),
]


@pytest.mark.parametrize(("message", "header"), WRONG_HEADERS)
def test_wrong_headers_are_refused_by_name(
    message: str, header: dict[str, Any], tmp_path: Path
) -> None:
    for read, content in (
        (read_steps, steps_bytes(tmp_path)),
        (read_distilled_model, model_bytes(tmp_path)),
    ):
        refuse(read, changed(content, lambda h: h | header), f"document: .*{message}", tmp_path)


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        (r"missing \['rates'\]", {"rates": None}),
        (r"missing \['images'\]", {"images": None}),
        (r"unknown \['prices'\]", {"prices": torch.zeros(1)}),
        ("`images` should be torch.uint8", {"images": torch.zeros(3, 2, 1, 8, 8)}),
        ("`images` should be torch.uint8 of shape", {"images": torch.zeros(3, 2, 1, 4, 4).byte()}),
        ("`images` should be torch.uint8 of shape", {"images": torch.zeros(3).byte()}),
        ("`images` should be torch.uint8 of shape", {"images": torch.tensor(3).byte()}),
        ("`labels` should be torch.float32 of shape", {"labels": torch.zeros(3, 2, 4)}),
        ("`labels` should be torch.float32", {"labels": torch.zeros(3, 2, 3).double()}),
        ("`labels` should be finite", {"labels": torch.full((3, 2, 3), float("nan"))}),
        ("`rates` should be finite", {"rates": torch.tensor([1.0, float("inf"), 1.0])}),
        ("`rates` should be torch.float32 of shape", {"rates": torch.ones(2)}),
        ("rates should be above 0; found 0.0", {"rates": torch.tensor([1.0, 0.0, 1.0])}),
        (
            r"at least one step of one image; found labels of shape \(0, 2, 3\)",
            {
                "images": torch.zeros(0, 2, 1, 8, 8).byte(),
                "labels": torch.zeros(0, 2, 3),
                "rates": torch.zeros(0),
            },
        ),
    ],
)
def test_wrong_parts_of_steps_are_refused_by_name(
    message: str, parts: dict[str, Any], tmp_path: Path
) -> None:
    refuse(read_steps, changed(steps_bytes(tmp_path), **parts), f"document: .*{message}", tmp_path)


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        (r"missing \['classifier.bias'\]", {"classifier__bias": None}),
        (r"unknown \['prices'\]", {"prices": torch.zeros(1)}),
        (
            "`classifier.bias` should be torch.float32 of shape",
            {"classifier__bias": torch.zeros(4)},
        ),
        ("`classifier.bias` should be torch.float32", {"classifier__bias": torch.zeros(3).half()}),
        (
            "`classifier.bias` should be finite",
            {"classifier__bias": torch.full((3,), float("nan"))},
        ),
    ],
)
def test_wrong_weights_of_a_model_are_refused_by_name(
    message: str, parts: dict[str, Any], tmp_path: Path
) -> None:
    refuse(
        read_distilled_model,
        changed(model_bytes(tmp_path), **parts),
        f"document: .*{message}",
        tmp_path,
    )


@pytest.mark.parametrize(
    ("message", "network"),
    [
        ("`name`", {"name": "Net"}),
        ("is not a setting", {"width": 8, "colour": 1}),
        ("tensors should be", {"width": 8, "depth": 2}),
        ("of shape", {"width": 16, "depth": 1}),
        ("depth", {"width": 8, "depth": 6}),
    ],
)
def test_a_wrong_network_of_a_model_is_refused_by_name(
    message: str, network: dict[str, Any], tmp_path: Path
) -> None:
    content = changed(model_bytes(tmp_path), lambda h: h | {"network": network})
    refuse(read_distilled_model, content, f"document: .*{message}", tmp_path)


@pytest.mark.parametrize("name", ["dosfl", "dense"])
def test_an_outcome_of_another_plan_is_not_taken_for_this_one(name: str, tmp_path: Path) -> None:
    other = fixed_plan(seed=8)
    write_steps(fixed_steps(other), tmp_path / OUTCOME_KINDS[DistilledSteps].file)
    write_distilled_model(fixed_model(other), tmp_path / OUTCOME_KINDS[DistilledModel].file)
    assert find_outcome(METHODS[name], other, tmp_path) is not None
    assert find_outcome(METHODS[name], PLAN, tmp_path) is None

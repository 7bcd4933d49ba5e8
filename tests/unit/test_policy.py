"""A site's policy, and the preview of its contribution, exact to the byte."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import cells, done, run
from tiny import tiny_data, tiny_plan

from collabdm.documents.contribution_file import contribution_bytes
from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import write_plan
from collabdm.errors import DataError, PlanError
from collabdm.matching.run_context import RunContext
from collabdm.methods.collabdm import contribute
from collabdm.methods.registry import METHODS
from collabdm.planning.cost import cost
from collabdm.rounds.contributions import read_contribution
from collabdm.rounds.exchange import Site, contribute_file, prepare_site
from collabdm.rounds.policy import Policy, PolicyError, RealImages, read_policy, real_images
from collabdm.rounds.preview import preview_contribution, preview_rows

DATA = tiny_data((5, 2, 3))
NOISE = {"start": "noise", "steps": 2}


def refused(plan: Plan, **policy: Any) -> str:
    with pytest.raises(PolicyError) as error:
        Policy(**policy).check(plan, DATA)
    return str(error.value)


def test_a_policy_without_limits_allows_every_plan() -> None:
    assert read_policy(None) == Policy()
    for plan in (tiny_plan(), tiny_plan(local={"method": "random", "images": 2})):
        Policy().check(plan, DATA)


@pytest.mark.parametrize("name", ["largest_steps", "largest_ipc", "largest_bytes"])
def test_a_limit_allows_itself_and_no_more(name) -> None:
    plan = tiny_plan()
    asked = {
        "largest_steps": plan.steps,
        "largest_ipc": plan.ipc,
        "largest_bytes": cost(plan, 5).file_bytes,
    }[name]
    Policy(**{name: asked}).check(plan, DATA)
    said = refused(plan, **{name: asked - 1})
    assert f"`{name}` is {asked - 1:,}; the plan asks for {asked:,}" in said


def test_time_is_limited() -> None:
    plan = tiny_plan(steps=100_000)
    assert "`largest_minutes` is 0.001; the plan asks for" in refused(plan, largest_minutes=0.001)
    Policy(largest_minutes=10_000).check(plan, DATA)


@pytest.mark.parametrize(
    ("local", "requested", "text"),
    [
        ({"steps": 2}, RealImages.START, "sends images that start from real ones"),
        ({"method": "random", "images": 1}, RealImages.SENT, "sends real images as they are"),
        (NOISE, RealImages.NONE, "sends no real images"),
        ({"method": "none"}, RealImages.NONE, "sends no real images"),
    ],
)
def test_a_plan_that_sends_real_images_is_refused_without_raw_images(
    local, requested, text
) -> None:
    plan = tiny_plan(local=local)
    assert real_images(plan) is requested
    assert dict(preview_rows(preview_contribution(plan, DATA, "north")))["real images"] == text
    if requested is RealImages.NONE:
        Policy(raw_images=False).check(plan, DATA)
    else:
        assert f"`raw_images` is false; the plan {text}" in refused(plan, raw_images=False)


def test_methods_are_those_that_are_named() -> None:
    plan = tiny_plan(method="collabdm")
    Policy(methods=("collabdm",)).check(plan, DATA)
    assert "`methods` are localdm; the plan names collabdm" in refused(plan, methods=("localdm",))


def test_all_that_is_not_allowed_is_said_at_once() -> None:
    said = refused(tiny_plan(), largest_steps=1, largest_ipc=1, raw_images=False)
    assert said.count(";") >= 3
    assert all(name in said for name in ("largest_steps", "largest_ipc", "raw_images"))


def test_a_small_class_is_withheld_from_all_that_is_sent(tmp_path) -> None:
    plan, policy = tiny_plan(), Policy(smallest_class=3)
    path = tmp_path / "sent.safetensors"
    contribute_file(prepare_site(plan, DATA, Site("north", policy)), path, RunContext())
    sent = read_contribution(path, plan)
    assert sent.statistics.classes.tolist() == [0, 2]
    assert sent.images.counts().tolist() == [plan.local.images, 0, plan.local.images]
    without = DATA.subset(torch.nonzero(DATA.labels != 1).flatten())
    assert path.read_bytes() == contribution_bytes(contribute(plan, without, "north"))


def test_a_site_with_only_small_classes_sends_nothing() -> None:
    with pytest.raises(DataError, match=r"some class should have 6 images.*the largest has 5"):
        prepare_site(tiny_plan(), DATA, Site("north", Policy(smallest_class=6)))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("largest_step = 3", "`largest_step` is not a setting"),
        ("largest_steps = 0", "`largest_steps`"),
        ('largest_bytes = "many"', "`largest_bytes` should be bytes"),
        ("largest_minutes = nan", "`largest_minutes`"),
        ("raw_images = [", "readable TOML"),
    ],
)
def test_a_policy_that_cannot_be_is_refused(text, said, tmp_path) -> None:
    path = tmp_path / "site.toml"
    path.write_text(text)
    with pytest.raises(PlanError, match=said):
        read_policy(path)


def test_a_policy_is_read_as_people_write_it(tmp_path) -> None:
    path = tmp_path / "site.toml"
    path.write_text(
        'largest_bytes = "1.5MB"\nmethods = ["collabdm", "localdm"]\nlargest_minutes = 30\n'
    )
    assert read_policy(path) == Policy(
        largest_bytes=1_500_000, methods=("collabdm", "localdm"), largest_minutes=30
    )


@pytest.mark.parametrize(
    "settings", [{}, {"wire": "int8"}, {"images": "float32", "batch": 2}, {"sketch": 16}]
)
def test_a_preview_is_exact_to_the_byte(settings) -> None:
    plan = tiny_plan(**settings)
    sent = contribute(plan, DATA, "north")
    preview = preview_contribution(plan, DATA, "north")
    scales = sent.statistics.scales
    assert preview.total_bytes == len(contribution_bytes(sent))
    assert preview.image_bytes == sent.images.nbytes()
    assert preview.image_shape == tuple(sent.images.images.shape)
    assert preview.statistics_shape == tuple(sent.statistics.codes.shape)
    assert preview.statistics_bytes == sent.statistics.codes.nbytes + (
        0 if scales is None else scales.nbytes
    )
    assert (
        preview.other_bytes == preview.total_bytes - preview.image_bytes - preview.statistics_bytes
    )
    assert preview.extra_bytes == {}
    assert preview.class_counts == {"cat": 5, "dog": 2, "owl": 3}


def test_a_preview_is_shown_in_rows() -> None:
    plan = tiny_plan(wire="int8")
    preview = preview_contribution(plan, DATA, "north")
    steps, classes, width = preview.statistics_shape
    assert preview_rows(preview) == [
        (
            "class means",
            f"{preview.statistics_bytes:,} bytes, {steps} x {classes} x {width} numbers in int8",
        ),
        ("images", f"{preview.image_bytes:,} bytes, {preview.image_shape[0]} of 1 x 8 x 8"),
        ("labels, counts and header", f"{preview.other_bytes:,} bytes"),
        ("total", f"{preview.total_bytes:,} bytes"),
        ("classes", "cat: 5, dog: 2, owl: 3"),
        ("real images", "sends images that start from real ones"),
        ("time", "a few seconds on two cores, at most"),
    ]


def test_a_preview_of_a_method_with_tensors_of_its_own_has_no_time() -> None:
    settings = {"sites": 1, "batch": 4, "options": {"images": 4}}
    plan = tiny_plan(**METHODS["coreset"].adapt(settings))
    preview = preview_contribution(plan, DATA, "north")
    assert preview.seconds is None
    assert preview.extra_bytes == {"images": 4 * 8 * 8, "labels": 4 * 8}
    rows = dict(preview_rows(preview))
    assert rows["time"] == "not estimated"
    assert rows["extra tensors"] == "288 bytes: images, labels"
    assert rows["real images"] == "sends images that are real, or start from real ones"


# --- the commands --------------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_plan(tiny_plan(), "plan.json")
    np.savez(
        "mine.npz", images=DATA.images.numpy(), labels=DATA.labels.numpy(), classes=DATA.classes
    )
    Path("site.toml").write_text("smallest_class = 3\n")
    return tmp_path


ANSWER = (
    "contribute",
    "plan.json",
    "--data",
    "mine.npz",
    "--site",
    "north",
    "-o",
    "sent.safetensors",
    "--quiet",
)


def test_a_dry_run_says_what_is_sent_then_and_writes_nothing(here) -> None:
    before = {path.name for path in here.iterdir()}
    said = {
        row[0]: row[1] for row in cells(done(*ANSWER, "--policy", "site.toml", "--dry-run").out)
    }
    assert {path.name for path in here.iterdir()} == before
    assert said["classes"] == "cat: 5, owl: 3"
    done(*ANSWER, "--policy", "site.toml")
    assert said["total"] == f"{(here / 'sent.safetensors').stat().st_size:,} bytes"


def test_a_plan_that_the_policy_does_not_allow_is_not_answered(here) -> None:
    Path("site.toml").write_text("largest_steps = 2\n")
    for more in ((), ("--dry-run",)):
        result = run(*ANSWER, "--policy", "site.toml", *more)
        assert result.code == 2
        assert "`largest_steps` is 2; the plan asks for 3" in result.err
    assert not (here / "sent.safetensors").exists()

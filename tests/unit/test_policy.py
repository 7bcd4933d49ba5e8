"""A site's policy, and the preview of its contribution, exact to the byte."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import cells, done, run
from tiny import OPEN, tiny_data, tiny_plan

from collabdm.documents.contribution_file import contribution_bytes
from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import write_plan
from collabdm.errors import PlanError
from collabdm.images import ImageSet
from collabdm.matching.run_context import RunContext
from collabdm.methods.collabdm import contribute
from collabdm.methods.registry import METHODS
from collabdm.planning.cost import cost
from collabdm.privacy.release import RELEASE_LIMIT, SMALLEST_CLASS, Withheld
from collabdm.rounds.comparison import compare, sent_images
from collabdm.rounds.contributions import read_contribution
from collabdm.rounds.exchange import Site, contribute_file, prepare_site
from collabdm.rounds.policy import (
    Policy,
    PolicyError,
    RealImages,
    Release,
    policy_at_site,
    read_policy,
    real_images,
)
from collabdm.rounds.preview import preview_contribution, preview_rows

DATA = tiny_data((5, 2, 3))
NOISE = {"start": "noise", "steps": 2}


def opened(**settings: Any) -> Policy:
    """A policy that allows everything apart from these settings."""
    return Policy(**{"raw_images": True, "smallest_class": 1, "largest_ratio": 1e6} | settings)


def allowed(plan: Plan, policy: Policy = OPEN, data: ImageSet = DATA) -> Release:
    return policy.release(plan, data, "north")


def refused(plan: Plan, **policy: Any) -> str:
    with pytest.raises(PolicyError) as error:
        allowed(plan, opened(**policy))
    return str(error.value)


def rows_of(plan: Plan, policy: Policy = OPEN) -> dict[str, str]:
    return dict(preview_rows(preview_contribution(plan, allowed(plan, policy), "north")))


def test_the_defaults_let_no_real_image_and_no_small_class_leave() -> None:
    assert read_policy(None) == Policy()
    assert (Policy().raw_images, Policy().smallest_class) == (False, SMALLEST_CLASS)
    assert Policy().largest_ratio == RELEASE_LIMIT
    data = tiny_data((30, 20, 19))
    plan = tiny_plan(sketch=16, local=NOISE)
    release = allowed(plan, Policy(), data)
    assert [one.name for one in release.classes] == ["cat", "dog"]
    assert release.withheld == (Withheld("owl", "it has 19 images; at least 20 are needed"),)
    assert release.data.counts().tolist() == [30, 20, 0]
    with pytest.raises(PolicyError, match="`--allow-real-images` allows this"):
        allowed(tiny_plan(sketch=16), Policy(), data)


@pytest.mark.parametrize("name", ["largest_steps", "largest_ipc", "largest_bytes"])
def test_a_limit_allows_itself_and_no_more(name) -> None:
    plan = tiny_plan()
    asked = {
        "largest_steps": plan.steps,
        "largest_ipc": plan.ipc,
        "largest_bytes": cost(plan, 5).file_bytes,
    }[name]
    allowed(plan, opened(**{name: asked}))
    said = refused(plan, **{name: asked - 1})
    assert f"`{name}` is {asked - 1:,}, but the plan asks for {asked:,}" in said


def test_time_is_limited() -> None:
    plan = tiny_plan(steps=100_000)
    assert "`largest_minutes` is 0.001, but the plan asks for" in refused(
        plan, largest_minutes=0.001
    )
    allowed(plan, opened(largest_minutes=10_000))


@pytest.mark.parametrize(
    ("local", "requested", "text"),
    [
        ({"start": "real", "steps": 2}, RealImages.START, "sends images that start from real ones"),
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
    assert rows_of(plan)["real images"] == text
    if requested is RealImages.NONE:
        allowed(plan, opened(raw_images=False))
    else:
        assert f"`raw_images` is false, but the plan {text}" in refused(plan, raw_images=False)


def test_methods_are_those_that_are_named() -> None:
    plan = tiny_plan(method="collabdm")
    allowed(plan, opened(methods=("collabdm",)))
    assert "`methods` are localdm, but the plan names collabdm" in refused(
        plan, methods=("localdm",)
    )


def test_all_that_is_not_allowed_is_said_at_once() -> None:
    said = refused(tiny_plan(), largest_steps=1, largest_ipc=1, raw_images=False)
    assert said.count(";") >= 3
    assert all(name in said for name in ("largest_steps", "largest_ipc", "raw_images"))


def test_a_small_class_is_withheld_from_all_that_is_sent(tmp_path) -> None:
    plan, policy = tiny_plan(), opened(smallest_class=3)
    path = tmp_path / "sent.safetensors"
    contribute_file(prepare_site(plan, DATA, Site("north", policy, True)), path, RunContext())
    sent = read_contribution(path, plan)
    assert sent.statistics.classes.tolist() == [0, 2]
    assert sent.images.counts().tolist() == [plan.local.images, 0, plan.local.images]
    without = DATA.subset(torch.nonzero(DATA.labels != 1).flatten())
    assert path.read_bytes() == contribution_bytes(contribute(plan, without, "north"))


def test_a_site_with_only_small_classes_sends_nothing_and_learns_every_reason() -> None:
    with pytest.raises(PolicyError) as error:
        prepare_site(tiny_plan(batch=2), DATA, Site("north", Policy()))
    said = str(error.value)
    assert "`raw_images` is false" in said
    assert "every class would be withheld: cat (it has 5 images; at least 24 are needed" in said
    assert "dog (it has 2 images; at least 24 are needed" in said
    for remedy in ("fewer steps", "narrower sketch", "larger batch", "masks", "--smallest-class"):
        assert remedy in said


def test_the_operator_decides_at_the_command_line(tmp_path) -> None:
    path = tmp_path / "site.toml"
    path.write_text("smallest_class = 30\nlargest_steps = 9\n")
    assert policy_at_site(path) == Policy(smallest_class=30, largest_steps=9)
    assert policy_at_site(path, True, 2) == Policy(
        smallest_class=2, largest_steps=9, raw_images=True
    )
    assert policy_at_site(None, smallest_class=7) == Policy(smallest_class=7)


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
    preview = preview_contribution(plan, allowed(plan), "north")
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


def test_a_preview_says_in_plain_words_what_leaves_the_site() -> None:
    plan = tiny_plan(wire="int8")
    preview = preview_contribution(plan, allowed(plan, opened(smallest_class=3)), "north")
    assert preview_rows(preview) == [
        (
            "class means",
            f"{preview.statistics_bytes:,} bytes: means of 2 classes under 3 networks, each of 128 "
            "numbers in int8",
        ),
        (
            "images",
            f"{preview.image_bytes:,} bytes: {2 * plan.local.images} of 1 x 8 x 8, which start from "
            "real ones",
        ),
        ("numbers of images", "cat: 5, owl: 3"),
        ("labels, counts and header", f"{preview.other_bytes:,} bytes"),
        ("total", f"{preview.total_bytes:,} bytes"),
        (
            "private data",
            f"{8 * 8 * 8:,} bytes of images of these classes; MORE IS SENT THAN THE SITE HAS",
        ),
        ("smallest class", "owl, 3 images"),
        ("behind each mean", "at least 3 images"),
        (
            "numbers sent",
            "2 for each number in the images of owl, which has the most; the limit is 1e+06",
        ),
        ("withheld: dog", "it has 2 images; at least 3 are needed"),
        ("real images", "sends images that start from real ones"),
        ("privacy budget", "none: what the means reveal of one image is not bounded"),
        ("masks", "no: the server reads this site's numbers"),
        ("time", "a few seconds on two cores, at most"),
    ]


def test_a_preview_without_images_or_means_says_so() -> None:
    assert rows_of(tiny_plan(local={"method": "none"}))["images"] == "no images"
    rows = rows_of(tiny_plan(steps=0))
    assert rows["class means"] == "none"
    assert "behind each mean" not in rows
    assert rows["withheld"] == "no class"


def test_a_preview_names_the_budget_and_the_masks_of_the_plan() -> None:
    sums_alone = {"local": {"method": "none"}, "sites": 2, "site_names": ("north", "south")}
    keys = {"north": "a" * 64, "south": "b" * 64}
    plan = tiny_plan(
        **sums_alone,
        masking={"keys": keys, "threshold": 2},
        privacy={"epsilon": 8, "clip": 1.0},
        largest_class=100,
    )
    rows = rows_of(plan, Policy())
    assert rows["privacy budget"] == "epsilon 8 at delta 1e-05 for each image"
    assert rows["masks"] == "yes: the server reads only sums over sites, at least 2"
    assert rows["withheld"] == "no class"


def test_a_preview_after_the_work_has_the_nearest_private_image() -> None:
    plan = tiny_plan(local={"method": "random", "images": 1})
    release = allowed(plan)
    comparison = compare(sent_images(contribute(plan, DATA, "north")), DATA, plan.pae)
    rows = dict(preview_rows(preview_contribution(plan, release, "north"), comparison))
    assert rows["nearest private image"].startswith("0.0 grey levels away, in class ")
    assert "from the nearest other one (median; at least " in rows["nearest private image"]


def test_a_preview_of_a_method_with_tensors_of_its_own_has_no_time() -> None:
    settings = {"sites": 1, "batch": 4, "options": {"images": 4}}
    plan = tiny_plan(**METHODS["coreset"].adapt(settings))
    preview = preview_contribution(plan, allowed(plan), "north")
    assert preview.seconds is None
    assert rows_of(plan)["images"] == "in the extra tensors"
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
    Path("site.toml").write_text("smallest_class = 3\nraw_images = true\nlargest_ratio = 9\n")
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
    assert said["numbers of images"] == "cat: 5, owl: 3"
    done(*ANSWER, "--policy", "site.toml")
    assert said["total"] == f"{(here / 'sent.safetensors').stat().st_size:,} bytes"


def test_a_plan_that_the_policy_does_not_allow_is_not_answered(here) -> None:
    Path("site.toml").write_text("largest_steps = 2\n")
    for more in ((), ("--dry-run",)):
        result = run(*ANSWER, "--policy", "site.toml", *more)
        assert result.code == 2
        assert "`largest_steps` is 2, but the plan asks for 3" in result.err
    assert not (here / "sent.safetensors").exists()


def test_what_is_withheld_is_named_before_the_work_and_in_the_table(here) -> None:
    for more in ((), ("--dry-run",)):
        result = done(*ANSWER, "--policy", "site.toml", *more)
        assert result.err.splitlines() == [
            "`mine.npz`: 10 images of 3 classes (cat 5, dog 2, owl 3)",
            "withheld: dog: it has 2 images; at least 3 are needed",
        ]
        rows = {row[0]: row[1] for row in cells(result.out)}
        assert rows["withheld: dog"] == "it has 2 images; at least 3 are needed"
        assert ("nearest private image" in rows) is (more == ())


def test_options_of_the_site_allow_what_its_policy_does_not(here) -> None:
    Path("site.toml").write_text("largest_ratio = 9\n")
    for command in (ANSWER, ("check", *ANSWER[1:6], "--policy", "site.toml")):
        result = run(*command, "--policy", "site.toml")
        assert result.code == 2
        assert "--allow-real-images" in " ".join((result.err + result.out).split())
        done(*command, "--policy", "site.toml", "--allow-real-images", "--smallest-class", 2)


def test_check_names_the_classes_that_are_withheld(here) -> None:
    result = done("check", *ANSWER[1:6], "--policy", "site.toml")
    rows = {row[0]: row[1] for row in cells(result.out)}
    assert rows["policy"] == "the plan is allowed; withheld: dog"
    assert rows["would send: withheld: dog"] == "it has 2 images; at least 3 are needed"

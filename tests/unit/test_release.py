"""The numbers that a contribution releases about a class, and the classes that are withheld."""

import pytest
import torch
from tiny import WIDTH, fixed_plan, tiny_plan

from collabdm.privacy.release import (
    ClassRelease,
    ReleaseLimits,
    class_releases,
    is_protected,
    nothing_left,
    smallest_class_sent,
    withheld_classes,
)
from collabdm.rounds.inspect import summary

COUNTS = torch.tensor([100, 0, 30])
KEYS = {"north": "a" * 64, "south": "b" * 64}
ALONE = {"local": {"method": "none"}, "sites": 2, "site_names": ("north", "south")}


def test_the_ratio_is_numbers_sent_over_numbers_of_the_images() -> None:
    plan = tiny_plan(steps=10, batch=40)
    assert class_releases(plan, COUNTS, "north") == [
        ClassRelease(0, "cat", 100, 40, 10 * WIDTH / (100 * 64)),
        ClassRelease(2, "owl", 30, 30, 10 * WIDTH / (30 * 64)),
    ]


def test_a_sketch_and_the_steps_of_the_site_count() -> None:
    plan = fixed_plan(steps=40, fraction=0.5, site_names=("north", "south"), sketch=4, batch=None)
    (cat, _) = class_releases(plan, COUNTS, "north")
    assert cat.ratio == len(plan.steps_of("north")) * 4 / (100 * 64)
    assert 0 < len(plan.steps_of("north")) < 40


def test_a_method_without_statistics_has_ratio_0_and_no_batch() -> None:
    plan = tiny_plan(steps=0, batch=2)
    assert [(one.behind, one.ratio) for one in class_releases(plan, COUNTS, "north")] == [
        (100, 0),
        (30, 0),
    ]


@pytest.mark.parametrize(
    ("release", "reason"),
    [
        (ClassRelease(0, "cat", 20, 20, 0.25), None),
        (ClassRelease(0, "cat", 19, 19, 0.25), "it has 19 images; at least 20 are needed"),
        (
            ClassRelease(0, "cat", 500, 1, 0.1),
            "each mean would be of 1 image, the plan's `batch`; at least 20 are needed",
        ),
        (
            ClassRelease(0, "cat", 1, 1, 33.333),
            "it has 1 image; at least 134 are needed, because the plan sends 33.3 numbers for "
            "each number in its images; the limit is 0.25",
        ),
    ],
)
def test_a_class_is_withheld_for_its_size_its_batch_or_its_ratio(release, reason) -> None:
    withheld = withheld_classes(tiny_plan(), [release], ReleaseLimits())
    assert [one.reason for one in withheld] == ([] if reason is None else [reason])


@pytest.mark.parametrize(
    "settings",
    [
        {"masking": {"keys": KEYS, "threshold": 2}, "largest_class": 100},
        {"privacy": {"epsilon": 1, "clip": 1.0}},
    ],
)
def test_sums_over_sites_and_noise_protect_every_class(settings) -> None:
    plan = tiny_plan(**ALONE, **settings)
    assert is_protected(plan)
    assert withheld_classes(plan, [ClassRelease(0, "cat", 1, 1, 99.0)], ReleaseLimits()) == []
    assert "a site sends every class that it has" in summary(plan)


def test_the_smallest_class_sent_is_on_the_limit() -> None:
    plan = tiny_plan(steps=30)
    least = smallest_class_sent(plan, plan.steps)
    assert least == 240  # 30 x 128 / (.25 x 64)
    for images, withheld in ((least, 0), (least - 1, 1)):
        releases = class_releases(plan, torch.tensor([images, 0, 0]), "north")
        assert len(withheld_classes(plan, releases, ReleaseLimits())) == withheld
    assert "a site sends a class if it has at least 240 images of it" in summary(plan)


def test_the_number_of_images_that_a_withheld_class_needs_is_that_of_the_plan() -> None:
    averages = {"method": "averages", "images": 10, "average_of": 20}
    plan = tiny_plan(steps=4, local=averages)
    least = smallest_class_sent(plan, plan.steps)
    assert least is not None
    for images in (3, least - 1):  # without averages of the class, and with one
        releases = class_releases(plan, torch.tensor([images, 0, 0]), "north")
        (withheld,) = withheld_classes(plan, releases, ReleaseLimits())
        assert f"at least {least} are needed" in withheld.reason


def test_a_plan_with_a_batch_of_one_sends_no_class() -> None:
    plan = tiny_plan(batch=1)
    assert smallest_class_sent(plan, plan.steps) is None
    assert "no site sends a class: a mean of 1 image is withheld" in summary(plan)
    releases = class_releases(plan, torch.tensor([10_000, 0, 0]), "north")
    assert len(withheld_classes(plan, releases, ReleaseLimits())) == 1


def test_an_error_names_at_most_twenty_classes() -> None:
    releases = [ClassRelease(y, f"class {y}", 3, 3, 0.1) for y in range(25)]
    said = nothing_left(withheld_classes(tiny_plan(), releases, ReleaseLimits()))
    assert "class 19 (it has 3 images" in said
    assert "class 20" not in said
    assert "and 5 more" in said

"""Averages of groups of similar images: their sizes, their values, and when none is sent."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import COLOUR, GREY, OPEN, tiny_data, tiny_plan

from collabdm.documents.contribution import check_contribution
from collabdm.documents.contribution_file import contribution_bytes
from collabdm.documents.distillation import AVERAGE_OF, Local
from collabdm.documents.plan import Plan
from collabdm.errors import DocumentError
from collabdm.images import ImageSet, as_float
from collabdm.methods.averages import LEAST_SPREAD, average_images, divide, group_averages
from collabdm.methods.collabdm import contribute, distill, shows_real_images
from collabdm.methods.registry import contribution_spec
from collabdm.planning.make import make_plan
from collabdm.privacy.release import RELEASE_LIMIT, class_releases, smallest_class_sent
from collabdm.rounds.policy import Policy, PolicyError
from collabdm.rounds.preview import preview_contribution, preview_rows
from collabdm.seeds import Purpose, Stream

SETTINGS = {"method": "averages", "images": 2, "average_of": 4}


def some_images(n: int, seed: int = 0) -> torch.Tensor:
    return Stream.of(seed, Purpose.DATA).uniforms(n, 1, 8, 8)


def average_plan(**changes) -> Plan:
    return tiny_plan(GREY, local=SETTINGS | changes)


@given(st.integers(0, 60), st.integers(1, 12))
def test_groups_divide_all_points_into_nearly_equal_parts(n, parts) -> None:
    if n < parts:
        return
    groups = divide(some_images(max(n, 1))[:n].flatten(1).double(), parts)
    assert len(groups) == parts
    assert sorted(torch.cat(groups).tolist()) == list(range(n))
    sizes = [len(group) for group in groups]
    assert min(sizes) >= n // parts


@given(st.integers(1, 60), st.integers(1, 20), st.integers(2, 20))
def test_no_group_has_fewer_images_than_asked_for(n, most, least) -> None:
    averages = group_averages(some_images(n), most, least)
    assert len(averages) == min(most, n // least)


def test_an_average_is_the_mean_of_images_that_are_similar_in_the_main_direction() -> None:
    dark, light = some_images(5) / 4, 0.7 + some_images(5, seed=1) / 4
    averages = group_averages(torch.cat([light, dark]), 2, 5)
    found = averages[averages.mean((1, 2, 3)).argsort()]
    torch.testing.assert_close(found, torch.stack([dark.mean(0), light.mean(0)]))


def test_the_averages_of_equal_groups_have_the_mean_of_the_class() -> None:
    images = some_images(48)
    torch.testing.assert_close(group_averages(images, 6, 8).mean(0), images.mean(0))


def test_the_average_of_images_that_hardly_differ_is_not_made() -> None:
    one = some_images(1)
    near = (one + 1.9 * LEAST_SPREAD * (some_images(8, seed=1) - 0.5)).clamp(0, 1)
    assert len(group_averages(near, 2, 4)) == 0
    assert len(group_averages(torch.cat([near, some_images(8, seed=2)]), 2, 4)) == 1


@pytest.mark.parametrize("pae", [1, 2])
def test_the_images_sent_are_averages_in_a_random_order(pae) -> None:
    plan = tiny_plan(GREY, pae=pae, local=SETTINGS)
    data = tiny_data((40, 8, 3))
    sent = contribute(plan, data, "site-1").images
    assert sent.counts().tolist() == [2, 2, 0]

    expected = group_averages(as_float(data.images[data.of_class(0)]), 2 * pae**2, 4)
    levels = as_float(sent.images[sent.of_class(0)])
    if pae == 2:
        tiles = (
            levels.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).reshape(-1, 1, 4, 4)
        )
        levels, expected = tiles, torch.nn.functional.avg_pool2d(expected, 2)
    distances = torch.cdist(levels.flatten(1), expected.flatten(1), p=float("inf"))
    assert sorted(distances.argmin(1).tolist()) == list(range(2 * pae**2))
    assert float(distances.min(1).values.max()) <= 0.5 / 255 + 1e-6


def test_a_class_below_the_size_of_a_group_sends_no_images() -> None:
    pixels, labels = average_images(average_plan(), tiny_data((12, 3, 0)), 5)
    assert pixels.shape == (2, 1, 8, 8)
    assert labels.tolist() == [0, 0]
    assert [len(part) for part in average_images(average_plan(), tiny_data((3, 2, 3)), 5)] == [0, 0]


def test_a_class_sends_all_its_averages_or_none() -> None:
    plan = average_plan()
    whole = contribute(plan, tiny_data((12, 3, 8)), "site-1")
    check_contribution(contribution_spec(plan), whole)

    one_less = replace(whole, images=whole.images.subset(torch.tensor([0, 2, 3])))
    with pytest.raises(DocumentError, match=r"should be \[2, 2, 2\] or 0; found \[1, 0, 2\]"):
        check_contribution(contribution_spec(plan), one_less)


def test_the_server_starts_from_the_averages_that_were_sent_and_from_noise_without_any() -> None:
    plan = tiny_plan(GREY, ipc=4, local=SETTINGS, refinement={"passes": 0})
    sites = [contribute(plan, tiny_data(counts), name) for counts, name in
             (((40, 3, 3), "site-1"), ((4, 30, 3), "site-2"))]  # fmt: skip
    made = distill(plan, sites).images

    sent = torch.cat([site.images.images[site.images.labels == 0] for site in sites])
    of_class = made.images[made.labels == 0]
    assert all(any(torch.equal(one, other) for other in of_class) for one in sent)
    assert float(as_float(made.images[made.labels == 2]).std()) > 0.2  # uniform noise has .29


def test_no_image_sent_is_equal_to_a_private_one_and_repeated_averages_differ() -> None:
    plan = average_plan(images=6)
    data = tiny_data((8, 8, 8))
    sent = contribute(plan, data, "site-1").images
    distances = torch.cdist(as_float(sent.images).flatten(1), as_float(data.images).flatten(1))
    spacing = torch.cdist(as_float(data.images).flatten(1), as_float(data.images).flatten(1))
    spacing.fill_diagonal_(torch.inf)
    assert float(distances.min()) > 0.5 * float(spacing.min())
    assert len(sent.images.unique(dim=0)) == len(sent)


def test_averages_are_not_real_images_and_a_set_can_be_made_of_them() -> None:
    plan, data = average_plan(), tiny_data((12, 8, 16))
    assert not shows_real_images(plan)
    made = distill(plan, [contribute(plan, data, "site-1")])
    assert made.images.counts().tolist() == [2, 2, 2]


def test_averages_of_fewer_images_than_the_policy_asks_for_are_refused() -> None:
    with pytest.raises(
        PolicyError, match="`smallest_class` is 20, but the plan asks for averages of 4"
    ):
        Policy(largest_ratio=1e6).release(average_plan(), tiny_data((30, 30, 30)), "north")


def test_the_operator_reads_how_many_images_are_in_an_average() -> None:
    plan, data = average_plan(), tiny_data((12, 3, 16))
    preview = preview_contribution(plan, OPEN.release(plan, data, "north"), "north")
    assert preview.total_bytes == len(contribution_bytes(contribute(plan, data, "north")))

    rows = dict(preview_rows(preview))
    assert "up to 4 of 1 x 8 x 8, each an average of at least 4 similar images" in rows["images"]
    assert rows["real images"] == "sends no real images"


def test_the_numbers_in_averages_count_as_released() -> None:
    counts = torch.tensor([100, 0, 6])
    alone = class_releases(tiny_plan(local={"method": "none"}), counts, "north")
    both = class_releases(average_plan(), counts, "north")
    assert [b.ratio - a.ratio for a, b in zip(alone, both, strict=True)] == pytest.approx(
        [2 / 100, 1 / 6]
    )


@pytest.mark.parametrize("steps", [10, 12, 13, 60])
@pytest.mark.parametrize("images", [1, 3, 10])
def test_the_smallest_class_sent_accounts_for_its_averages(steps, images) -> None:
    plan = tiny_plan(steps=steps, local={"method": "averages", "images": images})
    least = smallest_class_sent(plan, steps)
    for count, within in ((least, True), (least - 1, False)):
        (release,) = class_releases(plan, torch.tensor([count, 0, 0]), "north")
        assert (release.ratio <= RELEASE_LIMIT) == within


def test_only_averages_have_a_size_of_groups_and_older_plans_are_unchanged() -> None:
    assert Local(method="averages").average_of == AVERAGE_OF
    assert "average_of" not in Local().model_dump()
    with pytest.raises(ValueError, match="`average_of` should be set if"):
        Local(average_of=30)
    plan = make_plan(("a", "b"), COLOUR, local={"method": "averages", "average_of": 30})
    assert Plan.model_validate_json(plan.model_dump_json()) == plan


def test_all_of_it_is_the_same_in_another_order_of_the_images() -> None:
    plan, data = average_plan(), tiny_data((24, 8, 16))
    shuffled = Stream.of(3, Purpose.DATA).permutation(len(data))
    moved = ImageSet(data.images[shuffled], data.labels[shuffled], data.classes)
    torch.testing.assert_close(average_images(plan, data, 1), average_images(plan, moved, 1))

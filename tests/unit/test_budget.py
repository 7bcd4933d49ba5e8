"""No site sends more than the budget: by the plan's count, and in real files with headers."""

import re

import pytest
import torch

from collabdm.documents.contribution import Contribution, Statistics
from collabdm.documents.contribution_file import contribution_bytes
from collabdm.documents.plan import ImageSpec, Plan
from collabdm.errors import PlanError
from collabdm.images import ImageSet
from collabdm.matching.class_statistics import encode
from collabdm.matching.network_size import statistics_width
from collabdm.methods.collabdm import contribute
from collabdm.planning.budget import (
    FEWEST_STEPS,
    ITERATIONS,
    MOST_STEPS,
    Budget,
    choose,
    read_bytes,
)
from collabdm.planning.cost import cost, most_bytes, most_steps
from collabdm.planning.make import make_plan
from collabdm.privacy.release import (
    ReleaseLimits,
    class_releases,
    smallest_class_sent,
    withheld_classes,
)

SMALL = {"width": 8, "depth": 1}
SHAPES = [(1, 8), (3, 32), (3, 64)]  # channels, side
BUDGETS = [100_000, 200_000, 500_000, 1_000_000, 3_000_000, 10_000_000]


def plan_with(classes: int = 10, channels: int = 1, side: int = 8, **settings: object) -> Plan:
    image = ImageSpec(channels=channels, side=side, mean=(0.5,) * channels, std=(0.25,) * channels)
    names = tuple(f"class {y}" for y in range(classes))
    return make_plan(names, image, **{"network": SMALL, "ipc": 1, "sites": 2} | settings)


def fullest(plan: Plan, site: str = "s" * 64) -> Contribution:
    """What a site with every class sends, with numbers that no network computed."""
    classes, steps = len(plan.classes), plan.steps_of(site)
    images = torch.zeros(classes * plan.local.images, *plan.image.shape, dtype=plan.image_dtype)
    labels = torch.arange(classes).repeat_interleave(plan.local.images)
    width = (cost(plan_without_sketch(plan)).statistics_bytes) // (classes * 4)
    codes, scales = encode(
        torch.ones(len(steps), classes, min(plan.sketch or width, width)), plan.wire
    )
    held = torch.full((classes,), 10**9)
    statistics = Statistics(
        torch.tensor(steps, dtype=torch.int64),
        torch.arange(classes),
        codes,
        scales,
        held,
        held.clone(),
    )
    versions = dict.fromkeys(("collabdm", "python", "torch", "numpy"), "2.13.0+cpu.of.a.long.name")
    return Contribution(
        site, plan.digest, statistics, ImageSet(images, labels, plan.classes), versions
    )


def plan_without_sketch(plan: Plan) -> Plan:
    return plan.model_copy(update={"sketch": None, "wire": "float32", "steps": 1, "fraction": 1.0})


@pytest.mark.parametrize("classes", [2, 10, 100])
@pytest.mark.parametrize("shape", SHAPES)
def test_no_file_exceeds_the_budget_and_a_larger_one_never_carries_less(shape, classes) -> None:
    plan = plan_with(classes, *shape)
    carried = [0]
    for budget in BUDGETS:
        try:
            chosen = choose(plan, Budget(budget), set())
        except PlanError:
            assert carried == [0]  # only the smallest are refused
            continue
        size = len(contribution_bytes(fullest(chosen)))
        assert size <= most_bytes(chosen) <= budget
        assert size > most_bytes(chosen) - 1500  # the count is no guess
        carried.append(cost(chosen).statistics_bytes)
    assert carried == sorted(carried)
    assert len(carried) > 1


def test_in_steps_of_a_hundred_bytes_a_larger_budget_never_carries_less() -> None:
    plan = plan_with(
        2, network={"width": 16, "depth": 1}
    )  # embeddings of 256: three sketches to choose from
    chosen = [choose(plan, Budget(budget), set()) for budget in range(3_000, 40_000, 250)]
    carried = [cost(c).statistics_bytes for c in chosen]
    assert carried == sorted(carried)
    assert {c.sketch for c in chosen} == {64, 128, None}
    assert all(c.steps >= FEWEST_STEPS for c in chosen if c.sketch != 64)


def test_a_real_contribution_with_its_header_fits() -> None:
    plan = choose(plan_with(3, local={"steps": 1, "batch": 4}, batch=2), Budget(40_000), set())
    labels = torch.arange(3).repeat_interleave(4)
    data = ImageSet(
        torch.arange(12 * 64, dtype=torch.int64).remainder(251).byte().view(12, 1, 8, 8),
        labels,
        plan.classes,
    )
    sent = contribution_bytes(contribute(plan, data, "s" * 64))
    assert plan.steps >= FEWEST_STEPS
    assert 0.9 * 40_000 < len(sent) <= most_bytes(plan) <= 40_000


def test_a_large_budget_stops_at_the_most_steps() -> None:
    chosen = choose(plan_with(), Budget(read_bytes("10MB")), set())
    assert (chosen.steps, chosen.sketch) == (MOST_STEPS, None)


def test_long_class_names_are_counted_as_they_travel() -> None:
    names = tuple(f'"quoted" \\ größe {y} ' + "x" * 500 for y in range(20))
    image = ImageSpec(channels=1, side=8, mean=(0.5,), std=(0.25,))
    plan = choose(make_plan(names, image, network=SMALL, ipc=1, augment=()), Budget(100_000), set())
    assert len(contribution_bytes(fullest(plan))) <= most_bytes(plan) <= 100_000


@pytest.mark.parametrize(
    "kept",
    [
        {"steps": 7},
        {"sketch": 64},
        {"sketch": None},
        {"wire": "int8"},
        {"wire": "float32", "sketch": 32},
        {"steps": 90, "sketch": 16, "wire": "int8"},
        {"steps": 0},
    ],
)
def test_what_was_said_stays(kept) -> None:
    said = {
        "seed": 5,
        "ipc": 2,
        "pae": 2,
        "batch": 9,
        "merging": "uniform",
        "local": {"images": 1, "steps": 3},
    }
    plan = plan_with(**said | kept)
    chosen = choose(plan, Budget(200_000), set(kept))
    changed = {name for name in Plan.model_fields if getattr(chosen, name) != getattr(plan, name)}
    assert changed <= {"steps", "sketch", "wire"} - set(kept) | {"probe", "refinement"}
    assert len(contribution_bytes(fullest(chosen))) <= most_bytes(chosen) <= 200_000


def test_the_chosen_plan_has_a_probe_of_its_own() -> None:
    plan = plan_with(network={"width": 16, "depth": 1})
    chosen = choose(plan, Budget(60_000), set())
    assert chosen.sketch == 128
    assert (
        chosen.probe == make_plan(plan.classes, plan.image, **rest_of(chosen)).probe != plan.probe
    )


def test_the_server_makes_enough_iterations_of_few_steps_unless_its_passes_were_said() -> None:
    plan = plan_with()
    few, many = choose(plan, Budget(30_000), set()), choose(plan, Budget(read_bytes("10MB")), set())
    assert few.steps * few.refinement.passes >= ITERATIONS > few.steps
    assert many.refinement == plan.refinement
    assert choose(plan, Budget(30_000), {"refinement"}).refinement == plan.refinement


def rest_of(plan: Plan) -> dict[str, object]:
    return {
        name: getattr(plan, name)
        for name in Plan.model_fields
        if name not in ("classes", "image", "probe")
    }


@pytest.mark.parametrize("keep", [{}, {"steps": 60, "sketch": 16, "wire": "float16"}])
@pytest.mark.parametrize("fraction", [0.2, 0.5])
def test_sites_that_take_part_in_some_steps_send_no_more_and_not_much_less(fraction, keep) -> None:
    names = tuple(f"site-{k}" for k in range(5))
    plan = plan_with(sites=5, site_names=names, fraction=fraction, **keep)
    budget = 60_000 if not keep else most_bytes(plan)
    chosen = choose(plan, Budget(budget), set(keep))
    sizes = [len(contribution_bytes(fullest(chosen, name))) for name in names]
    assert max(sizes) <= most_bytes(chosen) <= budget
    assert max(sizes) > 0.9 * budget
    if keep:  # one step more than the fullest site may send
        with pytest.raises(PlanError, match="`budget`"):
            choose(plan, Budget(budget - 1), set(keep))


@pytest.mark.parametrize(
    "keep", [{}, {"steps": 200}, {"sketch": 16}, {"wire": "float32"}, {"steps": 0}]
)
def test_a_budget_that_is_too_small_is_refused_with_the_least_that_is_not(keep) -> None:
    plan = plan_with(**keep)
    with pytest.raises(PlanError, match="`budget` should be at least") as refused:
        choose(plan, Budget(100), set(keep))
    least = int(
        re.search(r"at least ([0-9,]+) bytes", str(refused.value)).group(1).replace(",", "")
    )
    assert most_bytes(choose(plan, Budget(least), set(keep))) == least
    with pytest.raises(PlanError, match="`budget`"):
        choose(plan, Budget(least - 1), set(keep))


def test_images_that_alone_exceed_the_budget_are_named() -> None:
    with pytest.raises(
        PlanError, match=r"10 classes of \(3, 64, 64\) images.*--local-images.*--local none"
    ):
        choose(plan_with(10, 3, 64, local={"steps": 1}), Budget(100_000), set())


# --- the smallest class of a site ----------------------------------------------------------------


@pytest.mark.parametrize("images", [20, 48, 100, 1000])
@pytest.mark.parametrize("limit", [None, 40_000])
@pytest.mark.parametrize("settings", [{}, {"sites": 2, "site_names": ("a", "b"), "fraction": 0.5}])
def test_a_site_sends_a_class_of_the_expected_size(images, limit, settings) -> None:
    plan = choose(
        plan_with(network={"width": 32, "depth": 2}, **settings), Budget(limit, images), set()
    )
    assert plan.steps
    assert (smallest_class_sent(plan, most_steps(plan)) or 0) <= images
    site = "a" if "site_names" in settings else "any"
    (release,) = class_releases(plan, torch.tensor([images] + [0] * 9), site)
    assert withheld_classes(plan, [release], ReleaseLimits()) == []


def test_more_images_allow_more_numbers_and_without_bytes_no_more_steps_than_asked() -> None:
    plan = plan_with(network={"width": 32, "depth": 2}, steps=60, local={"method": "none"})
    chosen = [choose(plan, Budget(None, images), set()) for images in (80, 400, 20_000)]
    numbers = [one.steps * statistics_width(one) for one in chosen]
    assert numbers == sorted(numbers)
    assert all(one.wire == plan.wire for one in chosen)
    assert (chosen[-1].steps, chosen[-1].sketch) == (60, None)
    assert (chosen[0].sketch, chosen[0].steps) == (64, 20)  # .25 x 80 x 64 numbers


def test_what_the_user_set_is_kept_and_too_much_of_it_is_refused() -> None:
    plan = plan_with(network={"width": 32, "depth": 2}, steps=20, local={"method": "none"})
    assert choose(plan, Budget(None, 96), {"steps"}).sketch == 64
    with pytest.raises(
        PlanError, match=r"`--smallest-site-class` should be at least 160 for 20 steps of 128"
    ):
        choose(plan, Budget(None, 96), {"steps", "sketch"})


@pytest.mark.parametrize(
    ("images", "settings", "said"),
    [
        (19, {}, "`--smallest-site-class` should be at least 20"),
        (50, {"batch": 4}, "`batch` should"),
    ],
)
def test_a_class_that_no_site_sends_by_default_is_refused(images, settings, said) -> None:
    with pytest.raises(PlanError, match=said):
        choose(plan_with(**settings), Budget(None, images), set())


def test_masks_allow_every_class() -> None:
    keys = {"a": "a" * 64, "b": "b" * 64}
    masked = plan_with(
        local={"method": "none"},
        site_names=("a", "b"),
        masking={"keys": keys, "threshold": 2},
        largest_class=100,
        wire="float32",
    )
    assert smallest_class_sent(masked, 100) == 1
    chosen = choose(masked, Budget(None, 2), set())
    assert (chosen.steps, chosen.sketch) == (masked.steps, masked.sketch)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1000", 1000),
        ("1kB", 1000),
        ("1 KB", 1000),
        ("2MiB", 2**21),
        ("0.5MB", 500_000),
        ("3k", 3000),
        ("1GB", 10**9),
    ],
)
def test_bytes_are_read_as_people_write_them(text, size) -> None:
    assert read_bytes(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "1e6", "1,000", "1XB", "nan", "0", "1 M B"])
def test_other_texts_are_no_bytes(text) -> None:
    with pytest.raises(
        PlanError, match="`budget` should be bytes, such as 500kB, 1MB or 2MiB; found"
    ):
        read_bytes(text)

"""The fast implementation against `reference`, Algorithm 1 in plain loops."""

import pytest
import reference
import torch
from tiny import CLASSES, COLOUR, GREY, tiny_data, tiny_plan

from collabdm.checkpoint import Checkpoint
from collabdm.documents.contribution import Contribution
from collabdm.documents.plan import Plan
from collabdm.images import ImageSet
from collabdm.matching.augment import expand
from collabdm.matching.class_statistics import Merged, merge
from collabdm.matching.compute import Compute
from collabdm.matching.embedding import class_means, plan_embedding
from collabdm.matching.loop import Target, matching_loss
from collabdm.matching.run_context import RunContext
from collabdm.methods.collabdm import contribute, refine
from collabdm.methods.localdm import local_images
from collabdm.seeds import Purpose, Stream, derive

SITES = ("site-1", "site-2", "site-3")
HOLDINGS = ([5, 1, 0], [0, 4, 0], [2, 6, 0])  # nobody holds the last class
LABELS = torch.tensor([0, 0, 1, 1])

VARIANTS = {
    "plain": {},
    "pae": {"pae": 2},
    "sketch": {"sketch": 8},
    "colour, uniform, pae, sketch": {"image": COLOUR, "merging": "uniform", "pae": 2, "sketch": 8},
    "batches": {"batch": 2, "merging": "uniform"},
    "some sites a step": {"fraction": 0.4, "site_names": SITES, "steps": 5},
    "no augmentation, flat": {"augment": (), "batch": 3},
}

every_variant = pytest.mark.parametrize("settings", VARIANTS.values(), ids=VARIANTS.keys())


def site_data(plan: Plan) -> dict[str, ImageSet]:
    return {
        site: tiny_data(counts, k, plan)
        for k, (site, counts) in enumerate(zip(SITES, HOLDINGS, strict=True))
    }


def sent(plan: Plan) -> list[Contribution]:
    return [contribute(plan, data, site) for site, data in site_data(plan).items()]


def merged(plan: Plan) -> Merged:
    return merge(
        [(c.site, c.statistics) for c in sent(plan)], plan.steps, len(CLASSES), plan.merging
    )


def as_targets(plan: Plan, merged: Merged) -> reference.Means:
    present = [
        (t, y) for t in range(plan.steps) for y in range(len(CLASSES)) if merged.present[t, y]
    ]
    return {(t, y): merged.means[t, y] for t, y in present}


def pixels(plan: Plan) -> torch.Tensor:
    return Stream.of(1, Purpose.PROBE).uniforms(len(LABELS), *plan.image.shape)


def as_sets(images: torch.Tensor) -> reference.Sets:
    return {
        int(y): [image.clone().requires_grad_() for image in images[y == LABELS]]
        for y in LABELS.unique()
    }


def as_batch(sets: reference.Sets) -> torch.Tensor:
    return torch.stack([image for images in sets.values() for image in images]).detach()


def fast_loss(plan: Plan, t: int, images: torch.Tensor, merged: Merged) -> torch.Tensor:
    embedding = plan_embedding(plan, Compute()).at(t)
    labels = LABELS.repeat_interleave(plan.pae**2)
    means = class_means(embedding.values(expand(images, plan.pae), labels), labels, len(CLASSES))
    return matching_loss(embedding.sketched(means), Target(merged.means[t], merged.present[t]))


@every_variant
def test_a_site_sends_the_means_of_the_reference(settings: dict) -> None:
    plan = tiny_plan(**settings)
    for site, data in site_data(plan).items():
        expected = reference.client_means(plan, data, site, SITES)
        actual = contribute(plan, data, site).statistics
        means = actual.means()
        assert {(t, y) for t in actual.steps.tolist() for y in actual.classes.tolist()} == set(
            expected
        )
        for i, t in enumerate(actual.steps.tolist()):
            for j, y in enumerate(actual.classes.tolist()):
                torch.testing.assert_close(means[i, j], expected[t, y], rtol=1e-4, atol=1e-5)


@every_variant
def test_merged_targets_are_those_of_the_reference(settings: dict) -> None:
    plan = tiny_plan(**settings)
    data = site_data(plan)
    each = {site: reference.client_means(plan, data[site], site, SITES) for site in SITES}
    expected, actual = reference.merged_means(plan, each, data), as_targets(plan, merged(plan))
    assert set(actual) == set(expected)
    for at in expected:
        torch.testing.assert_close(actual[at], expected[at], rtol=1e-4, atol=1e-5)


@every_variant
def test_the_loss_and_its_gradient_are_those_of_the_reference(settings: dict) -> None:
    plan = tiny_plan(**settings)
    statistics = merged(plan)
    images = plan.image.normalisation.apply(pixels(plan)).requires_grad_()
    sets = as_sets(images.detach())
    actual = fast_loss(plan, 0, images, statistics)
    expected = reference.server_loss(plan, 0, sets, as_targets(plan, statistics))
    assert float(expected.detach()) > 0.1
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(actual, images)
    torch.testing.assert_close(
        gradient, as_batch(reference.gradients(expected, sets)), rtol=1e-3, atol=1e-5
    )


@every_variant
def test_one_refinement_step_is_that_of_the_reference(settings: dict) -> None:
    plan = tiny_plan(**settings | {"steps": 1, "refinement": {"matching": {"learning_rate": 1.0}}})
    check_refinement(plan)


def test_a_run_of_refinement_with_momentum_is_that_of_the_reference() -> None:
    check_refinement(
        tiny_plan(steps=4, refinement={"matching": {"learning_rate": 0.5, "momentum": 0.9}})
    )


def check_refinement(plan: Plan) -> None:
    statistics, normalisation = merged(plan), plan.image.normalisation
    start = pixels(plan)
    actual = normalisation.apply(refine(plan, start, LABELS, statistics, RunContext()))
    sets = reference.server_dm(
        plan, as_sets(normalisation.apply(start)), as_targets(plan, statistics)
    )
    assert float((actual - normalisation.apply(start)).abs().max()) > 1e-3
    torch.testing.assert_close(actual, as_batch(sets), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("spread", [0.0, 0.5])
@pytest.mark.parametrize("pae", [1, 2])
def test_a_step_of_local_distillation_goes_down_the_gradient_of_the_reference(
    pae: int, spread: float
) -> None:
    local = {
        "steps": 1,
        "batch": 2,
        "images": 2,
        "matching": {"learning_rate": 0.5, "spread": spread},
    }
    plan = tiny_plan(image=GREY, pae=pae, images="float32", local=local)
    data, normalisation = tiny_data([4, 3, 0]), plan.image.normalisation
    start = normalisation.apply(pixels(plan))
    moved = local_images(
        plan,
        data,
        derive(plan.seed, "site", "a"),
        RunContext(resume=Checkpoint(0, {"images": start})),
    )
    sets = as_sets(start)
    expected = as_batch(reference.gradients(reference.local_loss(plan, data, "a", 0, sets), sets))
    assert float(expected.abs().max()) > 1e-3
    torch.testing.assert_close(
        start - normalisation.apply(moved.images), 0.5 * expected, rtol=1e-3, atol=1e-4
    )

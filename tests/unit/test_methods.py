"""CollabDM and LocalDM: outcomes, starting images, refinement, resuming, devices.

`test_properties` covers what all methods have in common, `test_reference` the arithmetic.
"""

import copy
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings, strategies
from tiny import CLASSES, COLOUR, GREY, NETWORK, answers, method_plan, tiny_data, tiny_plan

from collabdm.checkpoint import Checkpoint
from collabdm.documents.contribution import Contribution
from collabdm.documents.contribution_file import contribution_bytes
from collabdm.documents.distillation import Matching
from collabdm.documents.outcomes import DistilledSet
from collabdm.documents.plan import Plan
from collabdm.documents.specs import NetworkSpec
from collabdm.errors import DataError, DocumentError, PlanError
from collabdm.images import ImageSet, as_float
from collabdm.matching import compute
from collabdm.matching.augment import expand
from collabdm.matching.class_statistics import merge
from collabdm.matching.compute import IMAGES_PER_PASS, Compute
from collabdm.matching.embedding import class_means, plan_embedding
from collabdm.matching.loop import Target, learning_rate, matching_loss
from collabdm.matching.run_context import RunContext
from collabdm.methods import registry
from collabdm.methods.collabdm import apportion, contribute, distill
from collabdm.methods.registry import METHODS, method_of
from collabdm.methods.start_images import random_images
from collabdm.planning.make import make_plan
from collabdm.progress import Progress
from collabdm.rounds.resumable import read_state, write_state
from collabdm.seeds import Purpose, Stream

SITES = ("site-1", "site-2", "site-3")
EVEN = [[3, 3, 3], [3, 3, 3], [3, 3, 3]]
SKEWED = [[9, 0, 0], [0, 1, 0], [1, 0, 5]]
ONE = [[1, 1, 1]]
VARIANTS = [name for name, method in METHODS.items() if method.options is None]


def same_set(a: DistilledSet, b: DistilledSet) -> bool:
    pairs = ((a.images.images, b.images.images), (a.images.labels, b.images.labels))
    return all(torch.equal(*pair) for pair in pairs) and a.sites == b.sites


def rows(images: torch.Tensor) -> set[tuple]:
    return {tuple(image.flatten().tolist()) for image in images}


# --- outcomes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("holdings", [EVEN, SKEWED, ONE], ids=["even", "skewed", "one"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"local": {"steps": 1, "start": "noise"}, "merging": "uniform"},
        {"local": {"method": "random"}, "pae": 2},
        {"local": {"method": "none"}, "wire": "int8"},
        {
            "local": {"method": "random", "images": 1, "start": "noise"},
            "ipc": 3,
            "merging": "uniform",
        },
        {"local": {"steps": 1, "images": 1}, "ipc": 5, "pae": 2, "images": "float32"},
        {
            "fraction": 0.4,
            "site_names": SITES,
            "local": {"steps": 0},
            "refinement": {"batch": 1, "passes": 2},
        },
        {
            "augment": (),
            "sketch": 8,
            "image": COLOUR,
            "refinement": {"matching": {"optimiser": "adam"}},
        },
    ],
)
def test_every_class_that_some_site_has_gets_exactly_ipc_images(
    changes: dict, holdings: list[list[int]]
) -> None:
    plan = tiny_plan(**changes)
    distilled = distill(plan, answers(plan, holdings))
    images = distilled.images
    assert images.labels.tolist() == [y for y in range(len(CLASSES)) for _ in range(plan.ipc)]
    assert images.shape == plan.image.shape
    assert images.images.dtype == plan.image_dtype
    assert distilled.sites == dict(zip(SITES, holdings, strict=False))
    assert distilled.plan == plan


def test_a_class_at_no_site_is_an_error_that_names_it() -> None:
    plan = tiny_plan()
    sent = answers(plan, [[2, 0, 0], [1, 0, 0]])
    with pytest.raises(DocumentError, match="no contribution has dog, owl: wait for a site"):
        distill(plan, sent)
    assert distill(plan, sent, allow_missing=True).images.labels.tolist() == [0, 0]


def test_a_round_without_contributions_or_with_two_of_a_site_is_refused() -> None:
    plan = tiny_plan()
    (sent,) = answers(plan, ONE)
    with pytest.raises(DocumentError, match="found site-1 more than once"):
        distill(plan, [sent, sent])
    with pytest.raises(DocumentError, match="at least one contribution; found none"):
        distill(plan, [])


@pytest.mark.parametrize(
    ("message", "data"),
    [
        (
            "classes should be those of the plan, .*; found .*'cow'",
            replace(tiny_data([1, 1, 1]), classes=("cow", "a", "b")),
        ),
        (
            "at least one image of the plan's classes; found none",
            tiny_data([1, 1, 1]).subset(torch.arange(0)),
        ),
        (r"as in the plan; found \(3, 8, 8\)", tiny_data([1, 1, 1], plan=tiny_plan(image=COLOUR))),
    ],
)
def test_data_that_do_not_fit_the_plan_are_refused(message: str, data: ImageSet) -> None:
    with pytest.raises(DataError, match=message):
        contribute(tiny_plan(), data)


def test_a_site_that_the_plan_does_not_name_is_refused() -> None:
    plan = tiny_plan(site_names=SITES)
    message = "`site` should be one of site-1, site-2, site-3; found 'site-4'"
    with pytest.raises(PlanError, match=message):
        contribute(plan, tiny_data([1, 1, 1]), "site-4")


# --- draws and order -----------------------------------------------------------------------------


@pytest.mark.parametrize("merging", ["weighted", "uniform"])
def test_no_order_of_the_contributions_changes_the_set(merging: str) -> None:
    plan = tiny_plan(merging=merging, ipc=3, images="float32", refinement={"batch": 2})
    orders = itertools.permutations(answers(plan, SKEWED))
    outcomes = [distill(plan, list(order)) for order in orders]
    assert all(same_set(outcome, outcomes[0]) for outcome in outcomes)


def test_another_seed_gives_other_statistics_and_images() -> None:
    data = tiny_data([4, 2, 3])
    first, other = (contribute(tiny_plan(seed=seed, batch=2), data, "a") for seed in (7, 8))
    assert not torch.equal(first.statistics.codes, other.statistics.codes)
    assert not torch.equal(first.images.images, other.images.images)


def test_sites_draw_their_own_batches_and_their_own_networks_for_local_distillation() -> None:
    plan, data = tiny_plan(batch=2), tiny_data([4, 4, 4])
    a, b = (contribute(plan, data, site) for site in ("a", "b"))
    assert not torch.equal(a.images.images, b.images.images)
    assert not torch.equal(a.statistics.codes, b.statistics.codes)


def test_every_stage_reports_its_progress() -> None:
    events: list[Progress] = []
    context = RunContext(report=events.append)
    plan = tiny_plan(steps=2, refinement={"passes": 2})
    distill(plan, [contribute(plan, tiny_data([2, 1, 1]), context=context)], context)

    stages = {"local distillation": 2, "statistics": 2, "refinement": 4}
    assert [(event.stage, event.done, event.total) for event in events] == [
        (stage, i + 1, total) for stage, total in stages.items() for i in range(total)
    ]


# --- resuming ------------------------------------------------------------------------------------


MATCHINGS = [
    {"momentum": 0.9},
    {"momentum": 0.0, "schedule": "cosine"},
    {"optimiser": "adam", "learning_rate": 0.1, "schedule": "cosine"},
]


def with_checkpoints(work: Callable[[RunContext], Any]) -> tuple[Any, list[Checkpoint]]:
    """The result of some work, and copies of its checkpoints."""
    states: list[Checkpoint] = []
    result = work(RunContext(keep=lambda state: states.append(copy.deepcopy(state))))
    return result, states


@pytest.mark.parametrize("matching", MATCHINGS)
def test_a_resumed_refinement_is_the_uninterrupted_one_bit_for_bit(matching: dict) -> None:
    plan = tiny_plan(
        images="float32", ipc=3, refinement={"passes": 2, "batch": 2, "matching": matching}
    )
    sent = answers(plan, SKEWED)
    whole, states = with_checkpoints(lambda context: distill(plan, sent, context))
    assert [state.done for state in states] == [1, 2, 3, 4, 5, 6]
    assert not torch.equal(states[0].tensors["images"], states[-1].tensors["images"])
    for state in states:
        assert same_set(distill(plan, sent, RunContext(resume=state)), whole)


@pytest.mark.parametrize("matching", MATCHINGS)
def test_a_resumed_local_distillation_is_the_uninterrupted_one_bit_for_bit(matching: dict) -> None:
    local = {"steps": 4, "batch": 2, "images": 2, "matching": matching | {"spread": 0.1}}
    plan, data = tiny_plan(images="float32", local=local), tiny_data([5, 3, 1])
    whole, states = with_checkpoints(lambda context: contribute(plan, data, context=context))
    steps = [("statistics", done) for done in range(1, plan.steps + 1)]
    assert [(state.part, state.done) for state in states] == [
        ("", 1),
        ("", 2),
        ("", 3),
        ("", 4),
        *steps,
    ]
    parts: dict[str, Checkpoint] = {}
    for state in states:
        parts[state.part] = state
        resumed = contribute(plan, data, context=RunContext(resume=parts[""], parts=dict(parts)))
        assert torch.equal(resumed.images.images, whole.images.images)
        assert contribution_bytes(resumed) == contribution_bytes(whole)


def test_resuming_leaves_the_checkpoint_unchanged() -> None:
    plan = tiny_plan(images="float32")
    sent = answers(plan, ONE)
    _, states = with_checkpoints(lambda context: distill(plan, sent, context))
    before = copy.deepcopy(states[0])
    distill(plan, sent, RunContext(resume=states[0]))
    assert set(states[0].tensors) == set(before.tensors) > {"images"}
    for name, value in before.tensors.items():
        assert torch.equal(states[0].tensors[name], value)


# --- the images that refinement starts from ------------------------------------------------------


@pytest.mark.parametrize("merging", ["weighted", "uniform"])
def test_without_passes_the_set_is_made_of_the_sites_own_images(merging: str) -> None:
    plan = tiny_plan(
        ipc=4, merging=merging, refinement={"passes": 0}, local={"steps": 2, "images": 2}
    )
    sent = answers(plan, EVEN)
    images = distill(plan, sent).images
    for y in range(len(CLASSES)):
        own = [image for c in sent for image in c.images.images[c.images.of_class(y)]]
        assert rows(images.images[images.of_class(y)]) <= rows(torch.stack(own))
        assert len(rows(images.images[images.of_class(y)])) == 4


def test_localdm_sends_no_statistics_and_refines_nothing() -> None:
    adapted = METHODS["localdm"].adapt(
        {"ipc": 2, "sites": 3, "network": NETWORK, "local": {"steps": 1}}
    )
    plan = make_plan(CLASSES, GREY, method="localdm", **adapted)
    sent = answers(plan, SKEWED)
    assert all(contribution.statistics.codes.numel() == 0 for contribution in sent)
    images = distill(plan, sent).images.images
    assert rows(images) <= rows(torch.cat([contribution.images.images for contribution in sent]))


def test_sites_are_represented_in_proportion_to_their_images() -> None:
    plan = tiny_plan(ipc=4, refinement={"passes": 0}, local={"steps": 0, "images": 4})
    sent = answers(plan, [[30, 1, 1], [10, 1, 1]])
    start = rows(distill(plan, sent).images.images[:4])
    shares = [len(start & rows(c.images.images[c.images.of_class(0)])) for c in sent]
    assert shares == [3, 1]


def test_too_few_images_are_repeated_and_moved_a_little() -> None:
    plan = tiny_plan(
        ipc=3, refinement={"passes": 0}, local={"steps": 0, "images": 1}, images="float32"
    )
    (sent,) = answers(plan, ONE)
    images = distill(plan, [sent]).images.images[:3]
    torch.testing.assert_close(images[0], sent.images.images[0])
    assert len(rows(images)) == 3
    assert bool(torch.isfinite(images).all())


def blank(counts: list[int], value: int) -> ImageSet:
    data = tiny_data(counts)
    return ImageSet(torch.full_like(data.images, value), data.labels, data.classes)


@pytest.mark.parametrize("method", ["dm", "none"])
@pytest.mark.parametrize("merging", ["weighted", "uniform"])
@pytest.mark.parametrize("pae", [1, 2])
def test_a_start_from_noise_contains_nothing_of_the_real_images(
    method: str, merging: str, pae: int
) -> None:
    local = {"method": method, "start": "noise", "steps": 0, "images": 1}
    plan = tiny_plan(ipc=3, pae=pae, merging=merging, local=local, refinement={"passes": 0})
    sets = [blank([4, 2, 1], value) for value in (0, 200)]
    outcomes = [distill(plan, [contribute(plan, data)]).images.images for data in sets]
    assert torch.equal(*outcomes)
    assert len(rows(outcomes[0])) == 9
    assert 0.4 < float(as_float(outcomes[0]).mean()) < 0.6


def test_random_images_are_real_ones_of_their_class_each_at_most_once() -> None:
    plan, data = tiny_plan(image=COLOUR), tiny_data([6, 4, 3], plan=tiny_plan(image=COLOUR))
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2])
    chosen = random_images(plan, data, labels, seed=3)
    for y in range(3):
        of_class = rows(chosen[labels == y])
        assert of_class <= rows(as_float(data.images[data.of_class(y)]))
        assert len(of_class) == int((labels == y).sum())


def test_with_pae_a_random_image_packs_four_real_ones() -> None:
    plan, data = tiny_plan(pae=2), tiny_data([9, 8, 0])
    chosen = random_images(plan, data, torch.tensor([0, 0, 1]), seed=3)
    quarters = rows(torch.nn.functional.avg_pool2d(as_float(data.images), 2))
    packed = [chosen[:, :, i : i + 4, j : j + 4] for i in (0, 4) for j in (0, 4)]
    assert all(rows(quarter) <= quarters for quarter in packed)
    assert len(set().union(*(rows(quarter[:2]) for quarter in packed))) == 8


def test_repeated_images_follow_the_real_ones() -> None:
    plan, data = tiny_plan(), tiny_data([2, 1, 1])
    chosen = random_images(plan, data, torch.tensor([0] * 6), seed=3)
    assert rows(chosen[:2]) == rows(as_float(data.images[data.of_class(0)]))
    assert len(rows(chosen)) > 2


def test_a_repeated_image_is_always_moved() -> None:
    plan, data = tiny_plan(), tiny_data([1, 1, 1])
    for seed in range(30):
        first, second = random_images(plan, data, torch.tensor([0, 0]), seed)
        assert float((first - second).abs().max()) > 1e-3


COUNTS_AND_AVAILABLE = strategies.tuples(strategies.integers(1, 500), strategies.integers(0, 6))


@settings(max_examples=100, deadline=None, database=None, derandomize=True)
@given(
    sites=strategies.lists(COUNTS_AND_AVAILABLE, min_size=1, max_size=6),
    seats=strategies.integers(0, 30),
)
def test_seats_are_apportioned_within_what_is_available(
    sites: list[tuple[int, int]], seats: int
) -> None:
    counts, available = torch.tensor(sites).T
    take = apportion(counts, available, seats)
    assert int(take.sum()) == min(seats, int(available.sum()))
    assert bool((take >= 0).all())
    assert bool((take <= available).all())
    open_sites = take < available
    for k, j in itertools.permutations(range(len(sites)), 2):
        if open_sites[k] and take[j] > 0:  # no site has a seat to which another had a better claim
            assert int(counts[k]) * int(take[j]) <= int(counts[j]) * int(take[k] + 1)


def test_seats_go_to_the_highest_averages_and_ties_to_the_first() -> None:
    plenty = torch.tensor([9, 9, 9])
    assert apportion(torch.tensor([53, 24, 23]), plenty, 7).tolist() == [4, 2, 1]
    assert apportion(torch.tensor([5, 5, 5]), plenty, 4).tolist() == [2, 1, 1]
    assert apportion(torch.tensor([100, 1, 1]), torch.tensor([2, 1, 9]), 4).tolist() == [2, 1, 1]


# --- refinement ----------------------------------------------------------------------------------


def objective(plan: Plan, sent: list[Contribution], images: ImageSet) -> float:
    """The sum of the matching losses of all steps."""
    parts = [(contribution.site, contribution.statistics) for contribution in sent]
    merged = merge(parts, plan.steps, len(plan.classes), plan.merging)
    x = expand(plan.image.normalisation.apply(images.images), plan.pae)
    labels = images.labels.repeat_interleave(plan.pae**2)
    embedding, total = plan_embedding(plan, Compute()), 0.0
    for t in range(plan.steps):
        at_step = embedding.at(t)
        means = at_step.sketched(class_means(at_step.values(x, labels), labels, len(plan.classes)))
        total += float(matching_loss(means, Target(merged.means[t], merged.present[t])))
    return total


def without_refinement(plan: Plan, sent: list[Contribution]) -> ImageSet:
    """The images that refinement starts from."""
    refinement = plan.refinement.model_copy(update={"passes": 0})
    other = plan.model_copy(update={"refinement": refinement})
    answers = [replace(contribution, plan_digest=other.digest) for contribution in sent]
    return distill(other, answers).images


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"pae": 2, "local": {"method": "none"}},
        {"sketch": 16, "merging": "uniform"},
        {
            "refinement": {
                "passes": 5,
                "batch": 1,
                "matching": {"optimiser": "adam", "learning_rate": 0.05},
            }
        },
    ],
)
def test_refinement_lowers_the_matching_loss(changes: dict) -> None:
    local = {"steps": 0, "start": "noise"}
    refinement = {"passes": 5, "matching": {"learning_rate": 0.5}}
    plan = tiny_plan(**{"steps": 4, "local": local, "refinement": refinement} | changes)
    sent = answers(plan, EVEN)
    before = objective(plan, sent, without_refinement(plan, sent))
    assert objective(plan, sent, distill(plan, sent).images) < 0.9 * before


@pytest.mark.parametrize("chunk", [1, 3, 8])
@pytest.mark.parametrize("changes", [{}, {"pae": 2, "ipc": 3, "refinement": {"batch": 2}}])
def test_gradients_in_chunks_of_classes_are_the_gradient(
    chunk: int, changes: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = tiny_plan(images="float32", **changes)
    sent = answers(plan, SKEWED)
    whole = distill(plan, sent).images.images
    monkeypatch.setitem(IMAGES_PER_PASS, "cpu", (5, chunk))
    monkeypatch.setattr(compute, "FEW_ACTIVATIONS", 1)
    torch.testing.assert_close(distill(plan, sent).images.images, whole, rtol=1e-4, atol=1e-4)


def test_a_class_absent_from_every_step_is_not_moved() -> None:
    plan = tiny_plan(steps=1, fraction=0.4, site_names=SITES, images="float32")
    (participant,) = [site for site in SITES if plan.steps_of(site)]
    counts = {site: [3, 0, 3] if site == participant else [2, 3, 0] for site in SITES}
    sent = [contribute(plan, tiny_data(own), site) for site, own in counts.items()]
    start = without_refinement(plan, sent).images
    moved = (distill(plan, sent).images.images - start).abs().amax((1, 2, 3))
    assert (moved > 1e-3).tolist() == [True, True, False, False, True, True]


@pytest.mark.parametrize("done", [0, 1, 2])
def test_an_iteration_moves_the_images_drawn_for_it(done: int) -> None:
    plan = tiny_plan(steps=done + 1, ipc=4, images="float32", refinement={"batch": 3})
    sent = answers(plan, EVEN)
    start = without_refinement(plan, sent).images
    state = Checkpoint(done, {"images": plan.image.normalisation.apply(start)})
    images = distill(plan, sent, RunContext(resume=state)).images.images
    moved = (images - start).abs().amax((1, 2, 3)) > 1e-4

    stream = Stream.of(plan.seed, Purpose.SERVER, done + 1)
    drawn = [sorted(stream.permutation(4)[:3].tolist()) for _ in CLASSES]
    assert [torch.nonzero(of_class).flatten().tolist() for of_class in moved.reshape(3, 4)] == drawn


def test_the_learning_rate_is_constant_or_falls_by_half_a_cosine() -> None:
    constant, cosine = Matching(learning_rate=2), Matching(learning_rate=2, schedule="cosine")
    assert [learning_rate(constant, i, 4) for i in range(4)] == [2, 2, 2, 2]
    expected = [2, 1 + 0.5**0.5, 1, 1 - 0.5**0.5]
    assert [learning_rate(cosine, i, 4) for i in range(4)] == pytest.approx(expected)


def test_the_matching_loss_is_the_squared_distance_over_present_classes() -> None:
    target = Target(torch.zeros(3, 2), torch.tensor([True, False, True]), torch.ones(3, 2))
    means = torch.tensor([[1.0, 2], [100, 100], [0, 3]])
    assert float(matching_loss(means, target)) == 14
    assert float(matching_loss(means, target, torch.zeros(3, 2), spread=0.5)) == 14 + 0.5 * 4


# --- devices and precision -----------------------------------------------------------------------


def test_class_means_in_bfloat16_are_within_one_in_a_hundred() -> None:
    plan, data = tiny_plan(network=NetworkSpec(width=16, depth=2)), tiny_data([20, 20, 20])
    low = RunContext(Compute(precision="bfloat16"))
    exact, rounded = (
        contribute(plan, data, context=context).statistics.means()
        for context in (RunContext(), low)
    )
    errors = (rounded - exact).norm(dim=-1) / exact.norm(dim=-1)
    assert 0 < float(errors.max()) < 1e-2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
def test_a_gpu_computes_what_the_cpu_computes() -> None:
    plan, data = tiny_plan(images="float32"), tiny_data([5, 3, 4])
    on_gpu = RunContext(Compute("cuda"))
    sent = [contribute(plan, data, context=run) for run in (RunContext(), on_gpu)]
    torch.testing.assert_close(
        sent[1].statistics.codes, sent[0].statistics.codes, rtol=1e-3, atol=1e-3
    )
    torch.testing.assert_close(sent[1].images.images, sent[0].images.images, rtol=1e-2, atol=1e-2)
    made = [distill(plan, sent[:1], run).images.images for run in (RunContext(), on_gpu)]
    torch.testing.assert_close(made[1], made[0], rtol=1e-2, atol=1e-2)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU")
@pytest.mark.parametrize("matching", MATCHINGS)
def test_work_on_a_gpu_is_resumed_from_a_checkpoint_file(matching: dict, tmp_path: Path) -> None:
    plan = tiny_plan(images="float32", refinement={"matching": matching})
    sent, states = answers(plan, EVEN), []

    def keep(state: Checkpoint) -> None:
        write_state({"": state}, "run", tmp_path / "state")
        stored = read_state(tmp_path / "state", "run")
        assert stored is not None
        states.append(stored.parts[""])

    whole = distill(plan, sent, RunContext(Compute("cuda"), keep=keep))
    resumed = distill(plan, sent, RunContext(Compute("cuda"), resume=states[0]))
    torch.testing.assert_close(resumed.images.images, whole.images.images, rtol=1e-4, atol=1e-4)


# --- methods by name -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_of_collabdm_makes_ipc_images_of_each_class(name: str) -> None:
    plan = method_plan(name, sites=1)
    images = distill(plan, [contribute(plan, tiny_data([4, 4, 4]))]).images
    assert method_of(plan) is METHODS[name]
    assert images.counts().tolist() == [2, 2, 2]
    assert plan.pae == (2 if name.endswith("-pae") else 1)


def test_central_makes_all_steps_at_one_site_with_all_the_data() -> None:
    asked = {
        "sites": 9,
        "steps": 30,
        "fraction": 0.5,
        "site_names": SITES,
        "ipc": 3,
        "refinement": {"passes": 2},
    }
    adapted = METHODS["central"].adapt(asked | {"local": {"steps": 5}})
    assert adapted["local"] == {"start": "real", "steps": 5 + 2 * 30, "images": 3}
    expected = {"sites": 1, "steps": 0, "fraction": 1.0, "site_names": None}
    assert {name: adapted[name] for name in expected} == expected


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(PlanError, match=r"`method` should be one of collabdm, .*; found 'magic'"):
        method_of(tiny_plan(method="magic"))


def test_a_method_is_registered_once_under_a_name_that_a_plan_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "METHODS", dict(METHODS))
    own = replace(METHODS["coreset"], name="own-method")
    assert registry.register(own) is registry.register(own) is registry.find_method("own-method")

    with pytest.raises(PlanError, match="'own-method' exists already: choose another name"):
        registry.register(replace(own, pooled=True))
    with pytest.raises(PlanError, match="1 to 32 lower-case letters, .* found 'Own method'"):
        registry.register(replace(own, name="Own method"))


def test_a_plan_whose_method_is_registered_later_has_its_tensors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "METHODS", dict(METHODS))
    plan = method_plan("coreset").model_copy(update={"method": "own-method"})
    assert not registry.contribution_spec(plan).extra
    registry.register(replace(METHODS["coreset"], name="own-method"))
    assert set(registry.contribution_spec(plan).extra) == {"images", "labels"}


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("no_such_module:METHOD", "'own' of no_such_module:METHOD should be importable; it raised"),
        ("math:pi", "entry point 'own' should name a collabdm Method; found float"),
    ],
)
def test_an_entry_point_that_is_no_method_is_refused(
    target: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    information = tmp_path / "own-1.0.dist-info"
    information.mkdir()
    (information / "entry_points.txt").write_text(f"[collabdm.methods]\nown = {target}\n")
    monkeypatch.syspath_prepend(tmp_path)

    registry.load_installed_methods.cache_clear()
    with pytest.raises(PlanError, match=message):
        registry.all_methods()
    monkeypatch.undo()
    assert registry.all_methods() is METHODS  # the failure was not cached

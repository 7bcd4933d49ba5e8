"""Class statistics: the means of a site, their merging, wire types, sketches and checks."""

import copy
import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jaxtyping
import pytest
import torch
from tiny import CLASSES, WIDTH, fixed_statistics, split, tiny_data, tiny_plan

from collabdm.checkpoint import Checkpoint
from collabdm.data.partition import dirichlet, iid
from collabdm.documents.contribution import Statistics
from collabdm.documents.plan import Plan
from collabdm.errors import DataError, DocumentError
from collabdm.images import ImageSet
from collabdm.matching.class_statistics import Merged, class_statistics, encode, merge
from collabdm.matching.compute import Compute
from collabdm.matching.embedding import Sampling, class_means, plan_embedding, sketch_matrix
from collabdm.matching.loop import Target, matching_loss
from collabdm.matching.run_context import RunContext
from collabdm.progress import Progress, Stage
from collabdm.seeds import Purpose, Stream, participants

PLAN = tiny_plan(steps=2)
SITES = ("a", "b", "c")
Parts = list[tuple[str, Statistics]]


def statistics_of(
    plan: Plan, data: ImageSet, site_seed: int = 0, steps: Sequence[int] | None = None
) -> Statistics:
    sampling = Sampling(site_seed, Purpose.BATCH, plan.batch)
    chosen = range(plan.steps) if steps is None else steps
    return class_statistics(plan_embedding(plan, Compute()), data, chosen, sampling, plan.wire)


def named(plan: Plan, sets: Sequence[ImageSet]) -> Parts:
    return [(f"site-{k}", statistics_of(plan, data, k)) for k, data in enumerate(sets)]


def merged(plan: Plan, sets: Sequence[ImageSet]) -> Merged:
    return merge(named(plan, sets), plan.steps, len(CLASSES), plan.merging)


def values(*shape: int, seed: int = 0) -> torch.Tensor:
    return Stream.of(seed, Purpose.PROBE).uniforms(*shape) * 4 - 2


def means_of(present: dict[str, list[int]], steps: int = 3, seed: int = 0) -> Parts:
    """Random class means, 4 wide, of the classes that each site has; totals grow from class to class."""
    return [
        (
            site,
            fixed_statistics(
                values(steps, len(classes), 4, seed=seed + k), classes, [1 + y + k for y in classes]
            ),
        )
        for k, (site, classes) in enumerate(present.items())
    ]


# --- the statistics of a site --------------------------------------------------------------------


def test_a_site_sends_only_its_own_classes() -> None:
    statistics = statistics_of(PLAN, tiny_data([3, 0, 5]))
    assert statistics.classes.tolist() == [0, 2]
    assert statistics.batch_counts.tolist() == statistics.totals.tolist() == [3, 5]
    assert statistics.means().shape == (2, 2, WIDTH)


def test_a_batch_bounds_the_images_of_a_step_but_not_the_total() -> None:
    plan = PLAN.model_copy(update={"batch": 4})
    statistics = statistics_of(plan, tiny_data([3, 6, 5]))
    assert statistics.batch_counts.tolist() == [3, 4, 4]
    assert statistics.totals.tolist() == [3, 6, 5]


def test_batches_are_drawn_anew_at_every_step_without_replacement() -> None:
    sampling, data = Sampling(0, Purpose.BATCH, 4), tiny_data([3, 9, 5])
    picks = [sampling.picks(data, step) for step in range(5)]
    for chosen in picks:
        assert len(set(chosen.tolist())) == len(chosen)
        assert data.labels[chosen].tolist() == [0] * 3 + [1] * 4 + [2] * 4
    assert len({tuple(chosen.tolist()) for chosen in picks}) == 5


def test_progress_is_reported_step_by_step() -> None:
    reported: list[Progress] = []
    embedding = plan_embedding(PLAN, Compute())
    class_statistics(
        embedding,
        tiny_data([1, 1, 1]),
        [0, 1],
        Sampling(0, Purpose.BATCH, None),
        "float32",
        RunContext(report=reported.append),
    )
    assert reported == [Progress(Stage.STATISTICS, 1, 2), Progress(Stage.STATISTICS, 2, 2)]


@pytest.mark.parametrize("wire", ["float16", "int8"])
def test_interrupted_statistics_continue_after_the_last_step_to_the_same_bytes(wire: str) -> None:
    embedding, data = plan_embedding(PLAN, Compute()), tiny_data([4, 3, 5])
    sampling = Sampling(0, Purpose.BATCH, 2)
    states: list[Checkpoint] = []

    def statistics(context: RunContext) -> Statistics:
        return class_statistics(embedding, data, [0, 1, 2], sampling, wire, context)

    whole = statistics(RunContext(keep=lambda state: states.append(copy.deepcopy(state))))
    assert [state.done for state in states] == [1, 2, 3]
    for state in states:
        reported: list[Progress] = []
        resumed = statistics(RunContext(resume=state, report=reported.append))
        assert [event.done for event in reported] == list(range(state.done + 1, 4))
        assert torch.equal(resumed.codes, whole.codes)
        assert wire != "int8" or torch.equal(resumed.scales, whole.scales)


@pytest.mark.parametrize("wire", ["float16", "int8", "float32"])
def test_a_site_that_takes_part_in_no_step_sends_counts_alone(wire: str) -> None:
    statistics = statistics_of(
        PLAN.model_copy(update={"wire": wire}), tiny_data([2, 0, 1]), steps=[]
    )
    assert statistics.means().shape == (0, 2, WIDTH)
    assert statistics.wire == wire
    assert statistics.totals.tolist() == [2, 1]


def test_more_images_than_one_forward_pass_takes_give_the_mean_of_all() -> None:
    data = tiny_data([300, 150, 100])
    embedding = plan_embedding(PLAN, Compute()).at(1)
    v = embedding.values(PLAN.image.normalisation.apply(data.images), data.labels)
    expected = class_means(v, data.labels, len(CLASSES))
    torch.testing.assert_close(statistics_of(PLAN, data).means()[1], expected, rtol=1e-4, atol=1e-5)


# --- merging -------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["weighted", "uniform"])
def test_the_order_of_the_sites_changes_no_bit(rule: str) -> None:
    levels = {
        "a": 1e30,
        "b": -1e30,
        "c": 1.0,
        "d": 3.0,
    }  # the sum of such numbers depends on their order
    parts = [
        (site, fixed_statistics(torch.full((2, 1, 4), level), [0]))
        for site, level in levels.items()
    ]
    outcomes = [merge(order, 2, 3, rule) for order in itertools.permutations(parts)]
    assert all(torch.equal(o.means, outcomes[0].means) for o in outcomes)
    assert all(torch.equal(o.totals, outcomes[0].totals) for o in outcomes)


def test_weighted_merging_weighs_by_the_images_of_the_sites() -> None:
    parts = means_of({"a": [0, 1], "b": [1, 2]})
    (_, a), (_, b) = parts
    actual = merge(parts, 3, 3, "weighted").means
    torch.testing.assert_close(actual[:, 0], a.means()[:, 0])
    torch.testing.assert_close(actual[:, 1], (2 * a.means()[:, 1] + 3 * b.means()[:, 0]) / 5)
    torch.testing.assert_close(actual[:, 2], b.means()[:, 1])


def test_the_weight_is_the_total_of_a_site_not_its_batch() -> None:
    parts = [
        (site, replace(s, totals=s.batch_counts * 10)) for site, s in means_of({"a": [0], "b": [0]})
    ]
    parts = [
        (site, replace(s, batch_counts=torch.tensor([k + 3]))) for k, (site, s) in enumerate(parts)
    ]
    (_, a), (_, b) = parts
    assert (a.totals.item(), b.totals.item()) == (10, 20)
    actual = merge(parts, 3, 3, "weighted")
    torch.testing.assert_close(actual.means[:, 0], (a.means()[:, 0] + 2 * b.means()[:, 0]) / 3)
    assert actual.totals.tolist() == [30, 0, 0]


def test_uniform_merging_is_the_plain_mean_of_the_means() -> None:
    parts = means_of({"a": [0, 1, 2], "b": [0, 1, 2], "c": [0, 1, 2]})
    expected = torch.stack([s.means() for _, s in parts]).mean(0)
    torch.testing.assert_close(merge(parts, 3, 3, "uniform").means, expected)


def test_a_class_at_no_participating_site_is_absent_from_the_step() -> None:
    everywhere = fixed_statistics(values(3, 1, 4), [0])
    second = Statistics(
        torch.tensor([1]),
        torch.tensor([2]),
        values(1, 1, 4),
        None,
        torch.tensor([6]),
        torch.tensor([6]),
    )
    actual = merge([("a", everywhere), ("b", second)], 3, 3, "weighted")
    assert actual.present.tolist() == [
        [True, False, False],
        [True, False, True],
        [True, False, False],
    ]
    assert actual.totals.tolist() == [1, 0, 6]
    assert float(actual.means[~actual.present].abs().max()) == 0


@pytest.mark.parametrize("rule", ["weighted", "uniform"])
def test_a_step_is_merged_from_the_sites_that_take_part_in_it(rule: str) -> None:
    plan = tiny_plan(steps=6, fraction=0.5, site_names=SITES, merging=rule)
    sets = {site: tiny_data([2 + k, 1, 3], k) for k, site in enumerate(SITES)}
    parts = [(site, statistics_of(plan, sets[site], steps=plan.steps_of(site))) for site in SITES]
    actual = merge(parts, plan.steps, len(CLASSES), rule)
    chosen = [participants(plan.seed, t, SITES, 0.5) for t in range(plan.steps)]
    assert len(set(chosen)) > 1
    for t, of_step in enumerate(chosen):
        alone = [(site, statistics_of(plan, sets[site], steps=[t])) for site in of_step]
        torch.testing.assert_close(
            actual.means[t], merge(alone, plan.steps, len(CLASSES), rule).means[t]
        )


def test_statistics_of_another_width_are_refused() -> None:
    parts = [
        ("a", fixed_statistics(values(1, 1, 4), [0])),
        ("b", fixed_statistics(values(1, 1, 5), [0])),
    ]
    with pytest.raises(DocumentError, match="all sites should send width 4; found 5"):
        merge(parts, 1, 3, "weighted")


def test_the_servers_objective_is_the_same_at_dirichlet_0_1_as_at_iid() -> None:
    data = tiny_data([20, 20, 20])
    skewed = dirichlet(data.labels, len(CLASSES), 4, 0.1, seed=1).index
    even = iid(len(data), 4, seed=1).index
    targets = [
        merged(PLAN, [s for s in split(data, [i.tolist() for i in index]) if len(s)])
        for index in (skewed, even)
    ]
    torch.testing.assert_close(targets[0].means, targets[1].means, rtol=1e-5, atol=1e-6)
    synthetic = values(2, len(CLASSES), WIDTH)
    losses = [
        matching_loss(synthetic[t], Target(m.means[t], m.present[t]))
        for t in range(2)
        for m in targets
    ]
    assert float(losses[0]) == pytest.approx(float(losses[1]), rel=1e-5)
    assert float(losses[2]) == pytest.approx(float(losses[3]), rel=1e-5)


# --- wire types ----------------------------------------------------------------------------------


def test_the_error_of_int8_is_half_a_scale_at_most() -> None:
    means = torch.cat([values(20, 3, 50), values(20, 3, 50) * 1e-6, torch.zeros(1, 3, 50)])
    codes, scales = encode(means, "int8")
    assert codes.dtype == torch.int8
    decoded = codes.float() * scales[..., None]
    assert bool(((decoded - means).abs() <= scales[..., None] * (0.5 + 1e-4)).all())
    torch.testing.assert_close(scales * 127, means.abs().amax(-1))
    assert int(codes.abs().amax()) == 127


def test_the_error_of_float16_is_one_part_in_2048_at_most() -> None:
    means = torch.cat([values(20, 3, 50) * 10.0**power for power in (-3, 0, 4)])
    codes, scales = encode(means, "float16")
    assert scales is None
    normal = means.abs() > 2.0**-14
    assert bool(((codes.float() - means).abs() <= 2.0**-11 * means.abs())[normal].all())
    assert bool(((codes.float() - means).abs() <= 2.0**-25)[~normal].all())


def test_float32_is_not_changed() -> None:
    codes, scales = encode(values(2, 3, 4) * 1e30, "float32")
    assert scales is None
    assert torch.equal(codes, values(2, 3, 4) * 1e30)


@pytest.mark.parametrize(
    ("wire", "value"), [("float16", 65520.0), ("float16", float("nan")), ("float32", float("inf"))]
)
def test_means_that_do_not_fit_the_wire_type_are_refused(wire: str, value: float) -> None:
    means = torch.ones(2, 3, 4)
    means[1, 2, 3] = value
    with pytest.raises(DataError, match=f"class means should fit {wire}; found values up to"):
        encode(means, wire)


@pytest.mark.parametrize("wire", ["float16", "int8", "float32"])
def test_statistics_decode_to_the_means_within_their_wire_type(wire: str) -> None:
    data = tiny_data([4, 0, 5])
    exact = statistics_of(PLAN, data).means()
    actual = statistics_of(PLAN.model_copy(update={"wire": wire}), data)
    assert actual.wire == wire
    bound = {"float16": 2.0**-11, "int8": 0.5 / 127 * 1.001, "float32": 0}[wire] * exact.abs().amax(
        -1, keepdim=True
    )
    assert bool(((actual.means() - exact).abs() <= bound).all())


# --- sketches ------------------------------------------------------------------------------------


def test_sketch_signs_never_change() -> None:
    signs = sketch_matrix(0, 0, 4, 3) * 3**0.5
    expected = [[1, 1, -1], [-1, 1, -1], [1, -1, -1], [-1, -1, -1]]
    torch.testing.assert_close(signs, torch.tensor(expected).float())


def test_a_sketch_as_wide_as_the_embedding_is_none() -> None:
    assert sketch_matrix(0, 0, 8, None) is None
    assert sketch_matrix(0, 0, 8, 8) is None
    assert sketch_matrix(0, 0, 8, 7).shape == (8, 7)


def test_sketches_keep_squared_distances_and_products_on_average() -> None:
    a, b = values(2, WIDTH, seed=5)
    sketches = [sketch_matrix(3, t, WIDTH, 16) for t in range(600)]
    distances = torch.stack([((a - b) @ sketch).square().sum() for sketch in sketches])
    assert float(distances.mean()) == pytest.approx(float((a - b).square().sum()), rel=0.05)
    assert float(distances.std() / distances.mean()) == pytest.approx((2 / 16) ** 0.5, rel=0.15)
    products = torch.stack([(a @ sketch) @ (b @ sketch) for sketch in sketches])
    assert float(products.mean()) == pytest.approx(
        float(a @ b), abs=float(0.05 * a.norm() * b.norm())
    )


def test_sketched_statistics_are_the_sketch_of_the_statistics() -> None:
    data, plan = tiny_data([3, 2, 4]), PLAN.model_copy(update={"sketch": 6})
    whole, sketched = statistics_of(PLAN, data).means(), statistics_of(plan, data).means()
    assert sketched.shape == (2, 3, 6)
    for t in range(2):
        torch.testing.assert_close(
            sketched[t], whole[t] @ sketch_matrix(plan.seed, t, WIDTH, 6), rtol=1e-4, atol=1e-5
        )


# --- checks --------------------------------------------------------------------------------------


GOOD: dict[str, Any] = {
    "steps": torch.arange(2),
    "classes": torch.tensor([0, 2]),
    "codes": torch.ones(2, 2, 4),
    "scales": None,
    "batch_counts": torch.tensor([3, 4]),
    "totals": torch.tensor([3, 9]),
}
INT8 = {"codes": torch.ones(2, 2, 4, dtype=torch.int8), "scales": torch.ones(2, 2)}


@pytest.mark.parametrize("good", [{}, INT8, {"codes": torch.ones(2, 2, 4).half()}])
def test_sound_statistics_are_accepted(good: dict) -> None:
    assert Statistics(**GOOD | good).means().tolist() == torch.ones(2, 2, 4).tolist()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"codes": torch.ones(2, 4)}, r"\(steps, classes, width\) = \(2, 2, 'r'\); found \(2, 4\)"),
        ({"codes": torch.ones(3, 2, 4)}, r"found \(3, 2, 4\)"),
        ({"codes": torch.ones(2, 3, 4)}, r"found \(2, 3, 4\)"),
        (
            {"codes": torch.ones(2, 2, 4).double()},
            "should be float16, float32 or int8; found torch.float64",
        ),
        ({"codes": torch.full((2, 2, 4), float("nan"))}, "should be finite"),
        ({"codes": torch.full((2, 2, 4), float("inf")).half()}, "should be finite"),
        (
            {"scales": torch.ones(2, 2)},
            "scales should be present with int8 .*; found torch.float32 with scales",
        ),
        (
            INT8 | {"scales": None},
            "scales should be present with int8 .*; found torch.int8 without scales",
        ),
        (
            INT8 | {"scales": torch.ones(2)},
            r"scales should be float32 of shape \(2, 2\); found .* \(2,\)",
        ),
        (INT8 | {"scales": torch.tensor([[1.0, float("nan")], [1, 1]])}, "should be finite"),
        (
            INT8 | {"scales": torch.tensor([[1.0, -1.0], [1, 1]])},
            "scales should be 0 or more; found -1.0",
        ),
        (
            INT8 | {"scales": torch.ones(2, 2).double()},
            "scales should be float32 of shape .* found torch.float64",
        ),
        ({"classes": torch.tensor([2, 0])}, "class numbers should ascend from 0; found 0 after 2$"),
        ({"classes": torch.tensor([1, 1])}, "class numbers should ascend from 0; found 1 after 1$"),
        ({"classes": torch.tensor([-1, 1])}, "class numbers should ascend from 0; found -1 first$"),
        (
            {"classes": torch.tensor([1, -(2**63)])},
            f"class numbers should ascend from 0; found {-(2**63)} after 1$",
        ),
        ({"steps": torch.tensor([1, 0])}, "steps should ascend from 0; found 0 after 1$"),
        ({"steps": torch.tensor([1, 1])}, "steps should ascend from 0; found 1 after 1$"),
        ({"steps": torch.tensor([-5, 1])}, "steps should ascend from 0; found -5 first$"),
        (
            {"steps": torch.tensor([1, -(2**63)])},
            f"steps should ascend from 0; found {-(2**63)} after 1$",
        ),
        (
            {"batch_counts": torch.tensor([3, 0])},
            "1 <= images in a batch <= images of the class, .*; found 0 and 9",
        ),
        (
            {"totals": torch.tensor([2, 9])},
            "1 <= images in a batch <= images of the class, .*; found 3 and 2",
        ),
        (
            {"totals": torch.tensor([3])},
            "one batch count and one total per class, 2; found 2 and 1",
        ),
        (
            {"batch_counts": torch.tensor([3, 4, 5])},
            "one batch count and one total per class, 2; found 3 and 2",
        ),
    ],
)
def test_unsound_statistics_are_refused(
    bad: dict, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        jaxtyping.config, "jaxtyping_disable", True
    )  # as in use: only the tests check signatures
    with pytest.raises(DocumentError, match=message):
        Statistics(**GOOD | bad)

"""Differential privacy: what one image changes, how much noise is added, and what is shown of it."""

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from masked import masked_plan, site_keys
from scipy.stats import kstest
from tiny import CLASSES, GREY, tiny_data, tiny_plan

from collabdm.documents.contribution import ContributionSpec, Statistics, check_contribution
from collabdm.documents.contribution_file import contribution_bytes, decode_contribution
from collabdm.documents.plan import Plan
from collabdm.errors import DocumentError
from collabdm.images import ImageSet
from collabdm.matching.class_statistics import merge
from collabdm.matching.compute import Compute
from collabdm.matching.embedding import StepEmbedding, plan_embedding
from collabdm.matching.network_size import statistics_width
from collabdm.matching.run_context import RunContext
from collabdm.methods.collabdm import contribute, distill
from collabdm.privacy.accounting import noise_multiplier
from collabdm.privacy.clipping import clip, clipped_sums, public_centre
from collabdm.privacy.gaussian import NoisedSums, add_noise, mechanism_of, normals, on_grid
from collabdm.privacy.noised_statistics import noised_statistics, private_sums
from collabdm.privacy.public_images import public_images


def private_plan(**changes: Any) -> Plan:
    privacy = {"epsilon": 1.0, "clip": 2.0, "count_share": 0.1}
    return tiny_plan(**{"privacy": privacy, "pae": 1} | changes)


def seeded(seed: int) -> Any:
    """A random source that repeats itself; only tests and experiments use one."""
    return np.random.Generator(np.random.Philox(seed)).bytes


def noised_sums(plan: Plan, data: ImageSet, source: Any) -> NoisedSums:
    private = private_sums(plan, data)
    return add_noise(private.sums, private.counts, mechanism_of(plan), source)


@cache
def embeddings(plan: Plan, compute: Compute) -> list[tuple[StepEmbedding, torch.Tensor]]:
    """The embedding of each step, and its centre."""
    family, public = plan_embedding(plan, compute), public_images(plan)
    steps = [family.at(t) for t in range(plan.steps)]
    return [(step, public_centre(step, public)) for step in steps]


def clean_sums(plan: Plan, data: ImageSet, compute: Compute = Compute()) -> torch.Tensor:
    """The clipped sums of all steps, without noise."""
    assert plan.privacy is not None
    return torch.stack(
        [clipped_sums(step, data, c, plan.privacy.clip) for step, c in embeddings(plan, compute)]
    )


# --- sensitivity ---------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("clip_at", [0.5, 50.0])
def test_no_image_changes_the_scaled_vector_by_more_than_the_budget_allows(
    precision, clip_at
) -> None:
    plan = private_plan(privacy={"epsilon": 1.0, "clip": clip_at, "count_share": 0.1}, sketch=16)
    data, mechanism = tiny_data((40, 30, 3), plan=plan), mechanism_of(plan)
    compute = Compute(precision=precision)
    whole = clean_sums(plan, data, compute)

    for left_out in range(0, len(data), 15):
        kept = torch.tensor([i for i in range(len(data)) if i != left_out])
        change = whole - clean_sums(plan, data.subset(kept), compute)
        others = [y for y in range(len(CLASSES)) if y != int(data.labels[left_out])]
        assert float(change[:, others].abs().max()) < 1e-3 * clip_at

        squared = float((change / mechanism.sums).square().sum()) + mechanism.counts**-2
        assert squared <= mechanism.multiplier**-2 * (1 + 1e-4)


def test_a_small_bound_is_reached_so_the_sensitivity_is_not_overstated() -> None:
    plan = private_plan(privacy={"epsilon": 1.0, "clip": 0.01, "count_share": 0.1})
    one = tiny_data((1, 0, 0), plan=plan)
    mechanism = mechanism_of(plan)
    change = clean_sums(plan, one) / mechanism.sums
    assert float(change.square().sum()) + mechanism.counts**-2 == pytest.approx(
        mechanism.multiplier**-2
    )


def test_clipping_shortens_long_rows_only() -> None:
    rows = torch.tensor([[3.0, 4.0], [0.3, 0.4], [0.0, 0.0], [3e38, 0.0]])
    expected = torch.tensor([[0.6, 0.8], [0.3, 0.4], [0.0, 0.0], [1.0, 0.0]])
    torch.testing.assert_close(clip(rows, 1.0).float(), expected)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_rows_that_are_not_finite_count_as_zero(value: float) -> None:
    assert clip(torch.tensor([[value, 1.0], [1.0, 0.0]]), 2.0).tolist() == [[0, 0], [1, 0]]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_embedding_does_not_depend_on_the_other_images(precision) -> None:
    plan, compute = private_plan(), Compute(precision=precision)
    data = tiny_data((90, 0, 0), plan=plan)
    whole = clean_sums(plan, data, compute)
    parts = sum(
        clean_sums(plan, data.subset(torch.tensor(part)), compute)
        for part in ([0], [1, 2], list(range(3, 90)))
    )
    torch.testing.assert_close(whole, parts, rtol=0, atol=1e-4)


def test_public_images_need_the_plan_alone() -> None:
    images = public_images(private_plan(), 32)
    assert images.images.shape == (32, *GREY.shape)
    assert 0 <= float(images.images.min()) < float(images.images.max()) <= 1
    assert torch.equal(images.images, public_images(private_plan(ipc=1), 32).images)
    assert not torch.equal(images.images, public_images(private_plan(seed=8), 32).images)


# --- noise ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("epsilon", "steps", "share"), [(1.0, 3, 0.1), (10.0, 20, 0.02)])
def test_the_noise_is_calibrated_to_the_joint_sensitivity(epsilon, steps, share) -> None:
    privacy = {"epsilon": epsilon, "clip": 3.0, "count_share": share}
    mechanism, z = mechanism_of(private_plan(privacy=privacy, steps=steps)), 0.0
    z = noise_multiplier(epsilon, 1e-5)
    assert mechanism.sums == pytest.approx(z * 3 * math.sqrt(steps / (1 - share)))
    assert mechanism.counts == pytest.approx(z / math.sqrt(share))
    joint = steps * 3**2 / mechanism.sums**2 + 1 / mechanism.counts**2
    assert joint == pytest.approx(z**-2)


def test_normals_are_normal_and_independent_of_each_other() -> None:
    drawn = normals(200_001, seeded(1)).numpy()
    assert kstest(drawn, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(drawn[:100_000], drawn[100_001:])[0, 1]) < 0.01  # cosines and sines
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.01


def test_the_noise_of_a_contribution_has_the_stated_distribution() -> None:
    plan, data = private_plan(steps=20), tiny_data((4, 4, 0))
    noised = noised_sums(plan, data, seeded(2))
    noise = noised.sums - clean_sums(plan, data)
    mechanism = mechanism_of(plan)
    assert kstest((noise / mechanism.sums).flatten().numpy(), "norm").pvalue > 1e-3

    counts = torch.cat(
        [
            add_noise(noised.sums[:1, :, :1], torch.zeros(3).double(), mechanism, seeded(s)).counts
            for s in range(700)
        ]
    )
    assert kstest((counts / mechanism.counts).numpy(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("sigma", [0.3, 1.0, 900.0])
def test_values_lie_on_a_grid_far_below_the_noise(sigma: float) -> None:
    values = normals(1000, seeded(3)) * sigma
    rounded, step = on_grid(values, sigma), 2.0 ** (math.floor(math.log2(sigma)) - 24)
    assert torch.equal(rounded / step, (rounded / step).round())
    assert float((rounded - values).abs().max()) <= step / 2 < sigma * 1e-7


def test_every_contribution_draws_other_noise_from_the_operating_system() -> None:
    plan, data = private_plan(), tiny_data((4, 4, 4))
    first, second = (contribute(plan, data).statistics for _ in range(2))
    assert not torch.equal(first.codes, second.codes)
    repeated = [noised_statistics(plan, data, RunContext(random_bytes=seeded(4))) for _ in range(2)]
    assert torch.equal(repeated[0].codes, repeated[1].codes)


def test_masked_sites_have_together_at_least_the_noise_of_the_budget() -> None:
    keys = site_keys()
    privacy = {"epsilon": 1.0, "clip": 2.0, "count_share": 0.1}
    alone = mechanism_of(private_plan())
    for threshold in (2, 4, 5):
        share = mechanism_of(masked_plan(keys, threshold, privacy=privacy))
        assert share.multiplier == alone.multiplier
        assert threshold * share.sums**2 == pytest.approx(alone.sums**2)
        assert 5 * share.sums**2 >= alone.sums**2 * (1 - 1e-9)

    plan, data = masked_plan(keys, 5, 64, privacy=privacy, steps=20), tiny_data((4, 4, 4))
    drawn = [noised_sums(plan, data, seeded(s)).sums for s in range(5)]
    noise = torch.stack(drawn).sum(0) - 5 * clean_sums(plan, data)
    assert (
        kstest((noise / (alone.sums * math.sqrt(20 / 3))).flatten().numpy(), "norm").pvalue > 1e-3
    )


# --- contributions -------------------------------------------------------------------------------


def spec_of(plan: Plan) -> ContributionSpec:
    return ContributionSpec(plan, statistics_width(plan), {})


def test_an_absent_class_is_sent_with_noise() -> None:
    plan = private_plan()
    statistics = contribute(plan, tiny_data((5, 0, 3))).statistics
    assert statistics.classes.tolist() == [0, 1, 2]
    assert float(statistics.means()[:, 1].std()) > 0
    assert int(statistics.totals.min()) >= 1


def test_merging_recovers_the_sum_of_the_noised_sums() -> None:
    plan, sites = private_plan(), [tiny_data((50, 60, 40), s) for s in range(3)]
    noised = [noised_sums(plan, data, seeded(s)) for s, data in enumerate(sites)]
    sent = [
        (f"site-{s}", noised_statistics(plan, data, RunContext(random_bytes=seeded(s))))
        for s, data in enumerate(sites)
    ]
    merged = merge(sent, plan.steps, len(plan.classes), "weighted")

    weights = torch.stack([one.counts.round().clamp_min(1) for one in noised]).sum(0)
    sums = torch.stack([one.sums for one in noised]).sum(0)
    centres = torch.stack([centre for _, centre in embeddings(plan, Compute())])
    expected = centres[:, None] + sums / weights[:, None]
    torch.testing.assert_close(merged.means, expected.float(), rtol=1e-4, atol=1e-4)
    assert merged.totals.tolist() == weights.long().tolist()


@pytest.mark.parametrize("wire", ["float32", "float16", "int8"])
def test_every_wire_type_carries_any_noise(wire) -> None:
    privacy = {"epsilon": 1e-3, "clip": 1e4, "count_share": 0.1}
    plan = private_plan(privacy=privacy, wire=wire)
    contribution = contribute(plan, tiny_data((1, 0, 0)))
    check_contribution(spec_of(plan), contribution)
    assert bool(torch.isfinite(contribution.statistics.means()).all())


def test_the_noise_is_stated_in_the_file_and_checked() -> None:
    plan = private_plan()
    content = contribution_bytes(contribute(plan, tiny_data((5, 4, 3))))
    read = decode_contribution(content, spec_of(plan))
    mechanism = mechanism_of(plan)
    assert read.noise is not None
    assert (read.noise.epsilon, read.noise.delta, read.noise.steps) == (1.0, 1e-5, plan.steps)
    assert (read.noise.sigma_sums, read.noise.sigma_counts) == (mechanism.sums, mechanism.counts)

    plain = contribute(tiny_plan(local={"method": "none"}, pae=1), tiny_data((5, 4, 3)))
    assert b'"noise"' not in contribution_bytes(plain).replace(b"\\", b"")


def test_a_contribution_without_noise_does_not_answer_a_plan_that_asks_for_it() -> None:
    plan = private_plan()
    answer = contribute(plan, tiny_data((5, 4, 3)))
    object.__setattr__(answer, "noise", None)
    with pytest.raises(DocumentError, match="noise should be that of the plan"):
        check_contribution(spec_of(plan), answer)


def test_a_class_that_is_left_out_is_refused() -> None:
    plan = private_plan()
    answer = contribute(plan, tiny_data((5, 4, 3)))
    s = answer.statistics
    fewer = Statistics(s.steps, s.classes[:2], s.codes[:, :2], None, s.totals[:2], s.totals[:2])
    object.__setattr__(answer, "statistics", fewer)
    with pytest.raises(DocumentError, match="all 3 classes should be sent"):
        check_contribution(spec_of(plan), answer)


@pytest.mark.parametrize("method", ["collabdm", "collabdm-pae"])
def test_a_set_is_distilled_from_noised_contributions(method) -> None:
    plan = private_plan(method=method, pae=2 if method == "collabdm-pae" else 1)
    answers = [contribute(plan, tiny_data((30, 20, 10), s), f"site-{s}") for s in (1, 2)]
    distilled = distill(plan, answers)
    assert len(distilled.images) == len(CLASSES) * plan.ipc
    assert distilled.plan.privacy == plan.privacy

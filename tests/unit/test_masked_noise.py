"""Noise under masks: the server opens the sum of all noised sums, and nothing is rounded before."""

from typing import Any

import numpy as np
import pytest
import torch
from masked import COUNTS, masked_plan, site_keys
from tiny import tiny_data

from collabdm.documents.masked_contribution import MaskedContribution
from collabdm.documents.plan import Plan
from collabdm.errors import PlanError
from collabdm.matching.run_context import RunContext
from collabdm.methods.collabdm import distill_merged
from collabdm.privacy.gaussian import add_noise, mechanism_of
from collabdm.privacy.masked_noise import bounded, noised_and_masked
from collabdm.privacy.masked_sums import add_numbers, open_sum, sum_step
from collabdm.privacy.noised_statistics import PrivateSums, private_sums

KEYS = site_keys()


def private_plan(epsilon: float = 1.0, **changes: Any) -> Plan:
    privacy = {"epsilon": epsilon, "clip": 2.0}
    return masked_plan(KEYS, 5, **{"bits": 64, "privacy": privacy} | changes)


def source(seed: int) -> Any:
    return np.random.Generator(np.random.Philox(seed)).bytes


def masked_answers(plan: Plan) -> list[MaskedContribution]:
    return [
        noised_and_masked(
            plan,
            tiny_data(COUNTS[k], k, plan),
            site,
            KEYS[site],
            RunContext(random_bytes=source(k)),
        )
        for k, site in enumerate(KEYS)
    ]


def test_the_server_opens_the_sum_of_the_noised_sums() -> None:
    plan = private_plan()
    merged = open_sum(plan, add_numbers(plan, masked_answers(plan)))

    sums, counts, mechanism = 0.0, 0.0, mechanism_of(plan)
    for k in range(len(KEYS)):
        clean = private_sums(plan, tiny_data(COUNTS[k], k, plan))
        noised = add_noise(clean.sums, clean.counts, mechanism, source(k))
        counts = counts + noised.counts.round()
        sums = sums + noised.sums + clean.centres[:, None] * noised.counts.round()[:, None]

    weights = counts.clamp_min(1)
    assert merged.totals.tolist() == weights.long().tolist()
    error = (merged.means - sums / weights[:, None]).abs() * weights[:, None]
    assert float(error.max()) < 5 * sum_step(plan) + 1e-3 * float(sums.abs().max())
    assert bool(merged.present.all())


def test_with_little_noise_the_sum_is_that_of_all_images() -> None:
    plan = private_plan(epsilon=1000.0)
    merged = open_sum(plan, add_numbers(plan, masked_answers(plan)))
    together = torch.tensor(COUNTS).sum(0)
    assert float((merged.totals - together).abs().max()) <= 8


def test_a_set_is_distilled_although_counts_can_be_negative() -> None:
    plan = private_plan(epsilon=0.01)
    merged = open_sum(plan, add_numbers(plan, masked_answers(plan)))
    assert int(merged.totals.min()) >= 1
    distilled = distill_merged(plan, merged, tuple(KEYS))
    assert len(distilled.images) == len(plan.classes) * plan.ipc


def test_a_range_without_room_for_the_noise_is_refused_before_any_work() -> None:
    plan, site = private_plan(epsilon=1e-4, largest_class=10), "east"
    with pytest.raises(PlanError, match=r"`masking.range` should leave room for the noise"):
        noised_and_masked(plan, tiny_data((5, 4, 3)), site, KEYS[site], RunContext())


def test_bounding_before_the_noise_moves_two_sums_no_further_apart() -> None:
    plan = private_plan()
    mechanism = mechanism_of(plan)
    large = torch.linspace(-1e6, 1e6, 12, dtype=torch.float64).reshape(3, 4, 1)
    centres, counts = torch.zeros(3, 1), torch.tensor([1.0, 999.0, 1001.0, 5e9]).double()
    one = bounded(plan, PrivateSums(large, counts, centres), mechanism)
    other = bounded(plan, PrivateSums(large + 2, counts + 1, centres), mechanism)
    assert float((one.sums - other.sums).abs().max()) <= 2
    assert float((one.counts - other.counts).abs().max()) <= 1
    assert float(one.counts.max()) == plan.largest_class
    assert float(one.sums.abs().max()) < 1e6

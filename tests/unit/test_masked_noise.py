"""Masks and noise together: the server opens the sum of all noised sums, and nothing else."""

import numpy as np
import pytest
import torch
from masked import COUNTS, SITES, masked_plan, site_keys
from tiny import tiny_data

from collabdm.documents.contribution import Statistics
from collabdm.documents.plan import Plan
from collabdm.errors import DataError
from collabdm.matching.class_statistics import merge
from collabdm.matching.run_context import RunContext
from collabdm.privacy.gaussian import mechanism_of
from collabdm.privacy.masked_sums import add_numbers, mask_statistics, open_sum, sum_step
from collabdm.privacy.noised_statistics import noised_statistics

KEYS = site_keys()
PRIVACY = {"epsilon": 1.0, "clip": 2.0}


def noised_plan(**masking: float) -> Plan:
    plan = masked_plan(KEYS, threshold=3, privacy=PRIVACY)
    assert plan.masking is not None
    return plan.model_copy(update={"masking": plan.masking.model_copy(update=masking)})


def noised(plan: Plan) -> dict[str, Statistics]:
    """The statistics of each site, with noise from a source that repeats itself."""
    sources = [np.random.Generator(np.random.Philox(k)).bytes for k in range(len(SITES))]
    return {
        site: noised_statistics(
            plan, tiny_data(COUNTS[k], k, plan), RunContext(random_bytes=sources[k])
        )
        for k, site in enumerate(SITES)
    }


def test_the_opened_sum_is_that_of_the_noised_contributions() -> None:
    plan = noised_plan()
    sent = noised(plan)
    masked = [mask_statistics(plan, site, one, KEYS[site]) for site, one in sent.items()]
    opened = open_sum(plan, add_numbers(plan, masked))

    merged = merge(list(sent.items()), plan.steps, len(plan.classes), "weighted")
    assert opened.totals.tolist() == merged.totals.tolist()
    tolerance = len(SITES) * sum_step(plan) / int(merged.totals.min())
    torch.testing.assert_close(opened.means, merged.means, rtol=1e-5, atol=tolerance)


def test_the_noise_of_the_fewest_sites_whose_sum_may_be_opened_is_that_of_one_site() -> None:
    plan = noised_plan()
    alone = mechanism_of(plan.model_copy(update={"masking": None}))
    share = mechanism_of(plan)
    assert 3 * share.sums**2 == pytest.approx(alone.sums**2)
    assert 3 * share.counts**2 == pytest.approx(alone.counts**2)
    assert share.multiplier == alone.multiplier


def test_noised_sums_beyond_the_fixed_point_are_an_error_at_the_site() -> None:
    plan = noised_plan(range=1e-3)
    sent = noised(plan)
    with pytest.raises(
        DataError, match=r"class sums with noise should be at most 1 .*larger range"
    ):
        mask_statistics(plan, SITES[0], sent[SITES[0]], KEYS[SITES[0]])

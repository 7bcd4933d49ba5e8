"""Properties that every method has: types, repeatability, order, refusal, resuming, merging.

A new method needs a line in `tiny.OPTIONS`, if it has options, and one in `CHECKPOINTS`.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import CLASSES, method_plan, tiny_data

import collabdm
from collabdm.checkpoint import Checkpoint
from collabdm.data.partition import dirichlet, dirichlet_shares
from collabdm.documents.contribution import Contribution, Statistics
from collabdm.documents.contribution_file import contribution_bytes
from collabdm.documents.outcomes import DistilledSet
from collabdm.documents.plan import Plan
from collabdm.errors import DocumentError, PlanError
from collabdm.images import ImageSet, pool
from collabdm.matching.class_statistics import merge
from collabdm.matching.run_context import RunContext
from collabdm.methods.base import Outcome
from collabdm.methods.registry import METHODS
from collabdm.scoring.outcomes import kind_of
from collabdm.seeds import Purpose, Stream

HOLDINGS = {"north": [4, 3, 0], "south": [0, 2, 5], "west": [1, 1, 1]}
EVERYTHING = {"all": [5, 6, 6]}

ONE_ROUND = [name for name, method in METHODS.items() if method.run_rounds is None]
SEVERAL_SITES = [name for name in ONE_ROUND if not METHODS[name].pooled]
MANY_ROUNDS = [name for name in METHODS if name not in ONE_ROUND]
MATCHING = [name for name in ONE_ROUND if METHODS[name].options is None]

#: checkpoints of a site, and of the server (or of all rounds), with the plans of this module
CHECKPOINTS = {
    "collabdm": (2, 3),
    "collabdm-pae": (2, 3),
    "localdm": (2, 0),
    "localdm-pae": (2, 0),
    "central": (2 + 3, 0),
    "central-pae": (2 + 3, 0),
    "coreset": (0, 0),
    "fedd3": (5, 0),
    "dosfl": (4, 0),
    "dense": (2, 3),
    "rounds-means": (0, 3),
    "rounds-gradients": (0, 3),
    "fedavg": (0, 2),
}

properties = settings(deadline=None, database=None, derandomize=True)


@dataclass(frozen=True)
class Round:
    """A plan, and the data of its sites. Nothing is computed twice unless a test asks for it."""

    plan: Plan
    data: dict[str, ImageSet]

    def contributions(self) -> list[Contribution]:
        return [collabdm.contribute(self.plan, data, site) for site, data in self.data.items()]

    def outcome(self, sent: Any = None, context: RunContext = RunContext()) -> Outcome:
        """The outcome: of contributions, or of all rounds."""
        run_rounds = METHODS[self.plan.method].run_rounds
        if run_rounds is not None:
            return run_rounds(self.plan, self.data, context)[0]
        return collabdm.distill(self.plan, sent, context)


@cache
def round_of(method: str, **changes: Any) -> Round:
    holdings = EVERYTHING if METHODS[method].pooled else HOLDINGS
    plan = method_plan(method, **{"sites": len(holdings), "images": "float32"} | changes)
    return Round(
        plan, {site: tiny_data(counts, k) for k, (site, counts) in enumerate(holdings.items())}
    )


@cache
def sent_to(method: str) -> list[Contribution]:
    """The contributions of the method's round; none where it takes several rounds."""
    return round_of(method).contributions() if method in ONE_ROUND else []


def outcome_bytes(outcome: Outcome, folder: Path) -> bytes:
    path = folder / "outcome"
    kind_of(outcome).write(outcome, path)
    return path.read_bytes()


def checkpoints_in(states: list[Checkpoint]) -> RunContext:
    """A context that copies every checkpoint to a list."""

    def keep(state: Checkpoint) -> None:
        copies = {name: value.clone() for name, value in state.tensors.items()}
        states.append(Checkpoint(state.done, copies, state.part))

    return RunContext(keep=keep)


# --- documents -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_the_outcome_has_the_type_of_the_method_and_states_its_plan(method: str) -> None:
    own = round_of(method)
    outcome = own.outcome(sent_to(method))
    assert type(outcome) is METHODS[method].outcome
    assert outcome.method == own.plan.method == method
    assert outcome.plan == own.plan
    assert outcome.sites == {site: data.counts().tolist() for site, data in own.data.items()}


@pytest.mark.parametrize("method", METHODS)
def test_the_same_plan_and_data_give_the_same_bytes(method: str, tmp_path: Path) -> None:
    own = round_of(method)
    plan = Plan.model_validate_json(own.plan.model_dump_json())
    again = Round(
        plan, {site: data.subset(torch.arange(len(data))) for site, data in own.data.items()}
    )

    sent = again.contributions() if method in ONE_ROUND else []
    assert list(map(contribution_bytes, sent)) == list(map(contribution_bytes, sent_to(method)))

    first = outcome_bytes(own.outcome(sent_to(method)), tmp_path)
    assert outcome_bytes(again.outcome(sent), tmp_path) == first


@pytest.mark.parametrize("method", SEVERAL_SITES)
def test_the_order_of_the_contributions_does_not_matter(method: str, tmp_path: Path) -> None:
    own, sent = round_of(method), sent_to(method)
    first = outcome_bytes(own.outcome(sent), tmp_path)
    by_site = {contribution.site: contribution for contribution in sent[::-1]}
    for order in (sent[::-1], [*sent[1:], sent[0]], by_site):
        assert outcome_bytes(own.outcome(order), tmp_path) == first


@pytest.mark.parametrize("method", ONE_ROUND)
def test_a_contribution_to_another_plan_is_refused(method: str) -> None:
    other, sent = round_of(method, seed=8), sent_to(method)
    for contributions in (sent, {contribution.site: contribution for contribution in sent}):
        with pytest.raises(DocumentError, match=r"plan digest should be .* answers another plan"):
            other.outcome(contributions)


@pytest.mark.parametrize("method", MANY_ROUNDS)
def test_a_method_of_several_rounds_is_refused_where_sites_answer_once(method: str) -> None:
    own = round_of(method)
    with pytest.raises(PlanError, match=r"needs a single round; found .* in every round"):
        own.contributions()
    with pytest.raises(PlanError, match=r"needs a single round; found .* in every round"):
        collabdm.distill(own.plan, [])


@pytest.mark.parametrize("method", ["coreset", "fedd3"])
def test_the_set_of_a_method_that_unites_images_is_their_union(method: str) -> None:
    outcome = round_of(method).outcome(sent_to(method))
    assert isinstance(outcome, DistilledSet)
    labels = torch.cat([sent.extra_tensors["labels"] for sent in sent_to(method)])
    images = torch.cat([sent.extra_tensors["images"] for sent in sent_to(method)])

    order = labels.argsort(stable=True)
    assert torch.equal(outcome.images.labels, labels[order])
    assert torch.equal(outcome.images.images, images[order])
    assert len(labels) == 4 * len(HOLDINGS)


# --- resuming ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ONE_ROUND)
def test_a_site_resumes_from_any_checkpoint_to_the_same_bytes(method: str) -> None:
    own, states = round_of(method), []
    site, data = next(iter(own.data.items()))
    whole = contribution_bytes(collabdm.contribute(own.plan, data, site, checkpoints_in(states)))
    for part, last in (("", CHECKPOINTS[method][0]), ("statistics", own.plan.steps)):
        done = [state.done for state in states if state.part == part]
        assert done == list(range(1, last + 1)), part

    parts: dict[str, Checkpoint] = {}
    for state in states:
        parts[state.part] = state
        stopped = RunContext(resume=parts.get(""), parts=dict(parts))
        resumed = collabdm.contribute(own.plan, data, site, stopped)
        assert contribution_bytes(resumed) == whole, (state.part, state.done)


@pytest.mark.parametrize("method", METHODS)
def test_the_server_resumes_from_any_checkpoint_to_the_same_bytes(
    method: str, tmp_path: Path
) -> None:
    own, sent, states = round_of(method), sent_to(method), []
    whole = outcome_bytes(own.outcome(sent, checkpoints_in(states)), tmp_path)
    assert [state.done for state in states] == list(range(1, CHECKPOINTS[method][1] + 1))
    for state in states:
        resumed = own.outcome(sent, RunContext(resume=state))
        assert outcome_bytes(resumed, tmp_path) == whole, state.done


# --- merging and partition -----------------------------------------------------------------------


def statistics_of(plan: Plan, data: ImageSet) -> Statistics:
    return collabdm.contribute(plan, data, "site").statistics


holdings_of_sites = st.lists(
    st.lists(st.integers(0, 4), min_size=len(CLASSES), max_size=len(CLASSES)).filter(any),
    min_size=1,
    max_size=4,
)


@pytest.mark.parametrize("method", MATCHING)
@settings(properties, max_examples=12)
@given(holdings=holdings_of_sites)
@example(holdings=[[4, 0, 0], [0, 3, 0], [2, 1, 0]])  # a class at no site
def test_merged_statistics_are_those_of_the_pooled_data(
    method: str, holdings: list[list[int]]
) -> None:
    plan = method_plan(method, batch=None, wire="float32", local={"method": "none"})
    sites = [tiny_data(counts, k) for k, counts in enumerate(holdings)]
    parts = [(f"site-{k}", statistics_of(plan, data)) for k, data in enumerate(sites)]
    merged = merge(parts, plan.steps, len(CLASSES), "weighted")

    everything = pool(sites)
    pooled = merge([("all", statistics_of(plan, everything))], plan.steps, len(CLASSES), "weighted")
    torch.testing.assert_close(merged.means, pooled.means, rtol=1e-5, atol=1e-5)
    assert torch.equal(merged.present, pooled.present)
    assert torch.equal(merged.totals, everything.counts())


betas = st.floats(-6, 6).map(lambda power: 10.0**power)


@settings(properties, max_examples=100)
@given(beta=betas, sites=st.integers(1, 30), step=st.integers(0, 2**32 - 1))
@example(beta=1e-6, sites=8, step=0)  # every gamma variate is below the smallest float
@example(beta=1e6, sites=8, step=0)
def test_shares_of_a_partition_are_finite_and_sum_to_one(
    beta: float, sites: int, step: int
) -> None:
    shares = dirichlet_shares(Stream.of(5, Purpose.PARTITION, step), sites, beta)
    assert shares.shape == (sites,)
    assert np.isfinite(shares).all()
    assert shares.min() >= 0
    assert shares.sum() == pytest.approx(1)


@settings(properties, max_examples=50)
@given(
    beta=betas,
    sites=st.integers(1, 7),
    counts=st.lists(st.integers(21, 60), min_size=1, max_size=4),
    class_floor=st.integers(0, 3),
    seed=st.integers(0, 2**53 - 1),
)
def test_a_partition_has_every_image_once_and_the_floor_of_every_class(
    beta: float, sites: int, counts: list[int], class_floor: int, seed: int
) -> None:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    partition = dirichlet(labels, len(counts), sites, beta, seed, class_floor)
    assert torch.cat(partition.index).sort().values.tolist() == list(range(len(labels)))
    for index in partition.index:
        of_site = torch.bincount(labels[index], minlength=len(counts))
        assert int(of_site.min()) >= class_floor

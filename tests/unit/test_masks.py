"""Masks: they cancel in the sum of all sites and in no other, and arithmetic never wraps."""

import itertools
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from masked import COUNTS, SITES, masked_plan, masked_round, open_plan, site_keys, statistics_of
from pydantic import ValidationError
from scipy.stats import chisquare
from tiny import WIDTH, fixed_statistics, tiny_plan

from collabdm.documents.contribution import Contribution
from collabdm.documents.fixed_point import binary_places
from collabdm.documents.masked_contribution import (
    MaskedContribution,
    MaskedHeader,
    decode_masked,
    masked_bytes,
    masked_tensors,
)
from collabdm.documents.plan import Plan
from collabdm.documents.public_key import PublicKey
from collabdm.documents.unmasking import (
    Unmasking,
    UnmaskingHeader,
    decode_unmasking,
    unmasking_bytes,
)
from collabdm.errors import DataError, DocumentError, PlanError
from collabdm.matching.class_statistics import Merged, merge
from collabdm.privacy.masked_sums import (
    add_numbers,
    mask_statistics,
    open_sum,
    site_numbers,
    sum_step,
)
from collabdm.privacy.masks import agree, mask, mask_key, stream, sum_of_streams
from collabdm.privacy.site_keys import public_hex
from collabdm.privacy.unmasking import mask_of_missing, unmask

KEYS = site_keys()
LEAST_LIKELY = 1e-6  # a true uniform fails one of these tests in a million times


def opened(plan: Plan, masked: dict[str, MaskedContribution]) -> Merged:
    return open_sum(plan, add_numbers(plan, masked.values()))


def merged_openly(plan: Plan, sites: tuple[str, ...] = SITES) -> Merged:
    sent = [
        (site, statistics_of(plan, site, COUNTS[SITES.index(site)], SITES.index(site)))
        for site in sites
    ]
    return merge(sent, plan.steps, len(plan.classes), plan.merging)


def answers(plan: Plan, missing: tuple[str, ...]) -> dict[str, Unmasking]:
    return {site: unmask(plan, site, missing, KEYS[site]) for site in SITES if site not in missing}


def bytes_of(masked: MaskedContribution) -> np.ndarray:
    return np.concatenate([t.numpy().view(np.uint8).ravel() for t in masked.numbers.values()])


def looks_uniform(words: np.ndarray) -> bool:
    counts = np.bincount(words.view(np.uint8).ravel(), minlength=256)
    return chisquare(counts).pvalue > LEAST_LIKELY


# --- the sum of all sites ------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("merging", ["weighted", "uniform"])
def test_the_opened_sum_is_that_of_open_contributions_up_to_the_step(bits, merging) -> None:
    plan = masked_plan(KEYS, bits=bits, merging=merging)
    got, expected = opened(plan, masked_round(plan, KEYS)), merged_openly(plan)
    assert torch.equal(got.totals, expected.totals)
    assert torch.equal(got.present, expected.present)
    weights = expected.totals if merging == "weighted" else torch.tensor([4, 4, 4])
    bound = len(SITES) / 2 * sum_step(plan) / weights.double()[:, None] + 1e-6
    assert bool(((got.means - expected.means).abs() <= bound).all())


def test_the_order_of_the_contributions_changes_no_bit_of_the_sum() -> None:
    plan = masked_plan(KEYS)
    masked = masked_round(plan, KEYS)
    sums = [add_numbers(plan, [masked[s] for s in order]) for order in (SITES, SITES[::-1])]
    assert np.array_equal(*sums)


def test_a_class_beyond_the_cap_counts_as_the_cap() -> None:
    plan = masked_plan(KEYS, largest_class=4)
    merged = opened(plan, masked_round(plan, KEYS))
    assert merged.totals.tolist() == [sum(min(c[y], 4) for c in COUNTS) for y in range(3)]


# --- what cannot be opened -----------------------------------------------------------------------


@pytest.mark.parametrize("others", [{"largest_class": 999}, {"seed": 8}])
def test_masks_of_another_plan_do_not_cancel(others) -> None:
    plan, other = masked_plan(KEYS), masked_plan(KEYS, **others)
    masked = masked_round(plan, KEYS)
    foreign = mask_statistics(other, "east", statistics_of(other, "east", COUNTS[0]), KEYS["east"])
    masked["east"] = replace(foreign, plan_digest=plan.digest)
    with pytest.raises(DocumentError, match="do not, so the sum stays closed"):
        opened(plan, masked)


def test_masks_of_another_key_do_not_cancel() -> None:
    plan = masked_plan(KEYS)
    masked = masked_round(plan, KEYS)
    masked["east"] = mask_statistics(
        plan, "east", statistics_of(plan, "east", COUNTS[0]), KEYS["west"]
    )
    with pytest.raises(DocumentError, match="another key than the plan lists"):
        opened(plan, masked)


def test_the_sum_of_some_sites_stays_closed_and_is_uniform() -> None:
    plan = masked_plan(KEYS, threshold=2)
    masked = masked_round(plan, KEYS)
    for size in range(1, len(SITES)):
        for some in itertools.combinations(SITES, size):
            words = add_numbers(plan, [masked[site] for site in some])
            assert looks_uniform(words), some
            with pytest.raises(DocumentError, match="stays closed"):
                open_sum(plan, words)


@pytest.mark.parametrize("bits", [32, 64])
def test_the_numbers_of_two_data_sets_are_uniform_and_only_their_difference_tells_them_apart(
    bits,
) -> None:
    plan = masked_plan(KEYS, bits=bits)
    one = mask_statistics(plan, "east", statistics_of(plan, "east", (9, 9, 9), 1), KEYS["east"])
    two = mask_statistics(plan, "east", statistics_of(plan, "east", (1, 0, 0), 2), KEYS["east"])
    assert looks_uniform(bytes_of(one))
    assert looks_uniform(bytes_of(two))
    assert set(one.numbers) == set(two.numbers)
    assert len(masked_bytes(one, plan.classes)) == len(masked_bytes(two, plan.classes))
    assert not looks_uniform(bytes_of(one) - bytes_of(two))  # why a site answers a plan once


# --- drop-out ------------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", [("east",), ("zenith",), ("north", "west")])
def test_the_remaining_sites_open_their_sum_and_only_theirs(missing) -> None:
    plan = masked_plan(KEYS)
    masked = masked_round(plan, KEYS)
    there = {site: one for site, one in masked.items() if site not in missing}
    words = add_numbers(plan, there.values())
    mask_left = mask_of_missing(plan, answers(plan, missing), len(words))
    merged, expected = open_sum(plan, words - mask_left), merged_openly(plan, tuple(there))
    assert torch.equal(merged.totals, expected.totals)
    torch.testing.assert_close(merged.means, expected.means, rtol=0, atol=0.01)


def test_after_a_drop_out_the_numbers_of_one_remaining_site_are_still_uniform() -> None:
    plan, missing = masked_plan(KEYS), ("west",)
    masked, answered = masked_round(plan, KEYS), answers(plan, missing)
    for site in answered:
        words = add_numbers(plan, [masked[site]])
        shared = mask_key(plan, site, "west", KEYS[site])  # what the server can decrypt by now
        left = words - sum_of_streams(plan, site, {"west": shared}, len(words))
        assert looks_uniform(left)
        with pytest.raises(DocumentError, match="stays closed"):
            open_sum(plan, left)


def test_answers_about_different_missing_sites_reveal_no_key() -> None:
    plan = masked_plan(KEYS)
    masked = masked_round(plan, KEYS)
    answered = answers(plan, ("west",))
    answered["east"] = replace(unmask(plan, "east", ("zenith",), KEYS["east"]), missing=("west",))
    there = [masked[site] for site in answered]
    words = add_numbers(plan, there)
    with pytest.raises(DocumentError, match="stays closed"):
        open_sum(plan, words - mask_of_missing(plan, answered, len(words)))


def test_one_answer_alone_contains_no_key_of_a_mask() -> None:
    plan = masked_plan(KEYS)
    answer = unmask(plan, "east", ("west",), KEYS["east"])
    key = mask_key(plan, "east", "west", KEYS["east"])
    assert answer.keys.numpy().tobytes() != key
    assert key not in unmasking_bytes(answer, plan.classes)


@pytest.mark.parametrize(
    ("site", "missing", "reason"),
    [
        ("east", ("east",), "should not be missing itself"),
        ("east", ("nobody",), "found nobody"),
        ("east", (), "found none"),
        ("east", ("north", "south", "west"), "at least 3 sites should remain"),
    ],
)
def test_an_answer_that_the_plan_does_not_allow_is_refused(site, missing, reason) -> None:
    with pytest.raises(PlanError, match=reason):
        unmask(masked_plan(KEYS), site, missing, KEYS[site])


# --- documents -----------------------------------------------------------------------------------


def test_a_masked_contribution_is_read_as_it_was_written() -> None:
    plan = masked_plan(KEYS)
    masked = masked_round(plan, KEYS)["east"]
    read = decode_masked(masked_bytes(masked, plan.classes), plan, WIDTH)
    assert (read.site, read.plan_digest) == ("east", plan.digest)
    assert all(torch.equal(read.numbers[name], masked.numbers[name]) for name in masked.numbers)


def test_an_unmasking_is_read_as_it_was_written() -> None:
    plan = masked_plan(KEYS)
    answer = unmask(plan, "east", ("west", "north"), KEYS["east"])
    read = decode_unmasking(unmasking_bytes(answer, plan.classes), plan)
    assert (read.site, read.missing) == ("east", ("north", "west"))
    assert torch.equal(read.keys, answer.keys)
    assert torch.equal(read.tokens, answer.tokens)


@pytest.mark.parametrize("kind", ["masked", "unmasking"])
def test_a_changed_byte_of_the_numbers_is_noticed(kind) -> None:
    plan = masked_plan(KEYS)
    if kind == "masked":
        content = bytearray(masked_bytes(masked_round(plan, KEYS)["east"], plan.classes))
    else:
        content = bytearray(
            unmasking_bytes(unmask(plan, "east", ("west",), KEYS["east"]), plan.classes)
        )
    content[-1] ^= 1
    with pytest.raises(DocumentError, match="changed on its way"):
        decode_masked(bytes(content), plan, WIDTH) if kind == "masked" else decode_unmasking(
            bytes(content), plan
        )


def test_a_masked_contribution_to_another_plan_is_refused() -> None:
    plan = masked_plan(KEYS)
    content = masked_bytes(masked_round(plan, KEYS)["east"], plan.classes)
    with pytest.raises(DocumentError, match="masks do not cancel here"):
        decode_masked(content, masked_plan(KEYS, seed=8), WIDTH)


def test_a_masked_file_of_the_wrong_numbers_is_refused() -> None:
    plan = masked_plan(KEYS)
    masked = masked_round(plan, KEYS)["east"]
    short = replace(masked, numbers=masked.numbers | {"totals": torch.zeros(2, dtype=torch.int32)})
    wide = replace(masked, numbers={k: v.long() for k, v in masked.numbers.items()})
    for wrong in (short, wide):
        with pytest.raises(DocumentError, match="should be torch.int32 of shape"):
            decode_masked(masked_bytes(wrong, plan.classes), plan, WIDTH)


def test_an_open_contribution_does_not_pass_for_a_masked_one() -> None:
    from tiny import tiny_data

    from collabdm.documents.contribution import ContributionSpec, check_contribution
    from collabdm.methods import collabdm

    plan = masked_plan(KEYS)
    honest = collabdm.contribute(open_plan(plan), tiny_data(COUNTS[0], 0, plan), "east")
    sent: Contribution = replace(honest, plan_digest=plan.digest)
    with pytest.raises(DocumentError, match="should be masked"):
        check_contribution(ContributionSpec(plan, WIDTH, {}), sent)


# --- arithmetic ----------------------------------------------------------------------------------


def test_a_mean_outside_the_range_is_an_error_at_the_site() -> None:
    plan = masked_plan(KEYS)
    for value in (32.001, -40.0, 1e30):
        statistics = fixed_statistics(torch.full((3, 1, WIDTH), value), [0])
        with pytest.raises(DataError, match=r"`masking.range` of the plan"):
            mask_statistics(plan, "east", statistics, KEYS["east"])


@settings(max_examples=200, deadline=None)
@given(
    sites=st.integers(2, 1000),
    weight=st.integers(1, 2**40),
    largest=st.floats(1e-3, 1e6),
    bits=st.sampled_from([32, 64]),
)
def test_the_binary_places_are_the_most_that_cannot_overflow(sites, weight, largest, bits) -> None:
    places = binary_places(sites, weight, largest, bits)
    half = 2 ** (bits - 1)
    if places is None:
        assert sites * (weight * largest + 1) >= half * (1 - 1e-9)
        return
    number = round(weight * largest * 2**places)
    assert sites * number < half
    assert places == bits - 1 or sites * (weight * largest * 2 ** (places + 1) + 1) >= half * (
        1 - 1e-9
    )


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("merging", ["weighted", "uniform"])
@pytest.mark.parametrize("sign", [1, -1])
def test_sums_at_the_bounds_of_every_site_are_exact(bits, merging, sign) -> None:
    plan = masked_plan(KEYS, bits=bits, merging=merging, steps=1)
    extreme = fixed_statistics(torch.full((1, 3, WIDTH), sign * 32.0), [0, 1, 2], [10**6] * 3)
    masked = {site: mask_statistics(plan, site, extreme, KEYS[site]) for site in SITES}
    merged = opened(plan, masked)
    assert torch.equal(merged.means, torch.full((1, 3, WIDTH), sign * 32.0))
    assert merged.totals.tolist() == [5000] * 3


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-32, 32, width=32), min_size=5, max_size=5), st.sampled_from([32, 64]))
def test_any_values_within_the_range_add_up(values, bits) -> None:
    plan = masked_plan(KEYS, bits=bits, steps=1)
    total = np.zeros(0)
    for value in values:
        words = site_numbers(plan, fixed_statistics(torch.full((1, 1, WIDTH), value), [1], [1000]))
        total = words if not len(total) else total + words
    merged = open_sum(plan, total)
    assert (
        abs(float(merged.means[0, 1, 0]) - sum(values) / 5) < 5 / 2 * sum_step(plan) / 5000 + 1e-5
    )


# --- plans ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"wire": "float16"}, "needs `wire` float32"),
        ({"largest_class": None}, "needs `largest_class`"),
        ({"largest_class": 2**30}, "should suffice for the sums"),
        ({"local": {"method": "dm"}}, "`local.method` none"),
        ({"site_names": ("a", "b", "c", "d", "e")}, "one key for each of `site_names`"),
    ],
)
def test_a_plan_whose_masks_could_not_work_is_refused(change, reason) -> None:
    with pytest.raises(PlanError, match=reason):
        masked_plan(KEYS, **change)


def test_two_sites_with_one_key_are_refused() -> None:
    with pytest.raises(PlanError, match="found one key for several sites"):
        masked_plan(KEYS | {"east": KEYS["west"]})


def test_a_key_of_low_order_is_refused() -> None:
    plan = masked_plan(KEYS)
    keys = plan.masking.keys | {"west": "00" * 32}
    broken = plan.model_copy(update={"masking": plan.masking.model_copy(update={"keys": keys})})
    with pytest.raises(PlanError, match="of low order"):
        mask(broken, "east", KEYS["east"], 4)


def test_plans_without_masks_have_no_masked_tensors() -> None:
    with pytest.raises(PlanError, match="plan of open contributions"):
        masked_tensors(tiny_plan(), WIDTH)


def test_an_unknown_key_of_the_masking_is_refused() -> None:
    with pytest.raises(ValidationError):
        Plan.model_validate(masked_plan(KEYS).model_dump() | {"masking": {"kyes": {}}})


# --- the page of the format ----------------------------------------------------------------------


def test_the_values_in_the_page_of_the_format_are_those_of_the_code() -> None:
    page = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")
    _, _, section = page.partition("<!-- golden: masks -->")
    section, _, _ = section.partition("A site MUST check")
    rows = dict(re.findall(r"^\| (.+?) \| (.+) \|$", section, flags=re.MULTILINE))
    east, north = (X25519PrivateKey.from_private_bytes(bytes([k]) * 32) for k in (1, 2))
    digest = "0" * 64
    key = agree(east, public_hex(north), "mask", digest, "east", "north")
    assert key == agree(north, public_hex(east), "mask", digest, "east", "north")
    route = ("token", digest, "from", "east", "to", "north", "missing", "west")
    token = agree(east, public_hex(north), *route)
    assert rows == {
        "public key of east": f"`{public_hex(east)}`",
        "public key of north": f"`{public_hex(north)}`",
        "key of the mask": f"`{key.hex()}`",
        "first numbers, 32 bits": " ".join(map(str, stream(key, 4, np.dtype("<u4")))),
        "first numbers, 64 bits": " ".join(map(str, stream(key, 2, np.dtype("<u8")))),
        "token from east to north, west missing": f"`{token.hex()}`",
    }
    for model in (MaskedHeader, UnmaskingHeader, PublicKey):
        assert all(f"| `{name}` |" in page for name in model.model_fields)
    places = [binary_places(5, weight, 32.0, 32) for weight in (100_000, 1000, 1)]
    assert places == [7, 13, 23]
    assert "f = 7; for at most 1,000 images, f = 13; uniform, f = 23" in page

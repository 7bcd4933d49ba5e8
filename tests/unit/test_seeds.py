from itertools import islice, permutations

import numpy as np
import pytest
import torch
from tiny import tiny_data, tiny_plan

from collabdm.methods.collabdm import contribute, distill
from collabdm.seeds import Purpose, Stream, derive, participants

LAST = 2**64 - 1
SITES = ("a", "b", "c", "d", "e")


def philox(counter: int, key: tuple[int, int]) -> list[int]:
    """Philox4x64-10, from the paper."""
    c, k = [counter, 0, 0, 0], list(key)
    for _ in range(10):
        left, right = 0xD2E7470EE14C6C93 * c[0], 0xCA5A826395121157 * c[2]
        c = [right >> 64 ^ c[1] ^ k[0], right & LAST, left >> 64 ^ c[3] ^ k[1], left & LAST]
        k = [k[0] + 0x9E3779B97F4A7C15 & LAST, k[1] + 0xBB67AE8584CAA73B & LAST]
    return c


def test_philox_in_plain_python_gives_the_vector_that_its_authors_published() -> None:
    expected = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    assert philox(0, (0, 0)) == expected


@pytest.mark.parametrize(
    ("seed", "purpose", "step", "words"),
    [
        (
            0,
            Purpose.WEIGHTS,
            0,
            [0x68F2A1CB1907A6F3, 0xA56C242DB0A03161, 0xF54610F42F089295, 0x036C2AC25C0249D1],
        ),
        (
            0,
            Purpose.SKETCH,
            1,
            [0x136214AD581ED436, 0xC97E27D0F611D28A, 0x12A9421C4A2BC2A4, 0xEADC0AA66F17FC08],
        ),
        (
            2**63 - 1,
            Purpose.DATA,
            2**32 - 1,
            [0xB091DF8C189C084D, 0x0043327C2B9C1105, 0xFB757F579BBBE53A, 0xDCA9D8B7179D47D3],
        ),
    ],
)
def test_the_first_words_of_a_stream_never_change(
    seed: int, purpose: Purpose, step: int, words: list[int]
) -> None:
    assert Stream.of(seed, purpose, step).words(4).tolist() == words
    assert philox(1, (seed, int(purpose) * 2**32 + step)) == words


def test_words_are_philox_blocks_counted_from_one() -> None:
    stream = Stream.of(3, Purpose.LOCAL_BATCH, 9)
    expected = [word for counter in (1, 2, 3) for word in philox(counter, (3, (18 << 32) + 9))]
    assert stream.words(12).tolist() == expected


def test_uniforms_are_the_high_24_bits_of_each_half_word_the_low_half_first() -> None:
    words = Stream.of(0, Purpose.WEIGHTS).words(3).tolist()
    halves = [half for word in words for half in (word & 0xFFFFFFFF, word >> 32)]
    expected = [(half >> 8) / 2**24 for half in halves[:5]]
    assert expected[:2] == [1640358 / 2**24, 6877857 / 2**24]
    assert Stream.of(0, Purpose.WEIGHTS).uniforms(5).tolist() == expected


def test_signs_are_the_bits_of_each_word_the_lowest_first() -> None:
    words = Stream.of(0, Purpose.SKETCH).words(2).tolist()
    bits = [word >> i & 1 for word in words for i in range(64)]
    found = Stream.of(0, Purpose.SKETCH).signs(10, 7)
    assert found[0].tolist() == [1, 1, -1, -1, 1, -1, 1]
    assert found.flatten().tolist() == [2 * bit - 1 for bit in bits[:70]]


def test_uniforms_are_spread_evenly_and_signs_are_fair() -> None:
    uniforms = Stream.of(1, Purpose.PROBE).uniforms(100_000)
    assert float(uniforms.min()) >= 0
    assert float(uniforms.max()) < 1
    assert torch.histc(uniforms, 10, 0, 1).tolist() == pytest.approx([10_000] * 10, rel=0.05)
    assert abs(float(Stream.of(1, Purpose.PROBE).signs(100_000).mean())) < 0.02


def test_a_draw_begins_with_a_fresh_word() -> None:
    parts, words = Stream.of(0, Purpose.AUGMENT), Stream.of(0, Purpose.AUGMENT)
    first, second = parts.uniforms(1), parts.uniforms(1)
    low = [(word & 0xFFFFFFFF) >> 8 for word in words.words(2).tolist()]
    assert [float(first), float(second)] == [value / 2**24 for value in low]


def test_shapes_fill_row_by_row_and_may_be_empty() -> None:
    flat = Stream.of(2, Purpose.PROBE).uniforms(6)
    assert torch.equal(Stream.of(2, Purpose.PROBE).uniforms(2, 3), flat.reshape(2, 3))
    assert Stream.of(2, Purpose.PROBE).uniforms(0, 3).shape == (0, 3)
    assert Stream.of(2, Purpose.PROBE).permutation(0).tolist() == []


@pytest.mark.parametrize("n", [1, 2, 17, 1000])
def test_a_permutation_contains_every_number_once(n: int) -> None:
    assert sorted(Stream.of(4, Purpose.BATCH, n).permutation(n).tolist()) == list(range(n))


def test_a_permutation_is_the_order_of_the_words() -> None:
    words = Stream.of(0, Purpose.BATCH).words(8).tolist()
    order = Stream.of(0, Purpose.BATCH).permutation(8).tolist()
    assert order == [2, 0, 4, 3, 7, 5, 6, 1]
    assert [words[i] for i in order] == sorted(words)


@pytest.mark.parametrize("bound", [1, 2, 10, 2**40])
def test_integers_are_below_their_bound(bound: int) -> None:
    found = Stream.of(5, Purpose.SERVER).integers(bound, 40, 25)
    assert found.shape == (40, 25)
    assert int(found.min()) >= 0
    assert int(found.max()) < bound
    assert len(found.unique()) >= min(bound, 900)


def test_integers_never_change() -> None:
    assert Stream.of(0, Purpose.BATCH).integers(10, 8).tolist() == [1, 8, 0, 3, 1, 4, 6, 3]


def test_streams_of_another_seed_purpose_or_step_differ() -> None:
    names = [(seed, purpose, step) for seed in (0, 1) for purpose in Purpose for step in (0, 1, 2)]
    firsts = {tuple(Stream.of(*name).words(2).tolist()) for name in names}
    assert len(firsts) == len(names)


def test_the_numbers_of_purposes_never_change() -> None:
    numbers = {1: "WEIGHTS", 2: "AUGMENT", 3: "SKETCH", 4: "PROBE", 5: "PARTICIPATION", 6: "SERVER"}
    numbers |= {
        16: "LOCAL_WEIGHTS",
        17: "LOCAL_AUGMENT",
        18: "LOCAL_BATCH",
        19: "LOCAL_START",
        20: "BATCH",
    }
    numbers |= {32: "PARTITION", 33: "NETWORK", 34: "TRAINING", 35: "BASELINE", 36: "DATA"}
    assert {number: Purpose(number).name for number in numbers} == numbers


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=r"`seed` should be in 0 \.\. 2\^63 - 1; found"):
        Stream.of(seed, Purpose.WEIGHTS)


@pytest.mark.parametrize("step", [-1, 2**32])
def test_a_step_out_of_range_is_refused(step: int) -> None:
    with pytest.raises(ValueError, match=r"`step` should be in 0 \.\. 2\^32 - 1; found"):
        Stream.of(0, Purpose.WEIGHTS, step)


def test_derived_seeds_never_change() -> None:
    assert derive(0, "site", "a") == 7335550314967764189
    assert derive(7, "site", "site-1") == 5875068540628416701
    assert derive(5, 1, 2) == 8327067363258887888


def test_derived_seeds_differ_by_name_and_are_seeds() -> None:
    seeds = [derive(seed, "site", name) for seed in (0, 1) for name in ("a", "b", "ab", "1", "11")]
    seeds += [derive(0, "site"), derive(0, "si", "te"), derive(0, "a", "site")]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize(
    ("fraction", "size"), [(0.01, 1), (0.2, 1), (0.4, 2), (0.5, 2), (0.7, 4), (0.9, 4), (1.0, 5)]
)
def test_as_many_sites_take_part_as_the_fraction_says_and_at_least_one(
    fraction: float, size: int
) -> None:
    for step in range(20):
        chosen = participants(0, step, SITES, fraction)
        assert len(chosen) == size
        assert chosen <= set(SITES)


def test_participants_do_not_depend_on_the_order_of_the_names() -> None:
    for step in range(3):
        found = {
            participants(1, step, order, 0.4) for order in islice(permutations(SITES), 0, 120, 7)
        }
        assert len(found) == 1


def test_participants_never_change_and_every_site_takes_part() -> None:
    first = [sorted(participants(0, step, SITES, 0.4)) for step in range(4)]
    assert first == [["b", "c"], ["a", "d"], ["b", "d"], ["a", "c"]]
    turns = [site for step in range(200) for site in participants(0, step, SITES, 0.4)]
    assert [turns.count(site) for site in SITES] == pytest.approx([80] * 5, rel=0.25)


def test_a_whole_round_neither_reads_nor_moves_the_global_generators() -> None:
    outcomes = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        before, before_numpy = torch.get_rng_state(), np.random.get_state()[1].copy()
        plan = tiny_plan(batch=2, local={"steps": 2, "batch": 2, "start": "noise"})
        sent = [contribute(plan, tiny_data([3, 2, 1]), site) for site in ("a", "b")]
        outcomes.append(distill(plan, sent).images.images)
        assert torch.equal(torch.get_rng_state(), before)
        assert np.array_equal(np.random.get_state()[1], before_numpy)
    assert torch.equal(*outcomes)


def test_normals_never_change_and_are_standard() -> None:
    assert Stream.of(0, Purpose.BASELINE).normals(4).tolist() == pytest.approx(
        [-1.0638394355773926, -0.4981825053691864, -1.0000221729278564, -0.16144970059394836],
        rel=1e-6,
    )
    many = Stream.of(0, Purpose.BASELINE).normals(100_001)
    assert (float(many.mean()), float(many.std())) == pytest.approx((0, 1), abs=0.01)

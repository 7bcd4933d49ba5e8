"""The attacks of an audit: their scores, their rates, and what they find where the truth is known."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.metrics import roc_auc_score, roc_curve
from tiny import tiny_data, tiny_plan

from collabdm.images import ImageSet, as_float
from collabdm.lab.audit.canaries import MISLABELLED, NOISE, draw_canaries, exposures
from collabdm.lab.audit.candidates import draw_candidates
from collabdm.lab.audit.inversion import Target, decibels, invert, recovery
from collabdm.lab.audit.means import Products, calibrated, embed_all, mean_scores
from collabdm.lab.audit.nearest import nearest_pairs, nearest_scores
from collabdm.lab.audit.picture import Strip, write_strips
from collabdm.lab.audit.rates import Ranking, measure, share_interval
from collabdm.lab.audit.settings import AuditSettings
from collabdm.matching.compute import Compute
from collabdm.matching.embedding import plan_embedding
from collabdm.methods.collabdm import contribute
from collabdm.seeds import Purpose, Stream


def stream(step: int = 0) -> Stream:
    return Stream.of(3, Purpose.DATA, step)


def uniform_scores(rounds: int, m: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores with many ties, and random members."""
    draws = stream()
    scores = (draws.uniforms(rounds, m) * 20).floor() / 20
    return scores, draws.uniforms(rounds, m) < 0.5


# --- rates ---------------------------------------------------------------------------------------


def test_the_auc_is_that_of_scikit_learn_also_with_ties() -> None:
    scores, used = uniform_scores(3, 50)
    assert Ranking(scores, used).auc() == pytest.approx(
        roc_auc_score(used.flatten(), scores.flatten())
    )


def test_weights_repeat_candidates() -> None:
    scores, used = uniform_scores(2, 30)
    weights = torch.arange(30) % 3
    index = torch.arange(30).repeat_interleave(weights)
    repeated = Ranking(scores[:, index], used[:, index]).auc()
    (weighted,) = Ranking(scores, used).weighted_aucs(weights[None].float()).tolist()
    assert weighted == pytest.approx(repeated)


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.1, 0.5])
def test_hits_are_those_of_the_roc_curve(rate: float) -> None:
    scores, used = uniform_scores(4, 100)
    false, true, _ = roc_curve(used.flatten(), scores.flatten(), drop_intermediate=False)
    expected = true[false <= rate].max() * int(used.sum())
    assert Ranking(scores, used).hits(rate) == round(expected)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 40), (10, 10)])
def test_intervals_of_shares_are_those_of_clopper_and_pearson(hits: int, n: int) -> None:
    ours, exact = share_interval(hits, n), binomtest(hits, n).proportion_ci(method="exact")
    assert (ours.low, ours.high) == pytest.approx((exact.low, exact.high))


def test_the_interval_of_a_guess_contains_one_half_and_shrinks_with_n() -> None:
    widths = []
    for m in (40, 4000):
        draws = stream(m)
        scores, used = draws.uniforms(1, m), draws.uniforms(1, m) < 0.5
        auc = measure("set", "guess", scores, used, draws).auc
        assert auc.low < 0.5 < auc.high
        widths.append(auc.high - auc.low)
    assert widths[1] < widths[0] / 5


# --- candidates ----------------------------------------------------------------------------------


def test_rounds_use_half_of_each_class_and_pairs_are_complementary() -> None:
    data = tiny_data([9, 11, 9])
    drawn = draw_candidates(data, AuditSettings(members=3, shadows=4))
    assert drawn.images.counts().tolist() == [6, 6, 6]
    assert drawn.reference.counts().tolist() == [3, 3, 3]
    for number in range(5):
        assert drawn.members(number).counts().tolist() == [3, 3, 3]
    assert torch.equal(drawn.used[0], ~drawn.used[1])
    assert torch.equal(drawn.used[2], ~drawn.used[3])
    assert not torch.equal(drawn.used[0], drawn.used[2])


def test_the_reference_contains_no_candidate() -> None:
    data = tiny_data([9, 9, 9])
    drawn = draw_candidates(data, AuditSettings(members=3))
    rows = torch.cat([drawn.images.images, drawn.reference.images]).flatten(1)
    assert len(rows.unique(dim=0)) == len(rows)


# --- means ---------------------------------------------------------------------------------------


def test_whitened_scores_are_those_of_the_explicit_inverse() -> None:
    draws, products = stream(), Products()
    own, x, means = (draws.normals(n, 2, 4).double() for n in (6, 5, 3))
    for t in range(2):
        products.add(own[:, t].float(), x[:, t].float(), means[:, t].float())
    plain, whitened = products.scores()

    centre = own.mean(0, keepdim=True)
    a, b, m = ((part - centre).flatten(1) for part in (own, x, means))
    ridge = (a @ a.T).trace() / len(a)
    inverse = torch.linalg.inv(a.T @ a / ridge + torch.eye(8))
    assert torch.allclose(plain, m @ b.T, atol=1e-5)
    assert torch.allclose(whitened, m @ inverse @ b.T, atol=1e-5)


def test_means_of_small_classes_betray_their_members() -> None:
    plan = tiny_plan(steps=20, local={"method": "none"})
    drawn = draw_candidates(tiny_data([60, 60, 60], plan=plan), AuditSettings(members=20))
    statistics = [contribute(plan, drawn.members(k)).statistics for k in range(2)]
    scores = mean_scores(plan, statistics, drawn.images, drawn.reference, Compute())
    for values in (scores.plain, scores.whitened):
        assert Ranking(values, drawn.used[:2]).auc() > 0.65


def test_calibration_removes_what_is_common_to_all_rounds() -> None:
    draws = stream()
    used = torch.stack([draws.uniforms(200) < 0.5 for _ in range(12)])
    offset, noise = 10 * draws.normals(200), draws.normals(12, 200)
    scores = offset + noise + 2 * used
    plain = Ranking(scores, used).auc()
    for online in (True, False):
        assert Ranking(calibrated(scores, used, online), used).auc() > 0.85 > 0.65 > plain


def test_calibration_works_with_a_single_shadow() -> None:
    scores, used = uniform_scores(1, 20)
    both = torch.cat([scores, scores + 1])
    result = calibrated(both, torch.cat([used, ~used]))
    assert bool(torch.isfinite(result).all())


# --- images --------------------------------------------------------------------------------------


def test_the_nearest_released_image_of_the_own_class_counts() -> None:
    pixels = torch.tensor([0.0, 0.5, 1.0, 0.6]).view(4, 1, 1, 1).expand(4, 1, 8, 8).contiguous()
    candidates = ImageSet(pixels, torch.tensor([0, 0, 1, 1]), ("a", "b"))
    released = candidates.subset(torch.tensor([1, 2]))
    scores = nearest_scores(candidates, released, pae=1)
    assert scores.tolist() == pytest.approx([-127.5, 0.0, 0.0, -102.0], abs=1e-3)


def test_small_images_are_compared_at_their_own_size() -> None:
    data = tiny_data([8, 0, 0])
    tiles = torch.nn.functional.avg_pool2d(as_float(data.images[:4]), 2)
    stored = torch.cat([torch.cat([tiles[0], tiles[1]], 2), torch.cat([tiles[2], tiles[3]], 2)], 1)
    released = ImageSet(stored[None], torch.zeros(1, dtype=torch.int64), data.classes)

    scores = nearest_scores(data, released, pae=2)
    assert scores[:4].tolist() == pytest.approx([0.0] * 4, abs=1e-3)
    assert float(scores[4:].max()) < -1

    used = torch.arange(8) < 4
    pairs = nearest_pairs(data, released, used, 2, 3)
    assert [pair.released == pair.member for pair in pairs] == [True] * 3
    assert all(pair.other >= 4 and pair.other_distance > pair.distance for pair in pairs)


def test_a_picture_has_a_column_for_each_pair(tmp_path) -> None:
    from PIL import Image

    rows = [torch.zeros(12, 1, 8, 8), torch.ones(12, 1, 8, 8)]
    write_strips([Strip("two rows", rows)], tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (12 * 66 + 2, 18 + 2 * 66 + 2)
        levels = np.asarray(picture)
    assert levels[18 + 10, 10].tolist() == [0, 0, 0]
    assert levels[18 + 66 + 10, 10].tolist() == [255, 255, 255]


# --- canaries ------------------------------------------------------------------------------------


def test_a_canary_that_stands_out_has_the_largest_exposure() -> None:
    canaries = draw_canaries(tiny_data([4, 4, 4]), AuditSettings(canaries=2))
    scores = stream().uniforms(len(canaries.images))
    scores[canaries.inserted & canaries.noise] = 2.0
    noise, wrong = exposures("set", "loss", scores, canaries)
    assert (noise.kind, noise.exposures) == (NOISE, (8.0, 8.0))
    assert wrong.kind == MISLABELLED
    assert max(wrong.exposures) < 8


def test_canaries_are_distinct_and_have_one_label() -> None:
    canaries = draw_canaries(tiny_data([4, 40, 40]), AuditSettings(canaries=3))
    assert canaries.images.counts().tolist() == [2 * 258, 0, 0]
    rows = canaries.images.images.flatten(1)
    assert len(rows.unique(dim=0)) == len(rows)
    assert int(canaries.inserted.sum()) == 6


# --- reconstruction ------------------------------------------------------------------------------


def test_a_single_image_is_recovered_from_its_embeddings() -> None:
    plan = tiny_plan(steps=16, augment=(), local={"method": "none"})
    data = tiny_data([30, 0, 0], plan=plan)
    embedding, member = plan_embedding(plan, Compute()), data.subset(torch.tensor([0]))
    steps = list(range(16))
    means = torch.stack([embed_all(embedding, t, member)[0] for t in steps])
    target = Target(embedding, steps, means, 1, data.subset(torch.arange(1, 10)))

    found = invert(target, 400, stream())
    compared = recovery(found.images, member, data.subset(torch.arange(10, 30)))
    assert found.misfit < 0.01
    assert bool(compared.recovered.all())
    assert (
        float(decibels(compared.distances)) > 25 > float(decibels(compared.other_distances).max())
    )

"""One bad site: counts and norms are bounded, robust rules limit it, and the table names it."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from command import cells, done, run
from tiny import CLASSES, COLOUR, GREY, answers, fixed_plan, method_plan, tiny_data, tiny_plan

from collabdm.documents.contribution import Contribution, Statistics
from collabdm.documents.contribution_file import contribution_bytes, write_contribution
from collabdm.documents.outcome_files import read_distilled
from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import write_plan
from collabdm.documents.specs import NetworkSpec
from collabdm.errors import DocumentError, PlanError
from collabdm.matching import robust_merging
from collabdm.matching.class_statistics import Merged, encode, merge
from collabdm.matching.compute import Compute
from collabdm.matching.embedding import plan_embedding, sketch_matrix
from collabdm.matching.embedding_bound import SKETCH_SLACK, embedding_bound, largest_norm
from collabdm.matching.networks import build, seed_weights
from collabdm.matching.robust_merging import deviations, merge_robust
from collabdm.methods.base import by_site
from collabdm.methods.collabdm import contribute, distill, start_images
from collabdm.methods.registry import METHODS
from collabdm.rounds.contributions import ContributionFiles, parse_contribution
from collabdm.rounds.policy import Policy
from collabdm.rounds.preview import preview_contribution
from collabdm.rounds.site_table import compare_sites
from collabdm.seeds import Purpose, Stream

OPEN = Policy(raw_images=True, smallest_class=1, largest_ratio=1e9)
HOLDINGS = ((4, 2, 0), (3, 5, 2), (2, 4, 6), (5, 3, 1), (1, 6, 3))
NAMES = tuple(f"site-{k + 1}" for k in range(5))
NETWORKS = (
    *(NetworkSpec(width=8, depth=2, norm=norm) for norm in ("instance", "layer", "group")),
    *(NetworkSpec(width=8, depth=2, activation=a) for a in ("leakyrelu", "sigmoid")),
    *(NetworkSpec(width=8, depth=2, pooling=pooling) for pooling in ("max", "none")),
    NetworkSpec(width=8, depth=1, norm="none", activation="sigmoid"),
    NetworkSpec(name="VGG11"),
    NetworkSpec(name="ResNet18"),
)


def five_sites(**settings: Any) -> tuple[Plan, list[Contribution]]:
    plan = tiny_plan(sites=5, **settings)
    return plan, answers(plan, HOLDINGS)


def with_means(sent: Contribution, means: torch.Tensor) -> Contribution:
    codes, scales = encode(means, sent.statistics.wire)
    return replace(sent, statistics=replace(sent.statistics, codes=codes, scales=scales))


def door(plan: Plan, sent: Contribution) -> Contribution:
    return parse_contribution(contribution_bytes(sent), plan)


# --- counts --------------------------------------------------------------------------------------


def test_a_site_states_at_most_the_largest_class_of_the_plan() -> None:
    plan, data = tiny_plan(largest_class=3), tiny_data((5, 2, 3))
    statistics = door(plan, contribute(plan, data, "north")).statistics
    assert statistics.totals.tolist() == statistics.batch_counts.tolist() == [3, 2, 3]
    assert preview_contribution(
        plan, OPEN.release(plan, data, "north"), "north"
    ).class_counts == dict(zip(CLASSES, [3, 2, 3], strict=True))
    without = contribute(tiny_plan(), data, "north").statistics
    assert torch.equal(statistics.codes, without.codes)


def test_a_batch_is_stated_within_both_limits() -> None:
    plan = tiny_plan(largest_class=4, batch=3)
    statistics = door(plan, contribute(plan, tiny_data((5, 2, 4)), "north")).statistics
    assert statistics.totals.tolist() == [4, 2, 4]
    assert statistics.batch_counts.tolist() == [3, 2, 3]


def test_a_site_that_states_more_is_refused_by_name() -> None:
    plan = tiny_plan(largest_class=3)
    sent = contribute(plan, tiny_data((5, 2, 3)), "north")
    many = torch.tensor([4, 2, 3])
    more = replace(sent, statistics=replace(sent.statistics, totals=many, batch_counts=many))
    with pytest.raises(DocumentError, match=r"'north'.*at most 3; found 4"):
        door(plan, more)


# --- norms ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", NETWORKS, ids=lambda spec: f"{spec.name}-{spec.norm}")
@pytest.mark.parametrize("side", [8, 16])
def test_no_embedding_is_longer_than_the_bound(spec, side) -> None:
    bound, width = embedding_bound(spec, (3, side, side))
    network = build(spec, (3, side, side), 2)
    seed_weights(network, Stream.of(3, Purpose.WEIGHTS, 1))
    assert bound is not None
    assert network.embedding_width == width

    stream = Stream.of(0, Purpose.DATA)
    noise = stream.normals(8, 3, side, side)
    points = torch.zeros(2, 3, side, side)
    points[:, :, 3, 4] = 50.0  # the largest norms: nearly all activation in one place
    with torch.no_grad():
        longest = network.embed(torch.cat([noise, 100 * noise, points])).norm(dim=1).max()
    assert bound / 20 < float(longest) <= bound


@pytest.mark.parametrize(
    "spec", [NetworkSpec(name="AlexNet"), NetworkSpec(width=8, norm="none", depth=2)]
)
def test_networks_without_a_norm_have_no_bound(spec) -> None:
    assert embedding_bound(spec, (1, 16, 16))[0] is None
    assert largest_norm(tiny_plan(network=spec, image=GREY)) is None


@pytest.mark.parametrize(("width", "sketch"), [(128, 1), (128, 16), (512, 64), (512, 511)])
def test_no_sketch_stretches_more_than_its_bound(width, sketch) -> None:
    for step in range(20):
        matrix = sketch_matrix(5, step, width, sketch)
        assert matrix is not None
        largest = float(torch.linalg.matrix_norm(matrix, 2))
        assert largest <= min(SKETCH_SLACK * (1 + (width / sketch) ** 0.5), width**0.5) * 1.0001


@pytest.mark.parametrize("wire", ["float16", "float32", "int8"])
@pytest.mark.parametrize("sketch", [None, 16])
def test_means_beyond_the_bound_are_refused_at_the_door(wire, sketch) -> None:
    plan = tiny_plan(wire=wire, sketch=sketch)
    sent = contribute(plan, tiny_data((5, 2, 3)), "north")
    bound = largest_norm(plan)
    assert bound is not None
    door(plan, sent)

    means = sent.statistics.means()
    at_bound = bound / means.norm(dim=2, keepdim=True)
    door(plan, with_means(sent, means * at_bound))
    means[1, 2] *= 1.03 * at_bound[1, 2]
    with pytest.raises(DocumentError, match=r"'north'.*norm.*at step 1 for class 2"):
        door(plan, with_means(sent, means))


def test_a_huge_scale_of_int8_cannot_hide_in_the_tolerance_of_rounding() -> None:
    plan = tiny_plan(wire="int8")
    sent = contribute(plan, tiny_data((5, 2, 3)), "north")
    codes, scales = torch.zeros_like(sent.statistics.codes), sent.statistics.scales
    assert scales is not None
    codes[:, :, 0] = 1
    huge = replace(sent.statistics, codes=codes, scales=torch.full_like(scales, 1e3))
    with pytest.raises(DocumentError, match="a class mean should have a norm"):
        door(plan, replace(sent, statistics=huge))


def test_noised_and_masked_means_have_no_bound() -> None:
    alone = {"local": {"method": "none"}, "batch": None}
    assert largest_norm(tiny_plan(privacy={"epsilon": 1.0, "clip": 3.0}, **alone)) is None
    masking = {"keys": {"a": "0" * 64, "b": "1" * 64}, "threshold": 2}
    names = {"site_names": ("a", "b"), "sites": 2, "largest_class": 10}
    assert largest_norm(tiny_plan(masking=masking, **names, **alone)) is None


# --- robust rules --------------------------------------------------------------------------------


def robust(plan: Plan, sent: list[Contribution]) -> Merged:
    ordered = sorted(sent, key=lambda contribution: contribution.site)
    return merge_robust(plan, len(ordered), lambda: (c.statistics for c in ordered))


def of_sites(sent: list[Contribution], t: int, y: int) -> list[list[float]]:
    """The means of step t and class y, coordinate by coordinate, each sorted over the sites."""
    rows = []
    for contribution in sent:
        statistics: Statistics = contribution.statistics
        if t in statistics.steps.tolist() and y in statistics.classes.tolist():
            at = statistics.steps.tolist().index(t), statistics.classes.tolist().index(y)
            rows.append(statistics.means()[at].tolist())
    return [sorted(values) for values in zip(*rows, strict=True)]


def trimmed(values: list[float], trim: int) -> float:
    kept = values[trim:-trim] if len(values) > 2 * trim else values
    return sum(kept) / len(kept)


def median(values: list[float], _: int) -> float:
    n = len(values)
    return (values[(n - 1) // 2] + values[n // 2]) / 2


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"merging": "median"}, median),
        ({"merging": "trimmed"}, trimmed),
        ({"merging": "trimmed", "trim": 2}, trimmed),
        ({"merging": "median", "fraction": 0.6, "site_names": NAMES}, median),
        ({"merging": "trimmed", "fraction": 0.6, "site_names": NAMES}, trimmed),
    ],
)
def test_robust_rules_are_those_of_their_equations(settings, rule) -> None:
    plan, sent = five_sites(**settings)
    merged = robust(plan, sent)
    for t in range(plan.steps):
        for y in range(len(CLASSES)):
            values = of_sites(sent, t, y)
            assert bool(merged.present[t, y]) == bool(values)
            expected = torch.tensor([rule(v, plan.trim or 1) for v in values] or [0.0])
            assert torch.allclose(merged.means[t, y], expected.expand(128), atol=1e-6)
    assert merged.totals.tolist() == [15, 20, 12]


@pytest.mark.parametrize("rule", ["median", "trimmed"])
def test_one_site_cannot_leave_the_range_of_the_others(rule) -> None:
    plan, sent = five_sites(merging=rule)
    sent[2] = with_means(sent[2], torch.full_like(sent[2].statistics.means(), 1e30))
    honest = torch.stack([c.statistics.means()[:, 1] for k, c in enumerate(sent) if k != 2])
    merged = robust(plan, sent).means[:, 1]
    assert bool((merged >= honest.amin(0) - 1e-6).all())
    assert bool((merged <= honest.amax(0) + 1e-6).all())


@pytest.mark.parametrize("rule", ["median", "trimmed"])
def test_blocks_of_steps_change_nothing(rule, monkeypatch) -> None:
    plan, sent = five_sites(merging=rule, steps=5)
    at_once, compared = (
        robust(plan, sent),
        deviations(plan, 5, lambda: (c.statistics for c in sent)),
    )
    monkeypatch.setattr(robust_merging, "BLOCK_NUMBERS", 2 * 5 * 3 * 128)
    passes: list[int] = []

    def read() -> Any:
        passes.append(len(passes))
        return (c.statistics for c in sent)

    in_blocks = merge_robust(plan, 5, read)
    assert torch.equal(in_blocks.means, at_once.means)
    assert torch.equal(in_blocks.present, at_once.present)
    assert len(passes) == 3 + 1
    for one, other in zip(deviations(plan, 5, read), compared, strict=True):
        assert one is not None
        assert other is not None
        assert one.distance == pytest.approx(other.distance)


def test_numbers_of_images_do_not_matter_to_robust_rules() -> None:
    plan, sent = five_sites(merging="median", local={"steps": 2, "images": 2}, ipc=4)
    many = sent[0].statistics.totals * 1000
    boasting = replace(
        sent[0], statistics=replace(sent[0].statistics, totals=many, batch_counts=many)
    )
    plain, boasted = distill(plan, sent), distill(plan, [boasting, *sent[1:]])
    assert torch.equal(plain.images.images, boasted.images.images)


@pytest.mark.parametrize("rule", ["median", "trimmed"])
def test_starting_images_come_evenly_from_the_sites(rule) -> None:
    plan, sent = five_sites(merging=rule, ipc=5, local={"steps": 0, "images": 3})
    local = {c.site: c.images for c in sent}
    counts = {c.site: torch.tensor(HOLDINGS[k]) for k, c in enumerate(sent)}
    pixels, labels = start_images(plan, local, counts)
    of_dogs = (pixels[labels == 1] * 255).round().to(torch.uint8)
    for contribution in sent:
        own = contribution.images.images[contribution.images.of_class(1)[:1]]
        assert bool((of_dogs == own).flatten(1).all(1).any())


@pytest.mark.parametrize("name", ["rounds-means", "rounds-gradients"])
def test_methods_of_many_rounds_have_no_robust_rule(name) -> None:
    plan = method_plan(name, merging="median")
    run_rounds = METHODS[name].run_rounds
    assert run_rounds is not None
    with pytest.raises(PlanError, match="`merging` should be weighted or uniform"):
        run_rounds(plan, {"a": tiny_data((3, 3, 3)), "b": tiny_data((3, 3, 3))})


def test_a_sum_of_means_knows_no_robust_rule() -> None:
    plan, sent = five_sites()
    with pytest.raises(PlanError, match="`merging` should be weighted or uniform"):
        merge([(c.site, c.statistics) for c in sent], plan.steps, 3, "median")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"trim": 1}, "`trim` needs `merging` trimmed; found weighted"),
        ({"merging": "trimmed", "trim": 1, "sites": 2}, "`trim` should leave at least one"),
    ],
)
def test_a_trim_that_leaves_nobody_or_trims_nothing_is_refused(settings, said) -> None:
    with pytest.raises(ValueError, match=said):
        fixed_plan(**settings)


# --- the table -----------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path):
    """Five files of sites with equal data, of which site-3 sends zeros."""
    plan = tiny_plan(sites=5, steps=4)
    write_plan(plan, tmp_path / "plan.json")
    for k, name in enumerate(NAMES):
        sent = contribute(plan, tiny_data((6, 6, 6), seed=k), name)
        if name == "site-3":
            sent = with_means(sent, torch.zeros_like(sent.statistics.means()))
        write_contribution(sent, tmp_path / f"{name}.st")
    return plan, tmp_path


def test_the_table_flags_the_site_that_sends_zeros(folder) -> None:
    plan, path = folder
    table = compare_sites(plan, ContributionFiles(plan, path.glob("*.st")))
    assert table.flagged == ("site-3",)
    by_name = {row.site: row for row in table.rows}
    assert by_name["site-3"].remarks == ("differs from the others",)
    assert by_name["site-3"].deviation.norm == 0
    assert all(
        0.5 < row.deviation.distance < 1.5 for name, row in by_name.items() if name != "site-3"
    )
    assert any("site-3: 18 images, distance" in line for line in table.lines())


def test_a_site_that_states_ten_times_the_images_of_all_others_is_flagged(folder) -> None:
    plan, path = folder
    sent = ContributionFiles(plan, path.glob("*.st"))["site-1"]
    many = torch.full((3,), 300)
    boast = replace(sent, statistics=replace(sent.statistics, totals=many, batch_counts=many))
    write_contribution(boast, path / "site-1.st")
    table = compare_sites(plan, ContributionFiles(plan, path.glob("*.st")))
    assert table.rows[0].remarks == ("states more than 10 times the images of all others",)


def test_two_sites_cannot_be_compared_and_one_needs_no_table(folder) -> None:
    plan, path = folder
    files = ContributionFiles(plan, path.glob("*.st"))
    two = compare_sites(plan, files.without(["site-1", "site-3", "site-5"]))
    assert [row.deviation for row in two.rows] == [None, None]
    assert "no class is at 3 sites" in two.notes[0]
    one = compare_sites(plan, files.without(["site-1", "site-2", "site-3", "site-5"]))
    assert (one.rows, one.notes) == ((), ())


def test_equal_sites_have_a_distance_of_one_and_any_other_differs() -> None:
    plan = tiny_plan(sites=4, steps=2)
    same = [contribute(plan, tiny_data((6, 6, 6)), name) for name in NAMES[:3]]
    found = deviations(plan, 3, lambda: (c.statistics for c in same))
    assert [d.distance for d in found if d] == [1.0, 1.0, 1.0]
    other = with_means(same[0], same[0].statistics.means() * 2)
    found = deviations(plan, 4, lambda: (c.statistics for c in [*same, other]))
    assert found[3] is not None
    assert found[3].distance == float("inf")


def test_distill_shows_the_table_and_leaves_out_a_site(folder) -> None:
    plan, path = folder
    files = sorted(path.glob("*.st"))
    command = ("distill", path / "plan.json", *files, "-o", path / "set.safetensors", "-q")
    command += ("--precision", "float32")
    result = done(*command)
    rows = {row[0]: row for row in cells(result.out)}
    assert rows["site-3"][4] == "differs from the others"
    assert "collabdm distill --exclude site-3" in result.out
    assert set(read_distilled(path / "set.safetensors").sites) == set(NAMES)

    without = done(*command, "--exclude", "site-3")
    assert "differs" not in without.out
    assert set(read_distilled(path / "set.safetensors").sites) == set(NAMES) - {"site-3"}
    sent = by_site(plan, ContributionFiles(plan, files))
    others = [sent[site] for site in NAMES if site != "site-3"]
    written = read_distilled(path / "set.safetensors").images.images
    assert torch.equal(written, distill(plan, others).images.images)

    unknown = run(*command, "--exclude", "site-9")
    assert unknown.code == 2
    assert "should be among site-1, site-2" in unknown.err


def test_masked_sums_are_not_compared() -> None:
    masking = {"keys": {"a": "0" * 64, "b": "1" * 64}, "threshold": 2, "range": 8.0}
    plan = tiny_plan(
        site_names=("a", "b"),
        sites=2,
        largest_class=10,
        masking=masking,
        local={"method": "none"},
    )

    table = compare_sites(plan, {})
    assert table.rows == ()
    assert "masked" in table.notes[0]


def test_an_embedding_of_the_plan_stays_within_its_bound() -> None:
    plan = tiny_plan(COLOUR, sketch=8)
    bound = largest_norm(plan)
    assert bound is not None
    for step in range(3):
        at_step = plan_embedding(plan, Compute(compiled=False)).at(step)
        x = 30 * Stream.of(1, Purpose.DATA, step).normals(9, *plan.image.shape)
        values = at_step.sketched(at_step.values(x, torch.arange(9) % 3))
        assert float(values.norm(dim=1).max()) <= bound

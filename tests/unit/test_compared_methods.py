"""The systems that CollabDM is compared with: their mathematics, their documents, their whole rounds."""

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny import CLASSES, GREY, NETWORK, tiny_data, tiny_plan

from collabdm.checkpoint import Checkpoint
from collabdm.documents.contribution import Contribution
from collabdm.documents.contribution_file import contribution_bytes
from collabdm.documents.extra_tensors import declared_bytes
from collabdm.documents.plan import Plan
from collabdm.documents.specs import NetworkSpec
from collabdm.errors import DocumentError, PlanError
from collabdm.images import ImageSet
from collabdm.lab.settings import simulation
from collabdm.matching.augment import identity
from collabdm.matching.networks import build, seed_weights
from collabdm.matching.run_context import RunContext
from collabdm.matching.weights import float_weights, load_weights, trained_network
from collabdm.methods import collabdm as collab
from collabdm.methods import coreset
from collabdm.methods.base import parse_options
from collabdm.methods.dense import Dense, distillation_loss
from collabdm.methods.dense_generator import GeneratorTraining, mean_ensemble, new_generator
from collabdm.methods.dosfl_steps import Dosfl, Steps, unroll
from collabdm.methods.fedd3 import (
    FedD3,
    InducingProblem,
    centred_labels,
    induce,
    ntk,
    predict,
    regression_loss,
)
from collabdm.methods.gradient_rounds import class_gradients, gradient_distance
from collabdm.methods.registry import METHODS, contribution_spec, method_of
from collabdm.planning.cost import cost
from collabdm.planning.make import make_plan
from collabdm.planning.presets import preset_settings
from collabdm.planning.settings import merge_settings, new_plan
from collabdm.report.rounds import EXTRA, part_sizes
from collabdm.rounds.contributions import (
    ContributionFiles,
    contribution_limit,
    parse_contribution,
    read_contribution,
)
from collabdm.rounds.exchange import (
    Site,
    contribute_file,
    distill_files,
    picture_path,
    prepare_site,
)
from collabdm.rounds.policy import Policy, PolicyError, preview_contribution
from collabdm.scoring.outcomes import OUTCOME_KINDS
from collabdm.seeds import Purpose, Stream, derive

OPTIONS: dict[str, dict[str, Any]] = {
    "coreset": {"images": 4},
    "fedd3": {"images": 4, "iterations": 5, "stop": 1},
    "dosfl": {"steps": 2, "images": 3, "iterations": 4, "batch": 4, "passes": 2, "window": 2},
    "dense": {
        "local": {"epochs": 2, "batch": 4}, "epochs": 3, "batch": 8,
        "generator": {"batch": 8, "steps": 2, "noise": 4},
    },
}  # fmt: skip
HOLDINGS = [[4, 3, 0], [0, 2, 5]]


def plan_of(method: str, **changes: Any) -> Plan:
    settings: dict[str, Any] = {"seed": 7, "sites": 2, "ipc": 2, "network": NETWORK, "options": OPTIONS.get(method)}
    return make_plan(CLASSES, GREY, **METHODS[method].adapt(settings | changes))


def answers_to(plan: Plan, run: RunContext = RunContext()) -> list[Contribution]:
    method = method_of(plan)
    sets = [tiny_data(counts, seed) for seed, counts in enumerate(HOLDINGS)]
    return [method.contribute(plan, data, f"site-{k}", run) for k, data in enumerate(sets)]


# documents and rounds


@pytest.mark.parametrize("method", sorted(OPTIONS))
def test_an_answer_read_from_its_bytes_is_the_answer_and_repeats(method: str) -> None:
    plan = plan_of(method)
    first, again = answers_to(plan), answers_to(plan)
    for one, two in zip(first, again, strict=True):
        content = contribution_bytes(one)
        assert content == contribution_bytes(two)
        assert len(content) <= contribution_limit(plan)
        found = parse_contribution(content, plan)
        assert all(torch.equal(found.extra_tensors[name], part) for name, part in one.extra_tensors.items())


@pytest.mark.parametrize("method", sorted(OPTIONS))
def test_parts_that_the_plan_does_not_declare_are_refused(method: str) -> None:
    plan = plan_of(method)
    sent = answers_to(plan)[0]
    name, part = next(iter(sent.extra_tensors.items()))
    for changed in ({}, {**sent.extra_tensors, "more": part}, {**sent.extra_tensors, name: part[:1].clone()[:0]}):
        with pytest.raises(DocumentError, match="parts"):
            parse_contribution(contribution_bytes(replace(sent, extra_tensors=changed)), plan)
    floats = next((n for n, p in sent.extra_tensors.items() if p.is_floating_point()), None)
    if floats:
        broken = sent.extra_tensors[floats].clone()
        broken.view(-1)[0] = float("nan")
        with pytest.raises(DocumentError, match="finite"):
            parse_contribution(
                contribution_bytes(replace(sent, extra_tensors={**sent.extra_tensors, floats: broken})), plan
            )


def test_parts_are_refused_where_the_method_has_none() -> None:
    plan = tiny_plan()
    sent = collab.contribute(plan, tiny_data([1, 1, 1]), "a")
    with pytest.raises(DocumentError, match="unknown"):
        parse_contribution(contribution_bytes(replace(sent, extra_tensors={"more": torch.zeros(1)})), plan)


def weights_after(made: Any) -> list[torch.Tensor]:
    images = getattr(made, "images", None)
    if isinstance(images, ImageSet):
        return [images.images]
    return [images] if images is not None else list(made.weights.values())


@pytest.mark.parametrize("method", sorted(OPTIONS))
def test_a_round_stopped_at_any_state_goes_on_to_the_same_outcome(method: str) -> None:
    plan = plan_of(method)
    states: list[Checkpoint] = []

    def keep(state: Checkpoint) -> None:
        kept = {name: value.clone() for name, value in state.tensors.items()}
        states.append(Checkpoint(state.done, kept))

    module = method_of(plan)
    sets = [tiny_data(counts, seed) for seed, counts in enumerate(HOLDINGS)]
    whole = contribution_bytes(module.contribute(plan, sets[0], "site-0", RunContext(keep=keep)))
    for state in states[:2]:
        assert contribution_bytes(module.contribute(plan, sets[0], "site-0", RunContext(resume=state))) == whole
    sent = answers_to(plan)
    states.clear()
    made = module.distill(plan, sent, RunContext(keep=keep))
    for state in states[:2]:
        again = module.distill(plan, sent[::-1], RunContext(resume=state))
        assert all(torch.equal(a, b) for a, b in zip(weights_after(again), weights_after(made), strict=True))


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("coreset", {"rule": "best"}),
        ("fedd3", {"images": 0}),
        ("fedd3", {"images": 1, "bytes": 1}),
        ("dosfl", {"mask": 1}),
        ("dense", {"epoch": 1}),
    ],
)
def test_bad_options_are_refused_at_the_door(method: str, options: dict[str, Any]) -> None:
    with pytest.raises(PlanError, match=r"options|either"):
        plan_of(method, options=options)


def test_the_presets_of_the_other_systems_make_the_plans_that_their_authors_published() -> None:
    ten = ",".join(f"class {y}" for y in range(10))
    plans = {name: new_plan(None, ten, "3x32", dict(preset_settings(name))) for name in ("fedd3", "dosfl", "dense")}
    assert all(plan.method == name for name, plan in plans.items())
    assert contribution_spec(plans["fedd3"]).extra["images"].shape == (100, 3, 32, 32)  # IPC 50 from 5 sites
    assert contribution_spec(plans["dosfl"]).extra["images"].shape == (10, 10, 3, 32, 32)
    options = parse_options(plans["dosfl"].options, Dosfl)
    assert (options.passes * 10, options.window) == (200, 60)  # T and W of Feng et al.
    assert sum(part.nbytes for part in contribution_spec(plans["dense"]).extra.values()) == 1_276_968  # 1.28 MB
    for name, plan in plans.items():
        settings = parse_options(plan.options, METHODS[name].options or Dense).model_dump(mode="json")
        assert merge_settings(settings, preset_settings(name)["options"]) == settings


def test_a_preset_names_its_method_unless_another_is_said() -> None:
    said = {"data": "fashion_mnist", "beta": 0.5}
    chosen = simulation(None, "dosfl", said, {"ipc": 10})
    assert (chosen.method, chosen.plan["ipc"], chosen.plan["options"]["window"]) == ("dosfl", 10, 60)
    assert simulation(None, "dosfl", said | {"method": "localdm"}, {}).method == "localdm"
    assert simulation(None, "best", said, {}).method == "collabdm-pae"


@pytest.mark.parametrize(
    ("method", "options"), [("fedd3", {"images": 10_001}), ("dense", {"epochs": 10**6, "generator": {"batch": 10**6}})]
)
def test_what_no_memory_would_hold_is_refused_at_the_door(method: str, options: dict[str, Any]) -> None:
    plan = plan_of(method, options=options)
    with pytest.raises(PlanError, match="at most"):
        method_of(plan).contribute(plan, tiny_data([1, 1, 1]), "site-0")


def test_options_of_a_method_without_any_and_a_method_that_needs_rounds_are_refused() -> None:
    with pytest.raises(PlanError, match="`options` should be left out"):
        method_of(tiny_plan(options={"a": 1}))
    with pytest.raises(PlanError, match="needs a single round"):
        METHODS["fedavg"].contribute(plan_of("fedavg"), tiny_data([1, 1, 1]), "a")


@pytest.mark.parametrize("method", sorted(OPTIONS))
def test_the_server_writes_any_outcome_from_files_and_a_picture_where_it_has_images(method: str, tmp_path) -> None:
    plan, sent = plan_of(method), []
    for k, counts in enumerate(HOLDINGS):
        sent.append(tmp_path / f"{k}.safetensors")
        contribute_file(prepare_site(plan, tiny_data(counts, k), Site(f"site-{k}")), sent[-1], RunContext())
    outputs = [tmp_path / "a" / "made.safetensors", tmp_path / "b" / "made.safetensors"]
    for output, order in zip(outputs, (sent, sent[::-1]), strict=True):
        distill_files(plan, ContributionFiles(plan, order), output, RunContext())
    own = read_contribution(sent[0], plan).extra_tensors.values()
    assert part_sizes(sent[0])[1][EXTRA] == sum(part.nbytes for part in own) > 0
    made = OUTCOME_KINDS[METHODS[method].outcome].read(outputs[0])
    assert (made.plan, made.method) == (plan, method)
    assert made.sites == {"site-0": HOLDINGS[0], "site-1": HOLDINGS[1]}
    assert outputs[0].read_bytes() == outputs[1].read_bytes()
    assert picture_path(outputs[0]).exists() == (method != "dense")


def test_a_round_of_files_is_refused_where_one_round_is_not_enough(tmp_path) -> None:
    for method in ("fedavg", "rounds-means", "rounds-gradients"):
        with pytest.raises(PlanError, match="needs a single round"):
            contribute_file(
                prepare_site(plan_of(method), tiny_data([1, 1, 1]), Site("a")), tmp_path / "a", RunContext()
            )
    assert not list(tmp_path.iterdir())


def test_a_plan_with_options_can_be_hashed_by_what_identifies_it() -> None:
    plans = [tiny_plan(method="dense", options={"epochs": n}) for n in (1, 1.0, True, 2)]
    assert plans[0].digest == plans[1].digest
    assert len({plan.digest for plan in plans}) == 3
    assert hash(plans[0]) == hash(plans[1]) == hash(plans[0].model_copy())


@pytest.mark.parametrize("method", sorted(OPTIONS))
def test_a_policy_counts_the_parts_of_a_method_and_what_they_begin_from(method: str) -> None:
    plan, data = plan_of(method), tiny_data(HOLDINGS[0], 0)
    whole = len(contribution_bytes(method_of(plan).contribute(plan, data, "site-0", RunContext())))
    assert preview_contribution(plan, data, "site-0").total_bytes == whole
    assert cost(plan).file_bytes + declared_bytes(contribution_spec(plan).extra) >= whole
    with pytest.raises(PolicyError, match="largest_bytes"):
        Policy(largest_bytes=whole // 2).check(plan, data)
    with pytest.raises(PolicyError, match="the time of .* is not estimated"):
        Policy(largest_minutes=60).check(plan, data)
    if method == "dense":  # its sites send no images
        Policy(raw_images=False, largest_bytes=10**7).check(plan, data)
        return
    with pytest.raises(PolicyError, match="the plan sends images that are real, or start from real ones"):
        Policy(raw_images=False).check(plan, data)


def test_steps_that_begin_as_noise_show_no_real_image() -> None:
    plan = plan_of("dosfl", options=OPTIONS["dosfl"] | {"start": "noise"})
    Policy(raw_images=False).check(plan, tiny_data(HOLDINGS[0], 0))


# FedD3


def test_the_kernel_is_that_of_wide_networks() -> None:
    """A network of one hidden layer less would be off by far more than the tolerance."""
    x = Stream.of(1, Purpose.DATA).normals(3, 6).double()
    width, found = 2000, torch.zeros(3, 3, dtype=torch.float64)
    repeats = 4
    for r in range(repeats):
        stream = Stream.of(r, Purpose.NETWORK)
        sizes = [6, *[width] * 4, 1]
        weights = [stream.normals(b, a).double().requires_grad_() for a, b in itertools.pairwise(sizes)]
        biases = [stream.normals(b).double().requires_grad_() for b in sizes[1:]]
        h = x
        for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
            h = h @ w.T * math.sqrt(2 / w.shape[1]) + 0.1 * b
            h = h.relu() if i < 4 else h
        rows = [
            torch.cat([g.flatten() for g in torch.autograd.grad(out, weights + biases, retain_graph=True)])
            for out in h[:, 0]
        ]
        jacobian = torch.stack(rows)
        found += jacobian @ jacobian.T / repeats
    expected = ntk(x, x)
    assert float((found - expected).abs().max() / expected.abs().max()) < 0.08
    assert float(expected.sub(expected.T).abs().max()) < 1e-9


def test_the_kernel_of_an_image_with_itself_is_the_closed_form() -> None:
    """With rho = 1, Sigma grows by sigma_b^2 in each of the 4 layers, and Theta is the sum of all five Sigmas."""
    x = Stream.of(1, Purpose.DATA).normals(3, 6).double()
    first = 2 * x.square().mean(1) + 0.01
    assert torch.allclose(ntk(x, x).diagonal(), 5 * first + 0.01 * (1 + 2 + 3 + 4), rtol=1e-5)


def test_inducing_points_fit_better_than_the_images_they_begin_as() -> None:
    data = tiny_data([20, 20, 20])
    problem = InducingProblem(data, GREY.normalisation, torch.tensor([0, 1, 2]), 3, 10)
    start = GREY.normalisation.apply(Stream.of(0, Purpose.DATA).uniforms(3, 1, 8, 8))
    options = FedD3(iterations=60, learning_rate=0.05, stop=1)
    learned = induce(Checkpoint(0, {"images": start}), problem, options, RunContext())
    x = GREY.normalisation.apply(data.images)

    def loss(support: torch.Tensor) -> float:
        return float(regression_loss(predict(support, centred_labels(problem.labels, 3), x), centred_labels(data.labels, 3)))

    assert loss(learned) < 0.7 * loss(start)
    assert bool((predict(learned, centred_labels(problem.labels, 3), x).argmax(1) == data.labels).double().mean() > 0.8)


# coreset


def test_herded_images_have_a_mean_nearer_to_that_of_all_than_most_others() -> None:
    values = F.normalize(Stream.of(3, Purpose.DATA).normals(40, 6))

    def apart(chosen: torch.Tensor) -> float:
        return float((values[chosen].mean(0) - values.mean(0)).norm())

    chosen = coreset.herding(values, 5)
    assert len(chosen.unique()) == 5
    others = [apart(Stream.of(s, Purpose.DATA).permutation(40)[:5]) for s in range(200)]
    assert apart(chosen) < torch.tensor(others).quantile(0.05)
    assert sorted(coreset.herding(values, 40).tolist()) == list(range(40))


def test_centres_are_each_the_farthest_from_those_before_and_equal_images_are_all_chosen() -> None:
    line = torch.tensor([0.0, 1.0, 4.0, 9.0, 10.0])[:, None]
    assert coreset.centres(line, 4).tolist() == [2, 4, 0, 1]  # 4 is nearest to the mean 4.8; then 10, 0, and 1 or 9
    assert sorted(coreset.centres(torch.ones(3, 2), 3).tolist()) == [0, 1, 2]


@pytest.mark.parametrize("rule", ["herding", "centres", "random"])
def test_a_coreset_is_of_the_site_s_images_and_repeats_what_is_too_few(rule: str) -> None:
    plan, data = plan_of("coreset", options={"images": 6, "rule": rule}), tiny_data([8, 1, 0])
    parts = METHODS["coreset"].contribute(plan, data, "site-0", RunContext()).extra_tensors
    assert parts["labels"].tolist() == [0, 0, 0, 1, 1, 1]
    real = {image.numpy().tobytes() for image in data.images}
    found = [image.numpy().tobytes() for image in parts["images"]]
    assert [image in real for image in found] == [True, True, True, True, False, False]
    assert len(set(found)) == 6


# DOSFL


def test_the_gradient_through_the_unroll_is_that_of_finite_differences() -> None:
    network = build(NetworkSpec(width=8, depth=1, activation="sigmoid"), GREY.shape, 3)
    seed_weights(network, Stream.of(1, Purpose.NETWORK))
    theta = {name: value.detach().double() for name, value in network.named_parameters()}
    stream = Stream.of(2, Purpose.DATA)
    numbers = [
        stream.normals(2, 2, 1, 8, 8).double(),
        stream.normals(2, 2, 3).double(),
        torch.tensor([-1.0, -2.0]).double(),
    ]
    x, y = stream.normals(4, 1, 8, 8).double(), torch.tensor([0, 1, 2, 0])

    def outer(*tensors: torch.Tensor) -> torch.Tensor:
        after = unroll(network, theta, Steps(*tensors), [0, 1, 0])
        return F.cross_entropy(torch.func.functional_call(network, after, (x,)), y)

    leaves = [value.clone().requires_grad_() for value in numbers]
    outer(*leaves).backward()
    for which, position in ((0, 5), (0, 200), (1, 0), (1, 7), (2, 0), (2, 1)):
        ends = []
        for step in (1e-5, -1e-5):
            moved = [value.clone() for value in numbers]
            moved[which].view(-1)[position] += step
            ends.append(float(outer(*moved)))
        slope = leaves[which].grad
        assert slope is not None
        assert float(slope.view(-1)[position]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-4, abs=1e-9)


# DENSE


def imagination(norm: str = "batch", **weights: float) -> GeneratorTraining:
    spec = NetworkSpec(width=8, depth=1, norm=norm)  # type: ignore[arg-type]
    networks = []
    for seed in range(3):
        network = build(spec, GREY.shape, 3)
        seed_weights(network, Stream.of(seed, Purpose.NETWORK))
        networks.append(network.eval().requires_grad_(False))
    options = Dense(generator={"batch": 16, "steps": 40, "noise": 8, "learning_rate": 0.01, **weights}).generator
    return GeneratorTraining(tiny_plan(augment=()), options, mean_ensemble(networks[:2]), networks[2])


@pytest.mark.parametrize("term", ["class", "normalisation", "adversarial"])
def test_the_generator_lowers_each_of_its_losses(term: str) -> None:
    made = imagination()
    stream = Stream.of(5, Purpose.BASELINE)
    generator = new_generator(made.options, GREY.shape, stream)
    codes, labels = stream.normals(16, 8), stream.integers(3, 16)
    optimiser = torch.optim.Adam(generator.parameters(), 0.01, betas=(0.5, 0.999))
    values = []
    for _ in range(60):
        loss = made.losses(generator(codes), labels, stream)[term]
        values.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert min(values[-10:]) < values[0]


def test_without_batch_normalisation_its_loss_is_zero() -> None:
    made = imagination("instance")
    x = Stream.of(0, Purpose.DATA).uniforms(4, 1, 8, 8)
    assert float(made.losses(x, torch.tensor([0, 1, 2, 0]), Stream.of(0, Purpose.DATA))["normalisation"]) == 0


def test_the_student_approaches_its_ensemble() -> None:
    x = Stream.of(0, Purpose.DATA).normals(64, 1, 8, 8)
    made = imagination("instance")
    student = made.student.requires_grad_(True)
    optimiser = torch.optim.SGD(student.parameters(), 0.05, 0.9)
    losses = []
    for _ in range(40):
        loss = distillation_loss(student(x), made.ensemble(x), 20.0)
        losses.append(float(loss.detach()))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert losses[-1] < 0.3 * losses[0]


def test_the_whole_distillation_brings_the_student_nearer_to_its_ensemble_on_images_it_never_saw() -> None:
    options = OPTIONS["dense"] | {"epochs": 25, "learning_rate": 0.05, "generator": {
        "batch": 32, "steps": 3, "noise": 8, "width": 8, "learning_rate": 0.01,
    }}  # fmt: skip
    plan = plan_of("dense", options=options)
    networks = []
    for sent in answers_to(plan):
        networks.append(build(NETWORK, GREY.shape, 3))
        load_weights(networks[-1], sent.extra_tensors)
    ensemble, seen = mean_ensemble([network.eval() for network in networks]), {}
    made = METHODS["dense"].distill(
        plan, answers_to(plan), RunContext(watch=lambda what, at, f: seen.setdefault(what, f))
    )
    x = GREY.normalisation.apply(tiny_data([30, 30, 30], 9).images)
    fresh = build(NETWORK, GREY.shape, 3)  # as the student begins
    seed_weights(fresh, Stream.of(derive(plan.seed, "dense"), Purpose.NETWORK))
    with torch.no_grad():
        wanted = ensemble(x)
        before, after = (distillation_loss(f(x), wanted, 20.0) for f in (fresh, trained_network(made)))
    assert float(after) < 0.2 * float(before)
    assert set(seen) == {"site-0", "site-1", "ensemble", "counted ensemble", "epoch"}


def test_the_original_client_network_has_as_many_parameters_as_published() -> None:
    network = build(NetworkSpec(norm="none", pooling="max"), (3, 32, 32), 10)
    assert sum(value.numel() for value in float_weights(network).values()) == 319_242


# the strawman


def test_gradient_matching_is_the_plain_formula() -> None:
    network = build(NETWORK, GREY.shape, 3)
    seed_weights(network, Stream.of(1, Purpose.NETWORK))
    x, labels = Stream.of(0, Purpose.DATA).normals(5, 1, 8, 8), torch.tensor([0, 0, 1, 1, 1])
    found = class_gradients(network, x, labels, identity(3), create_graph=False)
    distance = gradient_distance(found[0], found[1])
    plain = 0.0
    sums = []
    for y in (0, 1):
        own = [F.cross_entropy(network(x[i : i + 1]), labels[i : i + 1]) for i in range(5) if labels[i] == y]
        sums.append(torch.autograd.grad(sum(own) / len(own), list(network.parameters())))  # type: ignore[arg-type]
    for a, b in zip(*sums, strict=True):
        if a.ndim > 1:
            for row, other in zip(a, b, strict=True):
                u, v = row.flatten(), other.flatten()
                plain += 1 - float(u @ v / (u.norm() * v.norm()))
    assert float(distance) == pytest.approx(plain, rel=1e-3)


def test_a_round_of_gradient_matching_is_one_step_of_plain_loops() -> None:
    options = {"rounds": 1, "matching": {"learning_rate": 0.5}, "updates": 0}
    plan = plan_of("rounds-gradients", images="float32", augment=(), batch=None, options=options)
    sites = {f"site-{k}": tiny_data(counts, k) for k, counts in enumerate(HOLDINGS)}
    start = Stream.of(4, Purpose.DATA).normals(6, 1, 8, 8)
    run_rounds = METHODS["rounds-gradients"].run_rounds
    assert run_rounds is not None
    made, traffic = run_rounds(plan, sites, RunContext(resume=Checkpoint(0, {"images": start})))
    network = build(NETWORK, GREY.shape, 3)
    seed_weights(network, Stream.of(plan.seed, Purpose.WEIGHTS, 0))
    weights = list(network.parameters())
    s, loss = start.clone().requires_grad_(), torch.zeros(())
    for y in range(3):
        target = [torch.zeros_like(w) for w in weights]
        held = [data.of_class(y).tolist() for data in sites.values()]
        for data, index in zip(sites.values(), held, strict=True):
            for i in index:  # the mean over all images of the class, whoever holds them
                logits = network(GREY.normalisation.apply(data.images[i : i + 1]))
                one = torch.autograd.grad(F.cross_entropy(logits, torch.tensor([y])), weights)
                target = [a + b / sum(map(len, held)) for a, b in zip(target, one, strict=True)]
        own = sum(F.cross_entropy(network(s[i : i + 1]), torch.tensor([y])) for i in (2 * y, 2 * y + 1)) / 2
        for a, b in zip(torch.autograd.grad(own, weights, create_graph=True), target, strict=True):  # type: ignore[arg-type]
            for u, v in zip(a, b, strict=True) if a.ndim > 1 else ():
                loss = loss + 1 - u.flatten() @ v.flatten() / (u.norm() * v.norm())
    (slope,) = torch.autograd.grad(loss, s)
    expected = GREY.normalisation.invert(start - 0.5 * slope)
    assert float(slope.abs().max()) > 0.01
    assert torch.allclose(made.images.images, expected, atol=1e-4)  # type: ignore[union-attr]
    numbers = sum(w.numel() for w in weights)
    first = plan.local.images * (64 * 4 + 8)
    assert traffic.up == {"site-0": 2 * (numbers * 4 + 8 + first), "site-1": 2 * (numbers * 4 + 8 + first)}


def test_gradient_matching_refuses_what_it_would_not_do() -> None:
    run_rounds, sites = METHODS["rounds-gradients"].run_rounds, {"a": tiny_data([1, 1, 1]), "b": tiny_data([1, 1, 1])}
    assert run_rounds is not None
    for matching in ({"optimiser": "adam"}, {"schedule": "cosine"}, {"spread": 1.0}):
        with pytest.raises(PlanError, match=r"options.matching"):
            run_rounds(plan_of("rounds-gradients", options={"rounds": 1, "matching": matching}), sites, RunContext())


def test_matching_means_in_rounds_gives_the_set_of_collabdm() -> None:
    settings: dict[str, Any] = {
        "local": {"steps": 1, "batch": 4}, "images": "float32", "augment": ("color",), "batch": 3,
        "refinement": {"matching": {"learning_rate": 1.0}},
    }  # fmt: skip
    options = {"rounds": 4, "matching": {"learning_rate": 1.0}}
    plan = plan_of("rounds-means", **settings, options=options)
    sets = {f"site-{k}": tiny_data(counts, k) for k, counts in enumerate(HOLDINGS)}
    run_rounds = METHODS["rounds-means"].run_rounds
    assert run_rounds is not None
    made, traffic = run_rounds(plan, sets, RunContext())
    single = tiny_plan(sites=2, steps=4, pae=1, **settings)
    once = collab.distill(single, [collab.contribute(single, data, name) for name, data in sets.items()])
    assert torch.allclose(made.images.images, once.images.images, atol=1e-4)  # type: ignore[union-attr]
    assert traffic.rounds == 4
    assert traffic.up["site-0"] == 2 * (4 * (128 * 4 + 8) + plan.local.images * (64 * 4 + 8))


def test_one_federated_round_at_one_site_is_local_training() -> None:
    plan = plan_of("fedavg", options={"rounds": 2, "local": {"epochs": 1, "batch": 4}})
    sets = {f"site-{k}": tiny_data(counts, k) for k, counts in enumerate(HOLDINGS)}
    run_rounds = METHODS["fedavg"].run_rounds
    assert run_rounds is not None
    states: list[Checkpoint] = []
    made, traffic = run_rounds(plan, sets, RunContext(keep=states.append))
    again, _ = run_rounds(plan, sets, RunContext(resume=states[0]))
    assert all(torch.equal(a, b) for a, b in zip(weights_after(made), weights_after(again), strict=True))
    assert traffic.up == traffic.down
    assert traffic.up["site-0"] == 2 * sum(value.nbytes for value in weights_after(made))

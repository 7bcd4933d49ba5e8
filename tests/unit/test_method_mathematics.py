"""The mathematics of the compared methods: closed forms, finite differences, plain loops."""

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tiny import GREY, NETWORK, OPTIONS, method_plan, tiny_data, tiny_plan
from torch import Tensor

from collabdm.checkpoint import Checkpoint
from collabdm.documents.specs import NetworkSpec
from collabdm.errors import PlanError
from collabdm.images import ImageSet
from collabdm.matching.augment import identity
from collabdm.matching.networks import Network, build, seed_weights
from collabdm.matching.run_context import RunContext
from collabdm.matching.weights import float_weights, load_weights, trained_network
from collabdm.methods import collabdm, coreset, dense
from collabdm.methods.dense import Dense, distillation_loss
from collabdm.methods.dense_generator import GeneratorTraining, mean_ensemble, new_generator
from collabdm.methods.dosfl_steps import Steps, unroll
from collabdm.methods.fedavg import average
from collabdm.methods.fedavg import run_rounds as run_fedavg
from collabdm.methods.fedd3 import (
    FedD3,
    InducingProblem,
    centred_labels,
    induce,
    ntk,
    predict,
    regression_loss,
)
from collabdm.methods.gradient_rounds import class_gradients, gradient_distance, run_gradients
from collabdm.methods.local_training import LocalTask, LocalTraining, train_locally
from collabdm.methods.rounds import run_means
from collabdm.seeds import Purpose, Stream, derive

HOLDINGS = {"site-0": [4, 3, 0], "site-1": [0, 2, 5]}


def site_data() -> dict[str, ImageSet]:
    return {site: tiny_data(counts, k) for k, (site, counts) in enumerate(HOLDINGS.items())}


def seeded(seed: int, spec: NetworkSpec = NETWORK) -> Network:
    network = build(spec, GREY.shape, 3)
    seed_weights(network, Stream.of(seed, Purpose.NETWORK))
    return network


def uniforms(*shape: int) -> Tensor:
    return Stream.of(0, Purpose.DATA).uniforms(*shape)


# --- FedD3 ---------------------------------------------------------------------------------------


def wide_network_kernel(x: Tensor, seed: int, width: int = 2000) -> Tensor:
    """The empirical tangent kernel of one network with four hidden layers."""
    stream = Stream.of(seed, Purpose.NETWORK)
    sizes = [x.shape[1], *[width] * 4, 1]
    weights = [stream.normals(b, a).double() for a, b in itertools.pairwise(sizes)]
    biases = [stream.normals(b).double() for b in sizes[1:]]
    parameters = [value.requires_grad_() for value in (*weights, *biases)]

    h = x
    for i, (w, b) in enumerate(zip(weights, biases, strict=True)):
        h = h @ w.T * math.sqrt(2 / w.shape[1]) + 0.1 * b
        h = h.relu() if i < 4 else h

    rows = []
    for output in h[:, 0]:
        gradients = torch.autograd.grad(output, parameters, retain_graph=True)
        rows.append(torch.cat([gradient.flatten() for gradient in gradients]))
    jacobian = torch.stack(rows)
    return jacobian @ jacobian.T


def test_the_kernel_is_that_of_wide_networks() -> None:
    """With one hidden layer less, the error would be far above the tolerance."""
    x = Stream.of(1, Purpose.DATA).normals(3, 6).double()
    measured = torch.stack([wide_network_kernel(x, seed) for seed in range(4)]).mean(0)
    expected = ntk(x, x)
    assert float((measured - expected).abs().max() / expected.abs().max()) < 0.08
    assert float(expected.sub(expected.T).abs().max()) < 1e-9


def test_the_kernel_of_an_image_with_itself_is_the_closed_form() -> None:
    """With rho = 1 each layer adds sigma_b^2 to Sigma, and Theta is the sum of all five Sigmas."""
    x = Stream.of(1, Purpose.DATA).normals(3, 6).double()
    first = 2 * x.square().mean(1) + 0.01
    assert torch.allclose(ntk(x, x).diagonal(), 5 * first + 0.01 * (1 + 2 + 3 + 4), rtol=1e-5)


def test_inducing_points_predict_better_than_the_images_they_start_from() -> None:
    data = tiny_data([20, 20, 20])
    problem = InducingProblem(data, GREY.normalisation, torch.tensor([0, 1, 2]), 3, 10)
    start = GREY.normalisation.apply(uniforms(3, 1, 8, 8))
    options = FedD3(iterations=60, learning_rate=0.05, stop=1)
    learned = induce(Checkpoint(0, {"images": start}), problem, options, RunContext())

    x, support_targets = GREY.normalisation.apply(data.images), centred_labels(problem.labels, 3)
    before, after = (predict(support, support_targets, x) for support in (start, learned))
    targets = centred_labels(data.labels, 3)
    assert float(regression_loss(after, targets)) < 0.7 * float(regression_loss(before, targets))
    assert float((after.argmax(1) == data.labels).double().mean()) > 0.8


# --- coreset -------------------------------------------------------------------------------------


def test_herded_images_have_a_mean_nearer_to_that_of_all_than_most_others() -> None:
    values = F.normalize(Stream.of(3, Purpose.DATA).normals(40, 6))

    def distance(chosen: Tensor) -> float:
        return float((values[chosen].mean(0) - values.mean(0)).norm())

    chosen = coreset.herding(values, 5)
    assert len(chosen.unique()) == 5
    others = [distance(Stream.of(s, Purpose.DATA).permutation(40)[:5]) for s in range(200)]
    assert distance(chosen) < torch.tensor(others).quantile(0.05)
    assert sorted(coreset.herding(values, 40).tolist()) == list(range(40))


def test_each_centre_is_the_farthest_from_those_before_and_equal_images_are_all_chosen() -> None:
    line = torch.tensor([0.0, 1.0, 4.0, 9.0, 10.0])[:, None]
    # 4 is nearest to the mean 4.8; then 10, 0, and 1 or 9
    assert coreset.centres(line, 4).tolist() == [2, 4, 0, 1]
    assert sorted(coreset.centres(torch.ones(3, 2), 3).tolist()) == [0, 1, 2]


@pytest.mark.parametrize("rule", ["herding", "centres", "random"])
def test_a_coreset_has_real_images_and_repeats_those_of_a_small_class(rule: str) -> None:
    plan, data = method_plan("coreset", options={"images": 6, "rule": rule}), tiny_data([8, 1, 0])
    tensors = coreset.contribute(plan, data, "site-0").extra_tensors
    assert tensors["labels"].tolist() == [0, 0, 0, 1, 1, 1]

    real = {image.numpy().tobytes() for image in data.images}
    sent = [image.numpy().tobytes() for image in tensors["images"]]
    assert [image in real for image in sent] == [True, True, True, True, False, False]
    assert len(set(sent)) == 6


def test_a_coreset_reports_each_of_its_classes() -> None:
    plan, events = method_plan("coreset", options={"images": 2}), []
    coreset.contribute(plan, tiny_data([3, 3, 3]), "site-0", RunContext(report=events.append))
    assert [(event.done, event.total) for event in events] == [(1, 2), (2, 2)]


# --- DOSFL ---------------------------------------------------------------------------------------


def test_the_gradient_through_the_unroll_is_that_of_finite_differences() -> None:
    network = seeded(1, NetworkSpec(width=8, depth=1, activation="sigmoid"))
    theta = {name: value.detach().double() for name, value in network.named_parameters()}
    stream = Stream.of(2, Purpose.DATA)
    values = [
        stream.normals(2, 2, 1, 8, 8).double(),
        stream.normals(2, 2, 3).double(),
        torch.tensor([-1.0, -2.0]).double(),
    ]
    x, y = stream.normals(4, 1, 8, 8).double(), torch.tensor([0, 1, 2, 0])

    def outer(*tensors: Tensor) -> Tensor:
        after = unroll(network, theta, Steps(*tensors), [0, 1, 0])
        return F.cross_entropy(torch.func.functional_call(network, after, (x,)), y)

    leaves = [value.clone().requires_grad_() for value in values]
    outer(*leaves).backward()
    for which, position in ((0, 5), (0, 200), (1, 0), (1, 7), (2, 0), (2, 1)):
        ends = []
        for step in (1e-5, -1e-5):
            moved = [value.clone() for value in values]
            moved[which].view(-1)[position] += step
            ends.append(float(outer(*moved)))

        gradient = leaves[which].grad
        assert gradient is not None
        expected = (ends[0] - ends[1]) / 2e-5
        assert float(gradient.view(-1)[position]) == pytest.approx(expected, rel=1e-4, abs=1e-9)


# --- DENSE ---------------------------------------------------------------------------------------


def generator_training(norm: str = "batch") -> GeneratorTraining:
    spec = NetworkSpec(width=8, depth=1, norm=norm)  # type: ignore[arg-type]
    networks = [seeded(seed, spec).eval().requires_grad_(False) for seed in range(3)]
    generator = {"batch": 16, "steps": 40, "noise": 8, "learning_rate": 0.01}
    options = Dense(generator=generator).generator
    ensemble = mean_ensemble(networks[:2])
    return GeneratorTraining(tiny_plan(augment=()), options, ensemble, networks[2])


@pytest.mark.parametrize("term", ["class", "normalisation", "adversarial"])
def test_the_generator_lowers_each_of_its_losses(term: str) -> None:
    training = generator_training()
    stream = Stream.of(5, Purpose.BASELINE)
    generator = new_generator(training.options, GREY.shape, stream)
    codes, labels = stream.normals(16, 8), stream.integers(3, 16)
    optimizer = torch.optim.Adam(generator.parameters(), 0.01, betas=(0.5, 0.999))

    losses = []
    for _ in range(60):
        loss = training.losses(generator(codes), labels, stream)[term]
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert min(losses[-10:]) < losses[0]


def test_without_batch_normalisation_its_loss_is_zero() -> None:
    training, labels = generator_training("instance"), torch.tensor([0, 1, 2, 0])
    losses = training.losses(uniforms(4, 1, 8, 8), labels, Stream.of(0, Purpose.DATA))
    assert float(losses["normalisation"]) == 0


def test_the_student_approaches_its_ensemble() -> None:
    x = Stream.of(0, Purpose.DATA).normals(64, 1, 8, 8)
    training = generator_training("instance")
    student = training.student.requires_grad_(True)
    optimizer = torch.optim.SGD(student.parameters(), 0.05, 0.9)

    losses = []
    for _ in range(40):
        loss = distillation_loss(student(x), training.ensemble(x), 20.0)
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert losses[-1] < 0.3 * losses[0]


def test_distillation_brings_the_student_nearer_to_its_ensemble_on_new_images() -> None:
    generator = {"batch": 32, "steps": 3, "noise": 8, "width": 8, "learning_rate": 0.01}
    changes = {"epochs": 25, "learning_rate": 0.05, "generator": generator}
    plan = method_plan("dense", options=OPTIONS["dense"] | changes)
    sent = [dense.contribute(plan, data, site) for site, data in site_data().items()]
    networks = []
    for contribution in sent:
        networks.append(build(NETWORK, GREY.shape, 3).eval())
        load_weights(networks[-1], contribution.extra_tensors)

    watched: set[str] = set()
    context = RunContext(watch=lambda name, epoch, predictor: watched.add(name))
    student = trained_network(dense.distill(plan, sent, context))
    fresh = seeded(derive(plan.seed, "dense"))  # as the student starts

    x = GREY.normalisation.apply(tiny_data([30, 30, 30], 9).images)
    with torch.no_grad():
        logits = mean_ensemble(networks)(x)
        before, after = (distillation_loss(f(x), logits, 20.0) for f in (fresh, student))
    assert float(after) < 0.2 * float(before)
    assert watched == {*HOLDINGS, "ensemble", "counted ensemble", "epoch"}


def test_the_original_client_network_has_as_many_parameters_as_published() -> None:
    network = build(NetworkSpec(norm="none", pooling="max"), (3, 32, 32), 10)
    assert sum(value.numel() for value in float_weights(network).values()) == 319_242


# --- many rounds ---------------------------------------------------------------------------------


def plain_distance(a: tuple[Tensor, ...], b: list[Tensor]) -> Tensor:
    """The sum of 1 - cos over filters, one by one."""
    total = torch.zeros(())
    for left, right in zip(a, b, strict=True):
        for u, v in zip(left, right, strict=True) if left.ndim > 1 else ():
            total = total + 1 - u.flatten() @ v.flatten() / (u.norm() * v.norm())
    return total


def mean_loss(network: Network, x: Tensor, y: int) -> Tensor:
    """Cross-entropy of images of one class, one by one."""
    losses = [F.cross_entropy(network(image[None]), torch.tensor([y])) for image in x]
    return torch.stack(losses).mean()


def test_gradient_matching_is_the_plain_formula() -> None:
    network = seeded(1)
    x, labels = Stream.of(0, Purpose.DATA).normals(5, 1, 8, 8), torch.tensor([0, 0, 1, 1, 1])
    gradients = class_gradients(network, x, labels, identity(3), create_graph=False)
    distance = gradient_distance(gradients[0], gradients[1])

    parameters = list(network.parameters())
    first, second = (
        torch.autograd.grad(mean_loss(network, x[labels == y], y), parameters) for y in (0, 1)
    )
    assert float(distance) == pytest.approx(float(plain_distance(first, list(second))), rel=1e-3)


def test_a_round_of_gradient_matching_is_one_step_of_plain_loops() -> None:
    options = {"rounds": 1, "matching": {"learning_rate": 0.5}, "updates": 0}
    settings: dict[str, Any] = {"images": "float32", "augment": (), "batch": None}
    plan = method_plan("rounds-gradients", **settings, options=options)
    start = Stream.of(4, Purpose.DATA).normals(6, 1, 8, 8)
    resume = RunContext(resume=Checkpoint(0, {"images": start}))
    outcome, traffic = run_gradients(plan, site_data(), resume)

    network = build(NETWORK, GREY.shape, 3)
    seed_weights(network, Stream.of(plan.seed, Purpose.WEIGHTS, 0))
    parameters = list(network.parameters())
    images, loss = start.clone().requires_grad_(), torch.zeros(())
    for y in range(3):
        real = torch.cat([data.images[data.of_class(y)] for data in site_data().values()])
        real_loss = mean_loss(network, GREY.normalisation.apply(real), y)
        target = list(torch.autograd.grad(real_loss, parameters))
        own_loss = mean_loss(network, images[2 * y : 2 * y + 2], y)
        own = torch.autograd.grad(own_loss, parameters, create_graph=True)
        loss = loss + plain_distance(own, target)

    (gradient,) = torch.autograd.grad(loss, images)
    assert float(gradient.abs().max()) > 0.01
    expected = GREY.normalisation.invert(start - 0.5 * gradient)
    assert torch.allclose(outcome.images.images, expected, atol=1e-4)

    values = sum(parameter.numel() for parameter in parameters)
    first_images = plan.local.images * (64 * 4 + 8)
    assert traffic.up == dict.fromkeys(HOLDINGS, 2 * (values * 4 + 8 + first_images))


@pytest.mark.parametrize("matching", [{"optimiser": "adam"}, {"schedule": "cosine"}, {"spread": 1}])
def test_gradient_matching_refuses_settings_that_it_does_not_use(matching: dict[str, Any]) -> None:
    plan = method_plan("rounds-gradients", options={"rounds": 1, "matching": matching})
    message = "`options.matching` should set `learning_rate` and `momentum` alone"
    with pytest.raises(PlanError, match=message):
        run_gradients(plan, site_data())


def test_matching_means_in_rounds_gives_the_set_of_collabdm() -> None:
    settings: dict[str, Any] = {
        "local": {"steps": 1, "batch": 4},
        "images": "float32",
        "augment": ("color",),
        "batch": 3,
        "refinement": {"matching": {"learning_rate": 1.0}},
    }
    options = {"rounds": 4, "matching": {"learning_rate": 1.0}}
    plan = method_plan("rounds-means", **settings, options=options)
    outcome, traffic = run_means(plan, site_data())

    single = tiny_plan(sites=2, steps=4, pae=1, **settings)
    sent = [collabdm.contribute(single, data, site) for site, data in site_data().items()]
    once = collabdm.distill(single, sent)
    assert torch.allclose(outcome.images.images, once.images.images, atol=1e-4)

    first_images = plan.local.images * (64 * 4 + 8)
    assert traffic.rounds == 4
    assert traffic.up["site-0"] == 2 * (4 * (128 * 4 + 8) + first_images)


# --- FedAvg --------------------------------------------------------------------------------------


def test_federated_rounds_at_one_site_are_its_local_training() -> None:
    local = {"epochs": 1, "batch": 4, "momentum": 0.0}  # momentum starts anew in every round
    plan, data = method_plan("fedavg", options={"rounds": 2, "local": local}), tiny_data([4, 3, 2])
    outcome, traffic = run_fedavg(plan, {"a": data})

    network = seeded(derive(plan.seed, "fedavg"))
    task = LocalTask(network, NETWORK, data, plan, derive(plan.seed, "site", "a"))
    expected = float_weights(train_locally(task, LocalTraining(**local | {"epochs": 2})))
    assert all(torch.equal(outcome.weights[name], value) for name, value in expected.items())

    weights = sum(value.nbytes for value in expected.values())
    assert traffic.up == traffic.down == {"a": 2 * weights}


def test_weights_are_averaged_by_the_images_of_the_sites() -> None:
    networks = [{"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([5.0, 0.0])}]
    assert average(networks, [3, 1])["w"].tolist() == [2.0, 1.5]

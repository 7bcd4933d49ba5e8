"""Compiled code is the same function: to float tolerance in float32, within a stated bound in bfloat16."""

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import tiny_data, tiny_plan
from torch import nn

from collabdm.documents.plan import ImageSpec
from collabdm.documents.specs import NetworkSpec
from collabdm.images import ImageSet
from collabdm.matching import compute
from collabdm.matching.compiled_layers import run_fused
from collabdm.matching.compute import IMAGES_PER_PASS, Compute, bfloat16_pays
from collabdm.matching.embedding import Sampling, plan_embedding
from collabdm.matching.networks import build, seed_weights
from collabdm.matching.run_context import RunContext
from collabdm.methods.local_training import LocalTask, LocalTraining, train_locally
from collabdm.planning.make import make_plan
from collabdm.seeds import Purpose, Stream

BFLOAT16_BOUND = 5e-3  # of a class mean over some tens of images, relative to its norm
SPECS = [
    NetworkSpec(width=8, depth=2),
    NetworkSpec(width=8, depth=1, activation="leakyrelu"),
    NetworkSpec(width=8, depth=2, pooling="max"),
    NetworkSpec(width=8, depth=2, norm="layer"),
    NetworkSpec(width=8, depth=2, pooling="none", activation="sigmoid"),
    NetworkSpec(name="AlexNet"),
    NetworkSpec(name="ResNet18"),
]


def images(n: int, side: int, channels: int = 3) -> torch.Tensor:
    return Stream.of(5, Purpose.DATA).uniforms(n, channels, side, side) * 2 - 1


def seeded(spec: NetworkSpec, side: int) -> nn.Module:
    network = build(spec, (3, side, side), 4)
    seed_weights(network, Stream.of(0, Purpose.WEIGHTS))
    return network


@pytest.mark.parametrize("side", [8, 14, 28])
@pytest.mark.parametrize("spec", SPECS, ids=str)
def test_fused_layers_are_the_layers(spec: NetworkSpec, side: int) -> None:
    network, x = seeded(spec, side), images(4, side)
    with torch.no_grad():
        expected = network.features(x)
        assert (
            float((run_fused(list(network.features), x) - expected).norm() / expected.norm()) < 1e-5
        )


@pytest.mark.parametrize("spec", SPECS[:3], ids=str)
def test_fused_layers_have_the_gradient_of_the_layers(spec: NetworkSpec) -> None:
    network, x = seeded(spec, 16), images(3, 16).requires_grad_()
    mine = torch.autograd.grad(run_fused(list(network.features), x).square().sum(), x)[0]
    theirs = torch.autograd.grad(network.features(x).square().sum(), x)[0]
    torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4)


def means(compute: Compute) -> torch.Tensor:
    image = ImageSpec(channels=3, side=16, mean=(0.5,) * 3, std=(0.25,) * 3)
    plan = make_plan(("cat", "dog"), image, network={"width": 32, "depth": 2}, pae=1)
    pixels = (Stream.of(2, Purpose.DATA).uniforms(70, 3, 16, 16) * 255).to(torch.uint8)
    data = ImageSet(pixels, torch.arange(70) % 2, plan.classes)
    embedding = plan_embedding(plan, compute, work=10**9).at(3)
    return embedding.real_means(data, Sampling(0, Purpose.BATCH, None).picks(data, 3))


def compare_compiled_means() -> None:
    plain = means(Compute(compiled=False))
    torch.testing.assert_close(means(Compute(compiled=True)), plain, rtol=1e-4, atol=1e-4)
    low = means(Compute(precision="bfloat16", compiled=True))
    assert float((low - plain).norm() / plain.norm()) < BFLOAT16_BOUND


def test_running_statistics_of_local_training_see_its_batches_alone() -> None:
    plan = tiny_plan()
    spec = NetworkSpec(width=8, depth=1, norm="batch")
    network = build(spec, plan.image.shape, len(plan.classes))
    seed_weights(network, Stream.of(1, Purpose.NETWORK))
    train_locally(
        LocalTask(network, spec, tiny_data((4, 3, 3)), plan, seed=2),
        LocalTraining(epochs=3, batch=4),
    )
    assert network.get_buffer("features.1.num_batches_tracked") == 3 * 3


def trained_weights(compute: Compute) -> torch.Tensor:
    plan, local = tiny_plan(), LocalTraining(epochs=3, batch=4)
    network = build(plan.network, plan.image.shape, len(plan.classes))
    seed_weights(network, Stream.of(1, Purpose.NETWORK))
    train_locally(
        LocalTask(network, plan.network, tiny_data((4, 3, 3)), plan, seed=2),
        local,
        RunContext(compute),
    )  # two images in the last batch
    return torch.cat([value.detach().flatten() for value in network.parameters()])


def compare_compiled_training() -> None:
    plain = trained_weights(Compute(compiled=False))
    torch.testing.assert_close(trained_weights(Compute(compiled=True)), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("compare", ["compare_compiled_means", "compare_compiled_training"])
def test_compiled_functions_equal_those_not_compiled(compare) -> None:
    """In a process of its own: what checks the signatures in the tests cannot itself be compiled."""
    command = [
        sys.executable,
        "-c",
        f"import test_compiled_layers; test_compiled_layers.{compare}()",
    ]
    ran = subprocess.run(
        command,
        cwd=Path(__file__).parent,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize("size", [1, 7, 70, 200])
def test_the_number_of_images_in_a_pass_does_not_matter(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = means(Compute(compiled=False))
    monkeypatch.setitem(IMAGES_PER_PASS, "cpu", (size, size))
    monkeypatch.setattr(compute, "FEW_ACTIVATIONS", 1)
    torch.testing.assert_close(means(Compute(compiled=False)), plain, rtol=1e-5, atol=1e-5)


def test_images_of_few_activations_go_in_larger_passes() -> None:
    few, many = Compute().images_per_pass(True, 43_000 // 4), Compute().images_per_pass(True, 10**6)
    assert (few, many) == (4 * IMAGES_PER_PASS["cpu"][1], IMAGES_PER_PASS["cpu"][1])


def test_too_little_memory_makes_the_passes_smaller_with_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compute, "FEW_ACTIVATIONS", 1)
    plan = make_plan(("cat", "dog"), ImageSpec(channels=1, side=8, mean=(0.5,), std=(0.25,)), pae=1)
    embedding = plan_embedding(plan, Compute(compiled=False))
    room = 9

    def work() -> int:
        if embedding.images_per_pass(gradients=True) > room:
            raise torch.OutOfMemoryError("no room")
        return embedding.images_per_pass(gradients=True)

    with caplog.at_level(logging.WARNING, "collabdm"):
        assert embedding.retry_on_oom(work) == 8
    assert "8 images per pass" in caplog.text
    room = 0
    with pytest.raises(torch.OutOfMemoryError):
        embedding.retry_on_oom(work)


@pytest.mark.parametrize(
    ("amx", "avx512_bf16", "vendor", "pays"),
    [
        (True, True, "GenuineIntel", True),
        (False, True, "AuthenticAMD", True),
        (False, True, "GenuineIntel", False),
        (False, False, "AuthenticAMD", False),
        (False, True, "", False),
    ],
)
def test_bfloat16_is_chosen_where_it_was_measured_to_be_faster(
    amx: bool, avx512_bf16: bool, vendor: str, pays: bool
) -> None:
    assert bfloat16_pays(amx, avx512_bf16, vendor) == pays

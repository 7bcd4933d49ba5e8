"""Trained models as documents: written, read, refused, and what they say of pictures."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tiny import CLASSES, COLOUR, NETWORK, tiny_plan

from collabdm.documents.codec import HEADER_KEY
from collabdm.documents.outcomes import DistilledModel
from collabdm.documents.specs import NetworkSpec
from collabdm.errors import DataError, DocumentError
from collabdm.matching.networks import build, seed_weights
from collabdm.matching.weights import float_weights
from collabdm.scoring.distilled_model_file import write_distilled_model
from collabdm.scoring.trained_model import TrainedModel, read_model, state_tensors, write_model
from collabdm.seeds import Purpose, Stream


def tiny_model(spec: NetworkSpec = NETWORK) -> TrainedModel:
    network = build(spec, COLOUR.shape, len(CLASSES))
    seed_weights(network, Stream.of(3, Purpose.NETWORK))
    return TrainedModel(
        spec, COLOUR, CLASSES, state_tensors(network), {"set": "x", "seed": 3}, {"collabdm": "0"}
    )


def pictures(n: int) -> torch.Tensor:
    return (Stream.of(1, Purpose.DATA).uniforms(n, 3, 8, 8) * 256).to(torch.uint8)


def change_header(path: Path, **changes: object) -> None:
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(json.loads(content[8 : 8 + length])["__metadata__"][HEADER_KEY]) | changes
    safetensors.torch.save_file(
        safetensors.torch.load(content), path, {HEADER_KEY: json.dumps(header)}
    )


@pytest.mark.parametrize("norm", ["instance", "batch", "none"])
def test_a_model_is_read_as_it_was_written(tmp_path, norm) -> None:
    model = tiny_model(NetworkSpec(width=8, depth=1, norm=norm))
    write_model(model, tmp_path / "model.safetensors")
    back = read_model(tmp_path / "model.safetensors")
    assert replace(back, weights={}) == replace(model, weights={})
    assert set(back.weights) == set(model.weights)
    assert all(torch.equal(back.weights[name], tensor) for name, tensor in model.weights.items())


def test_the_same_model_has_the_same_bytes(tmp_path) -> None:
    write_model(tiny_model(), tmp_path / "a")
    write_model(tiny_model(), tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_probabilities_are_the_softmax_of_normalised_pixels() -> None:
    model, images = tiny_model(), pictures(300)  # more than one chunk
    network = model.network()
    assert not network.training
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (COLOUR.mean, COLOUR.std))
    logits = network((images.double() / 255 - mean.double()).div(std.double()).float())
    expected = logits.exp() / logits.exp().sum(1, keepdim=True)
    actual = model.probabilities(images)
    torch.testing.assert_close(actual, expected.detach(), rtol=1e-4, atol=1e-6)
    assert model.probabilities(images[:0]).shape == (0, 3)


def test_images_of_another_shape_are_refused() -> None:
    with pytest.raises(DataError, match=r"should be .* = \(3, 8, 8\); found \(1, 8, 8\)"):
        tiny_model().probabilities(pictures(2)[:, :1])


@pytest.mark.parametrize("norm", ["instance", "batch"])
def test_the_network_of_a_method_is_read_as_a_model(tmp_path, norm) -> None:
    plan, spec = tiny_plan(COLOUR, method="fedavg"), NetworkSpec(width=8, depth=1, norm=norm)
    network = build(spec, COLOUR.shape, len(CLASSES))
    seed_weights(network, Stream.of(4, Purpose.NETWORK))
    outcome = DistilledModel(
        float_weights(network), spec, plan, {"north": [1, 0, 2]}, "fedavg", {"collabdm": "0"}
    )
    write_distilled_model(outcome, tmp_path / "model.safetensors")
    model = read_model(tmp_path / "model.safetensors")
    expected = network.eval()(COLOUR.normalisation.apply(pictures(5))).softmax(1)
    torch.testing.assert_close(model.probabilities(pictures(5)), expected.detach())
    assert model.provenance == {"plan": plan.digest, "method": "fedavg"}
    assert model.classes == plan.classes
    write_model(model, tmp_path / "again.safetensors")
    assert read_model(tmp_path / "again.safetensors").provenance == model.provenance


def test_weights_of_another_network_are_not_written(tmp_path) -> None:
    model = replace(tiny_model(), spec=NetworkSpec(width=16, depth=1))
    with pytest.raises(
        DocumentError, match=r"`features.0.weight` should be .* \(16, 3, 3, 3\), .* found .* \(8, 3"
    ):
        write_model(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_finite_are_refused(tmp_path) -> None:
    model = tiny_model()
    model.weights["classifier.bias"][1] = float("nan")
    with pytest.raises(DocumentError, match=r"`classifier.bias` should be finite"):
        write_model(model, tmp_path / "model")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "collabdm/plan"}, "format should be collabdm/model"),
        ({"version": 2}, "version should be 1"),
        ({"classes": ["a", "a", "b"]}, "at least two distinct names"),
        ({"classes": ["a", "b"]}, r"`classifier.weight` should be"),
        ({"network": {"name": "LeNet"}}, "header"),
        ({"network": {"width": 8, "depth": 6}}, "depth"),
        ({"image": {"channels": 3, "side": 8, "mean": [0], "std": [1]}}, "one per channel"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(tmp_path, changes, message) -> None:
    path = tmp_path / "model"
    write_model(tiny_model(), path)
    change_header(path, **changes)
    with pytest.raises(DocumentError, match=message):
        read_model(path)


def test_a_file_that_lacks_a_tensor_or_its_end_is_refused(tmp_path) -> None:
    path = tmp_path / "model"
    write_model(tiny_model(), path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(DocumentError, match="damaged, cut off"):
        read_model(path)
    model = tiny_model()
    del model.weights["classifier.bias"]
    with pytest.raises(DocumentError, match=r"missing \['classifier.bias'\]"):
        model.network()

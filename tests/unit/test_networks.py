"""Networks: shapes, arithmetic, seeded weights and refused settings."""

import hashlib
import math

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.func import functional_call, stack_module_state, vmap

from collabdm.documents.specs import NetworkSpec
from collabdm.errors import PlanError
from collabdm.matching.layer_shapes import layer_shapes
from collabdm.matching.network_size import activations, multiplications
from collabdm.matching.networks import Network, build, seed_weights
from collabdm.seeds import Purpose, Stream

NAMES = ["ConvNet", "AlexNet", "VGG11", "ResNet18"]
SMALL = NetworkSpec(width=8)


def seeded(spec=SMALL, image=(1, 16, 16), classes=3, step=0) -> Network:
    network = build(spec, image, classes)
    seed_weights(network, Stream.of(0, Purpose.WEIGHTS, step))
    return network


def some_images(*shape):
    return Stream.of(0, Purpose.PROBE).uniforms(*shape) * 4 - 2


def parameter_count(name, image=(3, 32, 32)):
    return sum(p.numel() for p in build(NetworkSpec(name=name), image, 10).parameters())


# --- shapes and counts ---------------------------------------------------------------------------


def test_the_default_convnet_has_320010_parameters():
    assert parameter_count("ConvNet") == 320_010


@pytest.mark.parametrize(
    ("name", "count"), [("AlexNet", 1_872_202), ("VGG11", 9_231_114), ("ResNet18", 11_173_962)]
)
def test_parameter_counts_are_golden(name, count):
    assert parameter_count(name) == count


def test_the_parameters_before_the_classifier_do_not_depend_on_the_side():
    for name in NAMES:
        of_side = [
            sum(
                p.numel()
                for p in build(NetworkSpec(name=name), (1, side, side), 2).features.parameters()
            )
            for side in (8, 28, 64)
        ]
        assert len(set(of_side)) == 1


@pytest.mark.parametrize(
    ("name", "image", "width"),
    [
        ("ConvNet", (3, 32, 32), 2048),
        ("ConvNet", (1, 28, 28), 2048),
        ("ConvNet", (1, 8, 8), 128),
        ("ConvNet", (3, 64, 64), 8192),
        ("AlexNet", (3, 32, 32), 3072),
        ("AlexNet", (1, 28, 28), 3072),
        ("VGG11", (3, 32, 32), 512),
        ("VGG11", (1, 28, 28), 512),
        ("ResNet18", (3, 32, 32), 512),
    ],
)
def test_embedding_widths(name, image, width):
    assert build(NetworkSpec(name=name), image, 10).embedding_width == width


def test_a_convnet_without_pooling_keeps_every_pixel():
    assert (
        build(NetworkSpec(width=8, depth=6, pooling="none"), (1, 8, 8), 2).embedding_width
        == 8 * 8 * 8
    )


@pytest.mark.parametrize("side", [8, 9, 11, 16, 28, 32, 33, 64])
@pytest.mark.parametrize("name", NAMES)
def test_every_network_embeds_every_side_from_8_to_128(name, side):
    spec = NetworkSpec(name=name, width=8 if name == "ConvNet" else 128)
    assert_varied(seeded(spec, (2, side, side)), some_images(2, 2, side, side))


def test_a_convnet_embeds_side_128():
    assert_varied(seeded(SMALL, (3, 128, 128)), some_images(2, 3, 128, 128))


@pytest.mark.parametrize("norm", ["instance", "batch", "layer", "group", "none"])
@pytest.mark.parametrize("name", ["ConvNet", "VGG11", "ResNet18"])
def test_every_norm_embeds_side_8(name, norm):
    spec = NetworkSpec(name=name, norm=norm, width=8 if name == "ConvNet" else 128)
    assert_varied(seeded(spec, (1, 8, 8)), some_images(4, 1, 8, 8))


@pytest.mark.parametrize("activation", ["relu", "leakyrelu", "sigmoid"])
@pytest.mark.parametrize("pooling", ["average", "max", "none"])
def test_every_activation_and_pooling_embeds(activation, pooling):
    spec = NetworkSpec(width=8, activation=activation, pooling=pooling)
    assert_varied(seeded(spec), some_images(2, 1, 16, 16))


def assert_varied(network, images):
    with torch.no_grad():
        embedded = network.embed(images)
    assert embedded.shape == (len(images), network.embedding_width)
    assert torch.isfinite(embedded).all()
    assert embedded.std(0).mean() > 1e-3 * embedded.abs().mean() > 0


# --- arithmetic ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_forward_is_the_classifier_of_embed(name):
    network = seeded(NetworkSpec(name=name))
    x = some_images(2, 1, 16, 16)
    assert torch.equal(network(x), network.classifier(network.embed(x)))
    assert network(x).shape == (2, 3)


def test_a_block_is_convolution_instance_norm_relu_and_average_pooling_in_plain_loops():
    network = seeded(NetworkSpec(width=8, depth=1), (1, 8, 8))
    with torch.no_grad():
        network.features[1].weight.uniform_(0.5, 2, generator=torch.Generator().manual_seed(1))
        network.features[1].bias.uniform_(-1, 1, generator=torch.Generator().manual_seed(2))
        x = some_images(2, 1, 8, 8)
        actual = network.embed(x).unflatten(1, (8, 4, 4))
        convolved = network.features[0](x).tolist()
    gamma, beta = (network.features[1].get_parameter(n).tolist() for n in ("weight", "bias"))
    for n in range(2):
        for c in range(8):
            pixels = [v for row in convolved[n][c] for v in row]
            mean = sum(pixels) / 64
            scale = math.sqrt(sum((v - mean) ** 2 for v in pixels) / 64 + 1e-5)
            lit = [
                [max(0, gamma[c] * (v - mean) / scale + beta[c]) for v in row]
                for row in convolved[n][c]
            ]
            for i in range(4):
                for j in range(4):
                    four = [lit[2 * i + a][2 * j + b] for a in (0, 1) for b in (0, 1)]
                    assert float(actual[n, c, i, j]) == pytest.approx(sum(four) / 4, abs=1e-5)


def test_an_image_is_embedded_alike_alone_and_in_a_batch():
    network, x = seeded(NetworkSpec()), some_images(3, 1, 16, 16)
    assert torch.allclose(network.embed(x)[1:2], network.embed(x[1:2]), atol=1e-5)


@pytest.mark.parametrize("spec", [SMALL, NetworkSpec(name="AlexNet"), NetworkSpec(name="ResNet18")])
def test_functional_call_maps_over_stacked_networks(spec):
    networks = [seeded(spec, step=step) for step in (0, 1)]
    weights = stack_module_state(networks)
    x = some_images(2, 1, 16, 16)

    def logits(parameters, buffers):
        return functional_call(networks[0], (parameters, buffers), (x,))

    together = vmap(logits)(*weights)
    apart = torch.stack([network(x) for network in networks])
    assert torch.allclose(together, apart, rtol=1e-4, atol=1e-5)
    names = [
        n for n, p in networks[0].named_parameters() if p.ndim > 1
    ]  # a bias before a norm has gradient 0
    stacked = torch.autograd.grad(together.square().sum(), [weights[0][n] for n in names])
    single = torch.autograd.grad(
        apart.square().sum(), [networks[1].get_parameter(n) for n in names]
    )
    for mapped, alone in zip(stacked, single, strict=True):
        assert torch.allclose(mapped[1], alone, rtol=1e-3, atol=1e-4 * float(alone.abs().max()))


# --- weights -------------------------------------------------------------------------------------


def test_weights_of_a_seed_are_golden():
    network = seeded(NetworkSpec(), (3, 32, 32), 10)
    weights = [p.detach().numpy().astype("<f4") for p in network.parameters()]
    assert weights[0].ravel()[:4].tolist() == [
        -0.15481726825237274,
        -0.034659404307603836,
        0.07310960441827774,
        0.05626522749662399,
    ]
    digest = hashlib.sha256(b"".join(w.tobytes() for w in weights)).hexdigest()
    assert digest == "596f0e0832edc263ff91c0fedc2762894fdaa6280f1b7056bbd22089bedaa22d"


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_the_uniforms_of_the_stream_in_declared_order(name):
    network = seeded(NetworkSpec(name=name))
    stream = Stream.of(0, Purpose.WEIGHTS, 0)
    layers = dict(network.named_modules())
    named, norms = [], (torch.nn.InstanceNorm2d, torch.nn.BatchNorm2d)
    for path, parameter in network.named_parameters():
        layer, kind = path.rsplit(".", 1)
        if isinstance(layers[layer], norms):
            assert (parameter == (1 if kind == "weight" else 0)).all()
        else:
            named.append((parameter, math.prod(layers[layer].weight.shape[1:])))
    uniforms = stream.uniforms(sum(p.numel() for p, _ in named))
    for parameter, fan_in in named:
        mine, uniforms = uniforms[: parameter.numel()], uniforms[parameter.numel() :]
        expected = (2 * mine - 1) * torch.tensor(1 / math.sqrt(fan_in), dtype=torch.float32)
        assert torch.equal(parameter.flatten(), expected)
    assert len(uniforms) == 0


def test_reseeding_keeps_the_tensors_and_resets_their_values():
    network = seeded(NetworkSpec(width=8, norm="batch"))
    before = {n: (id(t), t.data_ptr()) for n, t in network.state_dict(keep_vars=True).items()}
    network.train()(some_images(4, 1, 16, 16))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 1
    seed_weights(network, Stream.of(0, Purpose.WEIGHTS, 0))
    assert before == {
        n: (id(t), t.data_ptr()) for n, t in network.state_dict(keep_vars=True).items()
    }
    fresh = seeded(NetworkSpec(width=8, norm="batch")).state_dict()
    assert all(torch.equal(t, fresh[n]) for n, t in network.state_dict().items())


def test_other_steps_give_other_weights():
    first, other = (seeded(step=step).features[0].weight for step in (0, 1))
    assert not torch.equal(first, other)


def test_weights_are_rounded_only_once_in_bfloat16():
    network = build(SMALL, (1, 16, 16), 3).bfloat16()
    seed_weights(network, Stream.of(0, Purpose.WEIGHTS, 0))
    for mine, exact in zip(network.parameters(), seeded().parameters(), strict=True):
        assert torch.equal(mine, exact.bfloat16())


@pytest.mark.parametrize("name", NAMES)
def test_build_leaves_the_global_generator_alone(name):
    before = torch.get_rng_state()
    network = build(NetworkSpec(name=name), (3, 32, 32), 10)
    assert torch.equal(before, torch.get_rng_state())
    assert not network.features[0].weight.any()


# --- refused settings ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "AlexNet", "depth": 5}, "`depth` should be left at 3 for AlexNet; found 5"),
        ({"name": "VGG11", "width": 64}, "`width` should be left at 128 for VGG11; found 64"),
        (
            {"name": "AlexNet", "norm": "batch"},
            "`norm` should be left at instance for AlexNet; found batch",
        ),
        (
            {"name": "ResNet18", "pooling": "max"},
            "`pooling` should be left at average for ResNet18; found max",
        ),
        (
            {"norm": "group", "width": 10},
            "`width` should be a multiple of 4 for norm group; found 10",
        ),
        ({"width": 4}, "greater than or equal to 8"),
        ({"depth": 7}, "less than or equal to 6"),
        ({"depth": "3"}, "valid integer"),
        ({"name": "LeNet"}, "Input should be 'ConvNet'"),
        ({"dropout": 0.5}, "Extra inputs are not permitted"),
    ],
)
def test_invalid_specs_are_refused(fields, message):
    with pytest.raises(ValidationError, match=message):
        NetworkSpec(**fields)


def test_a_spec_is_frozen_and_unchanged_by_json():
    spec = NetworkSpec(name="VGG11", norm="batch")
    assert NetworkSpec.model_validate_json(spec.model_dump_json()) == spec
    with pytest.raises(ValidationError, match="frozen"):
        spec.depth = 4


@pytest.mark.parametrize(
    ("image", "classes", "message"),
    [
        ((3, 700, 700), 10, "image side should be between 8 and 512; found 700"),
        ((3, 7, 7), 10, "image side should be between 8 and 512; found 7"),
        ((3, 32, 28), 10, "images should be square; found 32 x 28"),
        ((0, 32, 32), 10, "channels and classes should be at least 1; found 0 and 10"),
        ((3, 32, 32), 0, "channels and classes should be at least 1; found 3 and 0"),
    ],
)
def test_images_that_do_not_fit_are_refused(image, classes, message):
    for name in NAMES:
        with pytest.raises(PlanError, match=message):
            build(NetworkSpec(name=name), image, classes)


@pytest.mark.parametrize(("side", "deepest"), [(8, 3), (15, 3), (16, 4), (28, 5), (32, 5)])
def test_a_convnet_too_deep_for_its_images_is_refused(side, deepest):
    assert_varied(
        seeded(NetworkSpec(width=8, depth=deepest), (1, side, side)), some_images(2, 1, side, side)
    )
    message = f"`depth` should be at most {deepest} for images of side {side}; found {deepest + 1}"
    with pytest.raises(PlanError, match=message):
        build(NetworkSpec(width=8, depth=deepest + 1), (1, side, side), 10)


@pytest.mark.parametrize(
    ("spec", "image"),
    [
        (NetworkSpec(width=8), (3, 32, 32)),
        (NetworkSpec(width=8, depth=2, pooling="max"), (1, 28, 28)),
        (NetworkSpec(width=8, depth=2, pooling="none", norm="group"), (1, 9, 9)),
        (NetworkSpec(width=8, depth=3), (1, 15, 15)),
        (NetworkSpec(name="AlexNet"), (3, 32, 32)),
        (NetworkSpec(name="VGG11"), (1, 28, 28)),
        (NetworkSpec(name="VGG11"), (3, 8, 8)),
        (NetworkSpec(name="ResNet18"), (3, 16, 16)),
        (NetworkSpec(name="ResNet18"), (1, 9, 9)),
        (NetworkSpec(name="MLP", width=16, depth=2), (5, 1, 1)),
    ],
)
def test_the_shapes_of_layers_are_those_of_their_outputs(spec, image) -> None:
    network = build(spec, image, 3)
    measured: list[tuple[nn.Conv2d, torch.Size]] = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_hook(lambda layer, _, y: measured.append((layer, y.shape)))

    x = torch.zeros(2, *image)
    for layer, before, after in layer_shapes(network.features, image):
        assert before == tuple(x.shape[1:])
        x = layer(x)
        assert after == tuple(x.shape[1:])

    positions = [shape[2] * shape[3] for _, shape in measured]
    products = [layer.weight.numel() * n for (layer, _), n in zip(measured, positions, strict=True)]
    assert multiplications(spec, image) == sum(products)
    assert activations(spec, image) == sum(shape[1:].numel() for _, shape in measured)

"""The generator of DENSE makes images on which the sites' networks and the student disagree.

    loss = CE(z(x'), y)  +  w_bn sum_l (|m_l(x') - m_l| + |v_l(x') - v_l|)
           - w_adv mean [argmax f(x') != argmax z(x')] KL(z(x') | f(x'))

for random labels y, where x' are the images G(c) that the generator G makes from the codes c,
cropped and flipped. z is the ensemble of the sites' networks, and f the
student. m_l and v_l are the running means and variances of the batch normalisations in the sites'
networks, and m_l(x') and v_l(x') are those of a batch; without batch normalisation, the term is 0.
Codes and generator are trained together, from scratch in every epoch.

Reference: J. Zhang, C. Chen, B. Li, L. Lyu, S. Wu, S. Ding, C. Shen, C. Wu, "DENSE: data-free
one-shot federated learning", NeurIPS 2022.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64, UInt8
from pydantic import Field
from torch import Tensor, nn

from collabdm.documents.frozen_model import FrozenModel, Positive
from collabdm.documents.plan import Plan
from collabdm.images import as_uint8
from collabdm.matching.compute import LOGITS, Compute, Forward
from collabdm.matching.networks import Network, seed_weights
from collabdm.methods.local_training import allowed_moves, move
from collabdm.seeds import Stream

Weight = Annotated[float, Field(ge=0, le=1000)]
TrainingRate = Annotated[float, Field(gt=0, le=100)]


class Generation(FrozenModel):
    """The options of the generator.

    `noise` is the length of a code, `width` the number of filters, and `steps` the number of steps
    in an epoch; `normalisation` and `adversarial` are the weights w_bn and w_adv.
    """

    noise: Positive = 256
    width: Annotated[int, Field(ge=2, le=4096, multiple_of=2)] = 128
    batch: Positive = 256
    steps: Positive = 30
    learning_rate: TrainingRate = 1e-3
    normalisation: Weight = 1.0
    adversarial: Weight = 1.0


class Generator(nn.Module):
    """The generator G, which makes images in 0 .. 1 from codes.

    It has a linear layer, two upsamplings and three convolutions.
    """

    def __init__(self, noise: int, width: int, shape: tuple[int, int, int]) -> None:
        """Build the layers.

        Args:
            noise: the length of a code.
            width: the number of filters.
            shape: (channels, height, width) of the images.
        """
        super().__init__()
        channels, side, _ = shape
        half_side, self.small_side = -(-side // 2), -(-side // 4)
        self.width, half = width, width // 2

        self.linear = nn.Linear(noise, width * self.small_side**2)
        self.layers = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.Upsample(size=(half_side, half_side)),
            *(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.LeakyReLU(0.2)),
            nn.Upsample(size=(side, side)),
            *(nn.Conv2d(width, half, 3, padding=1), nn.BatchNorm2d(half), nn.LeakyReLU(0.2)),
            *(nn.Conv2d(half, channels, 3, padding=1), nn.Sigmoid()),
        )

    def forward(self, codes: Float32[Tensor, "n noise"]) -> Float32[Tensor, "n c h w"]:
        """Make one image from each code."""
        values = self.linear(codes).view(-1, self.width, self.small_side, self.small_side)
        return self.layers(values)


@dataclass(frozen=True)
class Ensemble:
    """Networks whose weighted logits are added.

    Attributes:
        networks: the networks.
        weights: the weight of each network in each class.
        forward: computes the logits of a network.
    """

    networks: tuple[Network, ...]
    weights: Float32[Tensor, "networks classes"]
    forward: Forward = LOGITS["float32"]

    def __call__(self, x: Float32[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Compute the weighted sum of the logits; x is in network units."""
        weighted = [
            weight * self.forward(network, x).float()
            for weight, network in zip(self.weights, self.networks, strict=True)
        ]
        return torch.stack(weighted).sum(0)


@dataclass(frozen=True)
class GeneratorTraining:
    """The training of a generator against an ensemble and a student.

    Attributes:
        plan: the plan, which states the images and their augmentation.
        options: the generator, its steps and the weights of its losses.
        ensemble: z, the sites' networks.
        student: the student f.
        compute: device and precision.
    """

    plan: Plan
    options: Generation
    ensemble: Ensemble
    student: Network
    compute: Compute = Compute()

    def batch(self, stream: Stream) -> UInt8[Tensor, "n c h w"]:
        """Train a new generator, and return the batch with the lowest loss of all steps."""
        options, device, shape = self.options, self.compute.device, self.plan.image.shape
        generator = new_generator(options, shape, stream).to(device).train()
        codes = stream.normals(options.batch, options.noise).to(device).requires_grad_()
        labels = stream.integers(self.student.classifier.out_features, options.batch).to(device)
        optimizer = torch.optim.Adam(
            [codes, *generator.parameters()], options.learning_rate, betas=(0.5, 0.999)
        )

        best, lowest = torch.zeros(options.batch, *shape), float("inf")
        for _ in range(options.steps):
            with self.compute.autocast():  # once per step, because it caches the cast weights
                pixels = generator(codes).float()
            loss = self.total(self.losses(pixels, labels, stream))

            value = float(loss.detach())
            if value < lowest:
                best, lowest = pixels.detach(), value

            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return as_uint8(best).cpu()

    def losses(
        self, pixels: Float32[Tensor, "n c h w"], labels: Int64[Tensor, " n"], stream: Stream
    ) -> dict[str, Tensor]:
        """Compute the three losses of a batch, before weighting.

        Args:
            pixels: the images, in 0 .. 1.
            labels: their random labels.
            stream: the stream of their moves.

        Returns:
            The losses `class`, `normalisation` and `adversarial`, scalars.
        """
        image = self.plan.image
        x = move(image.normalisation.apply(pixels), allowed_moves(self.plan), image, stream)

        with normalisation_distances(self.ensemble.networks) as distances:
            logits = self.ensemble(x)
        none = torch.zeros((), device=x.device)

        return {
            "class": F.cross_entropy(logits, labels),
            "normalisation": torch.stack(distances).sum() if distances else none,
            "adversarial": adversarial_loss(self.ensemble.forward(self.student, x).float(), logits),
        }

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """Return the weighted sum of the losses."""
        options = self.options
        weighted = (
            options.normalisation * losses["normalisation"]
            + options.adversarial * losses["adversarial"]
        )
        return losses["class"] + weighted


def mean_ensemble(networks: Sequence[Network]) -> Ensemble:
    """Build the ensemble whose logits are the mean of those of the networks."""
    classifier = networks[0].classifier
    shape = (len(networks), classifier.out_features)
    weights = torch.full(shape, 1 / len(networks), device=classifier.weight.device)
    return Ensemble(tuple(networks), weights)


def counted_ensemble(
    networks: Sequence[Network], counts: Int64[Tensor, "networks classes"]
) -> Ensemble:
    """Build the ensemble that weights logits, class by class, by each site's share of images."""
    shares = counts.float() / counts.sum(0).clamp_min(1)
    return Ensemble(tuple(networks), shares.to(networks[0].classifier.weight.device))


def new_generator(options: Generation, shape: tuple[int, int, int], stream: Stream) -> Generator:
    """Build a generator with random weights.

    Args:
        options: the length of its codes and the number of its filters.
        shape: (channels, height, width) of the images.
        stream: the stream of the weights, which are drawn like those of networks.

    Returns:
        The generator, on the CPU.
    """
    with torch.device("meta"):  # where the layers' initialisation draws no random numbers
        generator = Generator(options.noise, options.width, shape)
    generator.to_empty(device="cpu")
    seed_weights(generator, stream)
    return generator


def adversarial_loss(
    student: Float[Tensor, "n classes"], ensemble: Float[Tensor, "n classes"]
) -> Float[Tensor, ""]:
    """Compute - mean [argmax f != argmax z] KL(z | f), which is low where the student is wrong."""
    disagree = (student.argmax(1) != ensemble.argmax(1)).float()
    log_f, log_z = F.log_softmax(student, 1), F.log_softmax(ensemble, 1)
    divergence = F.kl_div(log_f, log_z, log_target=True, reduction="none").sum(1)
    return -(disagree * divergence).mean()


@contextmanager
def normalisation_distances(networks: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Measure how far batch means and variances are from the running ones, in each batch norm.

    Yields a list, to which every pass of images through the networks adds the distances
    |m_l(x) - m_l| + |v_l(x) - v_l| of its layers l.
    """
    distances: list[Tensor] = []

    def measure(layer: nn.BatchNorm2d, inputs: tuple[Tensor], output: Tensor) -> None:
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
        assert layer.running_mean is not None
        assert layer.running_var is not None
        distance = (mean - layer.running_mean).norm() + (variance - layer.running_var).norm()
        distances.append(distance)

    layers = [
        layer
        for network in networks
        for layer in network.modules()
        if isinstance(layer, nn.BatchNorm2d)
    ]
    hooks = [layer.register_forward_hook(measure) for layer in layers]
    try:
        yield distances
    finally:
        for hook in hooks:
            hook.remove()

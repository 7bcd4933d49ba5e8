"""The generator of DENSE: images on which the sites' networks agree and the student does not.

    loss = CE(z(x'), y)  +  w_bn sum_l (|m_l(x') - m_l| + |v_l(x') - v_l|)
           - w_adv mean [argmax f(x') != argmax z(x')] KL(z(x') | f(x')),   x' = x cropped and flipped

z is the ensemble of the sites' networks, f the student; m_l and v_l are the running means and variances
of the batch normalisations of the sites' networks, and m_l(x), v_l(x) those of a batch x = G(c).

Reference: J. Zhang, C. Chen, B. Li, L. Lyu, S. Wu, S. Ding, C. Shen, C. Wu, "DENSE: data-free one-shot
federated learning", NeurIPS 2022.
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
from collabdm.methods.local_training import (
    allowed_moves,
    move,
)
from collabdm.seeds import Stream

Weight = Annotated[float, Field(ge=0, le=1000)]
TrainingRate = Annotated[float, Field(gt=0, le=100)]


class Generation(FrozenModel):
    """The generator: its codes, filters and steps in an epoch, and the weights of its losses."""

    noise: Positive = 256
    width: Annotated[int, Field(ge=2, le=4096, multiple_of=2)] = 128
    batch: Positive = 256
    steps: Positive = 30
    learning_rate: TrainingRate = 1e-3
    normalisation: Weight = 1.0
    adversarial: Weight = 1.0


class Generator(nn.Module):
    """Images in 0 .. 1 from codes: a linear layer, twice an enlargement and a convolution, a last convolution."""

    def __init__(self, noise: int, width: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        channels, side, _ = shape
        self.small, self.width, half = -(-side // 4), width, width // 2
        self.linear = nn.Linear(noise, width * self.small**2)
        self.layers = nn.Sequential(
            nn.BatchNorm2d(width),
            nn.Upsample(size=(-(-side // 2),) * 2),
            *(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.LeakyReLU(0.2)),
            nn.Upsample(size=(side, side)),
            *(nn.Conv2d(width, half, 3, padding=1), nn.BatchNorm2d(half), nn.LeakyReLU(0.2)),
            *(nn.Conv2d(half, channels, 3, padding=1), nn.Sigmoid()),
        )

    def forward(self, codes: Float32[Tensor, "n noise"]) -> Float32[Tensor, "n c h w"]:
        """One image for each code."""
        return self.layers(self.linear(codes).view(-1, self.width, self.small, self.small))


@dataclass(frozen=True)
class Ensemble:
    """Networks whose logits are added, each with a weight for every class that they have; `forward` computes them."""

    networks: tuple[Network, ...]
    weights: Float32[Tensor, "networks classes"]
    forward: Forward = LOGITS["float32"]

    def __call__(self, x: Float32[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """The weighted sum of the logits; x in network units."""
        logits = [self.forward(network, x).float() for network in self.networks]
        return torch.stack([w * one for w, one in zip(self.weights, logits, strict=True)]).sum(0)


def ensemble_of(networks: Sequence[Network]) -> Ensemble:
    """Mean logits."""
    classes, device = networks[0].classifier.out_features, networks[0].classifier.weight.device
    return Ensemble(
        tuple(networks), torch.full((len(networks), classes), 1 / len(networks), device=device)
    )


def counted_ensemble(
    networks: Sequence[Network], held: Int64[Tensor, "networks classes"]
) -> Ensemble:
    """Logits weighted, class by class, by the share of the class that each site holds."""
    shares = held.float() / held.sum(0).clamp_min(1)
    return Ensemble(tuple(networks), shares.to(networks[0].classifier.weight.device))


@dataclass(frozen=True)
class GeneratorTraining:
    """What a generator is trained against."""

    plan: Plan
    options: Generation
    ensemble: Ensemble
    student: Network
    compute: Compute = Compute()

    def batch(self, stream: Stream) -> UInt8[Tensor, "n c h w"]:
        """The best batch of the steps of a new generator, by the sum of its losses."""
        options, device, shape = self.options, self.compute.device, self.plan.image.shape
        generator = new_generator(options, shape, stream).to(device).train()
        codes = stream.normals(options.batch, options.noise).to(device).requires_grad_()
        labels = stream.integers(self.student.classifier.out_features, options.batch).to(device)
        optimiser = torch.optim.Adam(
            [codes, *generator.parameters()], options.learning_rate, betas=(0.5, 0.999)
        )
        best, lowest = torch.zeros(options.batch, *shape), float("inf")
        for _ in range(options.steps):
            with (
                self.compute.autocast()
            ):  # left before each step, since it keeps the weights that it has cast
                pixels = generator(codes).float()
            total = self.total(self.losses(pixels, labels, stream))
            if (value := float(total.detach())) < lowest:
                best, lowest = pixels.detach(), value
            optimiser.zero_grad()
            total.backward()
            optimiser.step()
        return as_uint8(best).cpu()

    def losses(
        self, pixels: Float32[Tensor, "n c h w"], labels: Int64[Tensor, " n"], stream: Stream
    ) -> dict[str, Tensor]:
        """The three losses of a batch, not yet weighted."""
        image = self.plan.image
        x = move(image.normalisation.apply(pixels), allowed_moves(self.plan), image, stream)
        with normalisation_distances(self.ensemble.networks) as distances:
            wanted = self.ensemble(x)
        return {
            "class": F.cross_entropy(wanted, labels),
            "normalisation": torch.stack(distances).sum()
            if distances
            else torch.zeros((), device=x.device),
            "adversarial": adversarial_loss(self.ensemble.forward(self.student, x).float(), wanted),
        }

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """Their weighted sum."""
        options = self.options
        weighted = (
            options.normalisation * losses["normalisation"]
            + options.adversarial * losses["adversarial"]
        )
        return losses["class"] + weighted


def new_generator(options: Generation, shape: tuple[int, int, int], stream: Stream) -> Generator:
    """A generator whose weights are drawn as those of networks are."""
    with torch.device("meta"):  # no memory, so the layers' own initialisation draws nothing
        generator = Generator(options.noise, options.width, shape)
    generator.to_empty(device="cpu")
    seed_weights(generator, stream)
    return generator


def adversarial_loss(
    student: Float[Tensor, "n classes"], ensemble: Float[Tensor, "n classes"]
) -> Float[Tensor, ""]:
    """- mean [argmax f != argmax z] KL(z | f): low where the student is most wrong."""
    differ = (student.argmax(1) != ensemble.argmax(1)).float()
    apart = F.kl_div(
        F.log_softmax(student, 1), F.log_softmax(ensemble, 1), log_target=True, reduction="none"
    ).sum(1)
    return -(differ * apart).mean()


@contextmanager
def normalisation_distances(networks: Sequence[nn.Module]) -> Iterator[list[Tensor]]:
    """Collects, as images pass, how far the mean and variance of each batch normalisation's input are from its own."""
    found: list[Tensor] = []

    def measure(layer: nn.BatchNorm2d, inputs: tuple[Tensor], output: Tensor) -> None:
        variance, mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)
        assert layer.running_mean is not None
        assert layer.running_var is not None
        found.append((mean - layer.running_mean).norm() + (variance - layer.running_var).norm())

    layers = [
        layer
        for network in networks
        for layer in network.modules()
        if isinstance(layer, nn.BatchNorm2d)
    ]
    hooks = [layer.register_forward_hook(measure) for layer in layers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()

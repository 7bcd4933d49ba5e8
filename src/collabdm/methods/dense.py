"""DENSE: data-free one-shot federated learning. Sites send networks; the server distils their ensemble into one.

    site k     theta_k: a network trained on D_k
    ensemble   z(x) = mean_k f_k(x),  its logits
    server     in every epoch a new generator G, its codes c and random labels y make x = G(c), to lower
                   CE(z(x'), y)  +  w_bn sum_l (|m_l(x') - m_l| + |v_l(x') - v_l|)
                   - w_adv mean [argmax f(x') != argmax z(x')] KL(z(x') | f(x')),   x' = x cropped and flipped;
               the best batch joins a pool, and one pass over the pool moves the student f down
                   T^2 KL(softmax z / T | softmax f / T)

m_l and v_l are the running means and variances of the batch normalisations of the sites' networks, and m_l(x), v_l(x)
those of the batch; networks without batch normalisation have none, and the term is 0. The student of the last
epoch is the outcome; the best one on test images can be known only to who looks at them (`Run.watch`). The original
client network is `ConvNet:norm=none,pooling=max`, 319,242 parameters.

Reference: J. Zhang, C. Chen, B. Li, L. Lyu, S. Wu, S. Ding, C. Shen, C. Wu, "DENSE: data-free one-shot federated
learning", NeurIPS 2022.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64, UInt8
from pydantic import Field
from torch import Tensor, nn

from collabdm.checkpoint import State
from collabdm.documents.contribution import Contribution
from collabdm.documents.extra_tensors import DeclaredTensors
from collabdm.documents.frozen_model import FrozenModel, Positive
from collabdm.documents.outcomes import DistilledModel
from collabdm.documents.plan import Plan
from collabdm.documents.specs import NetworkSpec
from collabdm.errors import PlanError
from collabdm.images import ImageSet, as_uint8
from collabdm.matching.compute import LOGITS, Compute, Forward
from collabdm.matching.embedding import multiplications
from collabdm.matching.networks import Network, build, has_batch_norm, seed_weights
from collabdm.matching.weights import load_weights, weights_declared, weights_of
from collabdm.methods.base import Contributions, Run, answer, check_answer, class_counts, holdings, in_order, options_of
from collabdm.methods.local_training import (
    LocalTask,
    LocalTraining,
    kept_of_sgd,
    moved,
    moves_of,
    resume_sgd,
    train_locally,
    training_pass,
)
from collabdm.seeds import Purpose, Stream, derive
from collabdm.version import versions

MOST_BYTES = 2**33  # of the pool


LOOKS = 20  # at the student on its way, at most twice as many


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


class Dense(FrozenModel):
    """Settings; `network` is what sites train and the student is, by default the plan's."""

    network: NetworkSpec | None = None
    local: LocalTraining = LocalTraining()
    epochs: Positive = 200
    generator: Generation = Generation()
    learning_rate: TrainingRate = 0.005
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    batch: Positive = 256
    temperature: TrainingRate = 20.0


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
    return Ensemble(tuple(networks), torch.full((len(networks), classes), 1 / len(networks), device=device))


def counted_ensemble(networks: Sequence[Network], held: Int64[Tensor, "networks classes"]) -> Ensemble:
    """Logits weighted, class by class, by the share of the class that each site holds."""
    shares = held.float() / held.sum(0).clamp_min(1)
    return Ensemble(tuple(networks), shares.to(networks[0].classifier.weight.device))


def spec_of(plan: Plan) -> NetworkSpec:
    """The network that sites train."""
    return options_of(plan.options, Dense).network or plan.network


def new_network(plan: Plan) -> Network:
    """That network, unseeded."""
    return build(spec_of(plan), plan.image.shape, len(plan.classes))


def declare(plan: Plan) -> DeclaredTensors:
    """What a site sends: the weights, and the running statistics of batch normalisations. Raises as `check_pool`."""
    check_pool(plan)
    return weights_declared(spec_of(plan), plan)


def check_pool(plan: Plan) -> None:
    """Refuse a plan whose server would keep more than `MOST_BYTES` of images. Raises PlanError."""
    options = options_of(plan.options, Dense)
    pool = options.epochs * options.generator.batch * math.prod(plan.image.shape)
    if pool > MOST_BYTES:
        raise PlanError(
            f"`options.epochs` times `options.generator.batch` images should have at most {MOST_BYTES:,} bytes, "
            f"for the server keeps them all; found {pool:,}"
        )


def from_real(plan: Plan) -> bool:
    """Whether images that a site sends are, or begin as, real ones: none is sent."""
    return False


def contribute(plan: Plan, data: ImageSet, site: str = "site-1", run: Run = Run()) -> Contribution:
    """One site's trained network. Raises DataError or PlanError where data, name or plan do not fit."""
    check_answer(plan, data, site)
    check_pool(plan)
    local, seed = options_of(plan.options, Dense).local, derive(plan.seed, "site", site)
    network = new_network(plan)
    seed_weights(network, Stream.of(seed, Purpose.NETWORK))

    def trained(state: State) -> None:
        run.keep(state)
        run.progress("local training", state.done, local.epochs)

    train_locally(LocalTask(network, data, plan, seed), local, run.compute, run.resume, trained)
    return answer(plan, data, site, weights_of(network))


def distill(plan: Plan, contributions: Contributions, run: Run = Run(), allow_missing: bool = False) -> DistilledModel:
    """The student of the sites' networks. Raises DocumentError as CollabDM does.

    `run.watch` is shown every site's network, both ensembles, and the student after every epoch.
    """
    ordered = in_order(plan, contributions, declare(plan), allow_missing)
    networks = []
    for contribution in ordered:
        network = new_network(plan)
        load_weights(network, contribution.extra_tensors)
        networks.append(network.to(run.compute.device).eval().requires_grad_(False))
        run.watch(contribution.site, 0, networks[-1])
    ensemble = ensemble_of(networks)
    run.watch("ensemble", 0, ensemble)
    run.watch("counted ensemble", 0, counted_ensemble(networks, torch.stack([class_counts(plan, c) for c in ordered])))
    student = Distillation(plan, ensemble, run).student()
    return DistilledModel(weights_of(student), spec_of(plan), plan, holdings(plan, ordered), plan.method, versions())


class Distillation:
    """The server's loop: what it holds between epochs."""

    def __init__(self, plan: Plan, ensemble: Ensemble, run: Run) -> None:
        self.options = options_of(plan.options, Dense)
        self.plan, self.ensemble, self.run, self.seed = plan, ensemble, run, derive(plan.seed, "dense")
        self._student = new_network(plan)
        seed_weights(self._student, Stream.of(self.seed, Purpose.NETWORK))
        self._student.to(run.compute.device)
        self._optimiser = torch.optim.SGD(self._student.parameters(), self.options.learning_rate, self.options.momentum)
        most, self._size = self.options.epochs * self.options.generator.batch, 0
        seen = most * (self.options.epochs + 1) // 2  # by the student, in all epochs
        self._learning = training_pass(self._student, plan, seen, self.options.batch, run.compute)
        self._imagination = GeneratorTraining(
            plan, self.options.generator, self._imagined_by(ensemble), self._student, run.compute
        )
        self._pool = torch.zeros(most, *plan.image.shape, dtype=torch.uint8)  # the first `_size` are there
        self._wanted = torch.zeros(most, len(plan.classes))  # the ensemble's logits of them

    def _imagined_by(self, ensemble: Ensemble) -> Ensemble:
        """The ensemble as the generator sees it, compiled where that pays and no layer is looked into."""
        generator, compute = self.options.generator, self.run.compute
        images = self.options.epochs * generator.steps * generator.batch * (len(ensemble.networks) + 1)
        function = LOGITS[compute.precision]
        if not any(map(has_batch_norm, ensemble.networks)):
            one = multiplications(ensemble.networks[0], self.plan.image.shape)
            function = compute.faster(function, 3.0 * images * one)
        return replace(ensemble, forward=function)

    def student(self) -> Network:
        """All epochs, from the kept state on; the student in evaluation mode."""
        done = self._resume() if self.run.resume else 0
        for epoch in range(done, self.options.epochs):
            stream = Stream.of(self.seed, Purpose.BASELINE, epoch)
            self._student.eval().requires_grad_(False)
            self._add(self._imagination.batch(stream))
            self._pass(stream)
            if (epoch + 1) % max(1, self.options.epochs // LOOKS) == 0:
                self.run.watch("epoch", epoch + 1, self._student.eval())
            self.run.keep(self._state(epoch + 1))
            self.run.progress("distillation of the ensemble", epoch + 1, self.options.epochs)
        return self._student.eval()

    @torch.no_grad()
    def _add(self, made: UInt8[Tensor, "n c h w"]) -> None:
        """A batch joins the pool."""
        x = self.plan.image.normalisation.apply(made.to(self.run.compute.device))
        places = slice(self._size, self._size + len(made))
        with self.run.compute.autocast():
            self._pool[places], self._wanted[places] = made, self.ensemble(x).cpu()
        self._size += len(made)

    def _pass(self, stream: Stream) -> None:
        """Once over the pool."""
        self._student.train().requires_grad_(True)
        for index in stream.permutation(self._size).split(self.options.batch):
            x = self.plan.image.normalisation.apply(self._pool[index].to(self.run.compute.device))
            self._optimiser.zero_grad()
            softened(self._learning(x), self._wanted[index].to(x.device), self.options.temperature).backward()
            self._optimiser.step()

    def _state(self, done: int) -> State:
        kept = {"pool": self._pool[: self._size], "wanted": self._wanted[: self._size]}
        kept |= kept_of_sgd(self._student, self._optimiser)
        return State(done, torch.zeros(0, *self.plan.image.shape), kept)

    def _resume(self) -> int:
        state = self.run.resume
        assert state is not None
        self._size = len(state.optimiser["pool"])
        self._pool[: self._size], self._wanted[: self._size] = state.optimiser["pool"], state.optimiser["wanted"]
        resume_sgd(self._student, self._optimiser, state.optimiser)
        return state.done


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
        optimiser = torch.optim.Adam([codes, *generator.parameters()], options.learning_rate, betas=(0.5, 0.999))
        best, lowest = torch.zeros(options.batch, *shape), float("inf")
        for _ in range(options.steps):
            with self.compute.autocast():  # left before each step, since it keeps the weights that it has cast
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
        x = moved(image.normalisation.apply(pixels), moves_of(self.plan), image, stream)
        with normalisation_distances(self.ensemble.networks) as distances:
            wanted = self.ensemble(x)
        return {
            "class": F.cross_entropy(wanted, labels),
            "normalisation": torch.stack(distances).sum() if distances else torch.zeros((), device=x.device),
            "adversarial": adversarial_loss(self.ensemble.forward(self.student, x).float(), wanted),
        }

    def total(self, losses: dict[str, Tensor]) -> Tensor:
        """Their weighted sum."""
        options = self.options
        weighted = options.normalisation * losses["normalisation"] + options.adversarial * losses["adversarial"]
        return losses["class"] + weighted


def new_generator(options: Generation, shape: tuple[int, int, int], stream: Stream) -> Generator:
    """A generator whose weights are drawn as those of networks are."""
    with torch.device("meta"):  # no memory, so the layers' own initialisation draws nothing
        generator = Generator(options.noise, options.width, shape)
    generator.to_empty(device="cpu")
    seed_weights(generator, stream)
    return generator


def softened(
    student: Float[Tensor, "n classes"], ensemble: Float[Tensor, "n classes"], temperature: float
) -> Float[Tensor, ""]:
    """T^2 KL(softmax z / T | softmax f / T), mean over images."""
    log_f, log_z = (F.log_softmax(v / temperature, 1) for v in (student, ensemble))
    return temperature**2 * F.kl_div(log_f, log_z, log_target=True, reduction="batchmean")


def adversarial_loss(student: Float[Tensor, "n classes"], ensemble: Float[Tensor, "n classes"]) -> Float[Tensor, ""]:
    """- mean [argmax f != argmax z] KL(z | f): low where the student is most wrong."""
    differ = (student.argmax(1) != ensemble.argmax(1)).float()
    apart = F.kl_div(F.log_softmax(student, 1), F.log_softmax(ensemble, 1), log_target=True, reduction="none").sum(1)
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

    layers = [layer for network in networks for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    hooks = [layer.register_forward_hook(measure) for layer in layers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()

"""The embedding of a step: v = P_t psi_t(augment_t(x)), a seeded function from images to vectors.

psi_t is a network without its classifier, its weights drawn from the stream (seed, WEIGHTS, t);
augment_t has one draw per class, from (seed, AUGMENT, t); P_t is the sketch, a D x r matrix of
signs / sqrt(r) from (seed, SKETCH, t), so that E |P_t v|^2 = |v|^2. Server and sites that know the
seed compute the same function; nothing else is ever exchanged about it.

References: B. Zhao, H. Bilen, "Dataset condensation with distribution matching", WACV 2023.
D. Achlioptas, "Database-friendly random projections", 2003 (signs as a projection).
"""

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from collabdm.documents.plan import Plan
from collabdm.documents.specs import NetworkSpec, Operation
from collabdm.images import ImageSet, Normalisation, Pixels
from collabdm.matching.augment import Draws, augment, draw
from collabdm.matching.compute import Compute, padded_pass
from collabdm.matching.networks import Network, build, seed_weights
from collabdm.seeds import Purpose, Stream

logger = logging.getLogger("collabdm")


Result = TypeVar("Result")


@dataclass(frozen=True)
class Seeds:
    """Which streams an embedding draws from: the Plan's, or a site's own for its local distillation."""

    seed: int
    weights: Purpose = Purpose.WEIGHTS
    augment: Purpose = Purpose.AUGMENT

    @classmethod
    def local(cls, seed: int) -> "Seeds":
        """The streams of a local distillation."""
        return cls(seed, Purpose.LOCAL_WEIGHTS, Purpose.LOCAL_AUGMENT)


@dataclass(frozen=True)
class Sampling:
    """How real images of a step are chosen: `batch` of each class without replacement (all if None)."""

    seed: int
    purpose: Purpose
    batch: int | None

    def picks(self, data: ImageSet, step: int) -> Int64[Tensor, " m"]:
        """Positions of the chosen images, sorted by class."""
        stream = Stream.of(self.seed, self.purpose, step)
        chosen = []
        for y in range(len(data.classes)):
            index = data.of_class(y)
            if self.batch is not None and self.batch < len(index):
                index = index[stream.permutation(len(index))[: self.batch]]
            chosen.append(index)
        return torch.cat(chosen)


@dataclass(frozen=True)
class Geometry:
    """What an embedding looks at: image shape, number of classes, normalisation, augmentation policy."""

    shape: tuple[int, int, int]
    classes: int
    normalisation: Normalisation
    policy: tuple[Operation, ...]


class Embedding:
    """A resident network that is reseeded in place: `at(step)` makes it the embedding of that step.

    `work` is the number of images that will pass through it; it decides whether compiling pays.
    """

    def __init__(
        self,
        spec: NetworkSpec,
        geometry: Geometry,
        seeds: Seeds,
        compute: Compute,
        sketch: int | None = None,
        work: int = 0,
    ) -> None:
        self.geometry, self.seeds, self.compute, self.sketch = geometry, seeds, compute, sketch
        self.network = build(spec, geometry.shape, geometry.classes)
        self.network.to(device=compute.device, dtype=compute.dtype).requires_grad_(False)
        self.width = self.network.embedding_width
        amount = work * multiplications(self.network, geometry.shape)
        self._psi, self._padded_passes = compute.faster(embed, amount), compute.compiles(amount)
        if self._padded_passes:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        numbers = activations(self.network, geometry.shape)
        self._chunks = {gradients: compute.chunk(gradients, numbers) for gradients in (False, True)}
        self._draws: Draws
        self._projection: Tensor | None

    @property
    def sketched_width(self) -> int:
        """r: the width of what `values` returns."""
        return self.width if self.sketch is None else min(self.width, self.sketch)

    def at(self, step: int) -> "Embedding":
        """The same object, now the embedding of `step`."""
        seed_weights(self.network, Stream.of(self.seeds.seed, self.seeds.weights, step))
        stream = Stream.of(self.seeds.seed, self.seeds.augment, step)
        geometry = self.geometry
        draws = draw(geometry.policy, geometry.classes, geometry.shape[-1], stream)
        self._draws = draws.to(torch.device(self.compute.device))
        projection = sketch_matrix(self.seeds.seed, step, self.width, self.sketch)
        self._projection = None if projection is None else projection.to(self.compute.device)
        return self

    def values(self, x: Float[Tensor, "n c h w"], labels: Int64[Tensor, " n"]) -> Float32[Tensor, "n D"]:
        """psi_t of augmented images (network units), not yet sketched; differentiable in x."""
        if self.geometry.policy:
            x = augment(x, self._draws.rows(labels))
        x = x.to(self.compute.dtype)
        most = self.images_per_pass(gradients=x.requires_grad and torch.is_grad_enabled())
        size = most if len(x) <= most else math.ceil(len(x) / math.ceil(len(x) / most))
        return torch.cat([self._pass(part, size) for part in x.split(size)])

    def images_per_pass(self, gradients: bool) -> int:
        """Images that one pass takes at most."""
        return self._chunks[gradients]

    def _pass(self, x: Float[Tensor, "n c h w"], size: int) -> Float32[Tensor, "n D"]:
        return padded_pass(self._psi, self.network, x, size if self._padded_passes else len(x))

    def retry_on_oom(self, work: Callable[[], Result]) -> Result:
        """What `work` returns; where the device's memory does not suffice, again in smaller passes."""
        while True:
            try:
                return work()
            except torch.OutOfMemoryError:
                if max(self._chunks.values()) == 1:
                    raise
                self._chunks = {gradients: max(1, size // 2) for gradients, size in self._chunks.items()}
                logger.warning("out of memory: going on with %d images per pass", self._chunks[True])

    def sketched(self, v: Float32[Tensor, "*n D"]) -> Float32[Tensor, "*n r"]:
        """P_t v. A sketch of a mean is the mean of the sketches."""
        return v if self._projection is None else v @ self._projection

    @torch.no_grad()
    def moments(
        self, data: ImageSet, index: Int64[Tensor, " m"]
    ) -> tuple[Float32[Tensor, "classes D"], Float32[Tensor, "classes D"]]:
        """Mean and standard deviation of the embedding of the chosen real images, per class, not sketched."""
        sums = self.retry_on_oom(lambda: self._sums(data, index))
        counts = torch.bincount(data.labels[index], minlength=self.geometry.classes).clamp_min(1)
        mean, square = sums / counts[:, None].to(sums.device)
        return mean, (square - mean.square()).clamp_min(0).sqrt()

    def _sums(self, data: ImageSet, index: Int64[Tensor, " m"]) -> Float32[Tensor, "2 classes D"]:
        """Per class, the sum of the embedding and of its square."""
        classes, device = self.geometry.classes, torch.device(self.compute.device)
        sums = torch.zeros(2, classes, self.width, device=device)
        for chunk in index.split(self._chunks[False]):
            pixels, labels = data.images[chunk].to(device), data.labels[chunk].to(device)
            v = self.values(self.geometry.normalisation.apply(pixels), labels)
            member = membership(labels, classes)
            sums += torch.stack([member.T @ v, member.T @ v.square()])
        return sums

    def real_means(self, data: ImageSet, index: Int64[Tensor, " m"]) -> Float32[Tensor, "classes r"]:
        """Sketched mean embedding of the chosen real images of each class; zero for a class with none."""
        return self.sketched(self.moments(data, index)[0])


def embed(network: Network, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n D"]:
    """psi: the network without its classifier."""
    return network.embed(x)


def sketch_matrix(seed: int, step: int, width: int, sketch: int | None) -> Float32[Tensor, "D r"] | None:
    """P_t: signs / sqrt(r), row by row; None when there is no sketch."""
    if sketch is None or sketch >= width:
        return None
    return Stream.of(seed, Purpose.SKETCH, step).signs(width, sketch) / sketch**0.5


def membership(labels: Int64[Tensor, " n"], classes: int) -> Float32[Tensor, "n classes"]:
    """1 where an image is of a class; unlike `one_hot` it asks a GPU for nothing, so nobody waits."""
    return (labels[:, None] == torch.arange(classes, device=labels.device)).float()


def class_means(
    values: Float32[Tensor, "n r"], labels: Int64[Tensor, " n"], classes: int
) -> Float32[Tensor, "classes r"]:
    """Mean of the rows of each class; zero where a class has none."""
    member = membership(labels, classes)
    return (member.T @ values) / member.sum(0).clamp_min(1)[:, None]


def multiplications(network: Network, shape: tuple[int, int, int]) -> float:
    """Multiplications of one forward pass of one image: weights times output positions, over the convolutions."""
    return float(sum(layer.weight.numel() * output // layer.out_channels for layer, output in _outputs(network, shape)))


def activations(network: Network, shape: tuple[int, int, int]) -> int:
    """Numbers that come out of the convolutions for one image."""
    return sum(output for _, output in _outputs(network, shape))


def _outputs(network: Network, shape: tuple[int, int, int]) -> list[tuple[torch.nn.Conv2d, int]]:
    """Every convolution, and how many numbers come out of it for one image."""
    found: list[tuple[torch.nn.Conv2d, int]] = []

    def note(module: torch.nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        if isinstance(module, torch.nn.Conv2d):
            found.append((module, output[0].numel()))

    hooks = [module.register_forward_hook(note) for module in network.modules()]
    parameter = next(network.parameters())
    with torch.no_grad():
        network.embed(torch.zeros(2, *shape, device=parameter.device, dtype=parameter.dtype))
    for hook in hooks:
        hook.remove()
    return found


def probe_values(pixels: Pixels, embedding: Embedding) -> Float32[Tensor, " r"]:
    """The sketched embedding of one image at the current step, as class 0."""
    x = embedding.geometry.normalisation.apply(pixels)
    return embedding.sketched(embedding.values(x, torch.zeros(len(x), dtype=torch.int64)))[0]


def plan_embedding(plan: Plan, compute: Compute, work: int = 0) -> Embedding:
    """The embedding that the Plan's seeds name; `work` images are to pass through it."""
    return Embedding(plan.network, geometry(plan), Seeds(plan.seed), compute, plan.sketch, work)


def geometry(plan: Plan) -> Geometry:
    """What the Plan's embeddings look at."""
    return Geometry(plan.image.shape, len(plan.classes), plan.image.normalisation, plan.augment)

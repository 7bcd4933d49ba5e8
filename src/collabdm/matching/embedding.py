"""The embedding of a step: v = P_t psi_t(augment_t(x)), a seeded function from images to vectors.

psi_t is a network without its classifier, its weights drawn from the stream (seed, WEIGHTS, t);
augment_t has one draw per class, from (seed, AUGMENT, t); P_t is the sketch, which shortens vectors
from D to r values: a D x r matrix of random signs / sqrt(r) from (seed, SKETCH, t), so that the
expectation of |P_t v|^2 is |v|^2. The server and all sites know the seed, so they compute the same
function without exchanging anything else about it.

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
from collabdm.matching.network_size import activations, multiplications
from collabdm.matching.networks import Network, build, seed_weights
from collabdm.seeds import Purpose, Stream

logger = logging.getLogger("collabdm")

Result = TypeVar("Result")


@dataclass(frozen=True)
class Seeds:
    """The random streams of an embedding: those of the plan, or of a site's local distillation."""

    seed: int
    weights: Purpose = Purpose.WEIGHTS
    augment: Purpose = Purpose.AUGMENT

    @classmethod
    def local(cls, seed: int) -> "Seeds":
        """Return the streams of a local distillation."""
        return cls(seed, Purpose.LOCAL_WEIGHTS, Purpose.LOCAL_AUGMENT)


@dataclass(frozen=True)
class Sampling:
    """How a step's real images are chosen: at most `batch` of each class; None chooses all."""

    seed: int
    purpose: Purpose
    batch: int | None

    def picks(self, data: ImageSet, step: int) -> Int64[Tensor, " m"]:
        """Choose the images of a step, and return their positions, sorted by class."""
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
    """The inputs that an embedding expects: image shape, classes, normalisation, augmentations."""

    shape: tuple[int, int, int]
    classes: int
    normalisation: Normalisation
    policy: tuple[Operation, ...]


class Embedding:
    """A family of embeddings, one for each step, that share one network.

    `at(step)` returns the embedding of a step. The network is reseeded in place whenever a
    different step is used, so its memory and compiled code serve all steps; embeddings of several
    steps may be used in turn.
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
        """Build the network.

        Args:
            spec: the network, whose classifier is not used.
            geometry: the images that it embeds.
            seeds: the streams of its weights and augmentations.
            compute: device and precision.
            sketch: r, the width of the sketch; None uses no sketch.
            work: the number of images that will be embedded; if it is large, the network is
                compiled.
        """
        self.geometry, self.seeds, self.compute, self.sketch = geometry, seeds, compute, sketch

        self._network = build(spec, geometry.shape, geometry.classes)
        self._network.to(device=compute.device, dtype=compute.dtype).requires_grad_(False)
        self.width = self._network.embedding_width

        amount = work * multiplications(spec, geometry.shape)
        self._psi, self._pads = compute.faster(embed, amount), compute.compiles(amount)
        if self._pads:
            self._network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

        numbers = activations(spec, geometry.shape)
        self._chunks = {
            gradients: compute.images_per_pass(gradients, numbers) for gradients in (False, True)
        }
        self._seeded: int | None = None  # the step whose weights the network currently has

    @property
    def sketched_width(self) -> int:
        """The width r of a sketched embedding."""
        return self.width if self.sketch is None else min(self.width, self.sketch)

    def at(self, step: int) -> "StepEmbedding":
        """Return the embedding of a step."""
        geometry, device = self.geometry, torch.device(self.compute.device)

        stream = Stream.of(self.seeds.seed, self.seeds.augment, step)
        draws = draw(geometry.policy, geometry.classes, geometry.shape[-1], stream)
        projection = sketch_matrix(self.seeds.seed, step, self.width, self.sketch)

        return StepEmbedding(
            self, step, draws.to(device), None if projection is None else projection.to(device)
        )

    def network(self, step: int) -> Network:
        """Return the shared network with the weights of a step, until a different step is used."""
        if self._seeded != step:
            seed_weights(self._network, Stream.of(self.seeds.seed, self.seeds.weights, step))
            self._seeded = step
        return self._network

    def psi(self, step: int, x: Float[Tensor, "n c h w"]) -> Float32[Tensor, "n D"]:
        """Apply psi_t to images in network units, in passes of bounded size."""
        network, x = self.network(step), x.to(self.compute.dtype)

        most = self.images_per_pass(gradients=x.requires_grad and torch.is_grad_enabled())
        size = most if len(x) <= most else math.ceil(len(x) / math.ceil(len(x) / most))

        return torch.cat(
            [
                padded_pass(self._psi, network, part, size if self._pads else len(part))
                for part in x.split(size)
            ]
        )

    def images_per_pass(self, gradients: bool) -> int:
        """Return the largest number of images in one pass, with or without gradients."""
        return self._chunks[gradients]

    def retry_on_oom(self, work: Callable[[], Result]) -> Result:
        """Run `work`, and repeat it with ever smaller passes while it runs out of memory."""
        while True:
            try:
                return work()
            except torch.OutOfMemoryError:
                if max(self._chunks.values()) == 1:
                    raise
                self._chunks = {gradients: max(1, n // 2) for gradients, n in self._chunks.items()}
                logger.warning(
                    "out of memory: continuing with %d images per pass", self._chunks[True]
                )


@dataclass(frozen=True)
class StepEmbedding:
    """The embedding of one step, with its augmentation `draws` (one per class).

    `projection` is its sketch matrix P_t; None if there is no sketch.
    """

    family: Embedding
    step: int
    draws: Draws
    projection: Float32[Tensor, "D r"] | None

    def values(
        self, x: Float[Tensor, "n c h w"], labels: Int64[Tensor, " n"]
    ) -> Float32[Tensor, "n D"]:
        """Augment and embed images (network units), without the sketch; differentiable in x."""
        if self.family.geometry.policy:
            x = augment(x, self.draws.rows(labels))
        return self.family.psi(self.step, x)

    def sketched(self, v: Float32[Tensor, "*n D"]) -> Float32[Tensor, "*n r"]:
        """Apply the sketch P_t. The sketch of a mean is the mean of the sketches."""
        return v if self.projection is None else v @ self.projection

    @torch.no_grad()
    def moments(
        self, data: ImageSet, index: Int64[Tensor, " m"]
    ) -> tuple[Float32[Tensor, "classes D"], Float32[Tensor, "classes D"]]:
        """Compute the mean and standard deviation, per class, of the embeddings of real images.

        `index` chooses the images. The results are not sketched.
        """
        sums = self.family.retry_on_oom(lambda: self._sums(data, index))
        counts = torch.bincount(
            data.labels[index], minlength=self.family.geometry.classes
        ).clamp_min(1)

        mean, square = sums / counts[:, None].to(sums.device)
        return mean, (square - mean.square()).clamp_min(0).sqrt()

    def _sums(self, data: ImageSet, index: Int64[Tensor, " m"]) -> Float32[Tensor, "2 classes D"]:
        """Sum the embeddings, and their squares, of each class."""
        geometry, device = self.family.geometry, torch.device(self.family.compute.device)
        sums = torch.zeros(2, geometry.classes, self.family.width, device=device)

        for chunk in index.split(self.family.images_per_pass(gradients=False)):
            pixels, labels = data.images[chunk].to(device), data.labels[chunk].to(device)
            v = self.values(geometry.normalisation.apply(pixels), labels)
            member = membership(labels, geometry.classes)
            sums += torch.stack([member.T @ v, member.T @ v.square()])

        return sums

    def real_means(
        self, data: ImageSet, index: Int64[Tensor, " m"]
    ) -> Float32[Tensor, "classes r"]:
        """Compute the sketched mean embedding of the chosen real images of each class.

        It is zero for a class without chosen images.
        """
        return self.sketched(self.moments(data, index)[0])


def plan_embedding(plan: Plan, compute: Compute, work: int = 0) -> Embedding:
    """Create the embeddings of a plan, from its seed.

    Args:
        plan: the plan.
        compute: device and precision.
        work: the number of images that will be embedded; it decides whether networks are compiled.

    Returns:
        The family of embeddings, with the plan's sketch width.
    """
    return Embedding(
        plan.network, plan_geometry(plan), Seeds(plan.seed), compute, plan.sketch, work
    )


def plan_geometry(plan: Plan) -> Geometry:
    """Return what the plan's embeddings expect as inputs."""
    return Geometry(plan.image.shape, len(plan.classes), plan.image.normalisation, plan.augment)


def embed(network: Network, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n D"]:
    """Apply psi, the network without its classifier."""
    return network.embed(x)


def sketch_matrix(
    seed: int, step: int, width: int, sketch: int | None
) -> Float32[Tensor, "D r"] | None:
    """Draw the sketch matrix P_t, signs / sqrt(r), row by row.

    Args:
        seed: the plan's seed.
        step: t, the number of the step.
        width: D, the width of the embedding.
        sketch: r, the width of the sketch.

    Returns:
        The matrix; None if r is None or not below D.
    """
    if sketch is None or sketch >= width:
        return None
    return Stream.of(seed, Purpose.SKETCH, step).signs(width, sketch) / sketch**0.5


def membership(labels: Int64[Tensor, " n"], classes: int) -> Float32[Tensor, "n classes"]:
    """Return one-hot labels as floats. Unlike `F.one_hot`, this never waits for the GPU."""
    return (labels[:, None] == torch.arange(classes, device=labels.device)).float()


def class_means(
    values: Float32[Tensor, "n r"], labels: Int64[Tensor, " n"], classes: int
) -> Float32[Tensor, "classes r"]:
    """Compute the mean of the rows of each class.

    Args:
        values: one row per image.
        labels: the class of each row.
        classes: the number of classes.

    Returns:
        One row per class; zero for a class without rows.
    """
    member = membership(labels, classes)
    return (member.T @ values) / member.sum(0).clamp_min(1)[:, None]


def probe_values(pixels: Pixels, embedding: StepEmbedding) -> Float32[Tensor, " r"]:
    """Compute the sketched embedding of one image, treated as an image of class 0."""
    x = embedding.family.geometry.normalisation.apply(pixels)
    return embedding.sketched(embedding.values(x, torch.zeros(len(x), dtype=torch.int64)))[0]

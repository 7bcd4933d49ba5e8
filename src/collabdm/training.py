"""Training networks on one set of images: the one training loop.

The paper's recipe (`paper`): 1,000 epochs of SGD, learning rate .01 (times .1 at half), momentum .9,
weight decay 5e-4, batches of 256, a new augmentation for every image, hard labels. `short` gives
nearly its accuracy in a tenth of the steps. `strong` is the stronger recipe that is common today: AdamW
with a cosine and CutMix beside the augmentation. An epoch is ceil(n / batch) batches of equal size, drawn
from a new random order (what does not fill a batch waits for the next epoch).

Reference: B. Zhao, H. Bilen, "Dataset condensation with distribution matching", WACV 2023 (recipe).
P. Sun, B. Shi, D. Yu, T. Lin, "On the diversity and realism of distilled dataset: an efficient dataset distillation
paradigm", CVPR 2024 (AdamW, cosine and CutMix).
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int64
from pydantic import Field
from torch import Tensor, nn

from collabdm.augment import augment, cutmix, draw, expand
from collabdm.compute import Compute, whole_pass
from collabdm.confusion import Confusion
from collabdm.embedding import Geometry, multiplications
from collabdm.images import ImageSet, Normalisation, Pixels, as_float
from collabdm.networks import Network, NetworkSpec, build, seed_weights
from collabdm.protocol import DistilledSet, Part
from collabdm.seeds import Purpose, Stream, derive


class Recipe(Part):
    """How a network is trained. `epochs` are of `steps_per_epoch` batches, by default as many as the set fills."""

    epochs: Annotated[int, Field(ge=1, le=10**6)] = 1000
    optimiser: Literal["sgd", "adamw"] = "sgd"
    learning_rate: Annotated[float, Field(gt=0, le=100)] = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 5e-4
    schedule: Literal["half", "cosine"] = "half"
    batch: Annotated[int, Field(ge=1, le=10**6)] = 256
    augment: bool = True
    cutmix: bool = False


RECIPES: dict[str, Recipe] = {
    "paper": Recipe(),
    "short": Recipe(epochs=150, learning_rate=0.02, schedule="cosine"),
    "strong": Recipe(optimiser="adamw", learning_rate=1e-3, weight_decay=0.01, schedule="cosine", cutmix=True),
}


@dataclass(frozen=True)
class Task:
    """What is trained, on what: a network for `data`, seen through `geometry`, by `recipe`."""

    spec: NetworkSpec
    data: ImageSet
    geometry: Geometry
    recipe: Recipe


def training_set(distilled: DistilledSet) -> ImageSet:
    """The images to train on: with pae, the small images enlarged, `pae`^2 for each stored one."""
    if distilled.plan.pae == 1:
        return distilled.images
    images = expand(as_float(distilled.images.images), distilled.plan.pae)
    labels = distilled.images.labels.repeat_interleave(distilled.plan.pae**2)
    return ImageSet(images, labels, distilled.images.classes)


def _logits(network: Network, x: Float32[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
    return network(x)


def _logits_bfloat16(network: Network, x: Float32[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
    with torch.autocast(x.device.type, torch.bfloat16):
        return network(x)


_LOGITS = {"float32": _logits, "bfloat16": _logits_bfloat16}


class Trainer:
    """Trains one resident network again and again, each time from new weights."""

    def __init__(self, task: Task, compute: Compute, runs: int = 1) -> None:
        self.task, self.compute = task, compute
        geometry, recipe = task.geometry, task.recipe
        self.network = build(task.spec, geometry.shape, geometry.classes).to(compute.device)
        work = 3.0 * runs * recipe.epochs * len(task.data) * multiplications(self.network, geometry.shape)
        self._forward, self._whole_passes = compute.faster(_LOGITS[compute.precision], work), compute.compiles(work)
        if self._whole_passes:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._images = task.data.images.to(compute.device)
        self._labels = task.data.labels.to(compute.device)

    def train(self, seed: int, on_epoch: Callable[[int], None] = lambda done: None) -> Network:
        """Train from the weights of `seed`; returns the resident network, in evaluation mode."""
        task, recipe = self.task, self.task.recipe
        seed_weights(self.network, Stream.of(seed, Purpose.NETWORK))
        self.network.train()
        stream = Stream.of(seed, Purpose.TRAINING)
        optimiser = _optimiser(self.network, recipe)
        per_epoch = math.ceil(len(task.data) / recipe.batch)
        total = recipe.epochs * per_epoch
        for i, index in enumerate(_batches(len(task.data), per_epoch, recipe.epochs, stream)):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(recipe, i, total)
            x, targets = self._batch(index, stream)
            optimiser.zero_grad()
            size = self._largest_pass(len(x))
            for part, truth in zip(x.split(size), targets.split(size), strict=True):
                (F.cross_entropy(self._pass(part, size), truth, reduction="sum") / len(x)).backward()
            optimiser.step()
            if (i + 1) % per_epoch == 0:
                on_epoch((i + 1) // per_epoch)
        return self.network.eval()

    def _batch(self, index: Int64[Tensor, " b"], stream: Stream) -> tuple[Tensor, Tensor]:
        geometry = self.task.geometry
        index = index.to(self.compute.device)
        x = geometry.normalisation.apply(self._images[index])
        if self.task.recipe.augment and geometry.policy:
            draws = draw(geometry.policy, len(index), geometry.shape[-1], stream)
            x = augment(x, draws.to(x.device))
        labels = self._labels[index]
        if self.task.recipe.cutmix:
            return cutmix(x, F.one_hot(labels, geometry.classes).float(), stream)
        return x, labels

    def _largest_pass(self, batch: int) -> int:
        """Images per pass with gradients: the whole batch where its images depend on each other."""
        together = any(isinstance(layer, nn.BatchNorm2d) for layer in self.network.modules())
        return batch if together else self.compute.chunk(True)

    def _pass(self, x: Float32[Tensor, "n c h w"], size: int) -> Float32[Tensor, "n classes"]:
        return whole_pass(self._forward, self.network, x, size if self._whole_passes else len(x))

    def logits(self, data: ImageSet) -> Float32[Tensor, "n classes"]:
        """Outputs of the resident network for other images, in order."""
        size = self.compute.chunk(False)
        return logits_of(lambda x: self._pass(x, size), data.images, self.task.geometry.normalisation, self.compute)

    def accuracy(self, data: ImageSet) -> float:
        """Share of images whose largest output is their class."""
        return Confusion.of(data.labels, self.logits(data).argmax(1), self.task.geometry.classes).accuracy


@torch.no_grad()
def logits_of(
    predictor: Callable[[Tensor], Tensor], images: Pixels, normalisation: Normalisation, compute: Compute
) -> Float32[Tensor, "n classes"]:
    """Outputs of a predictor, which sees images in network units, for all images in order, a pass at a time."""
    parts = (normalisation.apply(pixels.to(compute.device)) for pixels in images.split(compute.chunk(gradients=False)))
    return torch.cat([predictor(x).float().cpu() for x in parts])


def learning_rate(recipe: Recipe, i: int, total: int) -> float:
    """The learning rate of batch i: a tenth from half on, or half a cosine."""
    if recipe.schedule == "cosine":
        return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * i / total))
    return recipe.learning_rate * (0.1 if i >= total // 2 else 1.0)


def network_seed(seed: int, network: str, trial: int) -> int:
    """The seed of one trained network: the same for every set, so that sets are compared on equal networks."""
    return derive(seed, "train", network, trial)


def _batches(n: int, per_epoch: int, epochs: int, stream: Stream) -> Iterator[Int64[Tensor, " b"]]:
    size = n // per_epoch
    for _ in range(epochs):
        order = stream.permutation(n)
        for k in range(per_epoch):
            yield order[k * size : (k + 1) * size]


def _optimiser(network: Network, recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimiser == "adamw":
        betas = (recipe.momentum, 0.999)
        return torch.optim.AdamW(network.parameters(), recipe.learning_rate, betas, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(
        network.parameters(), recipe.learning_rate, recipe.momentum, weight_decay=recipe.weight_decay
    )

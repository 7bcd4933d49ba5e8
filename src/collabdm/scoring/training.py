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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64
from pydantic import Field
from torch import Tensor
from torch.func import functional_call

from collabdm.documents.frozen_model import FrozenModel
from collabdm.documents.outcomes import DistilledSet
from collabdm.documents.specs import NetworkSpec
from collabdm.errors import PlanError
from collabdm.images import ImageSet, Normalisation, Pixels, as_float
from collabdm.matching.augment import augment, cutmix, draw, expand
from collabdm.matching.compute import LOGITS, Compute, padded_pass
from collabdm.matching.embedding import Geometry
from collabdm.matching.network_size import activations, multiplications
from collabdm.matching.networks import Network, build, has_batch_norm, seed_weights
from collabdm.scoring.confusion import Confusion
from collabdm.seeds import Purpose, Stream, derive


class Recipe(FrozenModel):
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


def recipe_of(name: str, epochs: int | None) -> Recipe:
    """A recipe by name, with its own number of epochs if one is said."""
    if name not in RECIPES:
        raise PlanError(f"`recipe` should be one of {', '.join(RECIPES)}; found {name!r}")
    if epochs is not None and epochs < 1:
        raise PlanError(f"`epochs` should be at least 1; found {epochs}")
    return RECIPES[name] if epochs is None else RECIPES[name].model_copy(update={"epochs": epochs})


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


class Trainer:
    """Trains one resident network again and again, each time from new weights; several at once where that is faster."""

    def __init__(self, task: Task, compute: Compute, runs: int = 1) -> None:
        self.task, self.compute = task, compute
        geometry, recipe = task.geometry, task.recipe
        self.network = build(task.spec, geometry.shape, geometry.classes).to(compute.device)
        work = 3.0 * runs * recipe.epochs * len(task.data) * multiplications(task.spec, geometry.shape)
        self._forward, self._padded_passes = compute.faster(LOGITS[compute.precision], work), compute.compiles(work)
        if self._padded_passes:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        numbers = activations(task.spec, geometry.shape)
        self._chunks = {gradients: compute.images_per_pass(gradients, numbers) for gradients in (False, True)}
        self._mixes = has_batch_norm(self.network)
        self._images = task.data.images.to(compute.device)
        self._labels = task.data.labels.to(compute.device)

    def train(self, seed: int, on_epoch: Callable[[int], None] = lambda done: None) -> Network:
        """Train from the weights of `seed`; returns the resident network, in evaluation mode."""
        seed_weights(self.network, Stream.of(seed, Purpose.NETWORK))
        self.network.train()
        self._descend([seed], list(self.network.parameters()), self._alone, on_epoch)
        return self.network.eval()

    def train_each(
        self, seeds: Sequence[int], on_epoch: Callable[[int], None] = lambda done: None
    ) -> Iterator[Network]:
        """Train from the weights of each seed: the resident network as it ends, one by one. Networks are trained
        together as the device does best; each sees what it would see alone. `on_epoch` is told epochs over all seeds.
        """
        at_once = 1 if self._mixes else self.compute.networks_at_once
        for start in range(0, len(seeds), at_once):
            group, before = seeds[start : start + at_once], start * self.task.recipe.epochs

            def trained(epochs: int, before: int = before, size: int = len(group)) -> None:
                on_epoch(before + epochs * size)

            if len(group) == 1:
                yield self.train(group[0], trained)
            else:
                yield from self._train_together(group, trained)

    def _train_together(self, seeds: Sequence[int], on_epoch: Callable[[int], None]) -> Iterator[Network]:
        """The networks as one, each parameter with a leading axis for the networks: their gradients do not meet."""
        own = dict(self.network.named_parameters())
        stacked = {name: torch.empty(len(seeds), *p.shape, device=p.device) for name, p in own.items()}
        for place, seed in enumerate(seeds):
            seed_weights(self.network, Stream.of(seed, Purpose.NETWORK))
            for name, parameter in own.items():
                stacked[name][place] = parameter.detach()
        parameters = [weights.requires_grad_() for weights in stacked.values()]
        every = torch.vmap(lambda weights, x: functional_call(self.network, weights, (x,)))

        def logits(x: Tensor) -> Tensor:
            with self.compute.autocast():
                return every(stacked, x).float()

        self.network.train()
        self._descend(seeds, parameters, logits, on_epoch)
        for place in range(len(seeds)):
            with torch.no_grad():
                for name, parameter in own.items():
                    parameter.copy_(stacked[name][place])
            yield self.network.eval()

    def _descend(
        self,
        seeds: Sequence[int],
        parameters: list[Tensor],
        logits: Callable[[Float32[Tensor, "R n c h w"]], Float32[Tensor, "R n classes"]],
        on_epoch: Callable[[int], None],
    ) -> None:
        """The loop: every network has batches and augmentations of its own, from its own stream."""
        task, recipe = self.task, self.task.recipe
        streams = [Stream.of(seed, Purpose.TRAINING) for seed in seeds]
        optimiser = _optimiser(parameters, recipe)
        per_epoch = math.ceil(len(task.data) / recipe.batch)
        total = recipe.epochs * per_epoch
        orders = (_batches(len(task.data), per_epoch, recipe.epochs, stream) for stream in streams)
        for i, index in enumerate(zip(*orders, strict=True)):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(recipe, i, total)
            batches = [self._batch(own, stream) for own, stream in zip(index, streams, strict=True)]
            x, targets = (torch.stack(parts) for parts in zip(*batches, strict=True))
            optimiser.zero_grad()
            size = self._images_per_pass(x.shape[1])
            for part, truth in zip(x.split(size, 1), targets.split(size, 1), strict=True):
                loss = F.cross_entropy(logits(part).flatten(0, 1), truth.flatten(0, 1), reduction="sum")
                (loss / x.shape[1]).backward()
            optimiser.step()
            if (i + 1) % per_epoch == 0:
                on_epoch((i + 1) // per_epoch)

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

    def _alone(self, x: Float32[Tensor, "1 n c h w"]) -> Float32[Tensor, "1 n classes"]:
        return self._pass(x[0], self._images_per_pass(x.shape[1]))[None]

    def _images_per_pass(self, batch: int) -> int:
        """With gradients: the whole batch where its images depend on each other."""
        return batch if self._mixes else self._chunks[True]

    def _pass(self, x: Float32[Tensor, "n c h w"], size: int) -> Float32[Tensor, "n classes"]:
        return padded_pass(self._forward, self.network, x, size if self._padded_passes else len(x))

    def logits(self, data: ImageSet) -> Float32[Tensor, "n classes"]:
        """Outputs of the resident network for other images, in order."""
        size = self._chunks[False]
        normalisation = self.task.geometry.normalisation
        return logits_of(lambda x: self._pass(x, size), data.images, normalisation, self.compute, size)

    def accuracy(self, data: ImageSet) -> float:
        """Share of images whose largest output is their class."""
        return Confusion.of(data.labels, self.logits(data).argmax(1), self.task.geometry.classes).accuracy


@torch.no_grad()
def logits_of(
    predictor: Callable[[Tensor], Tensor],
    images: Pixels,
    normalisation: Normalisation,
    compute: Compute,
    size: int | None = None,
) -> Float32[Tensor, "n classes"]:
    """Outputs of a predictor, which sees images in network units, for all images in order, `size` at a time."""
    size = size or compute.images_per_pass(gradients=False)
    parts = (normalisation.apply(pixels.to(compute.device)) for pixels in images.split(size))
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


def _optimiser(parameters: list[Tensor], recipe: Recipe) -> torch.optim.Optimizer:
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(parameters, rate, (recipe.momentum, 0.999), weight_decay=decay)
    return torch.optim.SGD(parameters, rate, recipe.momentum, weight_decay=decay)

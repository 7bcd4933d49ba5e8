"""Train networks on a set of images: the recipes, and the training loop.

An epoch on n images consists of ceil(n / batch) batches of equal size, drawn in a new random order;
leftover images are not used in that epoch. Every image has a new augmentation in every batch.

    recipe   optimiser   learning rate   schedule                 weight decay   epochs   CutMix
    paper    SGD         .01             x 0.1 in second half     5e-4           1,000    no
    short    SGD         .02             half a cosine            5e-4             150    no
    strong   AdamW       .001            half a cosine            .01            1,000    yes

All recipes use momentum .9 (beta_1 of AdamW), batches of at most 256 images and hard labels.
`paper` is the recipe of the paper; `short` reaches nearly the same accuracy in 15 % of the steps;
`strong` is the stronger recipe that is common today.

References: B. Zhao, H. Bilen, "Dataset condensation with distribution matching", WACV 2023 (the
paper's recipe). P. Sun, B. Shi, D. Yu, T. Lin, "On the diversity and realism of distilled dataset:
an efficient dataset distillation paradigm", CVPR 2024 (AdamW, cosine and CutMix).
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
from collabdm.matching.run_context import RunContext
from collabdm.scoring.confusion import Confusion
from collabdm.scoring.training_state import Draws, TrainingState
from collabdm.seeds import Purpose, Stream, derive

OnEpoch = Callable[[int], None]  # receives the number of finished epochs
BatchLogits = Callable[[Float32[Tensor, "R n c h w"]], Float32[Tensor, "R n classes"]]


class Recipe(FrozenModel):
    """How a network is trained: the optimiser, its schedule, and the batches."""

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
    "strong": Recipe(
        optimiser="adamw", learning_rate=1e-3, weight_decay=0.01, schedule="cosine", cutmix=True
    ),
}


@dataclass(frozen=True)
class Task:
    """A network to train on `data` with `recipe`; `geometry` describes the network's inputs."""

    spec: NetworkSpec
    data: ImageSet
    geometry: Geometry
    recipe: Recipe


def recipe_of(name: str, epochs: int | None) -> Recipe:
    """Find a recipe by its name, and set its number of epochs unless `epochs` is None.

    Raises:
        PlanError: no recipe has this name, or the number of epochs is below 1.
    """
    if name not in RECIPES:
        raise PlanError(f"`recipe` should be one of {', '.join(RECIPES)}; found {name!r}")
    if epochs is not None and epochs < 1:
        raise PlanError(f"`epochs` should be at least 1; found {epochs}")
    return RECIPES[name] if epochs is None else RECIPES[name].model_copy(update={"epochs": epochs})


def training_set(distilled: DistilledSet) -> ImageSet:
    """Return the images to train on; a set with pae is unpacked into its small images, enlarged."""
    if distilled.plan.pae == 1:
        return distilled.images

    images = expand(as_float(distilled.images.images), distilled.plan.pae)
    labels = distilled.images.labels.repeat_interleave(distilled.plan.pae**2)
    return ImageSet(images, labels, distilled.images.classes)


def network_seed(seed: int, network: str, trial: int) -> int:
    """Derive the seed of a network to train, which is the same for all sets: a fair comparison.

    Args:
        seed: the seed of the evaluation.
        network: the network's name.
        trial: the number of the trial.

    Returns:
        The seed of its weights, batches and augmentations.
    """
    return derive(seed, "train", network, trial)


def learning_rate(recipe: Recipe, i: int, total: int) -> float:
    """Compute the learning rate of a batch, according to the recipe's schedule.

    `half` multiplies the rate by 0.1 in the second half; `cosine` lowers it along half a cosine.

    Args:
        recipe: the learning rate and its schedule.
        i: the number of the batch, from 0.
        total: the number of batches in all epochs.

    Returns:
        The learning rate.
    """
    if recipe.schedule == "cosine":
        return recipe.learning_rate * 0.5 * (1 + math.cos(math.pi * i / total))
    return recipe.learning_rate * (0.1 if i >= total // 2 else 1.0)


class Trainer:
    """Trains one network repeatedly, each time from new weights.

    Several networks are trained together if that is faster on the device; the results are the same
    as if they were trained one by one.
    """

    def __init__(self, task: Task, compute: Compute, runs: int = 1) -> None:
        """Build the network.

        Args:
            task: the network, its data and its recipe.
            compute: device and precision.
            runs: the number of networks to train; compiling pays only if there is enough work.
        """
        self.task, self.compute = task, compute
        geometry, recipe = task.geometry, task.recipe
        self.network = build(task.spec, geometry.shape, geometry.classes).to(compute.device)

        images = runs * recipe.epochs * len(task.data)
        work = 3.0 * images * multiplications(task.spec, geometry.shape)
        self._forward = compute.faster(LOGITS[compute.precision], work)
        self._pads = compute.compiles(work)
        if self._pads:
            self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

        numbers = activations(task.spec, geometry.shape)
        self._chunks = {
            gradients: compute.images_per_pass(gradients, numbers) for gradients in (False, True)
        }
        self._has_batch_norm = has_batch_norm(self.network)
        self._images = task.data.images.to(compute.device)
        self._labels = task.data.labels.to(compute.device)

    @property
    def together(self) -> int:
        """The number of networks that are trained together."""
        return 1 if self._has_batch_norm else self.compute.networks_at_once

    def train(
        self,
        seed: int,
        on_epoch: OnEpoch = lambda done: None,
        context: RunContext = RunContext(),
    ) -> Network:
        """Train from the weights of a seed, or from the context's checkpoint.

        Args:
            seed: the seed of the network.
            on_epoch: receives the number of finished epochs.
            context: checkpoints; one is made after every batch.

        Returns:
            The network, in evaluation mode.
        """
        seed_weights(self.network, Stream.of(seed, Purpose.NETWORK))
        self.network.train()

        def logits(x: Float32[Tensor, "1 n c h w"]) -> Float32[Tensor, "1 n classes"]:
            return self._pass(x[0], self._images_per_step(x.shape[1]))[None]

        parameters = list(self.network.parameters())
        state = self._state([seed], parameters, list(self.network.buffers()))
        self._descend(state, logits, on_epoch, context)
        return self.network.eval()

    def train_each(
        self,
        seeds: Sequence[int],
        on_epoch: OnEpoch = lambda done: None,
        context: RunContext = RunContext(),
        finished: int = 0,
    ) -> Iterator[Network]:
        """Train from the weights of each seed.

        Args:
            seeds: the seeds of the networks.
            on_epoch: receives the number of finished epochs over all seeds.
            context: checkpoints; networks that are trained together are a part of the work, named
                after the place of the first one.
            finished: the number of networks at the beginning to leave out.

        Yields:
            The network with the trained weights of one seed after another, in evaluation mode.
        """
        size, left = self.together, len(seeds) if finished < len(seeds) else 0
        for start in range(finished // size * size, left, size):
            group, before = seeds[start : start + size], start * self.task.recipe.epochs

            def on_group(epochs: int, before: int = before, size: int = len(group)) -> None:
                on_epoch(before + epochs * size)

            own = context.part(str(start))
            trained = self._train_together if len(group) > 1 else self._train_alone
            for place, network in enumerate(trained(group, on_group, own), start):
                if place >= finished:
                    yield network

    def logits(self, data: ImageSet) -> Float32[Tensor, "n classes"]:
        """Compute the logits of the trained network for images, in their order."""
        size = self._chunks[False]
        normalisation = self.task.geometry.normalisation

        def predictor(x: Tensor) -> Tensor:
            return self._pass(x, size)

        return logits_of(predictor, data.images, normalisation, self.compute, size)

    def accuracy(self, data: ImageSet) -> float:
        """Compute the share of the images whose largest logit belongs to their class."""
        predicted = self.logits(data).argmax(1)
        return Confusion.of(data.labels, predicted, self.task.geometry.classes).accuracy

    def _train_alone(
        self, seeds: Sequence[int], on_epoch: OnEpoch, context: RunContext
    ) -> Iterator[Network]:
        """Train the network of a single seed."""
        yield self.train(seeds[0], on_epoch, context)

    def _train_together(
        self, seeds: Sequence[int], on_epoch: OnEpoch, context: RunContext
    ) -> Iterator[Network]:
        """Train several networks at once, with stacked weights; their gradients do not mix."""
        own = dict(self.network.named_parameters())
        stacked = self._stacked_weights(seeds)
        parameters = [weights.requires_grad_() for weights in stacked.values()]
        each = torch.vmap(lambda weights, x: functional_call(self.network, weights, (x,)))

        def logits(x: Tensor) -> Tensor:
            with self.compute.autocast():
                return each(stacked, x).float()

        self.network.train()
        self._descend(self._state(seeds, parameters, []), logits, on_epoch, context)

        for place in range(len(seeds)):
            with torch.no_grad():
                for name, parameter in own.items():
                    parameter.copy_(stacked[name][place])
            yield self.network.eval()

    def _stacked_weights(self, seeds: Sequence[int]) -> dict[str, Tensor]:
        """Stack the initial weights of all seeds along a leading axis."""
        own = dict(self.network.named_parameters())
        stacked = {
            name: torch.empty(len(seeds), *parameter.shape, device=parameter.device)
            for name, parameter in own.items()
        }

        for place, seed in enumerate(seeds):
            seed_weights(self.network, Stream.of(seed, Purpose.NETWORK))
            for name, parameter in own.items():
                stacked[name][place] = parameter.detach()

        return stacked

    def _state(
        self, seeds: Sequence[int], parameters: Sequence[Tensor], buffers: Sequence[Tensor]
    ) -> TrainingState:
        """Collect everything that the training changes; each network has a random stream."""
        recipe, n = self.task.recipe, len(self.task.data)
        draws = [Draws(seed, n, math.ceil(n / recipe.batch)) for seed in seeds]
        return TrainingState(parameters, buffers, _optimiser(parameters, recipe), draws)

    def _descend(
        self, state: TrainingState, logits: BatchLogits, on_epoch: OnEpoch, context: RunContext
    ) -> None:
        """Run the training loop, from the context's checkpoint if there is one."""
        recipe, optimiser = self.task.recipe, state.optimiser
        per_epoch = math.ceil(len(self.task.data) / recipe.batch)
        total = recipe.epochs * per_epoch

        for i in range(state.resume(context), total):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(recipe, i, total)

            batches = [self._batch(draws.batch(i), draws.stream) for draws in state.draws]
            x, targets = (torch.stack(parts) for parts in zip(*batches, strict=True))

            optimiser.zero_grad()
            self._add_gradients(x, targets, logits)
            optimiser.step()

            context.keep(state.checkpoint(i + 1))
            if (i + 1) % per_epoch == 0:
                on_epoch((i + 1) // per_epoch)

    def _add_gradients(self, x: Tensor, targets: Tensor, logits: BatchLogits) -> None:
        """Add the gradients of the mean cross-entropy over each network's batch, pass by pass."""
        size = self._images_per_step(x.shape[1])
        for part, truth in zip(x.split(size, 1), targets.split(size, 1), strict=True):
            outputs = logits(part).flatten(0, 1)
            loss = F.cross_entropy(outputs, truth.flatten(0, 1), reduction="sum")
            (loss / x.shape[1]).backward()

    def _batch(self, index: Int64[Tensor, " b"], stream: Stream) -> tuple[Tensor, Tensor]:
        """Prepare a batch: augmented images in network units, and labels or CutMix targets."""
        geometry, recipe = self.task.geometry, self.task.recipe
        index = index.to(self.compute.device)
        x, labels = geometry.normalisation.apply(self._images[index]), self._labels[index]

        if recipe.augment and geometry.policy:
            draws = draw(geometry.policy, len(index), geometry.shape[-1], stream)
            x = augment(x, draws.to(x.device))
        if recipe.cutmix:
            return cutmix(x, F.one_hot(labels, geometry.classes).float(), stream)
        return x, labels

    def _images_per_step(self, batch: int) -> int:
        """The number of images per pass with gradients; all of them with batch normalisation."""
        return batch if self._has_batch_norm else self._chunks[True]

    def _pass(self, x: Float32[Tensor, "n c h w"], size: int) -> Float32[Tensor, "n classes"]:
        """Compute the logits of at most `size` images."""
        return padded_pass(self._forward, self.network, x, size if self._pads else len(x))


@torch.no_grad()
def logits_of(
    predictor: Callable[[Tensor], Tensor],
    images: Pixels,
    normalisation: Normalisation,
    compute: Compute,
    size: int | None = None,
) -> Float32[Tensor, "n classes"]:
    """Compute a predictor's logits for images, in their order.

    Args:
        predictor: a function from images in network units to logits.
        images: the images, as pixels.
        normalisation: the map from pixels to network units.
        compute: the device of the predictor.
        size: the number of images in a call; None uses the device's limit.

    Returns:
        The logits, on the CPU.
    """
    size = size or compute.images_per_pass(gradients=False)
    parts = (normalisation.apply(pixels.to(compute.device)) for pixels in images.split(size))
    return torch.cat([predictor(x).float().cpu() for x in parts])


def _optimiser(parameters: Sequence[Tensor], recipe: Recipe) -> torch.optim.Optimizer:
    rate, decay = recipe.learning_rate, recipe.weight_decay
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(parameters, rate, (recipe.momentum, 0.999), weight_decay=decay)
    return torch.optim.SGD(parameters, rate, recipe.momentum, weight_decay=decay)

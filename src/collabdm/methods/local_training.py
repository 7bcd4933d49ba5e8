"""A site trains a network on its own data: SGD with a constant learning rate, every image once in each epoch.

What an epoch draws (the order of images, how they are moved) is a function of the site's seed and the epoch's number,
so training can stop after any epoch and go on. DENSE does it once, FedAvg in every round.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field

from collabdm.checkpoint import State
from collabdm.documents.frozen_model import FrozenModel, Positive
from collabdm.documents.outcomes import Weights
from collabdm.documents.plan import ImageSpec, Plan
from collabdm.documents.specs import Operation
from collabdm.images import ImageSet
from collabdm.matching.augment import augment, draw
from collabdm.matching.compute import LOGITS, Compute, padded_pass
from collabdm.matching.embedding import multiplications
from collabdm.matching.networks import Network, has_batch_norm
from collabdm.matching.weights import load_weights, weights_of
from collabdm.seeds import Purpose, Stream

MOVES: tuple[Operation, ...] = ("crop", "flip")  # what local training augments with, as far as the plan allows


class LocalTraining(FrozenModel):
    """SGD at a site, with a constant learning rate."""

    epochs: Positive = 200
    batch: Positive = 128
    learning_rate: Annotated[float, Field(gt=0, le=100)] = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0


@dataclass(frozen=True)
class LocalTask:
    """A network that is trained in place, and on what: `seed` is the site's, `first` the number of its first epoch."""

    network: Network
    data: ImageSet
    plan: Plan
    seed: int
    first: int = 0


def train_locally(
    pupil: LocalTask,
    local: LocalTraining,
    compute: Compute,
    resume: State | None = None,
    keep: Callable[[State], None] = lambda state: None,
) -> Network:
    """SGD from the network's own weights, or from a kept state; returns the network, in evaluation mode."""
    network, device = pupil.network.to(compute.device).train(), compute.device
    forward = training_pass(network, pupil.plan, local.epochs * len(pupil.data), local.batch, compute)
    images, labels = pupil.data.images.to(device), pupil.data.labels.to(device)
    optimiser = torch.optim.SGD(
        network.parameters(), local.learning_rate, local.momentum, weight_decay=local.weight_decay
    )
    if resume is not None:
        resume_sgd(network, optimiser, resume.optimiser)
    moves, image = moves_of(pupil.plan), pupil.plan.image
    for epoch in range(resume.done if resume else 0, local.epochs):
        stream = Stream.of(pupil.seed, Purpose.TRAINING, pupil.first + epoch)
        for index in stream.permutation(len(labels)).split(local.batch):
            x = moved(image.normalisation.apply(images[index.to(device)]), moves, image, stream)
            optimiser.zero_grad()
            F.cross_entropy(forward(x), labels[index.to(device)]).backward()
            optimiser.step()
        keep(State(epoch + 1, torch.zeros(0, *image.shape), kept_of_sgd(network, optimiser)))
    return network.eval()


def training_pass(
    network: Network, plan: Plan, images: int, batch: int, compute: Compute
) -> Callable[[torch.Tensor], torch.Tensor]:
    """A network's logits, in float32, of batches of at most `batch` images, for a training that sees `images` in all.

    Compiled where that pays. Not where images of a batch depend on each other: a batch that is not full is filled up.
    """
    function = LOGITS[compute.precision]
    mixes = has_batch_norm(network)  # counting passes blank images through, which its running statistics would remember
    work = 0.0 if mixes else 3.0 * images * multiplications(network, plan.image.shape)
    if mixes or not compute.compiles(work):
        return lambda x: function(network, x).float()
    compiled = compute.faster(function, work)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return lambda x: padded_pass(compiled, network, x, batch)


def moved(x: torch.Tensor, moves: tuple[Operation, ...], image: ImageSpec, stream: Stream) -> torch.Tensor:
    """Each image moved by a draw of its own; as it is where there are no moves."""
    return augment(x, draw(moves, len(x), image.side, stream).to(x.device)) if moves else x


def moves_of(plan: Plan) -> tuple[Operation, ...]:
    """Crop and flip, as far as the plan allows them."""
    return tuple(move for move in MOVES if move in plan.augment)


def kept_of_sgd(network: Network, optimiser: torch.optim.SGD) -> Weights:
    """What a network and its optimiser need to go on."""
    kept = {f"network.{name}": value for name, value in weights_of(network).items()}
    for number, state in enumerate(optimiser.state.values()):
        if state.get("momentum_buffer") is not None:
            kept[f"momentum.{number}"] = state["momentum_buffer"].detach().clone()
    return kept


def resume_sgd(network: Network, optimiser: torch.optim.SGD, kept: Weights) -> None:
    """Put what was kept in place."""
    prefix = "network."
    load_weights(network, {n.removeprefix(prefix): v for n, v in kept.items() if n.startswith(prefix)})
    for number, parameter in enumerate(network.parameters()):
        if f"momentum.{number}" in kept:
            optimiser.state[parameter]["momentum_buffer"] = kept[f"momentum.{number}"].clone().to(parameter.device)

"""Train a network at a site on the site's data, by SGD with a constant learning rate.

The draws of an epoch (the order of the images and their augmentations) depend only on the site's
seed and the epoch's number, so training can stop after any epoch and continue later. DENSE trains
once, FedAvg in every round.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
import torch.nn.functional as F
from jaxtyping import Float32, Int64
from pydantic import Field
from torch import Tensor

from collabdm.checkpoint import Checkpoint, optimizer_tensors, restore_optimizer
from collabdm.documents.frozen_model import FrozenModel, Positive
from collabdm.documents.plan import ImageSpec, Plan
from collabdm.documents.specs import NetworkSpec, Operation
from collabdm.images import ImageSet
from collabdm.matching.augment import augment, draw
from collabdm.matching.compute import LOGITS, Compute, padded_pass
from collabdm.matching.network_size import multiplications
from collabdm.matching.networks import Network, has_batch_norm
from collabdm.matching.run_context import RunContext
from collabdm.matching.weights import float_weights, load_weights
from collabdm.progress import Progress, Stage
from collabdm.seeds import Purpose, Stream

MOVES: tuple[Operation, ...] = ("crop", "flip")  # for local training, if the plan allows them
_NETWORK = "network."


class LocalTraining(FrozenModel):
    """The options of SGD at a site, with a constant learning rate."""

    epochs: Positive = 200
    batch: Positive = 128
    learning_rate: Annotated[float, Field(gt=0, le=100)] = 0.01
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0, le=1)] = 0.0


@dataclass(frozen=True)
class LocalTask:
    """A network to train in place on a site's data.

    `seed` is the site's seed, and `first_epoch` the number of the first epoch.
    """

    network: Network
    spec: NetworkSpec
    data: ImageSet
    plan: Plan
    seed: int
    first_epoch: int = 0


def train_locally(
    task: LocalTask, training: LocalTraining, context: RunContext = RunContext()
) -> Network:
    """Train the network of a task from its current weights, or from the context's checkpoint.

    Args:
        task: the network and its data.
        training: epochs, batch and learning rate.
        context: device, progress and checkpoints.

    Returns:
        The network, in evaluation mode.
    """
    network = task.network.to(context.compute.device).train()
    work = 3.0 * training.epochs * len(task.data)
    work *= multiplications(task.spec, task.plan.image.shape)
    logits = training_pass(network, work, training.batch, context.compute)
    optimizer = torch.optim.SGD(
        network.parameters(),
        training.learning_rate,
        training.momentum,
        weight_decay=training.weight_decay,
    )

    data, device = task.data, context.compute.device
    resident = ImageSet(data.images.to(device), data.labels.to(device), data.classes)

    done = 0
    if context.resume is not None:
        restore_training(network, optimizer, context.resume.tensors)
        done = context.resume.done

    for epoch in range(done, training.epochs):
        for x, labels in _batches(task, resident, epoch, training.batch):
            optimizer.zero_grad()
            F.cross_entropy(logits(x), labels).backward()
            optimizer.step()
        context.keep(Checkpoint(epoch + 1, training_tensors(network, optimizer)))
        context.report(Progress(Stage.LOCAL_TRAINING, epoch + 1, training.epochs))

    return network.eval()


def _batches(
    task: LocalTask, data: ImageSet, epoch: int, size: int
) -> Iterator[tuple[Float32[Tensor, "n c h w"], Int64[Tensor, " n"]]]:
    """Yield the batches of an epoch in a random order: augmented images and their labels."""
    image, moves = task.plan.image, allowed_moves(task.plan)
    stream = Stream.of(task.seed, Purpose.TRAINING, task.first_epoch + epoch)

    for index in stream.permutation(len(data)).to(data.labels.device).split(size):
        x = image.normalisation.apply(data.images[index])
        yield move(x, moves, image, stream), data.labels[index]


def training_pass(
    network: Network, work: float, batch: int, compute: Compute
) -> Callable[[Tensor], Tensor]:
    """Create the function from images to logits for a training loop.

    The function is compiled if that saves time, except with batch normalisation: compiled passes
    pad a batch that is not full, and the padding would change its statistics.

    Args:
        network: the network.
        work: the multiplications of the whole training, forward and backward.
        batch: the largest number of images in a batch.
        compute: device and precision.

    Returns:
        A function from images (network units) to float32 logits.
    """
    function = LOGITS[compute.precision]
    if has_batch_norm(network) or not compute.compiles(work):
        return lambda x: function(network, x).float()

    compiled = compute.faster(function, work)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return lambda x: padded_pass(compiled, network, x, batch)


def move(
    x: Float32[Tensor, "n c h w"], moves: tuple[Operation, ...], image: ImageSpec, stream: Stream
) -> Float32[Tensor, "n c h w"]:
    """Augment each image with its own draw.

    Args:
        x: images in network units.
        moves: the operations to draw from; if empty, the images remain unchanged.
        image: the shape of the images.
        stream: the stream of the draws.

    Returns:
        The moved images.
    """
    if not moves:
        return x
    return augment(x, draw(moves, len(x), image.side, stream).to(x.device))


def allowed_moves(plan: Plan) -> tuple[Operation, ...]:
    """Return the operations, out of crop and flip, that the plan allows."""
    return tuple(operation for operation in MOVES if operation in plan.augment)


def training_tensors(network: Network, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Copy the tensors of a network and its optimiser, for a checkpoint."""
    weights = {f"{_NETWORK}{name}": value for name, value in float_weights(network).items()}
    state = {name: value.clone() for name, value in optimizer_tensors(optimizer).items()}
    return weights | state


def restore_training(
    network: Network, optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> None:
    """Load the tensors that `training_tensors` returned.

    Args:
        network: the network, whose weights are replaced.
        optimizer: its optimiser, whose state is replaced.
        tensors: the tensors of a checkpoint.
    """
    weights = {
        name.removeprefix(_NETWORK): value
        for name, value in tensors.items()
        if name.startswith(_NETWORK)
    }
    load_weights(network, weights)
    restore_optimizer(optimizer, tensors)

"""The state of a training, which a checkpoint contains: it continues after any batch.

The state consists of the parameters and buffers of the networks, the optimiser's tensors, and for
each network the order of the images in the current epoch and the position in its random stream.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Int64
from torch import Tensor

from collabdm.checkpoint import Checkpoint, optimizer_tensors, restore_optimizer
from collabdm.matching.run_context import RunContext
from collabdm.seeds import Purpose, Stream

_NO_ORDER = torch.zeros(0, dtype=torch.int64)


@dataclass
class Draws:
    """The random draws of one network: the order of the images, and their augmentations.

    Attributes:
        seed: the seed of the network.
        images: the number of images.
        per_epoch: the number of batches of an epoch.
        order: the order of the images in the current epoch.
        stream: the random stream.
    """

    seed: int
    images: int
    per_epoch: int
    order: Int64[Tensor, " n"] = _NO_ORDER
    stream: Stream = field(init=False)

    def __post_init__(self) -> None:
        self.stream = Stream.of(self.seed, Purpose.TRAINING)

    def batch(self, i: int) -> Int64[Tensor, " b"]:
        """Return the positions of the images of batch i; an epoch begins with a new order."""
        k, size = i % self.per_epoch, self.images // self.per_epoch
        if k == 0:
            self.order = self.stream.permutation(self.images)
        return self.order[k * size : (k + 1) * size]


@dataclass(frozen=True)
class TrainingState:
    """Everything that a training changes.

    Attributes:
        parameters: the parameters, of one network or stacked.
        buffers: the buffers, such as the means of batch normalisation.
        optimiser: the optimiser of the parameters.
        draws: the draws of each network.
    """

    parameters: Sequence[Tensor]
    buffers: Sequence[Tensor]
    optimiser: torch.optim.Optimizer
    draws: Sequence[Draws]

    def checkpoint(self, done: int) -> Checkpoint:
        """Create the checkpoint after `done` batches."""
        tensors = {f"parameter.{i}": p.detach() for i, p in enumerate(self.parameters)}
        tensors |= {f"buffer.{i}": buffer for i, buffer in enumerate(self.buffers)}
        for i, draws in enumerate(self.draws):
            tensors[f"order.{i}"] = draws.order
            tensors[f"position.{i}"] = torch.tensor(draws.stream.position)
        return Checkpoint(done, tensors | optimizer_tensors(self.optimiser))

    def resume(self, context: RunContext) -> int:
        """Load the context's checkpoint, if any, and return the number of finished batches."""
        checkpoint = context.resume
        if checkpoint is None:
            return 0

        tensors = checkpoint.tensors
        with torch.no_grad():
            for i, parameter in enumerate(self.parameters):
                parameter.copy_(tensors[f"parameter.{i}"])
            for i, buffer in enumerate(self.buffers):
                buffer.copy_(tensors[f"buffer.{i}"])

        for i, draws in enumerate(self.draws):
            draws.order = tensors[f"order.{i}"]
            draws.stream.skip_to(int(tensors[f"position.{i}"]))
        restore_optimizer(self.optimiser, tensors)
        return checkpoint.done

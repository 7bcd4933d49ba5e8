"""The trials of an evaluation: the results so far, stored together with the current training.

One checkpoint contains the results of the finished trials and the state of the training that is
under way, so an evaluation continues within a training.
"""

from dataclasses import replace

import torch
from torch import Tensor

from collabdm.checkpoint import Checkpoint
from collabdm.matching.run_context import RunContext
from collabdm.scoring.confusion import Confusion

_TRAINING = "training."
_BATCHES = "batches"


class Trials:
    """The results of the finished trials of one kind of network.

    Attributes:
        accuracies: the accuracy of each finished trial.
        counts: the sum of their confusion matrices.
        detections: the detection rate of each finished trial on rows, if there is a benign class.
        training: the context of the trainings, with their checkpoints.
    """

    def __init__(self, classes: int, trials: int, together: int, context: RunContext) -> None:
        """Start, or continue from the context's checkpoint.

        Args:
            classes: the number of classes.
            trials: the number of trials.
            together: the number of networks that are trained together.
            context: the checkpoints.
        """
        self._trials, self._together, self._context = trials, together, context
        self._under_way: dict[str, Tensor] = {}
        self.accuracies: list[float] = []
        self.counts = torch.zeros(classes, classes, dtype=torch.int64)
        self.detections: list[float] = []
        parts: dict[str, Checkpoint] = {}

        if context.resume is not None:
            stored = context.resume.tensors
            self.accuracies = stored["accuracies"].tolist()
            self.counts = stored["counts"].clone()
            self.detections = stored["detections"].tolist()
            self._under_way = {k: v for k, v in stored.items() if k.startswith(_TRAINING)}
            parts = _training_parts(self._under_way)
        self.training = replace(context, resume=None, parts=parts, keep=self._keep_training)

    def add(self, confusion: Confusion, detection: float | None = None) -> None:
        """Add the result of a trial."""
        self.accuracies.append(confusion.accuracy)
        self.detections += [] if detection is None else [detection]
        self.counts = self.counts + confusion.counts

        done = len(self.accuracies)
        if done % self._together == 0 or done == self._trials:
            self._under_way = {}
        self._keep()

    def _keep(self) -> None:
        accuracies = torch.tensor(self.accuracies, dtype=torch.float64)
        detections = torch.tensor(self.detections, dtype=torch.float64)
        results = {"accuracies": accuracies, "counts": self.counts, "detections": detections}
        tensors = results | self._under_way
        self._context.keep(Checkpoint(len(self.accuracies), tensors))

    def _keep_training(self, checkpoint: Checkpoint) -> None:
        """Keep the state of a training; its part is the place of its first trial."""
        prefix = f"{_TRAINING}{checkpoint.part}."
        tensors = {prefix + name: value for name, value in checkpoint.tensors.items()}
        tensors[prefix + _BATCHES] = torch.tensor(checkpoint.done)
        self._under_way = tensors
        self._keep()


def _training_parts(stored: dict[str, Tensor]) -> dict[str, Checkpoint]:
    """Return the checkpoint of the training under way, by its part; empty between trainings."""
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in stored.items():
        part, name = key.removeprefix(_TRAINING).split(".", 1)
        found.setdefault(part, {})[name] = value

    return {
        part: Checkpoint(int(tensors.pop(_BATCHES)), tensors, part)
        for part, tensors in found.items()
    }

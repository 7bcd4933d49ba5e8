"""Checkpoints: what an interrupted loop needs to continue as if it had never stopped.

Work may consist of several loops, one after another; each is a part of it and has checkpoints of
its own. A loop names its own tensors; the state of an optimiser is stored under
`optimizer.INDEX.NAME`, as in `torch.optim.Optimizer.state_dict`. The settings of the optimiser are
not stored: they follow from the plan.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

_OPTIMIZER = "optimizer."


@dataclass(frozen=True)
class Checkpoint:
    """The state of a loop after `done` iterations: its tensors by name.

    `part` names the loop, in work that consists of several.
    """

    done: int
    tensors: dict[str, Tensor]
    part: str = ""


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the tensors of an optimiser's state, by their names in a checkpoint."""
    return {
        f"{_OPTIMIZER}{index}.{name}": value
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Load the state that `optimizer_tensors` returned; the optimiser keeps its own settings."""
    state: dict[int, dict[str, Tensor]] = {}

    for key, value in tensors.items():
        if key.startswith(_OPTIMIZER):
            index, name = key.removeprefix(_OPTIMIZER).split(".", 1)
            state.setdefault(int(index), {})[name] = value.clone()

    if state:
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})

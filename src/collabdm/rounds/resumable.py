"""TODO rounds.resumable."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch

from collabdm.checkpoint import State
from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.codec import HEADER_KEY, contiguous, read_metadata
from collabdm.matching.compute import Compute
from collabdm.methods.base import Progress, Run, Watch, unwatched

STATE_EVERY_SECONDS = 20.0


@dataclass(frozen=True)
class Bench:
    """Where a simulation runs and who watches it."""

    folder: Path
    compute: Compute = Compute()
    progress: Progress = lambda what, done, total: None


@dataclass(frozen=True)
class Callbacks:
    """Who looks at a long part on its way: at every state of its loop, and at predictors that it shows."""

    states: Callable[[State], None] = lambda state: None
    predictors: Watch = unwatched


class ResumableRun:
    """Keeps the state of a long part beside its output while it runs, so that it can be stopped and resumed."""

    def __init__(
        self, output: Path, identity: str, bench: Bench, prefix: str = "", onlookers: Callbacks = Callbacks()
    ) -> None:
        self._path = output.parent / f".{output.name}.state"
        self._identity, self._bench, self._prefix, self._onlookers = identity, bench, prefix, onlookers
        self._last = time.monotonic()

    def __enter__(self) -> Run:
        bench = self._bench
        resume = read_state(self._path, self._identity)
        return Run(
            bench.compute,
            lambda what, *at: bench.progress(self._prefix + what, *at),
            resume,
            self._keep,
            self._onlookers.predictors,
        )

    def _keep(self, state: State) -> None:
        self._onlookers.states(state)
        if time.monotonic() - self._last > STATE_EVERY_SECONDS:
            write_state(state, self._identity, self._path)
            self._last = time.monotonic()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self._path.unlink(missing_ok=True)


def write_state(state: State, identity: str, path: Path) -> None:
    """Keep a run's state, under the identity of what is run, to resume from."""
    tensors = {"images": state.images.cpu()} | {f"optimiser.{k}": v.cpu() for k, v in state.optimiser.items()}
    header = json.dumps({"identity": identity, "done": state.done})
    content = safetensors.torch.save(contiguous(tensors), {HEADER_KEY: header})
    atomic_write(path, content, private=True)


def read_state(path: Path, identity: str) -> State | None:
    """The kept state of the same run; None where there is none, or of another run."""
    prefix = "optimiser."
    try:
        content = path.read_bytes()
        header = json.loads(read_metadata(content)[HEADER_KEY])
        tensors = safetensors.torch.load(content)
        state = State(header["done"], tensors.pop("images"))
        same = header["identity"] == identity
    except (OSError, AttributeError, KeyError, TypeError, ValueError, safetensors.SafetensorError):
        return None
    state.optimiser = {name.removeprefix(prefix): value for name, value in tensors.items()}
    return state if same else None

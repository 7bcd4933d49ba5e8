"""Resume interrupted work from checkpoints, which are stored in the folder of its output.

The state file `.NAME.state` is a safetensors file. It contains the checkpoints of all parts of the
work, and its identity: a text that depends on everything that determines the result, including the
device, the precision and the versions. Different work is never resumed from it. The number of
threads, which changes the rounding, is stored as well: resumed work uses the same number, unless
the user has set another one.

The state is stored at least every `STATE_EVERY_SECONDS`, as far as the length of an iteration
allows, and when Ctrl-C or SIGTERM stops the work (`deferred_signals`).
"""

import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch
import torch

from collabdm.checkpoint import Checkpoint
from collabdm.data.cache import cache_folder
from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.codec import HEADER_KEY, contiguous, read_metadata
from collabdm.documents.regular_file import read_regular
from collabdm.errors import OutputError
from collabdm.matching.compute import Compute
from collabdm.matching.run_context import RunContext
from collabdm.matching.threads import adopt_threads
from collabdm.rounds.deferred_signals import DEFERRED
from collabdm.version import versions

STATE_VERSION = 4
STATE_EVERY_SECONDS = 10.0
LARGEST_STATE = 2**35  # bytes

logger = logging.getLogger("collabdm")


@dataclass(frozen=True)
class State:
    """The stored state of work: the checkpoints of its parts, and its number of threads."""

    parts: dict[str, Checkpoint]
    threads: int


class ResumableRun:
    """A context manager that resumes from stored checkpoints, and stores new checkpoints.

    At the end it removes the stored state; after an exception, including Ctrl-C, it keeps it.
    """

    def __init__(
        self, output: Path, identity: str, context: RunContext, at_once: bool = False
    ) -> None:
        """Set the output, the identity and the context of the work.

        Args:
            output: the file that the work writes.
            identity: a text that is different for work with different results.
            context: device, progress, and an additional receiver of checkpoints.
            at_once: store a state at the start, so that work that consists of finished files and
                an unfinished one has one number of threads.
        """
        self._path = state_path(output)
        self._identity, self._context = full_identity(identity, context.compute), context
        self._parts: dict[str, Checkpoint] = {}
        self._at_once = at_once
        self._changed = False  # since the state was stored
        self._last_write = self._last_keep = time.monotonic()

    def __enter__(self) -> RunContext:
        DEFERRED.start()
        try:
            state = read_state(self._path, self._identity)
            if state is not None and adopt_threads(state.threads):
                self._parts = state.parts
            elif self._at_once:
                self.store()
        except BaseException:
            DEFERRED.stop()
            raise
        resume = self._parts.get("")
        return replace(self._context, resume=resume, parts=dict(self._parts), keep=self._keep)

    def store(self) -> None:
        """Store the state now. A failure is logged, since the work itself can go on."""
        try:
            write_state(self._parts, self._identity, self._path)
        except OutputError as error:
            logger.warning("the state of the work could not be stored: %s", error)
        self._changed, self._last_write = False, time.monotonic()

    def _keep(self, checkpoint: Checkpoint) -> None:
        self._context.keep(checkpoint)
        self._parts[checkpoint.part] = checkpoint
        self._changed, stopped = True, DEFERRED.checkpoint_made()

        now = time.monotonic()
        at_next = now + (now - self._last_keep)
        self._last_keep = now
        if at_next - self._last_write >= STATE_EVERY_SECONDS or stopped:
            self.store()
        if stopped:
            DEFERRED.deliver()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        stopped = kind is None and DEFERRED.finished()
        if kind is None and not stopped:
            self._path.unlink(missing_ok=True)
        elif kind is None and self._changed:  # the output exists; a repetition takes a moment
            self.store()
        DEFERRED.stop()
        if stopped:
            DEFERRED.deliver()


def state_path(output: Path) -> Path:
    """Return the path of the state file of an output."""
    return output.parent / f".{output.name}.state"


def discard_state(output: Path) -> None:
    """Remove the state of an output that is complete: a kill may have come just before that."""
    state_path(output).unlink(missing_ok=True)


def full_identity(identity: str, compute: Compute) -> str:
    """Add the device, the precision and the versions to the identity of work."""
    return json.dumps([identity, repr(compute), versions()])


def unfinished_path(identity: str) -> Path:
    """Return the path in the user's cache that stands for the output of work without a file."""
    name = hashlib.sha256(identity.encode()).hexdigest()[:32]
    folder = cache_folder() or Path(tempfile.gettempdir())
    return folder / "unfinished" / name


def write_state(parts: Mapping[str, Checkpoint], identity: str, path: Path) -> None:
    """Store the checkpoints of all parts of some work.

    Args:
        parts: the checkpoints, by part.
        identity: the identity of the work that they belong to.
        path: the file to write.

    Raises:
        OutputError: the file cannot be written.
    """
    tensors = {
        f"{number}.{name}": value.detach().cpu()
        for number, checkpoint in enumerate(parts.values())
        for name, value in checkpoint.tensors.items()
    }
    header = {
        "version": STATE_VERSION,
        "identity": identity,
        "threads": torch.get_num_threads(),
        "parts": [[part, checkpoint.done] for part, checkpoint in parts.items()],
    }
    content = safetensors.torch.save(contiguous(tensors), {HEADER_KEY: json.dumps(header)})
    atomic_write(path, content, private=True)


def read_state(path: Path, identity: str) -> State | None:
    """Read the stored state; None if there is none, or it belongs to different work."""
    try:
        content = read_regular(path, LARGEST_STATE)
        header = json.loads(read_metadata(content)[HEADER_KEY])
        tensors: dict[str, torch.Tensor] = safetensors.torch.load(content)
        known = (header["version"], header["identity"]) == (STATE_VERSION, identity)
        if not known:
            return None

        by_number: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in tensors.items():
            number, name = key.split(".", 1)
            by_number.setdefault(int(number), {})[name] = value
        parts = {
            part: Checkpoint(int(done), by_number.get(number, {}), part)
            for number, (part, done) in enumerate(header["parts"])
        }
        return State(parts, int(header["threads"]))
    except (OSError, AttributeError, KeyError, TypeError, ValueError, safetensors.SafetensorError):
        return None

"""Resume interrupted work from checkpoints, which are stored in the folder of its output.

The state file `.NAME.state` is a safetensors file. It contains the identity of the work: a text
that depends on everything that determines the result. Different work is never resumed from it.
"""

import json
import time
from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch

from collabdm.checkpoint import Checkpoint
from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.codec import HEADER_KEY, contiguous, read_metadata
from collabdm.documents.regular_file import read_regular
from collabdm.matching.run_context import RunContext

STATE_VERSION = 2
STATE_EVERY_SECONDS = 20.0
LARGEST_STATE = 2**35  # bytes


class ResumableRun:
    """A context manager that resumes from a stored checkpoint, and stores new checkpoints.

    At the end it removes the stored checkpoint; after an exception, including Ctrl-C, it keeps it.
    """

    def __init__(self, output: Path, identity: str, context: RunContext) -> None:
        """Set the output, the identity and the context of the work.

        Args:
            output: the file that the work writes.
            identity: a text that is different for work with different results.
            context: device, progress, and an additional receiver of checkpoints.
        """
        self._path = output.parent / f".{output.name}.state"
        self._identity, self._context = identity, context
        self._last_write = time.monotonic()

    def __enter__(self) -> RunContext:
        resume = read_checkpoint(self._path, self._identity)
        return replace(self._context, resume=resume, keep=self._keep)

    def _keep(self, checkpoint: Checkpoint) -> None:
        self._context.keep(checkpoint)
        if time.monotonic() - self._last_write > STATE_EVERY_SECONDS:
            write_checkpoint(checkpoint, self._identity, self._path)
            self._last_write = time.monotonic()

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            self._path.unlink(missing_ok=True)


def write_checkpoint(checkpoint: Checkpoint, identity: str, path: Path) -> None:
    """Store a checkpoint.

    Args:
        checkpoint: the checkpoint.
        identity: the identity of the work that it belongs to.
        path: the file to write.
    """
    tensors = {name: value.cpu() for name, value in checkpoint.tensors.items()}
    header = {"version": STATE_VERSION, "identity": identity, "done": checkpoint.done}
    metadata = {HEADER_KEY: json.dumps(header)}
    content = safetensors.torch.save(contiguous(tensors), metadata)
    atomic_write(path, content, private=True)


def read_checkpoint(path: Path, identity: str) -> Checkpoint | None:
    """Read the stored checkpoint; None if there is none, or it belongs to different work."""
    try:
        content = read_regular(path, LARGEST_STATE)
        header = json.loads(read_metadata(content)[HEADER_KEY])
        tensors: dict[str, torch.Tensor] = safetensors.torch.load(content)
        known = (header["version"], header["identity"]) == (STATE_VERSION, identity)
        return Checkpoint(int(header["done"]), tensors) if known else None
    except (OSError, AttributeError, KeyError, TypeError, ValueError, safetensors.SafetensorError):
        return None

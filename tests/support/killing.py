"""Run commands in forked processes that a signal stops at a chosen point.

A process imports everything once, by running commands itself (`prepare`); for each further command
it forks a child, which takes moments. A point
is the number of function calls since the start of the command, including calls of functions in C,
so a signal may arrive between any two of them: within an iteration, or between the writing of a
file and its renaming. The script reads one request per line and answers with one line.
"""

import json
import mmap
import os
import signal
import struct
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any


@dataclass(frozen=True)
class Killed:
    """How a command ended.

    Attributes:
        code: the exit code, or minus the signal that killed the process.
        calls: the number of function calls.
        checkpoints: the number of iterations that made a checkpoint.
        err: the text on standard error.
    """

    code: int
    calls: int
    checkpoints: int
    err: str


class Killer:
    """Runs commands, and stops them; a context manager around the process that forks."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "stderr"
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def __enter__(self) -> "Killer":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def prepare(self, *arguments: object) -> None:
        """Run a command without counting, in the process that forks."""
        end = self._ask({"argv": ["collabdm", *map(str, arguments)], "log": str(self._log)})
        assert end.code == 0, end.err

    def run(self, *arguments: object, at: int = -1, number: int = 0, every: float = 10.0) -> Killed:
        """Run a command; send it the signal at the given call, and store states this often."""
        return self._ask(
            {
                "argv": ["collabdm", *map(str, arguments)],
                "at": at,
                "number": int(number),
                "every": every,
                "log": str(self._log),
            }
        )

    def _ask(self, request: dict[str, Any]) -> Killed:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return Killed(**json.loads(self._process.stdout.readline()))


def _serve() -> None:
    import torch

    torch.set_num_threads(1)  # a fork would not copy other threads
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        counts = mmap.mmap(-1, 16)
        if "at" in request:
            child = os.fork()
            if child == 0:
                _run(request, counts)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        else:
            code = _run_here(request)
        calls, checkpoints = struct.unpack("qq", counts)
        err = Path(request["log"]).read_text()
        answers.write(json.dumps(asdict(Killed(code, calls, checkpoints, err))) + "\n")
        answers.flush()


def _run_here(request: dict[str, Any]) -> int:
    """Run a command, and import what it needs; return its exit code."""
    from collabdm.cli.start import start

    _write_to(request["log"])
    sys.argv = request["argv"]
    try:
        start()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def _write_to(log: str) -> None:
    """Write standard output and standard error to a new file."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def _run(request: dict[str, Any], counts: mmap.mmap) -> None:
    """Run a command in this process, which ends with it."""
    from collabdm.cli.start import start
    from collabdm.rounds import resumable

    _write_to(request["log"])
    sys.argv = request["argv"]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    resumable.STATE_EVERY_SECONDS = request["every"]
    calls, checkpoints, own = 0, 0, resumable.__file__

    def count(frame: FrameType, event: str, _: object) -> None:
        nonlocal calls, checkpoints
        if event not in ("call", "c_call"):
            return
        calls += 1
        if event == "call" and frame.f_code.co_name == "_keep":
            checkpoints += frame.f_code.co_filename == own
        struct.pack_into("qq", counts, 0, calls, checkpoints)
        if calls == request["at"]:
            os.kill(os.getpid(), request["number"])

    code = 0
    try:
        sys.setprofile(count)
        start()
    except SystemExit as end:
        code = int(end.code or 0)
    except KeyboardInterrupt:
        code = 130
    finally:
        sys.setprofile(None)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()

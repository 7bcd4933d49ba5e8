"""The command line, called in this process, and small inputs for it."""

import contextlib
import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest
from pictures import draw, pixels

from collabdm.cli import console, main

NETWORK = "ConvNet:width=8,depth=1"
TINY = (
    "--ipc",
    "1",
    "--steps",
    "3",
    "--batch",
    "4",
    "--local-steps",
    "2",
    "--passes",
    "2",
    "--network",
    NETWORK,
)
SPLIT = ("--sites", "2", "--beta", "0.5", "--seed", "4", "--per-class", "12")
#: a policy that lets everything leave a site
OPEN = ("--policy", str(Path(__file__).with_name("open.toml")))
#: starts the command in a process of its own; a runner in the background would ignore Ctrl-C there
PROGRAM = (
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
    "from collabdm.cli.start import start; start()",
)
SCORED = ("--trials", "2", "--recipe", "short", "--epochs", "2")


@dataclass(frozen=True)
class Result:
    """What a command did: its exit code and what it wrote to each stream."""

    code: int
    out: str
    err: str


def run(*arguments: object) -> Result:
    """One command, on one thread and a wide screen."""
    out, err = io.StringIO(), io.StringIO()
    argv = ["collabdm", *map(str, arguments)]
    with (
        patch.object(sys, "argv", argv),
        patch.object(console.console, "_width", 160),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.raises(SystemExit) as stopped,
    ):
        main.main()
    return Result(int(stopped.value.code or 0), out.getvalue(), err.getvalue())


def done(*arguments: object) -> Result:
    """One command that should succeed."""
    result = run(*arguments)
    assert result.code == 0, result.err
    return result


def cells(text: str) -> list[list[str]]:
    """The rows of the tables in what a command printed."""
    return [
        [cell.strip() for cell in line.split("│")[1:-1]]
        for line in text.splitlines()
        if "│" in line
    ]


def picture_folder(root: Path, side: int = 8, channels: int = 3, **counts: int) -> Path:
    """Random pictures, one subfolder for each class."""
    for y, (name, count) in enumerate(counts.items()):
        for i in range(count):
            draw(root / name / f"{i}.png", pixels(1000 * side + 100 * y + i, channels, side))
    return root


def watched(progress: Callable[[str, int, int], None]) -> contextlib.AbstractContextManager[object]:
    """Call `progress` with every step that a command reports, in place of its bars."""
    return patch.object(console.Bars, "__call__", lambda _, *step: progress(*step))

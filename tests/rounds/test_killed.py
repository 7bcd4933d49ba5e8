"""Commands that are stopped at random points continue to the same bytes.

COLLABDM_KILLS is the number of times that each command is stopped; every command is stopped by
Ctrl-C, SIGTERM and SIGKILL, several times in a row, before it may finish.
"""

import os
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from command import OPEN
from killing import Killer

KILLS = int(os.environ.get("COLLABDM_KILLS", "2"))
IN_A_ROW = 3
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}

NETWORK = "ConvNet:width=8,depth=1"
PLAN = (
    *("--data", "data.npz", "--ipc", 1, "--batch", 8, "--network", NETWORK),
    *("--steps", 6, "--passes", 3),
)
LOCAL = ("--local", "dm", "--local-steps", 8)
SCORED = ("--recipe", "short", "--epochs", 4)
COMMANDS = {
    "contribute": (
        "contribute",
        "plan.json",
        *OPEN,
        "--data",
        "data.npz",
        "--site",
        "a",
        "-o",
        "OUT/a",
    ),
    "distill": ("distill", "plan.json", "input-a", "-o", "OUT/set"),
    "train": ("train", "input-set", *SCORED, "--network", NETWORK, "-o", "OUT/model"),
    "evaluate": (
        *(
            "evaluate",
            "input-set",
            "--data",
            "data.npz",
            "--networks",
            NETWORK,
            "--trials",
            2,
            *SCORED,
        ),
        *("--json", "OUT/scores.json"),
    ),
    "simulate": (
        *(
            "simulate",
            "--no-report",
            *PLAN,
            "--local-steps",
            3,
            "--per-class",
            10,
            "--sites",
            2,
            "--beta",
            0.5,
        ),
        *(
            "--test-per-class",
            10,
            "--trials",
            2,
            *SCORED,
            "--curve",
            2,
            "--compare",
            "random,sites",
        ),
        *("-o", "OUT/round"),
    ),
}


@pytest.fixture(scope="module")
def killer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Killer]:
    with Killer(tmp_path_factory.mktemp("killer")) as running:
        yield running


@pytest.fixture(scope="module")
def files(killer: Killer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the inputs of all commands."""
    folder = tmp_path_factory.mktemp("files")
    write_data(folder / "data.npz")
    killer.prepare(*in_folder(("plan", *PLAN, *LOCAL, "-o", "plan.json"), folder, folder))
    for words in COMMANDS.values():
        killer.prepare(*in_folder(words, folder, folder))
    return folder


def write_data(path: Path) -> None:
    """Write random images of four classes."""
    random_pixels = np.random.default_rng(0)
    arrays = {}
    for split, each in (("train", 30), ("test", 10)):
        labels = np.repeat(np.arange(4), each)
        noise = random_pixels.integers(0, 90, (4 * each, 8, 8, 1))
        arrays[f"{split}_images"] = (noise + 40 * labels[:, None, None, None]).astype(np.uint8)
        arrays[f"{split}_labels"] = labels
    np.savez(path, **arrays)


def in_folder(words: tuple[object, ...], files: Path, out: Path) -> list[str]:
    """The arguments of a command, with the paths of its inputs and of its output."""
    inputs = ("plan.json", "data.npz", "input-a", "input-set")
    return [
        str(files / str(word).removeprefix("input-"))
        if word in inputs
        else str(word).replace("OUT", str(out))
        for word in words
    ]


def finished(killer: Killer, *arguments: object, every: float = 10.0) -> tuple[int, int]:
    """Run a command to its end; the numbers of calls and of checkpoints."""
    end = killer.run(*arguments, every=every)
    assert end.code == 0, end.err
    return end.calls, end.checkpoints


def tree(folder: Path) -> dict[str, bytes]:
    """All files below a folder, without those that a killed process had not yet renamed."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".part"]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_is_stopped_anywhere_continues_to_the_same_bytes(
    name: str, killer: Killer, files: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    calls, iterations = finished(killer, *in_folder(COMMANDS[name], files, out))
    whole = tree(out)
    assert whole
    assert not [path for path in whole if path.endswith(".state")]
    draw, kills = random.Random(name), 0

    while kills < KILLS:
        shutil.rmtree(out)
        made, stops = 0, 0
        for number in draw.sample(SIGNALS, IN_A_ROW):
            every = 0.0 if number == signal.SIGKILL else 10.0
            at = draw.randrange(1, calls)
            end = killer.run(
                *in_folder(COMMANDS[name], files, out), at=at, number=number, every=every
            )
            assert "Traceback" not in end.err
            made += end.checkpoints
            if end.code == 0:  # it was nearly finished before
                assert tree(out) == whole
                made = 0
                break
            assert end.code == CODES[number], end.err
            kills, stops = kills + 1, stops + 1

            unfinished = any(path.endswith(".state") for path in tree(out))
            assert unfinished or not 1 < made < iterations
            if not unfinished:  # stopped before the first iteration, or after the last
                made = 0
            if kills == KILLS:
                break

        made += finished(killer, *in_folder(COMMANDS[name], files, out))[1]
        assert tree(out) == whole
        assert made <= iterations + 2 * stops  # hardly anything is computed twice


def test_a_site_with_a_privacy_budget_that_is_stopped_anywhere_releases_one_answer(
    killer: Killer, tmp_path: Path
) -> None:
    out = tmp_path / "a"
    write_data(tmp_path / "data.npz")
    plan = ("plan", *PLAN, "--batch", "all", "--epsilon", 8, "-o", "plan.json")
    killer.prepare(*in_folder(plan, tmp_path, tmp_path))

    def contribute(site: str) -> list[str]:
        words = ("contribute", "plan.json", "--data", "data.npz", "--site", site, "-o", "OUT/a")
        return in_folder(words, tmp_path, tmp_path)

    killer.prepare(*contribute("other"))
    calls, _ = finished(killer, *contribute("another"))
    out.unlink()
    draw, released = random.Random("budget"), set()

    for number in draw.choices(SIGNALS, k=1 + KILLS):
        at = draw.randrange(1, calls)
        killer.run(*contribute("budget"), at=at, number=number, every=0.0)
        assert not [path for path in tmp_path.iterdir() if path.name.endswith(".state")]
        if out.exists():
            released.add(out.read_bytes())
            out.unlink()

    for _ in range(2):
        finished(killer, *contribute("budget"))
        released.add(out.read_bytes())
    assert len(released) == 1
    assert not list(Path(os.environ["COLLABDM_SITE_FOLDER"]).rglob("*.state"))

"""A method of another package, from the files of docs/methods.md, in separate processes."""

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from collabdm.documents.outcome_files import read_distilled
from collabdm.methods.registry import METHODS

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"
COMMENT = "run by tests/rounds/test_own_method.py"
NAME = "mean-images"

#: runs each line of its input as a command
COMMAND_LINE = """
import shlex, sys
from collabdm.cli.main import main

for line in sys.stdin:
    sys.argv = shlex.split(line)
    try:
        main()
    except SystemExit as stopped:
        assert not stopped.code, line
"""


def page_blocks() -> dict[str, str]:
    """The blocks of the page that this module runs, by name."""
    pattern = rf"<!-- {COMMENT}: (\S+) -->\n\n```\w+\n(.*?)^```$"
    text = PAGE.read_text(encoding="utf-8")
    return dict(re.findall(pattern, text, flags=re.MULTILINE | re.DOTALL))


BLOCKS = page_blocks()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the module and its entry point, as an installation puts them on the path."""
    folder = tmp_path_factory.mktemp("installed")
    (folder / "mean_images.py").write_text(BLOCKS["mean_images.py"], encoding="utf-8")

    project = tomllib.loads(BLOCKS["pyproject.toml"])["project"]
    ((group, entries),) = project["entry-points"].items()
    lines = [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]

    information = folder / f"mean_images-{project['version']}.dist-info"
    information.mkdir()
    (information / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def run(folder: Path, path: Path, *command: str, lines: str = "") -> str:
    """Run Python in a folder, with another folder on its path, and lines of input."""
    paths = [str(path), *filter(None, sys.path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        input=lines,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def commands() -> list[str]:
    """The commands of the page, one a line."""
    lines = BLOCKS["commands"].replace("\\\n", " ").splitlines()
    return [line.removeprefix("$ ") for line in lines]


@pytest.mark.slow
def test_a_simulation_runs_an_installed_method(installed: Path, tmp_path: Path) -> None:
    name, *words = shlex.split(commands()[0])
    assert (name, words[0]) == ("collabdm", "simulate")
    assert NAME in run(tmp_path, installed, "-m", "collabdm", *words)

    made = read_distilled(tmp_path / "round" / "distilled.safetensors")
    assert (made.method, made.plan.options) == (NAME, {"noise": 0.05})
    assert made.images.counts().tolist() == [made.plan.ipc] * 10
    assert len(made.sites) == 5

    results = json.loads((tmp_path / "round" / "results.json").read_text(encoding="utf-8"))
    assert [score["what"] for score in results["scores"]] == [NAME, "random real"]


@pytest.mark.slow
def test_a_round_of_files_runs_an_installed_method(installed: Path, tmp_path: Path) -> None:
    lines = commands()[1:]
    assert [line.split()[1] for line in lines] == ["plan", "contribute", "contribute", "distill"]
    run(tmp_path, installed, "-c", COMMAND_LINE, lines="\n".join(lines))

    made = read_distilled(tmp_path / "set.safetensors")
    assert made.method == NAME
    assert set(made.sites) == {"north", "south"}
    assert made.images.counts().tolist() == [made.plan.ipc] * 10


@pytest.mark.slow
def test_a_method_that_is_not_installed_is_registered_in_python(tmp_path: Path) -> None:
    for name in ("mean_images.py", "register.py"):
        (tmp_path / name).write_text(BLOCKS[name], encoding="utf-8")
    assert run(tmp_path, tmp_path, "register.py") == f"20 images by {NAME}\n"


def test_the_method_is_of_another_package() -> None:
    assert NAME not in METHODS
    assert set(BLOCKS) == {"mean_images.py", "pyproject.toml", "commands", "register.py"}
    assert PAGE.name == "methods.md"

"""What an installation carries: the Flower app, the experiments, metadata, images for containers."""

import re
import shutil
import subprocess
import tomllib
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from command import done, run

from collabdm.cli.main import app
from collabdm.version import __version__

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DOCKERFILES = sorted((ROOT / "deploy").glob("*.Dockerfile"))

# --- the app of Flower ---------------------------------------------------------------------------


def test_flower_init_writes_an_app_whose_programs_exist(tmp_path) -> None:
    done("flower", "init", tmp_path / "new" / "app")
    written = tomllib.loads((tmp_path / "new" / "app" / "pyproject.toml").read_text())
    components = written["tool"]["flwr"]["app"]["components"]
    assert components == {
        "serverapp": "collabdm.flower.server:app",
        "clientapp": "collabdm.flower.site:app",
    }
    for place in components.values():
        module = place.partition(":")[0].replace(".", "/")
        assert "\napp = " in (ROOT / "src" / f"{module}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["folder", "file", "dead link"])
def test_flower_init_never_writes_where_something_is(tmp_path, kind) -> None:
    place = tmp_path / "app"
    {
        "folder": place.mkdir,
        "file": place.touch,
        "dead link": lambda: place.symlink_to("nowhere"),
    }[kind]()
    before = sorted(tmp_path.rglob("*"))
    result = run("flower", "init", place)
    assert (result.code, "should be a new folder; found one" in result.err) == (2, True)
    assert sorted(tmp_path.rglob("*")) == before


def test_flower_init_below_a_file_is_refused(tmp_path) -> None:
    (tmp_path / "file").touch()
    result = run("flower", "init", tmp_path / "file" / "app")
    assert (result.code, "should be a folder to create" in result.err) == (2, True)


# --- the wheel -----------------------------------------------------------------------------------


def test_the_wheel_carries_every_experiment_and_the_records_of_their_cells() -> None:
    included = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    grids = [path.relative_to(ROOT).as_posix() for path in (ROOT / "experiments").glob("*.toml")]
    others = ["experiments/shared", "results/grids/cpu.jsonl"]
    assert sorted(included) == sorted([*grids, *others])
    assert all(place == f"collabdm/{name}" for name, place in included.items())


def test_the_metadata_is_complete() -> None:
    project = PROJECT["project"]
    listed = set(project["classifiers"])
    assert not [name for name in listed if name.startswith("License ::")]  # `license` is SPDX
    assert {"Operating System :: POSIX :: Linux", "Typing :: Typed"} <= listed
    lowest = int(project["requires-python"].removeprefix(">=3."))
    minors = {int(m[1]) for name in listed if (m := re.fullmatch(r".*:: 3\.(\d+)", name))}
    assert min(minors) == lowest
    assert metadata("collabdm")["Version"] == __version__


# --- the citation --------------------------------------------------------------------------------


def test_the_citation_is_that_of_this_version_and_of_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert (citation["cff-version"], citation["type"]) == ("1.2.0", "software")
    assert citation["version"] == __version__
    assert citation["license"] == PROJECT["project"]["license"]
    paper = citation["preferred-citation"]
    assert paper["title"] == "One-Shot Collaborative Data Distillation"
    assert [author["family-names"] for author in paper["authors"]] == [
        *("Holland", "Thapa", "Siddiqui", "Shao", "Camtepe"),
    ]


# --- containers ----------------------------------------------------------------------------------


def instructions(path: Path) -> list[tuple[str, str]]:
    """The instructions of a Dockerfile, with continued lines joined."""
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(name, " ".join(rest)) for name, *rest in map(str.split, lines)]


def test_there_is_an_image_for_a_site_and_one_for_the_server() -> None:
    assert [path.name for path in DOCKERFILES] == ["server.Dockerfile", "site.Dockerfile"]


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_copies_what_exists_and_runs_the_command_as_a_user(path: Path) -> None:
    steps = instructions(path)
    for name, text in steps:
        if name == "COPY" and not text.startswith("--from"):
            *sources, _ = text.split()
            assert all((ROOT / source).exists() for source in sources), text
    assert ("ENTRYPOINT", '["collabdm"]') in steps
    assert [text for name, text in steps if name == "USER"][-1] not in ("root", "0")
    default = next(re.findall(r'"([^"]*)"', text) for name, text in steps if name == "CMD")
    assert default[0] in typer.main.get_command(app).commands  # type: ignore[attr-defined]
    assert f'"torch{TORCH}"' in path.read_text(encoding="utf-8")


TORCH = next(
    name.removeprefix("torch") for name in PROJECT["project"]["dependencies"] if name[:5] == "torch"
)


@pytest.mark.slow
@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_builds_and_runs(path: Path) -> None:
    docker = shutil.which("docker")
    if docker is None or subprocess.run([docker, "info"], capture_output=True).returncode:
        pytest.skip("docker is not available")
    tag = f"collabdm-test-{path.stem.lower()}"
    subprocess.run([docker, "build", "-q", "-f", path, "-t", tag, ROOT], check=True)
    ran = subprocess.run(
        [docker, "run", "--rm", tag, "--version"], capture_output=True, text=True, check=True
    )
    assert ran.stdout == f"{__version__}\n"
    subprocess.run([docker, "rmi", tag], check=True, capture_output=True)

"""The examples run, at a tiny scale, and write what they say."""

import json
import runpy
import statistics
import sys
from pathlib import Path

import pytest

from collabdm.files import write_distilled
from collabdm.methods.collabdm import contribute, distill
from collabdm.planning import plan_for
from collabdm.seeds import Purpose, Stream
from collabdm.sources import limit, load

EXAMPLES = Path(__file__).parents[1] / "examples"
SIZES = {"seeds": 1, "ipc": 1, "steps": 2, "local-steps": 1, "per-class": 4, "epochs": 1, "width": 8}
TINY = [word for name, size in SIZES.items() for word in (f"--{name}", size)]


def example(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


def test_every_example_is_tested_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    assert all(f'"{path.stem}"' in text for path in EXAMPLES.glob("*.py"))


def figure(values: list[float], form: str) -> str:
    return f"{statistics.fmean(values):{form}} ± {statistics.stdev(values):{form}} (n = {len(values)})"


def test_the_figures_in_the_guide_are_those_measured() -> None:
    results = Path(__file__).parents[1] / "results" / "examples"
    guide = (results.parents[1] / "docs" / "guide-taking.md").read_text(encoding="utf-8")
    kept = json.loads((results / "continual.json").read_text())["runs"]
    found = json.loads((results / "search.json").read_text())["runs"]
    for what in ("distilled", "random real"):
        assert figure([100 * run[what][-1] for run in kept], ".1f") in guide
        assert figure([run["correlation"][what] for run in found], ".2f") in guide


def test_any_torch_network_trains_on_a_set(tmp_path, monkeypatch, capsys) -> None:
    digits = limit(load("digits"), 20, Stream.of(0, Purpose.DATA))
    plan = plan_for(digits, sites=1, ipc=5, steps=2, network={"width": 8, "depth": 1}, local={"steps": 1})
    write_distilled(distill(plan, [contribute(plan, digits)]), tmp_path / "set.safetensors")
    example(monkeypatch, "any_network", tmp_path / "set.safetensors")
    words = capsys.readouterr().out.split()
    assert float(words[words.index("accuracy") + 1]) > 50  # chance is 10


def test_continual_learning_compares_memories_of_the_same_bytes(tmp_path, monkeypatch, capsys) -> None:
    example(monkeypatch, "continual_learning", *TINY, "--groups", "5", "-o", tmp_path / "r" / "out.json")
    (found,) = json.loads((tmp_path / "r" / "out.json").read_text())["runs"]
    assert {what: len(values) for what, values in found.items()} == {"distilled": 5, "random real": 5}
    assert found["distilled"][0] == found["random real"][0]  # no memory yet
    assert "distilled: " in capsys.readouterr().out


def test_architecture_search_ranks_variants(tmp_path, monkeypatch, capsys) -> None:
    example(
        monkeypatch, "architecture_search", *TINY, "--variants", "4", "--epochs-all", "1", "-o", tmp_path / "o.json"
    )
    (found,) = json.loads((tmp_path / "o.json").read_text())["runs"]
    assert len(found["all the data"]) == len(found["distilled"]) == 4
    assert set(found["correlation"]) == {"distilled", "random real"}
    assert "rank correlation" in capsys.readouterr().out

"""The examples run, at a tiny scale, and write what they say."""

import argparse
import ast
import csv
import importlib
import io
import json
import re
import runpy
import statistics
import sys
from pathlib import Path

import pytest
from command import done
from traffic import mixed_rows, row_schema, untrained, write_csv

from collabdm.data.sources import limit, load
from collabdm.documents.outcome_files import write_distilled
from collabdm.methods.collabdm import contribute, distill
from collabdm.planning.make import plan_for
from collabdm.scoring.trained_model import write_model
from collabdm.seeds import Purpose, Stream

ROOT = Path(__file__).parents[2]
EXAMPLES, RESULTS = ROOT / "examples", ROOT / "results" / "examples"
GUIDE = (ROOT / "docs" / "engineers.md").read_text(encoding="utf-8")
SIZES = {
    "seeds": 1,
    "ipc": 1,
    "steps": 2,
    "local-steps": 1,
    "per-class": 4,
    "epochs": 1,
    "width": 8,
}
TINY = [word for name, size in SIZES.items() for word in (f"--{name}", size)]


def example(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", [name, *map(str, arguments)])
    monkeypatch.syspath_prepend(EXAMPLES)  # as where a script is run
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


def test_every_example_is_tested_here() -> None:
    text = Path(__file__).read_text(encoding="utf-8")
    scripts = [
        path for path in EXAMPLES.glob("*.py") if "__main__" in path.read_text(encoding="utf-8")
    ]
    assert len(scripts) == 4
    assert all(f'"{path.stem}"' in text for path in scripts)


def figure(values: list[float], form: str) -> str:
    return (
        f"{statistics.fmean(values):{form}} ± {statistics.stdev(values):{form}} (n = {len(values)})"
    )


def found_in(path: Path) -> dict[str, str]:
    """What a file of results says of each set: a percentage after the last group, or a rank correlation."""
    runs = json.loads(path.read_text(encoding="utf-8"))["runs"]
    if path.stem.startswith("search"):
        return {
            what: figure([run["correlation"][what] for run in runs], ".2f")
            for what in runs[0]["correlation"]
        }
    return {what: figure([100 * run[what][-1] for run in runs], ".1f") for what in runs[0]}


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_the_figures_in_the_guide_are_those_measured(path) -> None:
    rows = [line for line in GUIDE.splitlines() if line.startswith(f"| {path.stem} |")]
    for what, value in found_in(path).items():
        assert any(f"| {what} | {value} |" in row for row in rows), (what, value)


def test_every_row_of_the_guide_has_its_file() -> None:
    rows = re.findall(r"^\| ((?:continual|search)-\w+) \|", GUIDE, flags=re.MULTILINE)
    assert set(rows) == {path.stem for path in RESULTS.glob("*.json")}


def test_any_torch_network_trains_on_a_set(tmp_path, monkeypatch, capsys) -> None:
    digits = limit(load("digits"), 20, Stream.of(0, Purpose.DATA))
    plan = plan_for(
        digits, sites=1, ipc=5, steps=2, network={"width": 8, "depth": 1}, local={"steps": 1}
    )
    write_distilled(distill(plan, [contribute(plan, digits)]), tmp_path / "set.safetensors")
    example(monkeypatch, "any_network", tmp_path / "set.safetensors")
    words = capsys.readouterr().out.split()
    assert float(words[words.index("accuracy") + 1]) > 50  # chance is 10


def test_continual_learning_compares_memories_of_the_same_bytes(
    tmp_path, monkeypatch, capsys
) -> None:
    path = tmp_path / "r" / "out.json"
    example(monkeypatch, "continual_learning", *TINY, "--groups", "5", "--pae", "2", "-o", path)
    (results,) = json.loads(path.read_text())["runs"]
    assert {what: len(values) for what, values in results.items()} == {
        "distilled": 5, "random real": 5, "random real, pae": 5,
    }  # fmt: skip
    assert len({values[0] for values in results.values()}) == 1  # no memory yet
    assert "distilled: " in capsys.readouterr().out


def test_seeds_that_are_on_disk_are_not_run_again(tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLES)
    over_seeds = importlib.import_module("over_seeds").over_seeds
    ran = []

    def run(arguments, seed) -> dict:
        ran.append((arguments.ipc, seed))
        return {"distilled": [seed]}

    def runs_of(seeds: int, ipc: int = 1) -> list:
        arguments = argparse.Namespace(
            data="x", seeds=seeds, precision="float32", output=tmp_path / "o.json", ipc=ipc
        )
        return over_seeds(arguments, run)

    assert runs_of(1) == [{"distilled": [0]}]
    assert runs_of(2) == [{"distilled": [0]}, {"distilled": [1]}]
    runs_of(1, ipc=2)  # another setting begins anew
    assert ran == [(1, 0), (1, 1), (2, 0)]


def test_architecture_search_ranks_variants(tmp_path, monkeypatch, capsys) -> None:
    example(
        monkeypatch,
        "architecture_search",
        *TINY,
        "--widest",
        "16",
        "--variants",
        "4",
        "--epochs-all",
        "1",
        "-o",
        tmp_path / "o.json",
    )
    (results,) = json.loads((tmp_path / "o.json").read_text())["runs"]
    assert len(results["all the data"]) == len(results["distilled"]) == 4
    assert set(results["correlation"]) == {"distilled", "random real"}
    assert "rank correlation" in capsys.readouterr().out


def test_the_notebook_runs_and_shows_what_its_cells_return() -> None:
    cells = json.loads((EXAMPLES / "quickstart.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, object] = {}

    for cell in (cell for cell in cells if cell["cell_type"] == "code"):
        *steps, last = ast.parse("".join(cell["source"])).body
        exec(compile(ast.Module(steps, []), "cell", "exec"), names)
        assert isinstance(last, ast.Expr)
        exec(f"returned = {ast.unparse(last.value)}", names)
        value = names["returned"]

        (shown,) = cell["outputs"]
        assert ("text/html" in shown["data"]) == hasattr(value, "_repr_html_")
        if hasattr(value, "_repr_html_"):
            assert "".join(shown["data"]["text/plain"]) == repr(value)

    assert names["made"].images.counts().tolist() == [10] * 10  # type: ignore[attr-defined]


def test_the_example_gives_the_verdicts_of_classify_and_needs_no_collabdm(
    tmp_path, monkeypatch, capsys
):
    pytest.importorskip("onnxruntime")
    write_model(untrained(row_schema()), tmp_path / "model.safetensors")
    table = write_csv(tmp_path / "flows.csv", mixed_rows(60))
    done("classify", tmp_path / "model.safetensors", table, "-o", tmp_path / "own.csv", "-q")
    detector = tmp_path / "model.onnx"
    done("export", tmp_path / "model.safetensors", "--form", "onnx", "-o", detector)
    assert detector.stat().st_size < 1_000_000

    example(monkeypatch, "detect", detector, table)
    found = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    own = list(csv.DictReader(io.StringIO((tmp_path / "own.csv").read_text())))
    assert len(found) == 60
    for column in ("row", "class"):
        assert [line[column] for line in found] == [line[column] for line in own]
    assert [float(line["confidence"]) for line in found] == pytest.approx(
        [float(line["confidence"]) for line in own], abs=2e-4
    )

    text = (EXAMPLES / "detect.py").read_text(encoding="utf-8")
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import)]
    imported = {alias.name for node in nodes for alias in node.names}
    assert imported == {"csv", "json", "sys", "numpy", "onnxruntime"}
    assert len(text.splitlines()) < 60

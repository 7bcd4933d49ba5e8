"""The public names, which are imported on first use, and what the package loads before that."""

import ast
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import collabdm

LOADED = """
import contextlib, io, json, sys
before = {name.split(".")[0] for name in sys.modules}
with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
    %s
after = {name.split(".")[0] for name in sys.modules}
print(json.dumps(sorted(after - before - sys.stdlib_module_names)))
"""

SMALL_PROGRAM = """
    from pathlib import Path
    from typing import Literal
    import typer
    app = typer.Typer()
    @app.command()
    def one(choice: Literal["a", "b"] = "a", path: Path = Path("x"), size: int = 1) -> None: ...
    @app.command()
    def two() -> None: ...
    sys.argv = ["small", *%r]
    app()
"""

COMMAND = "sys.argv = ['collabdm', *%r]; from collabdm.cli.main import main; main()"


def loaded_by(statement: str) -> set[str]:
    """The top-level modules, without the standard library, that a statement loads."""
    ran = subprocess.run(
        [sys.executable, "-c", LOADED % statement], capture_output=True, text=True, check=True
    )
    return set(json.loads(ran.stdout))


def test_the_import_loads_no_library() -> None:
    assert loaded_by("import collabdm") == {"collabdm"}


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["-h"],
        ["--version"],
        ["-V"],
        ["version"],
        ["plan", "--help"],
        ["simulate", "--help"],
        [],
    ],
)
def test_help_and_version_load_no_library_that_computes(words) -> None:
    loaded = loaded_by(COMMAND % words)
    assert "typer" in loaded
    of_typer = loaded_by(SMALL_PROGRAM % ["--help"]) | loaded_by(SMALL_PROGRAM % ["one", "--help"])
    assert loaded <= {"collabdm"} | of_typer


def test_wrong_usage_loads_no_library_that_computes() -> None:
    loaded = loaded_by(COMMAND % ["plan", "-o", "x", "--wire", "float15"])
    assert loaded <= {"collabdm"} | loaded_by(SMALL_PROGRAM % ["one", "--choice", "c"])


def test_training_code_loads_neither_a_compiler_nor_plots() -> None:
    loaded = loaded_by("from collabdm import contribute, distill, evaluate, load, make_plan")
    assert "torch" in loaded
    assert not loaded & {
        "matplotlib",
        "sklearn",
        "scipy",
        "datasets",
        "pandas",
        "pyarrow",
        "flwr",
        "onnx",
        "sympy",
    }


@pytest.mark.parametrize("name", collabdm.__all__)
def test_every_public_name_can_be_imported_and_is_listed(name) -> None:
    namespace: dict[str, object] = {}
    exec(f"from collabdm import {name}", namespace)
    assert namespace[name] is getattr(collabdm, name)
    assert name in dir(collabdm)


def test_names_are_listed_before_they_are_imported() -> None:
    command = (
        "import collabdm; print(set(collabdm.__all__) <= set(dir(collabdm)), "
        "'Plan' in vars(collabdm))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True
    )
    assert ran.stdout.split() == ["True", "False"]


def imports_for_type_checkers() -> dict[str, str]:
    """The names in the block `if TYPE_CHECKING`, with their modules."""
    tree = ast.parse(Path(collabdm.__file__).read_text(encoding="utf-8"))
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    return {alias.name: str(node.module) for node in block.body for alias in node.names}


def test_type_checkers_see_the_names_where_they_are_defined() -> None:
    names = imports_for_type_checkers()
    assert set(names) | {"__version__"} | {
        n for n in collabdm.__all__ if n.endswith("Error")
    } == set(collabdm.__all__)
    for name, module in names.items():
        assert getattr(collabdm, name) is getattr(importlib.import_module(module), name)


@pytest.mark.parametrize(("old", "new"), [("Protocol", "EvaluationConfig"), ("Run", "RunContext")])
def test_an_earlier_name_is_still_there_with_a_warning(old, new) -> None:
    with pytest.warns(DeprecationWarning, match=f"collabdm.{old} was renamed: use collabdm.{new}"):
        assert getattr(collabdm, old) is getattr(collabdm, new)
    assert old not in dir(collabdm)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'collabdm' has no attribute 'nothing'"):
        collabdm.nothing  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        exec("from collabdm import nothing")

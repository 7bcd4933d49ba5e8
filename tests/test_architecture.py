"""What every module of the package keeps to, read from the source: nothing is imported here."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src"

#: bottom up: each module imports only modules above its own line
ORDER = (
    *("version", "errors", "whole", "seeds", "images", "augment", "fused", "networks", "compute"),
    *("decoding", "layouts", "sources", "partition"),
    *("flows.schema", "flows.windows", "flows.chunks", "flows.tables", "flows", "flows.stations", "confusion"),
    *("flows.built_in", "flows.draft", "flows.synthetic"),
    *("embedding", "statistics", "protocol", "parts", "weights", "matching", "planning"),
    *("methods.localdm", "methods.collabdm", "methods.answers", "methods.local_training", "methods.fedavg"),
    *("methods.coreset", "methods.fedd3", "methods.dosfl", "methods.dense", "methods.rounds", "methods"),
    *("training", "evaluation", "robustness"),
    *("files", "outcome_files", "models", "flows.classifier", "curves", "ledger", "outcomes"),
    *("experiment", "settings", "budget", "inspection", "screen", "exports", "portable", "demo"),
    *("reproduce", "reproduce.grids", "reproduce.records", "reproduce.running", "reproduce.findings"),
    *("report.gathering", "report.plots", "report.page", "report.grid_plots", "report.results", "report"),
    *("policy", "arrows"),
    *("flower", "flower.wire", "flower.site", "flower.collecting", "flower.server", "flower.connection"),
    *(
        "cli.options",
        "cli.reporting",
        "cli.reproducing",
        "cli.round",
        "cli.simulation",
        "cli.taking",
        "cli.flows",
        "cli.deployment",
    ),
    *("cli", "cli.__main__"),
)
FACE = "collabdm"  # the package's __init__: imports from many, imported by none inside

MOST_LINES = 400
MOST_LINES_OF_A_FUNCTION = 60
LONGER_FUNCTIONS: dict[str, str] = {}  # module.function: why it is longer

GLOBAL_GENERATORS = {
    *("manual_seed", "seed", "rand", "randn", "randint", "randperm", "rand_like", "randn_like", "randint_like"),
    *("normal", "bernoulli", "multinomial", "poisson", "dropout", "Generator", "default_rng"),
}
DRAWING_METHODS = {"random_", "normal_", "uniform_", "bernoulli_", "exponential_", "log_normal_", "cauchy_"}
CLOCKS = {"time", "datetime", "timeit"}
HAS_A_CLOCK = {"experiment", "reproduce.running", "cli.flows", "flower.server"}
UNSAFE_FORMATS = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


@cache
def modules() -> dict[str, ast.Module]:
    found = {}
    for path in sorted((SOURCE / "collabdm").rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE / "collabdm").with_suffix("").parts).removesuffix("__init__")
        found[name.removesuffix(".") or FACE] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


NAMES = [*ORDER, FACE]


def imports(module: str) -> Iterator[str]:
    """Every imported name with dots, such as `collabdm.files` or `numpy`."""
    for node in ast.walk(modules()[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} should import by full names"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(module: str) -> set[str]:
    """The modules of the package that a module imports."""
    found = set()
    for name in imports(module):
        if name.split(".")[0] != "collabdm":
            continue
        parts = name.split(".")[1:]
        while parts and ".".join(parts) not in modules():
            parts.pop()
        found.add(".".join(parts) or FACE)
    return found


def dotted(node: ast.AST) -> str:
    """`a.b.c` as text; empty for anything else."""
    if isinstance(node, ast.Attribute) and (base := dotted(node.value)):
        return f"{base}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def calls(module: str) -> Iterator[ast.Call]:
    return (node for node in ast.walk(modules()[module]) if isinstance(node, ast.Call))


def called(module: str) -> list[str]:
    return [dotted(call.func) for call in calls(module)]


def test_the_order_names_every_module() -> None:
    assert sorted(NAMES) == sorted(modules())


@pytest.mark.parametrize("module", NAMES)
def test_imports_go_one_way(module) -> None:
    allowed = set(NAMES[: NAMES.index(module)])
    assert own_imports(module) <= allowed


@pytest.mark.parametrize("module", NAMES)
def test_nothing_is_pickled_or_evaluated(module) -> None:
    assert not {name.split(".")[0] for name in imports(module)} & UNSAFE_FORMATS
    assert not set(called(module)) & {"torch.save", "torch.load", "eval", "exec", "compile"}
    for call in calls(module):
        pickles = [k.value for k in call.keywords if k.arg == "allow_pickle"]
        assert all(isinstance(value, ast.Constant) and value.value is False for value in pickles)


@pytest.mark.parametrize("module", NAMES)
def test_numpy_files_are_read_and_written_without_pickle(module) -> None:
    for call in calls(module):
        if dotted(call.func) in ("np.load", "np.save"):
            assert "allow_pickle" in {k.arg for k in call.keywords}, f"{module}:{call.lineno}"


@pytest.mark.parametrize("module", NAMES)
def test_no_global_generator_is_used(module) -> None:
    assert not {"random", "secrets", "uuid"} & {name.split(".")[0] for name in imports(module)}
    assert not [name for name in imports(module) if name.startswith("numpy.random")]
    for call in calls(module):
        name, last = dotted(call.func), getattr(call.func, "attr", "")
        assert not (name.startswith(("torch.", "F.", "nn.")) and last in GLOBAL_GENERATORS), f"{module}:{call.lineno}"
        assert last not in DRAWING_METHODS, f"{module}:{call.lineno}"
    for node in ast.walk(modules()[module]):
        name = dotted(node)
        if name.startswith(("np.random.", "numpy.random.")):
            assert (module, name) == ("seeds", "np.random.Philox")


@pytest.mark.parametrize("module", NAMES)
def test_only_what_people_watch_looks_at_a_clock(module) -> None:
    if module not in HAS_A_CLOCK:
        assert not {name.split(".")[0] for name in imports(module)} & CLOCKS


@pytest.mark.parametrize("module", [name for name in NAMES if not name.startswith("cli")])
def test_only_the_command_line_prints_and_exits(module) -> None:
    assert not {"print", "exit", "quit", "sys.exit", "os._exit", "input"} & set(called(module))
    assert not [call.lineno for call in calls(module) if getattr(call.func, "attr", "") == "print"]
    assert "sys" not in {name.split(".")[0] for name in imports(module)}


@pytest.mark.parametrize("module", NAMES)
def test_files_and_functions_are_short(module) -> None:
    tree = modules()[module]
    assert tree.body[-1].end_lineno <= MOST_LINES
    for node in ast.walk(tree):
        if (
            isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
            and f"{module}.{node.name}" not in LONGER_FUNCTIONS
        ):
            assert node.end_lineno - node.lineno < MOST_LINES_OF_A_FUNCTION, node.name


def test_the_long_functions_that_are_allowed_are_still_long() -> None:
    for name in LONGER_FUNCTIONS:
        module, function = name.rsplit(".", 1)
        nodes = [n for n in ast.walk(modules()[module]) if isinstance(n, ast.FunctionDef) and n.name == function]
        assert [node for node in nodes if node.end_lineno - node.lineno >= MOST_LINES_OF_A_FUNCTION]

"""What every module of the package keeps to, read from the source: nothing is imported here."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"

#: bottom up: a module imports only from floors below its own, or from its own package
FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "version", "seeds", "progress", "openmp", "pictures"),
    ("images", "checkpoint"),
    ("documents",),
    ("matching", "data"),
    ("privacy",),
    ("methods",),
    ("planning", "scoring"),
    ("export",),
    ("rounds",),
    ("lab", "flower"),
    ("report", "site_page"),
    ("cli",),
    ("", "__main__"),  # the public names
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

MOST_LINES = 400
MOST_LINES_OF_A_FUNCTION = 60
LONGER_FUNCTIONS: dict[str, str] = {}  # module.function: why it is longer

GLOBAL_GENERATORS = {
    *(
        "manual_seed",
        "seed",
        "rand",
        "randn",
        "randint",
        "randperm",
        "rand_like",
        "randn_like",
        "randint_like",
    ),
    *("normal", "bernoulli", "multinomial", "poisson", "dropout", "Generator", "default_rng"),
}
DRAWING_METHODS = {
    "random_",
    "normal_",
    "uniform_",
    "bernoulli_",
    "exponential_",
    "log_normal_",
    "cauchy_",
}
CLOCKS = {"time", "datetime", "timeit"}
HAS_A_CLOCK = {
    "data.flows.cells",  # parses the times of a table
    "matching.threads",  # looks at the load a few times
    "rounds.estimate",  # measures this machine
    "rounds.resumable",
    "cli.console",  # the time left
    "lab.reproduce.running",
    "lab.reproduce.timing",
    "cli.arrivals",  # waits for rows
    "cli.classifying",
    "cli.live",
    "flower.server",
}
#: modules that draw what nobody may be able to repeat
OF_THE_OPERATING_SYSTEM = {"privacy.site_secret": {"secrets"}, "site_page.server": {"secrets"}}
UNSAFE_FORMATS = {"pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


@cache
def modules() -> dict[str, ast.Module]:
    found = {}
    for path in sorted((SOURCE / "collabdm").rglob("*.py")):
        name = ".".join(path.relative_to(SOURCE / "collabdm").with_suffix("").parts).removesuffix(
            "__init__"
        )
        found[name.removesuffix(".")] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


NAMES = sorted(modules())


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
        found.add(".".join(parts))
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


def room(module: str) -> str:
    """The package or the file at the top that a module belongs to."""
    return module.split(".")[0]


def test_every_room_has_a_floor() -> None:
    assert {room(name) for name in NAMES} == set(FLOOR)


@pytest.mark.parametrize("module", NAMES)
def test_imports_go_one_way(module) -> None:
    upward = {name for name in own_imports(module) if FLOOR[room(name)] >= FLOOR[room(module)]}
    assert {room(name) for name in upward} <= {room(module)}


def test_modules_of_a_package_do_not_import_each_other_in_a_circle() -> None:
    left = {name: own_imports(name) - {name} for name in NAMES}
    while free := [name for name, wanted in left.items() if not wanted & set(left)]:
        for name in free:
            del left[name]
    assert not left


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
    generators = {"random", "secrets", "uuid"} & {name.split(".")[0] for name in imports(module)}
    assert generators <= OF_THE_OPERATING_SYSTEM.get(module, set())
    assert not [name for name in imports(module) if name.startswith("numpy.random")]
    for call in calls(module):
        name, last = dotted(call.func), getattr(call.func, "attr", "")
        assert not (name.startswith(("torch.", "F.", "nn.")) and last in GLOBAL_GENERATORS), (
            f"{module}:{call.lineno}"
        )
        assert last not in DRAWING_METHODS, f"{module}:{call.lineno}"
    for node in ast.walk(modules()[module]):
        name = dotted(node)
        if name.startswith(("np.random.", "numpy.random.")):
            assert (module, name) == ("seeds", "np.random.Philox")


@pytest.mark.parametrize("module", NAMES)
def test_only_what_people_watch_looks_at_a_clock(module) -> None:
    if module not in HAS_A_CLOCK:
        assert not {name.split(".")[0] for name in imports(module)} & CLOCKS


@pytest.mark.parametrize(
    "module", [name for name in NAMES if room(name) not in ("cli", "__main__")]
)
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
        nodes = [
            n
            for n in ast.walk(modules()[module])
            if isinstance(n, ast.FunctionDef) and n.name == function
        ]
        assert [node for node in nodes if node.end_lineno - node.lineno >= MOST_LINES_OF_A_FUNCTION]

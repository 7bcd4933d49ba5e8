"""The documentation is true: its commands and programs run, its links lead somewhere, its numbers are the code's."""

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import typer
from pydantic import BaseModel

from collabdm.cli import main as cli
from collabdm.documents.canonical_json import canonical_json
from collabdm.documents.contribution_file import ContributionHeader, contribution_bytes
from collabdm.documents.outcome_files import DISTILLED_LIMIT, DistilledHeader
from collabdm.documents.plan import Plan
from collabdm.documents.plan_file import PLAN_LIMIT, read_plan, write_plan
from collabdm.documents.protection import Privacy
from collabdm.documents.specs import NetworkSpec
from collabdm.images import ImageSet
from collabdm.lab.settings import experiment_of
from collabdm.matching.networks import build, seed_weights
from collabdm.methods.collabdm import contribute
from collabdm.methods.registry import METHODS
from collabdm.planning.probe import check_probe
from collabdm.planning.settings import read_toml
from collabdm.rounds.policy import read_policy
from collabdm.scoring.distilled_model_file import DistilledModelHeader
from collabdm.scoring.trained_model import ModelHeader
from collabdm.seeds import Purpose, Stream, derive, participants

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
FRAME = ("format", "version", "digest")
FORMAT = (ROOT / "docs" / "format.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the comment that stands just before it."""

    language: str
    text: str
    comment: str

    @property
    def runs(self) -> bool:
        return not self.comment.startswith(("not run", "run by"))

    @property
    def commands(self) -> list[str]:
        lines = self.text.replace("\\\n", " ").splitlines()
        return [
            line.removeprefix("$ ")
            for line in lines
            if line.removeprefix("$ ").startswith("collabdm ")
        ]


def blocks(text: str) -> list[Block]:
    pattern = r"(?:<!-- ([^\n]*?) -->\n+)?^```(\w*)\n(.*?)^```$"
    found = re.finditer(pattern, text, flags=re.MULTILINE | re.DOTALL)
    return [Block(match[2], match[3], match[1] or "") for match in found]


def golden(name: str) -> str:
    (block,) = [block for block in blocks(FORMAT) if block.comment == f"golden: {name}"]
    return block.text


def write_cli() -> ModuleType:
    spec = spec_from_file_location("write_cli", ROOT / "docs" / "write_cli.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_cli_page_is_up_to_date() -> None:
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page == write_cli().page(), "run python docs/write_cli.py"


def test_check_of_cli_page_fails_when_it_differs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = write_cli()
    program.PLACE = tmp_path / "cli.md"
    monkeypatch.setattr(sys, "argv", ["write_cli.py", "--check"])
    with pytest.raises(SystemExit, match="not up to date"):
        program.main()
    monkeypatch.setattr(sys, "argv", ["write_cli.py"])
    program.main()
    monkeypatch.setattr(sys, "argv", ["write_cli.py", "--check"])
    program.main()


def every_command() -> dict[str, Any]:
    """The commands of the program by name; those of two words too."""
    found = {}
    for name, command in typer.main.get_command(cli.app).commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found |= {name: command} if inner is None else {f"{name} {n}": c for n, c in inner.items()}
    return found


def test_cli_page_names_every_option_that_typer_offers() -> None:
    page = write_cli().page()
    assert "flower init" in every_command()
    for name, command in every_command().items():
        _, found, section = page.partition(f"\n## collabdm {name}\n")
        section, _, _ = section.partition("\n## ")
        assert found, name
        for parameter in command.params:
            for option in [*parameter.opts, *parameter.secondary_opts]:
                assert not option.startswith("-") or option in section, f"{name} {option}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_and_programs_run_in_order(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks(page.read_text(encoding="utf-8")):
        if not block.runs:
            continue
        if block.language == "python":
            exec(compile(block.text, str(page), "exec"), {"__name__": "__main__"})
        elif block.language in ("console", "bash"):
            for command in block.commands:
                assert not cli.app(shlex.split(command)[1:], standalone_mode=False), command


def test_a_block_that_is_not_run_gives_its_reason() -> None:
    skipped = [
        block
        for page in PAGES
        for block in blocks(page.read_text(encoding="utf-8"))
        if block.comment.startswith("not run")
    ]
    assert all(re.fullmatch(r"not run: \w.{9,}", block.comment) for block in skipped)
    assert len(skipped) <= 4


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_a_block_that_another_test_runs_names_that_test(page: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.comment.startswith("run by"):
            names = re.fullmatch(r"run by (\S+): (\S+)", block.comment)
            assert names is not None
            text = (ROOT / names[1]).read_text(encoding="utf-8")
            assert f'"{names[2]}"' in text
            assert f'"{page.name}"' in text


def test_skipped_commands_have_options_that_exist() -> None:
    commands = every_command()
    for page in PAGES:
        for block in blocks(page.read_text(encoding="utf-8")):
            for command in block.commands:
                _, name, *words = shlex.split(command)
                if name not in commands:
                    name = f"{name} {words.pop(0)}"
                known = {o for p in commands[name].params for o in [*p.opts, *p.secondary_opts]}
                assert {word for word in words if word.startswith("-")} <= known, command


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = re.sub(
        r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
    )
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), target
        assert not anchor or anchor in anchors(found.read_text(encoding="utf-8")), target


def test_the_site_names_every_page_and_links_stay_inside() -> None:
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    pages = sorted((ROOT / "docs").glob("*.md"))
    assert sorted(re.findall(r": (\S+\.md)$", nav, flags=re.MULTILINE)) == [
        page.name for page in pages
    ]
    for page in pages:
        assert "](../" not in page.read_text(encoding="utf-8"), (
            f"{page.name}: the site ends at docs/"
        )


def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    missing = [name for name in ("mkdocs", "material", "mkdocstrings") if find_spec(name) is None]
    if missing:
        pytest.skip(
            f"{', '.join(missing)} not installed: the extra `docs` has what builds the site"
        )
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--strict",
        "--quiet",
        "--site-dir",
        str(tmp_path / "site"),
    ]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    ran = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, env=quiet)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    for page in (ROOT / "docs").glob("*.md"):
        place = tmp_path / "site" / ("" if page.stem == "index" else page.stem) / "index.html"
        assert "<h1" in place.read_text(encoding="utf-8"), page.name
    assert "collabdm.contribute" in (tmp_path / "site" / "reference" / "index.html").read_text(
        encoding="utf-8"
    )


def anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_settings_files_are_experiments_or_policies(page: Path, tmp_path: Path) -> None:
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.language == "toml" and block.runs:
            path = tmp_path / "settings.toml"
            path.write_text(block.text, encoding="utf-8")
            if block.comment == "policy":
                read_policy(path)
                continue
            settings = experiment_of(read_toml(path)).plan
            Plan(
                classes=("a", "b"),
                image={"channels": 1, "side": 8, "mean": (0,), "std": (1,)},
                **settings,
            )


def test_example_plan_is_read_and_its_probe_is_found(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text(golden("plan"), encoding="utf-8")
    plan = read_plan(path)
    check_probe(plan)
    write_plan(plan, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text(encoding="utf-8") == golden("plan")
    canonical = canonical_json(plan.model_dump(mode="json"))
    count, begin = re.search(
        r"canonical JSON has ([\d,]+) bytes and begins\n`(.*?)`", FORMAT
    ).groups()  # type: ignore[union-attr]
    assert len(canonical.encode()) == int(count.replace(",", ""))
    assert canonical.startswith(begin)


def test_philox_of_the_page_is_the_stream() -> None:
    names: dict[str, Any] = {}
    exec(golden("philox"), names)
    for seed, purpose, step in [
        (0, Purpose.WEIGHTS, 0),
        (2**63 - 1, Purpose.SKETCH, 2**32 - 1),
        (7, Purpose.DATA, 99),
    ]:
        assert (
            names["philox"](seed, int(purpose), step, 203)
            == Stream.of(seed, purpose, step).words(203).tolist()
        )


def test_golden_values_are_those_of_the_code() -> None:
    _, _, section = FORMAT.partition("<!-- golden: values -->")
    section, _, _ = section.partition("\n## ")
    rows = dict(re.findall(r"^\| (.+?) \| (.+) \|$", section, flags=re.MULTILINE))

    def stream(purpose: Purpose) -> Stream:
        return Stream.of(0, purpose, 0)

    network = build(NetworkSpec(), (3, 32, 32), 10)
    seed_weights(network, stream(Purpose.WEIGHTS))
    weights = network.features[0].weight.detach().flatten()[:4]
    sites = [sorted(participants(0, t, ("a", "b", "c", "d"), 0.5)) for t in range(4)]
    expected = {
        "first words, purpose 1": " ".join(
            f"`{w:016x}`" for w in stream(Purpose.WEIGHTS).words(4).tolist()
        ),
        "first uniforms, purpose 1": ", ".join(
            map(str, stream(Purpose.WEIGHTS).uniforms(4).tolist())
        ),
        "first weights of a ConvNet for 3 x 32 x 32 images (`features.0.weight`)": ", ".join(
            map(str, weights.tolist())
        ),
        "first signs, purpose 3": " ".join(
            "+" if s > 0 else "-" for s in stream(Purpose.SKETCH).signs(16).tolist()
        ),
        "first uniforms, purpose 2": ", ".join(
            map(str, stream(Purpose.AUGMENT).uniforms(5).tolist())
        ),
        "permutation of 8, purpose 20": " ".join(
            map(str, stream(Purpose.BATCH).permutation(8).tolist())
        ),
        "integers below 10, purpose 20": " ".join(
            map(str, stream(Purpose.BATCH).integers(10, 6).tolist())
        ),
        'derive(0, "site", "site-1")': str(derive(0, "site", "site-1")),
        "sites of steps 0 .. 3 among a, b, c, d with fraction 0.5": "; ".join(map(" ".join, sites)),
    }
    assert {name: rows.get(name) for name in expected} == expected


def test_every_purpose_is_in_the_table() -> None:
    table = dict(re.findall(r"^\| (\d+) \| ([A-Z_]+) \|", FORMAT, flags=re.MULTILINE))
    assert {int(number): name for number, name in table.items()} == {
        int(p): p.name for p in Purpose
    }


def fields(model: type[BaseModel], prefix: str = "") -> list[tuple[str, str]]:
    """(dotted name, bare name) of every field, those of parts included."""
    names = []
    for name, field in model.model_fields.items():
        names.append((f"{prefix}{name}", name))
        parts = [
            t
            for t in (field.annotation, *getattr(field.annotation, "__args__", ()))
            if isinstance(t, type)
        ]
        for part in parts:
            if issubclass(part, BaseModel):
                names += fields(part, f"{prefix}{name}.")
    return names


def test_every_field_of_a_plan_is_described_with_its_default() -> None:
    section, _, _ = FORMAT.partition("\n### Digest\n")
    rows = {}
    for cell, rest in re.findall(r"^\| (`[^|]+`) \| (.+) \|$", section, flags=re.MULTILINE):
        rows |= dict.fromkeys(re.findall(r"`([\w.]+)`", cell), rest)
    for dotted, bare in fields(Plan):
        if ".matching." in dotted:
            assert f"`{bare}`" in section, dotted
        else:
            assert dotted in rows, dotted
    for name, field in Plan.model_fields.items():
        if isinstance(field.default, int | float | str) and not field.is_required():
            assert str(field.default).removesuffix(".0") in rows[name].split(" | ")[1], name


def test_header_keys_and_tensors_of_the_page_are_those_of_the_files() -> None:
    for model in (ContributionHeader, DistilledHeader, ModelHeader):
        assert all(f"| `{name}` |" in FORMAT for name in model.model_fields)
    for name in ("steps", "classes", "codes", "scales", "batch_counts", "totals"):
        assert f"| `statistics.{name}` |" in FORMAT
    assert f"{PLAN_LIMIT:,} bytes" in FORMAT
    assert f"{DISTILLED_LIMIT:,} bytes" in FORMAT


def test_the_other_outcomes_of_the_page_are_those_of_the_files() -> None:
    for kind in ("collabdm/steps", "collabdm/distilled-model"):
        assert f"`{kind}`" in FORMAT
    numbers = sum(value.numel() for value in build(NetworkSpec(), (3, 32, 32), 10).parameters())
    assert f"has {numbers:,} numbers, {4 * numbers:,} bytes" in FORMAT
    assert all(f"| `{name}` |" in FORMAT for name in DistilledModelHeader.model_fields)
    with_parts = [
        name
        for name, method in METHODS.items()
        if method.options is not None and method.run_rounds is None
    ]
    assert all(f"| `{name}` |" in FORMAT for name in with_parts)


def test_formula_of_bytes_holds() -> None:
    plan = Plan.model_validate(
        {k: v for k, v in json.loads(golden("plan")).items() if k not in FRAME}
    )
    pixels = (torch.arange(6 * 64) % 256).to(torch.uint8).view(6, 1, 8, 8)
    data = ImageSet(pixels, torch.tensor([0, 1, 0, 1, 0, 0]), plan.classes)
    content = contribution_bytes(contribute(plan, data, "site-1"))
    steps, held, width, images = 2, 2, 16, 2
    tensors = steps * held * width * 2 + images * 64 + 8 * (steps + 3 * held + images)
    assert len(content) == 8 + int.from_bytes(content[:8], "little") + tensors


@pytest.mark.parametrize(
    "program",
    [
        "experiments/write_results.py",
        "experiments/write_flows.py",
        "benchmarks/write_performance.py",
    ],
)
def test_the_results_say_what_was_measured(program: str) -> None:
    command = [sys.executable, str(ROOT / program), "--check"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


# --- names of modules ----------------------------------------------------------------------------

PACKAGES = "|".join(
    sorted(
        path.name
        for path in (ROOT / "src" / "collabdm").iterdir()
        if path.is_dir() and path.name[0] != "_"
    )
)
MODULE_NAMES = sorted(
    {
        (str(page.relative_to(ROOT)), name)
        for page in PAGES
        for name in re.findall(
            rf"`((?:{PACKAGES})\.[a-z_]+(?:\.\w+)*)`", page.read_text(encoding="utf-8")
        )
    }
    - {
        (str(page.relative_to(ROOT)), f"privacy.{field}")  # settings of a plan, not modules
        for page in PAGES
        for field in Privacy.model_fields
    }
)


@pytest.mark.parametrize(("page", "name"), MODULE_NAMES)
def test_modules_and_functions_of_the_pages_exist(page: str, name: str) -> None:
    parts = f"collabdm.{name}".split(".")
    module, rest = import_module("collabdm"), parts[1:]
    while rest and hasattr(module, "__path__") and find_spec(f"{module.__name__}.{rest[0]}"):
        module, rest = import_module(f"{module.__name__}.{rest[0]}"), rest[1:]
    found: Any = module
    for attribute in rest:
        found = getattr(found, attribute)
    assert len(rest) < len(parts) - 1, "no module of that name"

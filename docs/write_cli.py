"""Writes docs/cli.md, the reference of the command line, from the functions that the commands are.

    python docs/write_cli.py            write it
    python docs/write_cli.py --check    exit with 1 if it is not up to date

Signatures are read, not the help screens: those change with the version of typer and the width of the terminal.
"""

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo, OptionInfo

from collabdm.cli.main import app

PLACE = Path(__file__).with_name("cli.md")
VALUES = {str: "text", int: "whole number", float: "number", Path: "path", bool: ""}
INTRODUCTION = """\
# The command line

This page is generated from the program by `python docs/write_cli.py`; do not edit it by hand.

One command for each arrow of the round, and `simulate` for all of them on one machine:

    plan  ->  contribute (each site)  ->  distill  ->  evaluate

Exit codes: 0, done; 1, an error of the program itself; 2, something in the input should be changed, and one
message on standard error says what; 130, stopped by Ctrl-C, with no half file left: the same command goes on
where it stood. Results go to standard output, progress and errors to standard error. `collabdm COMMAND --help`
says the same as this page.
"""


def main() -> None:
    """Write the page, or compare it."""
    text = page()
    if "--check" not in sys.argv[1:]:
        PLACE.write_text(text, encoding="utf-8")
    elif not PLACE.exists() or PLACE.read_text(encoding="utf-8") != text:
        sys.exit(f"{PLACE} is not up to date: run python docs/write_cli.py")


def page() -> str:
    """The whole page."""
    functions = {(c.name or c.callback.__name__.replace("_", "-")): c.callback for c in app.registered_commands}
    index = "\n".join(f"- [`collabdm {name}`](#collabdm-{name}): {sentence(f)}" for name, f in functions.items())
    return "\n".join([INTRODUCTION, index, "", *(section(name, f) for name, f in functions.items())])


def sentence(function: Any) -> str:
    """The first sentence of a command's help."""
    text = inspect.cleandoc(function.__doc__)
    return text.split("\n\n")[0].replace("\n", " ")


def section(name: str, function: Any) -> str:
    """One command: its usage, arguments and options."""
    found = list(parameters(function))
    arguments = [(label, help_text) for kind, label, _, _, help_text in found if kind == "argument"]
    options = [row for kind, *row in found if kind == "option"]
    usage = " ".join(["collabdm", name, *(label for label, _ in arguments), *(["[OPTIONS]"] if options else [])])
    lines = [f"## collabdm {name}", "", f"    {usage}", "", sentence(function), ""]
    if arguments:
        lines += ["| argument | what it is |", "|---|---|"]
        lines += [f"| `{label}` | {cell(text)} |" for label, text in arguments] + [""]
    if options:
        lines += ["| option | value | default | what it does |", "|---|---|---|---|"]
        lines += ["| " + " | ".join((f"`{label}`", value, default, cell(text))) + " |"
                  for label, value, default, text in options] + [""]  # fmt: skip
    return "\n".join(lines)


def parameters(function: Any) -> Iterator[tuple[str, str, str, str, str]]:
    """(kind, name as typed, what its value is, default, help) of every parameter."""
    hints = get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        kind, info = split(hints[name])
        if isinstance(info, ArgumentInfo):
            yield "argument", info.metavar or name.upper(), "", "", info.help or ""
            continue
        named = [info.default, *(info.param_decls or ())]  # in Annotated, typer keeps the first name as the default
        flags = [flag for flag in named if isinstance(flag, str)] or [f"--{name.replace('_', '-')}"]
        flags.sort(key=lambda flag: flag.startswith("--"))  # short names first
        yield "option", ", ".join(flags), value_of(kind, info), default_of(parameter.default), info.help or ""


def split(hint: Any) -> tuple[Any, ArgumentInfo | OptionInfo]:
    """The plain type and typer's part of an annotation; `X | None` counts as X."""
    plain, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if isinstance(plain, UnionType):
        (plain,) = (part for part in get_args(plain) if part is not type(None))
    return plain, next(e for e in extras if isinstance(e, ArgumentInfo | OptionInfo))


def value_of(kind: Any, info: ArgumentInfo | OptionInfo) -> str:
    """What is to be typed after an option."""
    word = VALUES.get(kind, "text")
    if info.min is not None:
        word += f", at least {info.min}"
    return word if info.max is None else f"{word}, at most {info.max}"


def default_of(default: Any) -> str:
    """A default for readers."""
    if default is inspect.Parameter.empty:
        return "required"
    if default is None:
        return ""
    return ("on" if default else "off") if isinstance(default, bool) else f"`{default}`"


def cell(text: str) -> str:
    """Text that can stand in a table."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    main()

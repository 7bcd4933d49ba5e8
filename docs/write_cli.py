"""Write docs/cli.md, the reference of the command line, from the signatures of the commands.

    python docs/write_cli.py            write it
    python docs/write_cli.py --check    exit with 1 if it is not up to date

The page is made from the signatures and not from the help screens, which change with the version of
typer and the width of the terminal.
"""

import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo, OptionInfo

from collabdm.cli.main import COMMANDS, GROUPS

PLACE = Path(__file__).with_name("cli.md")
VALUES = {str: "text", int: "whole number", float: "number", Path: "path", bool: ""}
INTRODUCTION = """\
# The command line

This page is generated from the program by `python docs/write_cli.py`; do not edit it by hand.

One command for each step of the round, and `simulate` for all of them on one machine:

    plan  ->  contribute (each site)  ->  distill  ->  evaluate

`collabdm --help` (`-h`) lists the commands, `collabdm COMMAND --help` shows the options of one,
and `collabdm --version` (`-V`) prints the version. `collabdm --install-completion` installs
completion of commands, options and their values for the current shell. `python -m collabdm` is
the same program.

`plan` and `simulate` have options for the usual settings, and `--set FIELD=VALUE` for every
field of a [plan](format.md#plan):

    collabdm plan ... --set refinement.matching.schedule=cosine --set network.norm=group
    collabdm plan ... --set 'augment=[crop, scale]' --set sketch=none

A value is a TOML or JSON scalar or list; text needs no quotes, and `none` stands for no value.
`simulate` also accepts the fields of an experiment, and those of its plan as `plan.FIELD`. Of
several values for one setting, the last in this order applies: preset, configuration file,
options, `--set`.

Exit codes: 0, done; 1, an error of the program itself; 2, something in the input should be
changed, and a message on standard error names it; 130, stopped by Ctrl-C; 143, by SIGTERM. Results
go to standard output, progress and errors to standard error. Without a terminal, a line every half
minute reports the progress and the time left. NO_COLOR switches colours off.

`contribute`, `distill`, `train`, `evaluate` and `simulate` can be stopped at any point, also by
SIGKILL: the same command continues, and the outcome has the same bytes. The state of the work is in
`.NAME.state` in the folder of the output (for noised contributions in the site's private folder,
for `evaluate` without `--json` in the user's cache). It is written at least every ten seconds and
when the command is stopped. Other data, settings or versions never continue from it.

Two options may stand before or after every command: `--verbose` logs the steps of the work to
standard error, and `--log-file FILE` appends the log, with times, to a file. `--json FILE` also
writes the tables of a command; `--json -` writes them to standard output instead.

The number of threads is that of the cores that other processes leave free, and changes the rounding
of long sums; `--threads` or the variable OMP_NUM_THREADS fixes it.
"""


@dataclass(frozen=True)
class Parameter:
    """A parameter of a command, as texts."""

    argument: bool
    label: str
    value: str
    default: str
    help: str


def main() -> None:
    """Write the page, or compare it."""
    text = page()
    if "--check" not in sys.argv[1:]:
        PLACE.write_text(text, encoding="utf-8")
    elif not PLACE.exists() or PLACE.read_text(encoding="utf-8") != text:
        sys.exit(f"{PLACE} is not up to date: run python docs/write_cli.py")


def page() -> str:
    """The whole page."""
    lines, sections = [INTRODUCTION], []
    for panel in COMMANDS:
        lines.append(f"{panel}:\n")
        for name, command in named(panel):
            anchor = name.replace(" ", "-")
            lines.append(f"- [`collabdm {name}`](#collabdm-{anchor}): {sentence(command)}")
            sections.append(section(name, command))
        lines.append("")
    return "\n".join([*lines, *sections])


def named(panel: str) -> Iterator[tuple[str, Callable[..., None]]]:
    """The commands of a panel, with their names as typed."""
    for command in COMMANDS[panel]:
        yield command.__name__.replace("_", "-"), command
    for word, (its_panel, _, commands) in GROUPS.items():
        for command in commands if its_panel == panel else ():
            yield f"{word} {command.__name__.replace('_', '-')}", command


def sentence(command: Callable[..., None]) -> str:
    """The first paragraph of a command's help."""
    text = inspect.cleandoc(command.__doc__ or "")
    return text.split("\n\n")[0].replace("\n", " ")


def section(name: str, command: Callable[..., None]) -> str:
    """One command: its usage, arguments and options."""
    every = list(parameters(command))
    arguments = [p for p in every if p.argument]
    options = [p for p in every if not p.argument]
    labels = [p.label for p in arguments] + (["[OPTIONS]"] if options else [])
    usage = " ".join(["collabdm", name, *labels])
    lines = [f"## collabdm {name}", "", f"    {usage}", "", sentence(command), ""]

    if arguments:
        lines += ["| argument | meaning |", "|---|---|"]
        lines += [f"| `{p.label}` | {cell(p.help)} |" for p in arguments] + [""]
    if options:
        lines += ["| option | value | default | meaning |", "|---|---|---|---|"]
        lines += [
            f"| `{p.label}` | {p.value} | {p.default} | {cell(p.help)} |" for p in options
        ] + [""]
    return "\n".join(lines)


def parameters(command: Callable[..., None]) -> Iterator[Parameter]:
    """The parameters of a command."""
    hints = get_type_hints(command, include_extras=True)
    for name, parameter in inspect.signature(command).parameters.items():
        kind, info = split(hints[name])
        if isinstance(info, ArgumentInfo):
            yield Parameter(True, info.metavar or name.upper(), "", "", info.help or "")
            continue

        # in Annotated, typer keeps the first name of an option as its default
        names = [info.default, *(info.param_decls or ())]
        flags = [flag for flag in names if isinstance(flag, str)]
        flags = flags or [f"--{name.replace('_', '-')}"]
        flags.sort(key=lambda flag: flag.startswith("--"))  # short names first
        default = default_of(parameter.default, info)
        yield Parameter(False, ", ".join(flags), value_of(kind, info), default, info.help or "")


def split(hint: Any) -> tuple[Any, ArgumentInfo | OptionInfo]:
    """The plain type and typer's part of an annotation; `X | None` counts as X."""
    plain, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if get_origin(plain) is UnionType or type(None) in get_args(plain):
        (plain,) = (part for part in get_args(plain) if part is not type(None))
    return plain, next(e for e in extras if isinstance(e, ArgumentInfo | OptionInfo))


def value_of(kind: Any, info: ArgumentInfo | OptionInfo) -> str:
    """The value of an option, for readers."""
    if get_origin(kind) is Literal:
        return ", ".join(f"`{name}`" for name in get_args(kind))

    word = (info.metavar and f"`{info.metavar}`") or VALUES.get(kind, "text")
    if info.min is not None:
        word += f", at least {info.min}"
    if info.max is not None:
        word += f", at most {info.max}"
    return word


def default_of(default: Any, info: OptionInfo) -> str:
    """The default of an option, for readers."""
    if default is inspect.Parameter.empty:
        return "required"
    if default is None:
        return f"`{info.show_default}`" if isinstance(info.show_default, str) else ""
    return ("on" if default else "off") if isinstance(default, bool) else f"`{default}`"


def cell(text: str) -> str:
    """Text for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


if __name__ == "__main__":
    main()

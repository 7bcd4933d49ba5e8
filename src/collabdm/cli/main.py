"""The entry point of the command line.

    plan  ->  contribute (each site)  ->  distill  ->  evaluate

Exit codes: 0 for success; 1 if the machine fails (a full disk, too little memory); 2 if the input
must be changed (a single message names the fault); 130 if stopped by Ctrl-C, 143 if by SIGTERM.
Stopping leaves no unfinished files; rerun the command to resume.
"""

import inspect
import io
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from collabdm.cli.choices import choice_message
from collabdm.cli.commands import (
    evaluation,
    flower,
    masks,
    organiser,
    research,
    results,
    server,
    site,
    use,
)
from collabdm.cli.logs import colour, options_first, set_up_logs
from collabdm.cli.stopping import StoppedError
from collabdm.errors import CollabDMError, machine_error, printable
from collabdm.version import __version__

MACHINE_FAILED, WRONG_INPUT, STOPPED, TERMINATED = 1, 2, 130, 143  # exit codes

#: click's base class for usage errors, found through typer: recent versions of typer bundle click
UsageError: Any = typer.BadParameter.__mro__[2]

app = typer.Typer(
    name="collabdm",
    help="One-shot collaborative data distillation: many sites, one small synthetic training set, "
    "a single round.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def print_version(requested: bool) -> bool:
    """Print the version and exit if `--version` was given."""
    if requested:
        typer.echo(__version__)
        raise typer.Exit
    return requested


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            "-V",
            callback=print_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="Also log the steps of the work to standard error.")
    ] = False,
    log_file: Annotated[
        Path | None,
        typer.Option("--log-file", help="Append the log, with times, to this file."),
    ] = None,
) -> None:
    """One-shot collaborative data distillation: many sites, one small training set, one round."""
    set_up_logs(verbose, log_file)


def version() -> None:
    """Print the version."""
    typer.echo(__version__)


#: the commands, grouped by the people who use them, in the order of a round
COMMANDS = {
    "Organiser": (organiser.plan, organiser.schema),
    "Site": (
        masks.keys,
        site.check,
        site.contribute,
        site.site,
        site.view,
        site.inspect,
        site.ledger,
        masks.unmask,
    ),
    "Server": (server.distill,),
    "Users of a distilled set": (
        evaluation.evaluate,
        use.train,
        use.predict,
        use.classify,
        use.export,
    ),
    "Research": (
        research.simulate,
        research.audit,
        research.demo,
        results.reproduce,
        results.report,
        research.synthetic_flows,
    ),
    "Program": (version,),
}

#: commands of two words: the first word, the panel and help of the group, and its commands
GROUPS = {"flower": ("Server", "Rounds over Flower.", (flower.init,))}


def help_text(command: Callable[..., None]) -> str:
    """Return the docstring of a command with each paragraph on one line, for any width."""
    paragraphs = (inspect.getdoc(command) or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(help=help_text(command), rich_help_panel=panel)(command)

for word, (panel, text, parts) in GROUPS.items():
    group = typer.Typer(no_args_is_help=True)
    for part in parts:
        group.command()(part)
    app.add_typer(group, name=word, help=text, rich_help_panel=panel)


def main() -> None:
    """Run the command line. Errors that the user can correct are shown without a traceback."""
    write_any_text(sys.stdout, sys.stderr)
    try:
        # without standalone mode, recent versions of typer report Ctrl-C as exit code 130
        arguments = options_first(sys.argv[1:])
        code = int(app(arguments, prog_name="collabdm", standalone_mode=False) or 0)
    except UsageError as error:
        code = WRONG_INPUT
        show_usage_error(error)
    except CollabDMError as error:
        code = WRONG_INPUT
        show_error(str(error))
    except StoppedError as stop:
        sys.exit(stop.code)
    except (OSError, MemoryError) as error:
        code = MACHINE_FAILED
        show_error(machine_error(error))
    except (typer.Abort, KeyboardInterrupt):
        code = STOPPED
    except SystemExit as end:  # SIGTERM (`start`)
        code = int(end.code or 0)

    if code in (STOPPED, TERMINATED):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C while Python ends
        typer.echo("stopped; the same command resumes the work", err=True)
    sys.exit(code)


def write_any_text(*streams: object) -> None:
    """Make streams write characters outside their encoding, such as ASCII, as escapes."""
    for stream in streams:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def show_usage_error(error: Any) -> None:
    """Show an error in the use of options; for an unknown value, suggest the nearest one."""
    parameter = getattr(error, "param", None)
    name = max(parameter.opts, key=len) if parameter is not None else ""
    message = choice_message(name, error.message)
    if message is None:
        error.show()
    else:
        show_error(message)


def show_error(message: str) -> None:
    """Print an error message on standard error."""
    typer.secho("error: ", fg="red", bold=True, nl=False, err=True, color=colour())
    typer.echo(printable(message, keep="\n"), err=True)

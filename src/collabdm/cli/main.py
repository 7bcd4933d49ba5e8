"""The entry point of the command line.

    plan  ->  contribute (each site)  ->  distill  ->  evaluate

Exit codes: 0 for success; 2 if the input must be changed (a single message says what is wrong);
130 if stopped by Ctrl-C. Stopping leaves no unfinished files; rerun the command to resume.
"""

import sys
from typing import Annotated, Any

import typer

from collabdm.cli.choices import choice_message
from collabdm.cli.commands import evaluation, masks, organiser, research, results, server, site, use
from collabdm.errors import CollabDMError
from collabdm.version import __version__

WRONG_INPUT, STOPPED = 2, 130  # exit codes

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
) -> None:
    """One-shot collaborative data distillation: many sites, one small training set, one round."""


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
        research.demo,
        results.reproduce,
        results.report,
        research.synthetic_flows,
    ),
    "Program": (version,),
}

for panel, commands in COMMANDS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)


def main() -> None:
    """Run the command line. Errors that the user can correct are shown without a traceback."""
    try:
        # without standalone mode, recent versions of typer report Ctrl-C as exit code 130
        code = int(app(prog_name="collabdm", standalone_mode=False) or 0)
    except UsageError as error:
        code = WRONG_INPUT
        show_usage_error(error)
    except CollabDMError as error:
        code = WRONG_INPUT
        show_error(str(error))
    except (typer.Abort, KeyboardInterrupt):
        code = STOPPED

    if code == STOPPED:
        typer.echo("stopped; the same command resumes the work", err=True)
    sys.exit(code)


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
    typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
    typer.echo(message, err=True)

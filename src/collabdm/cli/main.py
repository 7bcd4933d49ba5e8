"""The command line: one command for each arrow of the round, and `simulate` for all of them.

    plan  ->  contribute (each site)  ->  distill  ->  evaluate

Exit codes: 0 done; 2 something in the input should be changed (one message says what); 130 stopped by
Ctrl-C, with no half file left: the same command goes on where it stood.
"""

import sys
from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from collabdm.cli import check, flows, models, reporting, reproducing, round_commands, simulation  # noqa: F401  each registers its commands
from collabdm.cli.options import app, console
from collabdm.errors import CollabDMError
from collabdm.version import __version__

WRONG_INPUT, STOPPED = 2, 130  # exit codes


UsageError: Any = typer.BadParameter.__mro__[2]  # click's base class, which newer typers carry inside


@app.command()
def version() -> None:
    """Print the version."""
    console.print(__version__)


def main() -> None:
    """The entry point: errors that a person can mend are one message, not a traceback."""
    errors = Console(stderr=True)
    try:
        code = int(app(prog_name="collabdm", standalone_mode=False) or 0)  # 130 too: so newer typers say Ctrl-C
    except UsageError as error:
        error.show()
        code = WRONG_INPUT
    except CollabDMError as error:
        errors.print("[bold red]error:[/]", Text(str(error)), soft_wrap=True)
        code = WRONG_INPUT
    except (typer.Abort, KeyboardInterrupt):
        code = STOPPED
    if code == STOPPED:
        errors.print("stopped; the same command goes on where it stood")
    sys.exit(code)

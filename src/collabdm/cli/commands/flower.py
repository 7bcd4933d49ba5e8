"""Commands for rounds over Flower: `flower init`."""

from pathlib import Path
from typing import Annotated

import typer


def init(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The folder to create; it must not exist.")
    ],
) -> None:
    """Write the app that `flwr run` takes: a folder with settings, whose programs are installed."""
    from collabdm.cli.console import console
    from collabdm.flower.app_folder import write_app

    console.print(f"{write_app(folder)}: the app; run it with `flwr run {folder}`", soft_wrap=True)

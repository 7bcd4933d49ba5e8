"""Commands for published results and reports: `reproduce` and `report`."""

from pathlib import Path
from typing import Annotated

import typer

from collabdm.cli import choices
from collabdm.cli.options import Device, Precision, Quiet, Threads

Grids = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="[GRID...]",
        help="Names such as table2, or TOML files; without any, the known grids are listed.",
        show_default=False,
    ),
]

ResultsFolder = Annotated[
    Path | None,
    typer.Option("-o", "--output", help="Folder of the results.", show_default="reproduced/GRID"),
]

Scale = Annotated[choices.Scale, typer.Option(help="Scale of the experiments.")]

Lines = Annotated[
    str | None, typer.Option(help="Run only these lines of the grids, separated by commas.")
]

Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="AXIS=VALUE",
        help="Run only these columns or tables, such as data=CIFAR-10,MNIST or seed=0; repeatable.",
    ),
]

Fresh = Annotated[
    bool, typer.Option("--fresh", help="Also run cells whose results ship with the grids.")
]

Minutes = Annotated[
    float | None, typer.Option(min=0, help="Stop between cells before this time is over.")
]

Share = Annotated[str | None, typer.Option(help="This machine's share of the cells, such as 1/3.")]

Retry = Annotated[bool, typer.Option("--retry", help="Run failed cells again.")]


def reproduce(
    grids: Grids = None,
    output: ResultsFolder = None,
    scale: Scale = "cpu",
    lines: Lines = None,
    where: Where = None,
    fresh: Fresh = False,
    minutes: Minutes = None,
    part: Share = None,
    retry: Retry = False,
    device: Device = "auto",
    precision: Precision = "auto",
    threads: Threads = 0,
    quiet: Quiet = False,
) -> None:
    """Run the missing cells of published tables and figures; finished cells are kept.

    Reports the expected time first, and resumes if stopped. Results that ship with the grids are
    used. To merge the results of several machines, put their files into one folder. `collabdm
    report` shows the folder.
    """
    from collabdm.cli.console import console
    from collabdm.cli.reproducing import CellChoice, list_grids, read_reproduction, run, start
    from collabdm.cli.running import compute_of

    if not grids:
        list_grids(scale)
        return

    choice = CellChoice(part, retry, lines, tuple(where or ()), fresh)
    reproduction = read_reproduction(grids, output, scale, choice)
    cells = start(reproduction)
    if cells and minutes != 0:
        run(reproduction, cells, compute_of(device, precision, threads), minutes, quiet)
    folder = reproduction.output
    console.print(f"{folder}: collabdm report {folder}", soft_wrap=True)


def report(
    folders: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR...", help="Folders of rounds or simulations, or one of `reproduce`."
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--output",
            help="Path of the page.",
            show_default="report.html in the folder; comparison.html here for several",
        ),
    ] = None,
) -> None:
    """Show rounds, or tables next to the paper's, on one self-contained HTML page with plots.

    Several rounds are compared on a page of their own, which replaces no page of one round.
    """
    from collabdm.cli.console import console
    from collabdm.cli.reporting import describe_page
    from collabdm.report.grid_page import write_grid_page
    from collabdm.report.grid_summary import contains_grids
    from collabdm.report.page_files import SEVERAL
    from collabdm.report.round_page import write_report

    place = output or (SEVERAL if len(folders) > 1 else folders[0] / "report.html")
    if len(folders) == 1 and contains_grids(folders[0]):
        written = write_grid_page(folders[0], place)
    else:
        written = write_report(folders, place)
    console.print(describe_page(written), soft_wrap=True)

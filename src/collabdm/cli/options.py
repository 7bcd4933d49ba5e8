"""What the commands share: the application, its options, and checks at the door."""

from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console

from collabdm.cli.console import Bars, table
from collabdm.documents.atomic_write import check_writable
from collabdm.errors import OutputError
from collabdm.matching.compute import Compute, choose_compute
from collabdm.matching.run_context import RunContext
from collabdm.rounds import exchange
from collabdm.rounds.inspect import describe_file

app = typer.Typer(
    name="collabdm",
    help="One-shot collaborative data distillation: many sites, one small synthetic training set, a single round.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


console = Console()


notes = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)


load_for_plan = partial(exchange.load_for_plan, note=notes.print)


DATA_HELP = (
    "a name (digits, mnist, fashion_mnist, cifar10, svhn), a folder of images (class = subfolder) or of "
    "parquet files, an .npz file, or a Hugging Face id"
)


Data = Annotated[str, typer.Option("--data", help=f"The data: {DATA_HELP}.")]


PRESET = typer.Option(
    help="Settings not given: `best` (ours), `paper` (the published ones), or those of `fedd3`, `dosfl`, `dense`.",
    show_default="best",
)


Resize = Annotated[bool, typer.Option("--resize", help="Bring images to the plan's size and channels.")]


Rows = Annotated[str | None, typer.Option(help="Of a table of flows: only rows with COLUMN=VALUE.")]


Device = Annotated[str, typer.Option(help="Where to compute: auto, cpu, cuda, cuda:1, …")]


Precision = Annotated[
    str, typer.Option(help="Networks compute in float32 or bfloat16; auto takes the fastest the device has.")
]


Threads = Annotated[int, typer.Option(min=0, help="Processor threads; 0 takes all.")]


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]


PlanPath = Annotated[Path, typer.Argument(metavar="PLAN", help="The plan, a JSON file.")]


DistilledPath = Annotated[Path, typer.Argument(metavar="SET", help="The distilled set, a safetensors file.")]


def check_output(output: Path, *inputs: Path) -> None:
    """Refuse an output that cannot be written, or that would take the place of an input."""
    if any(output.resolve() == path.resolve() for path in inputs):
        raise OutputError(f"{output} should be a file of its own; found one that is read or written here: name another")
    check_writable(output)


def compute_of(device: str, precision: str, threads: int) -> Compute:
    """Where to compute, from three options."""
    if threads > 0:
        torch.set_num_threads(threads)
    return choose_compute(device, precision)


def context_of(device: str, precision: str, threads: int, bars: Bars) -> RunContext:
    """Where a command computes, with progress bars."""
    return RunContext(compute_of(device, precision, threads), bars)


def print_document(path: Path) -> None:
    """Print what is in a document."""
    title, rows = describe_file(path)
    console.print(table(title, ("part", "value"), rows, figures=False))

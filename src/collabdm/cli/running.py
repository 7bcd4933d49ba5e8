"""Steps that several commands share: check outputs, choose the device, print documents."""

import logging
from functools import partial
from pathlib import Path

from collabdm.cli.console import Bars, notes
from collabdm.cli.tables import Tables
from collabdm.documents.atomic_write import check_writable
from collabdm.errors import OutputError
from collabdm.matching.compute import Compute, choose_compute
from collabdm.matching.run_context import RunContext
from collabdm.matching.threads import set_threads
from collabdm.rounds import exchange
from collabdm.rounds.inspect import describe_file
from collabdm.rounds.site_table import COLUMNS, SiteTable

logger = logging.getLogger("collabdm")

load_for_plan = partial(exchange.load_for_plan, note=notes.print)
load_tallied_for_plan = partial(exchange.load_tallied_for_plan, note=notes.print)


def check_output(output: Path, *inputs: Path) -> None:
    """Check that an output can be written and does not overwrite an input.

    Raises OutputError if not.
    """
    if any(output.resolve() == path.resolve() for path in inputs):
        raise OutputError(
            f"{output} should differ from the other files of this command; found a file that is "
            "also read or written here: choose another name"
        )
    check_writable(output)


def compute_of(device: str, precision: str, threads: int) -> Compute:
    """Choose where to compute, from the options `--device`, `--precision` and `--threads`.

    Args:
        device: `auto`, or a PyTorch device such as `cuda:1`.
        precision: `auto`, `float32` or `bfloat16`.
        threads: processor threads for this process; 0 chooses the number from what is free.

    Returns:
        The device and precision to use on this machine.
    """
    compute = choose_compute(device, precision)
    logger.info("%s, %s, %s", compute.device, compute.precision, set_threads(threads))
    return compute


def context_of(device: str, precision: str, threads: int, bars: Bars) -> RunContext:
    """Make the context of a computation: the settings of `compute_of`, and progress bars."""
    return RunContext(compute_of(device, precision, threads), bars)


def print_document(path: Path, tables: Tables) -> None:
    """Print the contents of a document: its parts with their shapes, bytes and digests."""
    title, rows = describe_file(path)
    tables.add(title, ("part", "value"), rows, figures=False)
    tables.write()


def print_sites(sites: SiteTable, tables: Tables) -> None:
    """Print the comparison of the sites of a round."""
    if sites.rows:
        title = "The sites; distance and norm are relative to the others"
        tables.add(title, COLUMNS, [row.cells for row in sites.rows])
    for note in sites.notes:
        tables.line(note)

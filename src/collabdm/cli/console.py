"""What the command line shows: progress with time left, tables, pictures of a set."""

from collections.abc import Iterable, Sequence
from types import TracebackType

import rich.progress
from rich.console import Console, Group
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from collabdm.lab.results import Results
from collabdm.progress import Progress

FINISHED_SHOWN = 8  # bars; a round of many sites would fill the screen


class Bars:
    """Progress bars by name, on standard error; silent if asked."""

    def __init__(self, quiet: bool) -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._progress = rich.progress.Progress(*columns, console=Console(stderr=True), disable=quiet, transient=False)
        self._tasks: dict[str, TaskID] = {}
        self._done: dict[str, int] = {}

    def __enter__(self) -> "Bars":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._tasks and not self._progress.disable:
            self._progress.stop()

    def __call__(self, event: Progress) -> None:
        """Show an event."""
        label, done, total = event.label, event.done, event.total
        self._progress.start()  # at the first step: an error before it has no empty line above
        if label not in self._tasks:
            for old in [task.id for task in self._progress.tasks if task.finished][:-FINISHED_SHOWN]:
                self._progress.update(old, visible=False)
            self._tasks[label] = self._progress.add_task(label, total=total)
        elif done < self._done[label]:  # the same again, such as another network
            self._progress.reset(self._tasks[label], total=total)
        self._done[label] = done
        self._progress.update(self._tasks[label], completed=done)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], figures: bool = True) -> Group:
    """A table, below its title, whose first column is text and whose others are figures, or text as well."""
    result = Table()
    for number, column in enumerate(columns):
        result.add_column(column, justify="right" if figures and number else "left", overflow="fold")
    for row in rows:
        result.add_row(*map(Text, row))
    return Group(Text(title, style="italic"), result)


def score_rows(results: Results) -> list[tuple[str, ...]]:
    """Rows of a results table: set, network, accuracy, spread, number of networks, images trained on, bytes."""
    rows: list[tuple[str, ...]] = []
    for score in (record.score for record in results.scores):
        described = results.sets.get(score.what)
        largest = described.largest_upload if described else None
        rows.append(
            (
                score.what,
                score.network,
                f"{100 * score.mean:.2f}",
                f"{100 * score.std:.2f}",
                str(score.n),
                f"{score.images:,}",
                "-" if largest is None else f"{largest:,}",
            )
        )
    return rows


SCORE_COLUMNS = ("set", "network", "accuracy %", "std", "n", "images", "bytes per site, at most")

"""Print to the terminal: consoles, tables, and progress bars that show the time left."""

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Literal

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

from collabdm.errors import printable
from collabdm.progress import Progress

FINISHED_SHOWN = 8  # finished bars that stay visible; with many sites, all would fill the screen


class PlainConsole(Console):
    """A console that prints text as it is: without markup, emoji codes or control characters."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Convert text; rich calls this function for all text that is printed."""
        return super().render_str(printable(text, keep="\n"), **settings)


console = PlainConsole()

notes = PlainConsole(stderr=True, soft_wrap=True, highlight=False)


class Bars:
    """Shows progress bars on standard error, one for each label; shows none if `quiet`."""

    def __init__(self, quiet: bool) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        self._progress = rich.progress.Progress(
            *columns, console=PlainConsole(stderr=True), disable=quiet, transient=False
        )
        self._tasks: dict[str, TaskID] = {}
        self._done: dict[str, int] = {}

    def __enter__(self) -> "Bars":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._tasks and not self._progress.disable:
            self._progress.stop()

    def __call__(self, event: Progress) -> None:
        """Show a progress event on the bar of its label."""
        label, done, total = printable(event.label), event.done, event.total
        self._progress.start()  # not earlier: an early error would follow an empty line

        if label not in self._tasks:
            finished = [task.id for task in self._progress.tasks if task.finished]
            for old in finished[:-FINISHED_SHOWN]:
                self._progress.update(old, visible=False)
            self._tasks[label] = self._progress.add_task(label, total=total)
        elif done < self._done[label]:  # the stage starts again, for example for the next network
            self._progress.reset(self._tasks[label], total=total)

        self._done[label] = done
        self._progress.update(self._tasks[label], completed=done)


def table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], figures: bool = True
) -> Group:
    """Build a table with its title above it.

    Args:
        title: title of the table.
        columns: names of the columns.
        rows: texts of the cells.
        figures: whether all columns but the first contain numbers, which are right-aligned.

    Returns:
        The title and the table, to be printed on a console.
    """
    result = Table()
    for number, column in enumerate(columns):
        justify: Literal["right", "left"] = "right" if figures and number else "left"
        result.add_column(Text(printable(column)), justify=justify, overflow="fold")
    for row in rows:
        result.add_row(*(Text(printable(cell, keep="\n")) for cell in row))
    return Group(Text(printable(title), style="italic"), result)

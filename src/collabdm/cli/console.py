"""Print to the terminal: consoles, tables, and progress that shows the time left.

Where no terminal is attached, lines replace the progress bars: one every `HEARTBEAT_SECONDS`, and
one at the end of each stage.
"""

import logging
import time
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

from collabdm.cli.logs import PROGRESS
from collabdm.errors import printable
from collabdm.progress import Progress

HEARTBEAT_SECONDS = 30.0
FINISHED_SHOWN = 8  # finished bars that stay visible; with many sites, all would fill the screen


class PlainConsole(Console):
    """A console that prints text as it is: without markup, emoji codes or control characters."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(markup=False, emoji=False, **settings)

    def render_str(self, text: str, **settings: Any) -> Text:
        """Convert text; rich calls this function for all text that is printed."""
        return super().render_str(printable(text, keep="\n"), **settings)


logger = logging.getLogger(PROGRESS)

console = PlainConsole()

notes = PlainConsole(stderr=True, soft_wrap=True, highlight=False)


class Heartbeat:
    """Prints a line about the progress now and then, for logs of processes without a terminal.

    The time left of a stage is extrapolated from the steps that this process has made.
    """

    def __init__(self) -> None:
        self._label = ""
        self._first = (0, 0.0)  # the steps done at the first event of a stage, and its time
        self._last_line = time.monotonic()

    def line(self, event: Progress) -> str | None:
        """Return the line to print for an event; None if a stage goes on and a line is recent."""
        now, label = time.monotonic(), printable(event.label)
        if label != self._label or event.done <= self._first[0]:
            self._label, self._first = label, (event.done, now)
        ended, (done, since) = event.done == event.total, self._first
        if not ended and now - self._last_line < HEARTBEAT_SECONDS:
            return None

        self._last_line = now
        made, seconds = event.done - done, now - since
        if ended:
            return f"{label}: {event.done:,} of {event.total:,}, in {clock(seconds)}"
        left = "" if not made else f", {clock(seconds / made * (event.total - event.done))} left"
        return f"{label}: {event.done:,} of {event.total:,}{left}"


def clock(seconds: float) -> str:
    """Write a duration as hours, minutes and seconds.

    >>> clock(7.4), clock(3725.0)
    ('0:00:07', '1:02:05')
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


class Bars:
    """Shows progress on standard error: a bar for each label, or lines without a terminal.

    Nothing is shown if `quiet`, but the log still receives the lines.
    """

    def __init__(self, quiet: bool) -> None:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        shown_on = PlainConsole(stderr=True)
        self._progress = rich.progress.Progress(
            *columns, console=shown_on, disable=quiet or not shown_on.is_terminal
        )
        self._lines = not quiet and not shown_on.is_terminal
        self._heartbeat = Heartbeat()
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
        line = self._heartbeat.line(event)
        if line is not None:
            logger.info(line)
            if self._lines:
                notes.print(line)
        if self._progress.disable:
            return

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

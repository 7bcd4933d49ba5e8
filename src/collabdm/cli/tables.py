"""Print the tables of a command, and write them as JSON for other programs (`--json`).

    {"tables": [{"title": "...", "columns": ["part", "value"], "rows": [{"part": "..."}]}]}

All cells are texts, as printed. With `--json -` the JSON goes to standard output in place of the
tables.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from rich.console import Console

from collabdm.cli.console import console, table
from collabdm.documents.atomic_write import atomic_write

STANDARD_OUTPUT = Path("-")


class Tables:
    """The tables that a command prints.

    Attributes:
        shown: whether they are printed: not if the JSON goes to standard output.
    """

    def __init__(self, json_file: Path | None = None, shown_on: Console = console) -> None:
        """Set the file of the JSON: None writes none, and `-` is standard output."""
        self._json_file, self._console = json_file, shown_on
        self._tables: list[dict[str, object]] = []
        self.shown = json_file != STANDARD_OUTPUT

    def add(
        self,
        title: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[str]],
        figures: bool = True,
    ) -> None:
        """Print a table.

        Args:
            title: title of the table.
            columns: names of the columns.
            rows: texts of the cells.
            figures: whether all columns but the first contain numbers.
        """
        listed = [tuple(row) for row in rows]
        cells = [dict(zip(columns, row, strict=True)) for row in listed]
        self._tables.append({"title": title, "columns": list(columns), "rows": cells})
        if self.shown:
            self._console.print(table(title, columns, listed, figures))

    def line(self, text: str) -> None:
        """Print a line that belongs to the tables."""
        if self.shown:
            self._console.print(text, soft_wrap=True)

    def write(self) -> None:
        """Write the JSON, if it was asked for. Raises OutputError."""
        if self._json_file is None:
            return
        text = json.dumps({"tables": self._tables}, indent=2, ensure_ascii=False)
        if self.shown:
            atomic_write(self._json_file, (text + "\n").encode())
        else:
            console.out(text, highlight=False)

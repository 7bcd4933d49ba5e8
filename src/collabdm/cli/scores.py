"""Print tables of scores."""

from collabdm.cli.console import console, table
from collabdm.lab.results import Results

COLUMNS = ("set", "network", "accuracy %", "std", "n", "images")

BYTES_COLUMN = "bytes per site, at most"


def print_scores(title: str, results: Results, with_bytes: bool) -> None:
    """Print the accuracy of every set and network.

    Args:
        title: title of the table.
        results: the scores.
        with_bytes: whether to add a column with the most bytes that any one site sent.
    """
    rows = []
    for score in (record.score for record in results.scores):
        row = (
            score.what,
            score.network,
            f"{100 * score.mean:.2f}",
            f"{100 * score.std:.2f}",
            str(score.n),
            f"{score.images:,}",
        )
        rows.append((*row, _largest(results, score.what)) if with_bytes else row)

    columns = (*COLUMNS, BYTES_COLUMN) if with_bytes else COLUMNS
    console.print(table(title, columns, rows))


def _largest(results: Results, name: str) -> str:
    """Format the bytes of the largest contribution to a set; a dash if unknown."""
    record = results.sets.get(name)
    largest = None if record is None else record.largest_upload
    return "-" if largest is None else f"{largest:,}"

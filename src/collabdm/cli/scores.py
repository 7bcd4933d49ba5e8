"""Print tables of scores."""

from collabdm.cli.console import console, table
from collabdm.lab.results import Results

COLUMNS = ("set", "network", "accuracy %", "std", "n", "images")

#: the measures of sets of rows, by column
ROW_COLUMNS = {
    "macro F1 %": "macro_f1",
    "balanced accuracy %": "balanced_accuracy",
    "detection % at 1 % false alarms": "detection",
}

BYTES_COLUMN = "bytes per site, at most"


def print_scores(title: str, results: Results, with_bytes: bool) -> None:
    """Print the accuracy of every set and network; for rows, also the measures of `ROW_COLUMNS`.

    Args:
        title: title of the table.
        results: the scores.
        with_bytes: whether to add a column with the most bytes that any one site sent.
    """
    rows = []
    scores = [record.score for record in results.scores]
    measures = {
        column: name
        for column, name in ROW_COLUMNS.items()
        if any(getattr(score, name) is not None for score in scores)
    }
    for score in scores:
        row = (
            score.what,
            score.network,
            f"{100 * score.mean:.2f}",
            f"{100 * score.std:.2f}",
            str(score.n),
            f"{score.images:,}",
            *(_percent(getattr(score, name)) for name in measures.values()),
        )
        rows.append((*row, _largest(results, score.what)) if with_bytes else row)

    columns = (*COLUMNS, *measures, *((BYTES_COLUMN,) if with_bytes else ()))
    console.print(table(title, columns, rows))


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.2f}"


def _largest(results: Results, name: str) -> str:
    """Format the bytes of the largest contribution to a set; a dash if unknown."""
    record = results.sets.get(name)
    largest = None if record is None else record.largest_upload
    return "-" if largest is None else f"{largest:,}"

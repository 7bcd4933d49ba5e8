"""Make the tables of accuracies: of one round, of several networks, and of several rounds.

Rows are sorted by accuracy. The best set that could leave the sites is marked, and the ties with it
(see `contestants.ties_with`).
"""

from collections.abc import Mapping, Sequence

from collabdm.lab.results import EvaluationResults
from collabdm.report.contestants import (
    ALONE,
    best_of,
    by_network,
    is_yardstick,
    of_first_network,
    ties_with,
)
from collabdm.report.html import Mark, Table
from collabdm.report.intervals import welch
from collabdm.report.rounds import RoundFiles
from collabdm.scoring.evaluation import Score

BEST, HIGHEST, TIE = (
    Mark("best", "best"),
    Mark("best", "highest"),
    Mark("tie", "tie"),
)

SCORES_CAPTION = (
    "Accuracy on real test images, hard labels; ± is the standard deviation over n trained "
    "networks. “Tie”: the 95 % interval of the difference to the best contains 0 (Welch). Each "
    "site alone, all the data and pooled data do not compete: they use images that no site shares."
)


def result_tables(files: RoundFiles) -> list[Table]:
    """Make the tables of the results, except those without rows."""
    tables = (score_table(files), network_table(files), robustness_table(files))
    return [table for table in tables if table.rows]


def marks_of(scores: Sequence[Score]) -> dict[str, Mark]:
    """Mark the best of the scores with one network, and the ties with it, by set.

    Without a second set to compare with, nothing is marked. The best is only called so if the
    interval of its difference to the second excludes 0.
    """
    competing = [score for score in scores if not is_yardstick(score.what)]
    best = best_of(competing)
    if best is None or len(competing) < 2:
        return {}

    second = best_of(score for score in competing if score is not best)
    clear = second is not None and welch(best.accuracies, second.accuracies).clear
    ties = dict.fromkeys((score.what for score in ties_with(best, competing)), TIE)
    return {best.what: BEST if clear else HIGHEST} | ties


def score_table(files: RoundFiles) -> Table:
    """Make the table of all scores with their standard deviations, the highest first."""
    columns = ("trained on", "network", "accuracy, %", "n", "images", "bytes per site, at most")
    rows: list[tuple[str, ...]] = []
    marks: dict[tuple[int, int], Mark] = {}

    for network, scores in by_network(files.scores).items():
        found = marks_of(scores)
        for score in sorted(scores, key=lambda score: -score.mean):
            if score.what in found:
                marks[len(rows), 2] = found[score.what]
            rows.append(_score_row(files, score, network))

    return Table(columns, rows, SCORES_CAPTION, marks, keyed=True)


def _score_row(files: RoundFiles, score: Score, network: str) -> tuple[str, ...]:
    upload = files.largest_upload(score.what)
    return (
        score.what,
        network,
        accuracy_text(score) if score.n > 1 else f"{100 * score.mean:.1f}",
        str(score.n),
        f"{score.images:,}" if score.images else "-",
        f"{upload:,}" if upload else "-",
    )


def accuracy_text(score: Score | None) -> str:
    """Write an accuracy in percent with its standard deviation; a dash without a score."""
    return f"{100 * score.mean:.1f} ± {100 * score.std:.1f}" if score else "-"


def network_table(files: RoundFiles) -> Table:
    """Make the table of accuracy by set and network; it is empty if there is only one network."""
    networks = {
        name: {score.what: score for score in group}
        for name, group in by_network(files.scores).items()
    }
    sets = dict.fromkeys(what for group in networks.values() for what in _sorted(group))

    rows = [(what, *(accuracy_text(net.get(what)) for net in networks.values())) for what in sets]
    columns = ("trained on", *networks)
    caption = "The same sets on other networks, %"
    return Table(columns, rows if len(networks) > 1 else [], caption, keyed=True)


def _sorted(group: Mapping[str, Score]) -> list[str]:
    return sorted(group, key=lambda what: -group[what].mean)


def robustness_table(files: RoundFiles) -> Table:
    """Make the table of DD-Ranking scores; it is empty if they were not computed."""
    results = files.results
    scores = results.robustness if isinstance(results, EvaluationResults) else None
    if scores is None:
        return Table((), [])

    std = scores.std
    rows = [
        ("label-robust score", f"{scores.lrs:.3f} ± {std.get('lrs', 0):.3f}"),
        ("augmentation-robust score", f"{scores.ars:.3f} ± {std.get('ars', 0):.3f}"),
        ("below all the data, points", f"{100 * scores.hlr:.1f} ± {100 * std.get('hlr', 0):.1f}"),
        (
            "above random real images, points",
            f"{100 * scores.ior:.1f} ± {100 * std.get('ior', 0):.1f}",
        ),
    ]
    return Table(("DD-Ranking", "value"), rows, f"n = {scores.n} trained networks")


def comparison_table(rounds: Sequence[RoundFiles], names: Sequence[str]) -> Table:
    """Make the table of all sets of several rounds, with a column for each round.

    Args:
        rounds: The rounds.
        names: The headings of their columns.

    Returns:
        The table, sorted by the mean over the rounds that have the set.
    """
    columns = [{score.what: score for score in of_first_network(f.scores)} for f in rounds]
    found = [marks_of(list(column.values())) for column in columns]
    sets = dict.fromkeys(what for column in columns for what in column if not what.endswith(ALONE))

    def place(what: str) -> tuple[int, float]:
        means = [column[what].mean for column in columns if what in column]
        return -len(means), -sum(means) / len(means)

    ordered = sorted(sets, key=place)
    rows = [(what, *(_with_n(column.get(what)) for column in columns)) for what in ordered]
    if any(what.endswith(ALONE) for column in columns for what in column):
        rows.append((f"each site{ALONE}", *map(_range_alone, columns)))

    marks = {
        (row, i + 1): own[what]
        for row, what in enumerate(ordered)
        for i, own in enumerate(found)
        if what in own
    }
    caption = "Accuracy, % ± standard deviation over the trained networks (their number)"
    return Table(("trained on", *names), rows, caption, marks, keyed=True)


def _range_alone(column: Mapping[str, Score]) -> str:
    """Write the lowest and the highest accuracy of a site's own data."""
    means = sorted(100 * score.mean for what, score in column.items() if what.endswith(ALONE))
    return f"{means[0]:.1f} to {means[-1]:.1f}" if means else "-"


def _with_n(score: Score | None) -> str:
    if score is None:
        return "-"
    deviation = f" ± {100 * score.std:.1f}" if score.n > 1 else ""
    return f"{100 * score.mean:.1f}{deviation} ({score.n})"

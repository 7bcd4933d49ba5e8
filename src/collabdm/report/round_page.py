"""Write the report of rounds: verdict, scores, plots, images, sites, and how to repeat each round.

With several rounds, the page begins with one table and the plots of all of them; the other sections
follow for each round.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.outcomes import contributing_sites
from collabdm.lab.audit.record import AuditRecord
from collabdm.lab.audit.summary import ATTACK_COLUMNS, attack_rows, notes_of
from collabdm.pictures import data_uri
from collabdm.report import accuracy_plots, refinement_plots, round_plots
from collabdm.report.figures import write_figures
from collabdm.report.html import Plot, Table, render
from collabdm.report.page_files import check_page
from collabdm.report.provenance import plan_json, provenance, repeat_command, settings_toml
from collabdm.report.rounds import RoundFiles, read_round
from collabdm.report.score_tables import comparison_table, result_tables
from collabdm.report.set_pictures import FIRST_SHOWN, images_by_class, row_table, shades
from collabdm.report.verdict import Verdict, seed_verdicts, verdict_of

CAPTIONS = {
    "bytes": "Accuracy against bytes sent per site, at most",
    "size": "Accuracy against the size of the set",
    "refinement": "Accuracy along the server's refinement",
    "strip": "Images along the refinement, after the step above each column",
    "classes": "Accuracy by class",
    "confusion": "Confusion matrix, % of each true class",
    "parts": "Bytes sent by each site, by part",
}

SHARED = {
    "bytes": accuracy_plots.accuracy_against_bytes,
    "size": accuracy_plots.accuracy_against_size,
}

OWN: dict[str, Callable[[RoundFiles], Any]] = {
    "refinement": refinement_plots.accuracy_by_step,
    "strip": lambda files: refinement_plots.images_by_step(files.snapshots),
    "classes": round_plots.accuracy_by_class,
    "confusion": round_plots.confusion_matrix,
    "parts": round_plots.bytes_by_part,
}


def write_report(folders: Sequence[Path], output: Path) -> list[Path]:
    """Write the report page, and its plots into a folder of the same name.

    Args:
        folders: One or more folders of rounds.
        output: The path of the HTML page.

    Returns:
        The files written, the page first.

    Raises:
        CollabDMError: A folder contains no round, its files are damaged, or the output is a file
            other than such a page.
    """
    rounds = [read_round(folder) for folder in folders]
    several = len(rounds) > 1
    kind = "rounds" if several else "round"
    check_page(output, kind)

    shared = _shared_figures(rounds)
    figures = {name: drawn for name, (drawn, _) in shared.items()}
    for i, files in enumerate(rounds):
        figures |= _own_figures(files, _prefix(i, several))
    paths, svgs = write_figures(figures, output.with_suffix(""))

    common = [Plot(svgs[name], caption) for name, (_, caption) in shared.items()]
    plots = [_own_plots(svgs, _prefix(i, several)) for i in range(len(rounds))]
    headings = [f"{i + 1}: {files.name}" for i, files in enumerate(rounds)]
    content = render(
        "rounds.html",
        title=f"{len(rounds)} rounds" if several else round_title(rounds[0]),
        kind=kind,
        rounds=[
            (files, own if several else [*common, *own])
            for files, own in zip(rounds, plots, strict=True)
        ],
        verdicts=verdicts_of(rounds),
        comparison=comparison_table(rounds, headings) if several else None,
        common=common if several else [],
        **_TEMPLATE_FUNCTIONS,
    )
    atomic_write(output, content)
    return [output, *paths]


def verdicts_of(rounds: Sequence[RoundFiles]) -> list[Verdict]:
    """State the verdicts of a page: those over seeds, then that of each round with scores."""
    single = [verdict for files in rounds if (verdict := verdict_of(files)) is not None]
    return [*seed_verdicts(rounds), *single]


def _prefix(i: int, several: bool) -> str:
    return f"{i + 1}-" if several else ""


def _shared_figures(rounds: Sequence[RoundFiles]) -> dict[str, tuple[Any, str]]:
    """Draw the plots that show several rounds, one for each data set, with their captions."""
    groups: dict[str, list[tuple[int, RoundFiles]]] = {}
    for number, files in enumerate(rounds, 1):
        if files.scores:
            groups.setdefault(files.data, []).append((number, files))

    figures = {}
    for i, (data, group) in enumerate(groups.items()):
        for name, draw in SHARED.items():
            drawn = draw(group)
            if drawn is not None:
                suffix = f"-{i + 1}" if len(groups) > 1 else ""
                caption = CAPTIONS[name] + (f", {data}" if len(rounds) > 1 else "")
                figures[name + suffix] = (drawn, caption)
    return figures


def _own_figures(files: RoundFiles, prefix: str) -> dict[str, Any]:
    drawn = {prefix + name: draw(files) for name, draw in OWN.items()}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _own_plots(svgs: dict[str, str], prefix: str) -> list[Plot]:
    return [Plot(svgs[prefix + name], CAPTIONS[name]) for name in OWN if prefix + name in svgs]


def round_title(files: RoundFiles) -> str:
    """Write the title of a round: its name, method, data and number of sites."""
    data = f"on {files.data}" if files.data not in ("", files.name) else ""
    sites = len(contributing_sites(files.distilled.sites)) if files.distilled else 0

    parts = (f"{files.name}: {files.method}", data, f"{sites} sites" if sites else "")
    return ", ".join(filter(None, parts))


def audit_table(record: AuditRecord) -> Table:
    """Make the table of the attacks of an audit."""
    caption = (
        "The attacks rank images by how likely they were used; AUC .5, and a rate of true "
        "positives equal to that of false ones, are guesses. 95 % intervals; members + others are "
        f"trials over {record.settings.shadows + 1} rounds of {record.settings.members} images per "
        "class."
    )
    return Table(ATTACK_COLUMNS, attack_rows(record), caption)


_TEMPLATE_FUNCTIONS: dict[str, Any] = {
    "audit_table": audit_table,
    "data_uri": data_uri,
    "first_shown": FIRST_SHOWN,
    "notes_of": notes_of,
    "images_by_class": images_by_class,
    "plan_json": plan_json,
    "provenance": provenance,
    "repeat_command": repeat_command,
    "result_tables": result_tables,
    "round_title": round_title,
    "row_table": row_table,
    "settings_toml": settings_toml,
    "shades": shades,
}

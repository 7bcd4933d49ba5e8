"""Write the report of rounds: scores, plots, images, sites, and how to repeat each round."""

import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from collabdm.documents.atomic_write import atomic_write
from collabdm.documents.outcomes import DistilledSet, contributing_sites
from collabdm.images import as_uint8
from collabdm.lab.audit.record import AuditRecord
from collabdm.lab.audit.summary import ATTACK_COLUMNS, attack_rows, notes_of
from collabdm.lab.experiment import Experiment
from collabdm.lab.results import EvaluationResults
from collabdm.pictures import data_uri
from collabdm.privacy.wording import guarantee
from collabdm.report import round_plots
from collabdm.report.figures import write_figures
from collabdm.report.html import Plot, Table, png_uri, render
from collabdm.report.rounds import RoundFiles, read_round
from collabdm.scoring.evaluation import Score

MOST_SHOWN = 50  # images shown of each class

CAPTIONS = {
    "bytes": "Accuracy against bytes sent per site, at most",
    "refinement": "Accuracy along the server's refinement",
    "classes": "Accuracy by class",
    "confusion": "Confusion matrix, % of each true class",
    "parts": "Bytes sent by each site, by part",
}


def write_report(folders: Sequence[Path], output: Path) -> list[Path]:
    """Write the report page, and its plots into a folder of the same name.

    Args:
        folders: One or more folders of rounds.
        output: The path of the HTML page.

    Returns:
        The files written, the page first.

    Raises:
        CollabDMError: A folder contains no round, or its files are damaged.
    """
    rounds = [read_round(folder) for folder in folders]
    several = len(rounds) > 1
    prefixes = [f"{i + 1}-" if several else "" for i in range(len(rounds))]

    figures = {"bytes": round_plots.accuracy_against_bytes(rounds)} if several else {}
    for prefix, files in zip(prefixes, rounds, strict=True):
        figures |= {prefix + name: drawn for name, drawn in _figures(files).items()}

    figures = {name: drawn for name, drawn in figures.items() if drawn is not None}
    paths, svgs = write_figures(figures, output.with_suffix(""))

    plots = [
        [Plot(svgs[prefix + name], CAPTIONS[name]) for name in CAPTIONS if prefix + name in svgs]
        for prefix in prefixes
    ]
    content = render(
        "rounds.html",
        title=f"{len(rounds)} rounds" if several else round_title(rounds[0]),
        rounds=list(zip(rounds, plots, strict=True)),
        comparison=Plot(svgs["bytes"], CAPTIONS["bytes"]) if several and "bytes" in svgs else None,
        **_TEMPLATE_FUNCTIONS,
    )
    atomic_write(output, content)
    return [output, *paths]


def _figures(files: RoundFiles) -> dict[str, Any]:
    return {
        "bytes": round_plots.accuracy_against_bytes([files]),
        "refinement": round_plots.accuracy_by_step(files),
        "classes": round_plots.accuracy_by_class(files),
        "confusion": round_plots.confusion_matrix(files),
        "parts": round_plots.bytes_by_part(files),
    }


def round_title(files: RoundFiles) -> str:
    """Write the title of a round: its name, method, data and number of sites."""
    data = f"on {files.data}" if files.data not in ("", files.name) else ""
    sites = len(contributing_sites(files.distilled.sites)) if files.distilled else 0

    parts = (f"{files.name}: {files.method}", data, f"{sites} sites" if sites else "")
    return ", ".join(filter(None, parts))


def result_tables(files: RoundFiles) -> list[Table]:
    """Make the tables of the results, except those without rows."""
    tables = (score_table(files), network_table(files), robustness_table(files))
    return [table for table in tables if table.rows]


def score_table(files: RoundFiles) -> Table:
    """Make the table of all scores with their standard deviations."""
    columns = ("trained on", "network", "accuracy, %", "n", "images", "bytes per site, at most")
    rows = [
        (
            score.what,
            score.network,
            f"{100 * score.mean:.1f}" + (f" ± {100 * score.std:.1f}" if score.n > 1 else ""),
            str(score.n),
            f"{score.images:,}",
            f"{upload:,}" if (upload := files.largest_upload(score.what)) else "-",
        )
        for score in files.scores
    ]
    caption = (
        "Accuracy on real test images, hard labels; ± is the standard deviation over n trained "
        "networks."
    )
    return Table(columns, rows, caption)


def network_table(files: RoundFiles) -> Table:
    """Make the table of accuracy by set and network; it is empty if there is only one network."""
    scores = {(score.what, score.network): score for score in files.scores}
    networks = list(dict.fromkeys(network for _, network in scores))
    sets = dict.fromkeys(what for what, _ in scores)

    rows = [(what, *(_accuracy(scores.get((what, net))) for net in networks)) for what in sets]
    columns = ("trained on", *networks)
    return Table(columns, rows if len(networks) > 1 else [], "The same sets on other networks, %")


def _accuracy(score: Score | None) -> str:
    return f"{100 * score.mean:.1f} ± {100 * score.std:.1f}" if score else "-"


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


def images_by_class(distilled: DistilledSet) -> dict[str, list[str]]:
    """Encode up to `MOST_SHOWN` images of each class as data URIs; omit empty classes.

    Rows of a table have no images.
    """
    if distilled.plan.image.side == 1:
        return {}
    pixels = as_uint8(distilled.images.images).numpy()
    positions = {
        name: distilled.images.of_class(y)[:MOST_SHOWN].tolist()
        for y, name in enumerate(distilled.images.classes)
    }
    return {name: [png_uri(pixels[i]) for i in index] for name, index in positions.items() if index}


def shades(distilled: DistilledSet) -> dict[str, list[tuple[int, str]]]:
    """Return the image counts of each site by class, each with a shade in 0 .. 1 for its cell."""
    largest = max((max(counts) for counts in distilled.sites.values()), default=0) or 1
    return {
        site: [(count, f"{(count / largest) ** 0.5:.3f}") for count in counts]
        for site, counts in distilled.sites.items()
    }


def audit_table(record: AuditRecord) -> Table:
    """Make the table of the attacks of an audit."""
    caption = (
        "The attacks rank images by how likely they were used; AUC .5, and a rate of true "
        "positives equal to that of false ones, are guesses. 95 % intervals; members + others are "
        f"trials over {record.settings.shadows + 1} rounds of {record.settings.members} images per "
        "class."
    )
    return Table(ATTACK_COLUMNS, attack_rows(record), caption)


def provenance(files: RoundFiles) -> Table:
    """Make the table of the plan, the device and the versions behind the results."""
    distilled, results, audit = files.distilled, files.results, files.audit
    rows = []

    if distilled is not None:
        plan = distilled.plan
        rows += [("plan", plan.digest), ("method", distilled.method)]
        rows += [("seed, steps, ipc", f"{plan.seed}, {plan.steps}, {plan.ipc}")]
        rows += [("privacy of each image", guarantee(plan.privacy))] if plan.privacy else []

    if results is not None:
        rows.append(("computed on", _listed(results.compute.document())))

    if audit is not None:
        rows += [("plan audited", audit.plan), ("audit", audit.command)]
        rows.append(("audited on", _listed(audit.compute.document())))

    sources = [source.versions for source in (results, distilled, audit) if source is not None]
    versions = sources[0] if sources else {}
    return Table(("what", "value"), [*rows, ("versions", _listed(versions))])


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)


def repeat_command(files: RoundFiles) -> str:
    """Write the command that repeats a simulation from its settings."""
    return f"collabdm simulate --config experiment.toml -o {shlex.quote(files.name)}"


def plan_json(distilled: DistilledSet) -> str:
    """Format the plan as JSON, for people to read and copy."""
    document = distilled.plan.model_dump(mode="json")
    return json.dumps(document, indent=1, ensure_ascii=False)


def settings_toml(experiment: Experiment) -> str:
    """Write the settings of a simulation as a TOML file that repeats it."""
    words = {"batch": "all", "sketch": "none"}  # TOML has no null
    settings = experiment.model_dump(mode="json")
    plan = {
        key: words.get(key) if value is None else value for key, value in settings["plan"].items()
    }

    settings |= {"preset": "none", "beta": experiment.beta or 0, "plan": plan}
    return tomli_w.dumps(_without_none(settings))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value


_TEMPLATE_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "audit_table": audit_table,
    "data_uri": data_uri,
    "notes_of": notes_of,
    "images_by_class": images_by_class,
    "plan_json": plan_json,
    "provenance": provenance,
    "repeat_command": repeat_command,
    "result_tables": result_tables,
    "round_title": round_title,
    "settings_toml": settings_toml,
    "shades": shades,
}

"""Rounds as one HTML page that needs no network, and its plots as files beside it.

    folders -> what they hold (`gathering`) -> plots (`plots`) -> one page (`page`)

Nothing is computed anew: the page says what results.json, the set and the contributions say.
"""

from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Any

import tomli_w

from collabdm.documents.atomic_write import atomic_write
from collabdm.lab.experiment import Experiment
from collabdm.lab.results import SimulationResults
from collabdm.report import page, plots
from collabdm.report.gathering import Round, gather

TOLD = {
    "bytes": "Accuracy against the bytes that a site sends at most",
    "refinement": "Accuracy along the server's refinement",
    "classes": "Accuracy on each class",
    "confusion": "Which class is taken for which, %",
    "parts": "Bytes that each site sent, by part",
}


def write_report(folders: Sequence[Path], output: Path) -> list[Path]:
    """Write the page, and the plots as SVG and PNG into a folder named after it; returns the files."""
    rounds = [gather(folder) for folder in folders]
    drawn = dict(_figures(rounds))
    images = {name: {kind: plots.rendered(made, kind) for kind in ("svg", "png")} for name, made in drawn.items()}
    written = [output]
    for name, kinds in images.items():
        for kind, content in kinds.items():
            written.append(output.with_suffix("") / f"{name}.{kind}")
            atomic_write(written[-1], content)
    atomic_write(output, _html(rounds, {name: kinds["svg"] for name, kinds in images.items()}).encode())
    return written


def _figures(rounds: Sequence[Round]) -> Iterator[tuple[str, Any]]:
    """Names of plots, and the plots, those that have something to show."""
    found = {"bytes": plots.accuracy_against_bytes(rounds)} if len(rounds) > 1 else {}
    for i, made in enumerate(rounds):
        prefix = f"{i + 1}-" if len(rounds) > 1 else ""
        found |= {
            f"{prefix}bytes": plots.accuracy_against_bytes([made]),
            f"{prefix}refinement": plots.along_the_refinement(made),
            f"{prefix}classes": plots.accuracy_by_class(made),
            f"{prefix}confusion": plots.confusion(made),
            f"{prefix}parts": plots.bytes_by_part(made),
        }
    return ((name, made) for name, made in found.items() if made is not None)


def _html(rounds: Sequence[Round], svgs: dict[str, bytes]) -> str:
    sections = []
    if "bytes" in svgs and len(rounds) > 1:
        sections.append(page.section("All rounds", page.plot(svgs["bytes"], TOLD["bytes"])))
    for i, made in enumerate(rounds):
        prefix = f"{i + 1}-" if len(rounds) > 1 else ""
        own = [page.plot(svgs[prefix + name], told) for name, told in TOLD.items() if prefix + name in svgs]
        experiment = made.results.experiment if isinstance(made.results, SimulationResults) else None
        if len(rounds) > 1:
            sections.append(f'<h2 class="round">{escape(_title(made))}</h2>')
        sections += [
            page.section("Results", page.result_table(made), page.network_table(made), page.robust_scores(made)),
            page.section("Plots", f'<div class="plots">{"".join(own)}</div>' if own else ""),
            page.section("The distilled images", page.images_by_class(made.made)),
            page.section("Who holds what", page.holdings(made)),
            page.section("Where it comes from", page.provenance(made, settings_toml(experiment) if experiment else "")),
        ]
    title = _title(rounds[0]) if len(rounds) == 1 else f"{len(rounds)} rounds"
    return page.page(title, filter(None, sections))


def _title(made: Round) -> str:
    sites = f"{len(made.made.sites)} sites" if made.made and made.made.sites else ""
    data = f"on {made.data}" if made.data not in ("", made.name) else ""
    return ", ".join(filter(None, (f"{made.name}: {made.main}", data, sites)))


def settings_toml(experiment: Experiment) -> str:
    """The settings of a simulation as a TOML file that repeats it."""
    settings = experiment.model_dump(mode="json")
    words = {"batch": "all", "sketch": "none"}  # TOML has no null
    plan = {key: words.get(key) if value is None else value for key, value in settings["plan"].items()}
    settings |= {"preset": "none", "beta": experiment.beta or 0, "plan": plan}  # every setting is in the file
    return tomli_w.dumps(_without_none(settings))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value

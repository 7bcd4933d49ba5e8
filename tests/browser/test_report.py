"""The report of rounds: its content is that of the files, and a browser shows it."""

import base64
import io
import json
import re
import shlex
import shutil
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command import done, run
from PIL import Image
from traffic import row, tiny_schema, write_csv

from browser import state_of
from collabdm.data.flows.built_in import FIVE_G_NIDD
from collabdm.documents.outcome_files import read_distilled
from collabdm.documents.plan import Plan
from collabdm.errors import DataError, DocumentError
from collabdm.lab.demo import DEMO
from collabdm.lab.experiment import Experiment
from collabdm.lab.settings import simulation
from collabdm.lab.simulate import simulate
from collabdm.planning.presets import preset_settings
from collabdm.report.provenance import settings_toml
from collabdm.report.round_page import write_report
from collabdm.report.rounds import EXTRA, PARTS, RoundFiles, part_sizes, read_round
from collabdm.report.score_tables import network_table, robustness_table

KEY = '(?:<span class="key"[^>]*>[^<]*</span>&nbsp;)?'  # the colour and marker of a set

PLAN = {
    "ipc": 2,
    "steps": 4,
    "batch": 8,
    "network": {"width": 8, "depth": 1},
    "local": {"steps": 2, "batch": 4},
    "refinement": {"passes": 2},
}


EVALUATED: dict[str, Any] = {
    "set": "set.safetensors",
    "plan": "ab",
    "data": "digits",
    "seed": 0,
    "sets": {},
    "bytes": 9,
    "versions": {},
    "recipe": {"epochs": 2},
    "compute": {"device": "cpu", "precision": "float32"},
    "scores": [{"what": "collabdm", "network": "ConvNet", "accuracies": [0.5], "images": 2}],
}


def scored(what: str, network: str, *accuracies: float) -> dict[str, Any]:
    return {"what": what, "network": network, "accuracies": accuracies, "images": 2}


def evaluated(folder: Path, **fields: Any) -> RoundFiles:
    """A folder with nothing but the results of an evaluation."""
    (folder / "scores.json").write_text(json.dumps(EVALUATED | fields))
    return read_round(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small simulation with every part that a report shows."""
    place = tmp_path_factory.mktemp("rounds") / "digits"
    experiment = Experiment(
        data="digits",
        method="collabdm",
        sites=3,
        beta=0.5,
        per_class=20,
        trials=2,
        recipe="short",
        epochs=2,
        compare=("localdm", "random", "sites", "all"),
        curve=3,
        plan=PLAN,
        seed=2,
    )
    simulate(experiment, place)
    return place


@pytest.fixture(scope="module")
def flows_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small simulation of two tables of flows, in a folder whose name has a space."""
    root = tmp_path_factory.mktemp("tables")
    rows = [row(i, "bad" if i % 5 == 0 else "ok") for i in range(90)]
    tables = [write_csv(root / f"{name}.csv", rows) for name in ("north", "south")]
    experiment = Experiment(
        data=",".join(map(str, tables)),
        flows=tiny_schema(split="time", block=2, held_out=3),
        method="collabdm",
        trials=1,
        recipe="short",
        epochs=1,
        compare=(),
        plan=PLAN | {"ipc": 1},
    )
    simulate(experiment, root / "two tables")
    return root / "two tables"


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    done("report", folder)
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_page_loads_no_other_file(html) -> None:
    for address in re.findall(r'(?:src|href|xlink:href)="([^"]*)"', html):
        assert address.startswith(("data:", "#")), address
    assert "@import" not in html
    assert not re.findall(r"url\((?!#)", html)


def test_every_score_is_in_the_table_with_its_deviation(folder, html) -> None:
    results = json.loads((folder / "results.json").read_text())
    rows = re.findall(
        rf'<tr><th scope="row">{KEY}([^<]*)</th><td>([^<]*)</td>'
        r"<td[^>]*>([^<]*?)(?: <small>\w+</small>)?</td><td>(\d+)</td>",
        html,
    )
    expected = [
        (s["what"], s["network"], f"{100 * s['mean']:.1f} ± {100 * s['std']:.1f}", "2")
        for s in sorted(results["scores"], key=lambda s: -s["mean"])
    ]
    assert [row for row in rows if row[1] == "ConvNet"] == expected
    sent = max(results["sets"]["collabdm"]["bytes_per_site"].values())
    assert f"<td>{sent:,}</td>" in html


def test_every_image_of_the_sets_of_all_methods_is_on_the_page(folder, html) -> None:
    paths = [folder / "distilled.safetensors", folder / "localdm" / "distilled.safetensors"]
    made = [image for path in paths for image in read_distilled(path).images.images]
    shown = re.findall(r'<button class="zoom".*?src="data:image/png;base64,([^"]+)"', html)
    assert len(shown) == len(made) == 40
    for text, pixels in zip(shown, made, strict=True):
        picture = Image.open(io.BytesIO(base64.b64decode(text)))
        assert np.array_equal(np.asarray(picture), pixels[0].numpy())


def test_the_counts_of_the_sites_are_those_of_the_set(folder, html) -> None:
    made = read_distilled(folder / "distilled.safetensors")
    cells = re.findall(r'<td class="count"[^>]*>([\d,]+)</td>', html)
    assert [int(cell) for cell in cells] == [n for held in made.sites.values() for n in held]


def test_parts_of_a_contribution_add_up_to_its_file(folder) -> None:
    paths = sorted((folder / "contributions").glob("*.safetensors"))
    assert len(paths) == 3
    for path in paths:
        header, parts = part_sizes(path)
        assert sum(parts.values()) == path.stat().st_size
        assert tuple(parts) == PARTS
        assert all((size > 0) == (part != EXTRA) for part, size in parts.items())
        assert read_round(folder).contributions[header["site"]] == parts


def blocks(html: str) -> dict[str, str]:
    """The blocks of a page for copying, by name; the command is `command`."""
    found = re.findall(r"<summary>([^<]*)</summary>\s*<pre>([^<]*)</pre>", html)
    (command,) = re.findall(r"</p>\s*<pre>([^<]*)</pre>", html)
    return {name: unescape(text) for name, text in [*found, ("command", command)]}


@pytest.mark.parametrize("data", ["images", "flows"])
def test_every_block_of_the_page_gives_the_same_experiment_and_plan(
    data, folder, flows_folder, tmp_path
) -> None:
    place = {"images": folder, "flows": flows_folder}[data]
    write_report([place], tmp_path / "page.html")
    texts = blocks((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert texts.keys() == {"experiment.toml", "The plan", "command"}
    (tmp_path / "experiment.toml").write_text(texts["experiment.toml"], encoding="utf-8")
    again = simulation(tmp_path / "experiment.toml", None, {}, {})
    results = json.loads((place / "results.json").read_text())
    assert again.digest == results["digest"]
    assert again.model_dump(mode="json") == results["experiment"]
    plan = Plan.model_validate_json(texts["The plan"])
    assert plan.digest == results["sets"]["collabdm"]["plan"]
    assert shlex.split(texts["command"]) == [
        *("collabdm", "simulate", "--config", "experiment.toml", "-o", place.name),
    ]


ODD = 'a "b"\\ # = [x]\t\x7f é \u2028 \U0001f40d'


@pytest.mark.parametrize(
    "experiment",
    [
        DEMO,
        Experiment(
            data=ODD, beta=None, compare=(), networks=("ConvNet:width=8,depth=1",), class_floor=0
        ),
        Experiment(
            data="digits", plan={"batch": None, "sketch": None, "augment": []}, curve=4, epochs=3
        ),
        Experiment(
            data="digits",
            method="fedd3",
            plan={"options": preset_settings("fedd3")["options"]},
            learning_rate=1e-7,
        ),
        Experiment(
            data="t.csv", flows=FIVE_G_NIDD, site_column="BaseStation=1,2", method="collabdm"
        ),
        Experiment(
            data="t.csv",
            flows=tiny_schema(label=ODD, classes=(ODD, "b"), merge=(), time="t"),
            trials=1,
        ),
    ],
)
def test_the_settings_of_an_experiment_survive_as_toml(experiment, tmp_path) -> None:
    path = tmp_path / "experiment.toml"
    path.write_text(settings_toml(experiment), encoding="utf-8")
    again = simulation(path, None, {}, {})
    assert again.digest == experiment.digest
    assert json.loads(again.model_dump_json()) == json.loads(experiment.model_dump_json())


def test_plots_are_written_as_svg_and_png_with_the_same_bytes_each_time(
    folder, html, tmp_path
) -> None:
    written = write_report([folder], tmp_path / "page.html")
    names = {path.stem for path in written[1:]}
    assert names == {"bytes", "size", "refinement", "strip", "classes", "confusion", "parts"}
    for path in written[1:]:
        if path.suffix == ".png":
            assert min(Image.open(io.BytesIO(path.read_bytes())).size) > 300
        else:
            assert path.read_text().startswith("<?xml")
    assert (tmp_path / "page.html").read_text() == html


def test_plots_have_the_text_colour_of_the_page(html) -> None:
    assert html.count("<svg role") == 7
    assert "currentColor" in html
    assert "#1b1f24" not in html.partition("</style>")[2]


def test_several_rounds_have_one_page(folder, tmp_path) -> None:
    (tmp_path / "plain").mkdir()
    shutil.copy(folder / "distilled.safetensors", tmp_path / "plain")
    result = done("report", folder, tmp_path / "plain", "-o", tmp_path / "two.html")
    assert "two.html" in result.out
    page = (tmp_path / "two.html").read_text()
    assert "<h1>2 rounds</h1>" in page
    assert page.count("<h2>The distilled images</h2>") == 2
    assert "All rounds" in page


def test_a_set_alone_has_a_page(folder, tmp_path) -> None:
    shutil.copy(folder / "distilled.safetensors", tmp_path / "mine.safetensors")
    done("report", tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "<h2>The distilled images</h2>" in page
    assert "<h2>Results</h2>" not in page


def test_older_results_have_a_page(folder, tmp_path) -> None:
    shutil.copytree(folder, tmp_path / "old")
    results = json.loads((folder / "results.json").read_text())
    results.pop("curve")
    for score in results["scores"]:
        del score["confusion"], score["per_class"]
    (tmp_path / "old" / "results.json").write_text(json.dumps(results))
    names = {path.stem for path in write_report([tmp_path / "old"], tmp_path / "p.html")[1:]}
    assert names == {"bytes", "size", "strip", "parts"}


def test_several_networks_have_a_table_of_their_own(tmp_path) -> None:
    scores = [
        scored("a", "ConvNet", 0.5, 0.7),
        scored("a", "VGG11", 0.4),
        scored("b", "ConvNet", 0.3),
    ]
    table = network_table(evaluated(tmp_path, scores=scores))
    assert table.columns == ("trained on", "ConvNet", "VGG11")
    assert table.rows == [("a", "60.0 ± 14.1", "40.0 ± 0.0"), ("b", "30.0 ± 0.0", "-")]
    assert network_table(evaluated(tmp_path, scores=scores[:1])).rows == []


def test_robust_scores_are_shown_if_they_were_computed(tmp_path) -> None:
    scores = {"lrs": 0.25, "ars": 0.34, "hlr": 0.3, "ior": 0.2, "std": {"lrs": 0.01}, "n": 3}
    table = robustness_table(evaluated(tmp_path, robustness=scores))
    assert [value for _, value in table.rows] == [
        *("0.250 ± 0.010", "0.340 ± 0.000", "30.0 ± 0.0", "20.0 ± 0.0"),
    ]
    write_report([tmp_path], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert '<tr><th scope="row">label-robust score</th><td>0.250 ± 0.010</td></tr>' in page
    assert "n = 3 trained networks" in page
    assert robustness_table(evaluated(tmp_path)).rows == []


def test_names_are_text_and_not_markup(tmp_path) -> None:
    evaluated(tmp_path, scores=[scored("<script>alert(1)</script>", '"<b>', 0.5)])
    write_report([tmp_path], tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<script>alert" not in page
    assert "&nbsp;&lt;script&gt;alert(1)&lt;/script&gt;</th><td>&#34;&lt;b&gt;</td>" in page


def test_results_of_other_classes_than_the_set_are_refused(folder, tmp_path) -> None:
    shutil.copy(folder / "distilled.safetensors", tmp_path)
    with pytest.raises(DataError, match="found a set of 10 classes and scores of 2: put them into"):
        evaluated(tmp_path, scores=[scored("a", "ConvNet", 0.5) | {"confusion": [[1, 0], [0, 1]]}])


def test_a_folder_without_a_round_is_refused(tmp_path) -> None:
    (tmp_path / "other.json").write_text('{"steps": 3}')
    with pytest.raises(
        DocumentError,
        match="distilled set, or results of `simulate`, of `evaluate --json` or of `audit`; found none",
    ):
        write_report([tmp_path], tmp_path / "report.html")
    assert run("report", tmp_path / "nowhere").code == 2


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("results.json", "{}", "`set` should be present; found nothing"),
        ("results.json", '{"scores": [', "should be JSON; EOF while parsing a list"),
        (
            "scores.json",
            json.dumps(EVALUATED | {"scores": 3}),
            "`scores` should be a valid array; found 3",
        ),
    ],
)
def test_damaged_results_are_named_with_the_field(tmp_path, name, content, problem) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(
        DataError, match=f"{name}: {problem}.*: restore the file, or repeat `collabdm simulate`"
    ):
        write_report([tmp_path], tmp_path / "report.html")


# --- in a browser --------------------------------------------------------------------------------

SMALLEST_PICTURE = 56  # pixels on the screen


@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_page_without_errors_and_without_overflow(
    html, tmp_path, width
) -> None:
    state = state_of(html, tmp_path, width)
    assert state["problems"] == []
    assert state["seen"] == width
    assert state["width"] <= width
    assert state["pictures"] == 41  # 20 of each set, one in the viewer
    assert state["smallest"] >= SMALLEST_PICTURE
    assert state["broken"] == 0
    assert state["zoomed"]
    assert state["plots"] == 7
    assert state["hints"] == state["scrolling"]

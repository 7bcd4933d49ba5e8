"""A report tells what the files of a round say, and a browser shows it."""

import base64
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from command import done, run
from PIL import Image

from browser import state_of
from collabdm.documents.outcome_files import read_distilled
from collabdm.errors import DocumentError
from collabdm.lab.experiment import Experiment
from collabdm.lab.settings import simulation
from collabdm.lab.simulate import simulate
from collabdm.report.gathering import OWN, PARTS, Round, gather, parts_of
from collabdm.report.page import network_table, result_table, robust_scores
from collabdm.report.write import settings_toml, write_report
from collabdm.scoring.evaluation import Score

PLAN = {
    "ipc": 2, "steps": 4, "batch": 8, "network": {"width": 8, "depth": 1},
    "local": {"steps": 2, "batch": 4}, "refinement": {"passes": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small simulation with every part that a report shows."""
    place = tmp_path_factory.mktemp("rounds") / "digits"
    experiment = Experiment(
        data="digits", method="collabdm", sites=3, beta=0.5, per_class=20, trials=2, recipe="short", epochs=2,
        compare=("localdm", "random", "sites", "all"), curve=3, plan=PLAN, seed=2,
    )  # fmt: skip
    simulate(experiment, place)
    return place


@pytest.fixture(scope="module")
def html(folder: Path) -> str:
    done("report", folder)
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_page_loads_nothing_from_anywhere(html) -> None:
    for address in re.findall(r'(?:src|href|xlink:href)="([^"]*)"', html):
        assert address.startswith(("data:", "#")), address
    assert "@import" not in html
    assert not re.findall(r"url\((?!#)", html)


def test_every_score_stands_in_the_table_with_its_spread(folder, html) -> None:
    results = json.loads((folder / "results.json").read_text())
    rows = re.findall(r'<tr><th scope="row">([^<]*)</th><td>([^<]*)</td><td>([^<]*)</td><td>(\d+)</td>', html)
    expected = [
        (s["what"], s["network"], f"{100 * s['mean']:.1f} ± {100 * s['std']:.1f}", "2") for s in results["scores"]
    ]
    assert [row for row in rows if row[1] == "ConvNet"] == expected
    sent = max(results["sets"]["collabdm"]["bytes_per_site"].values())
    assert f"<td>{sent:,}</td>" in html


def test_every_image_of_the_set_is_there_pixel_by_pixel(folder, html) -> None:
    made = read_distilled(folder / "distilled.safetensors")
    shown = re.findall(r'<button class="zoom".*?src="data:image/png;base64,([^"]+)"', html)
    assert len(shown) == len(made.images) == 20
    for text, pixels in zip(shown, made.images.images, strict=True):
        picture = Image.open(io.BytesIO(base64.b64decode(text)))
        assert np.array_equal(np.asarray(picture), pixels[0].numpy())


def test_who_holds_what_is_what_the_set_says(folder, html) -> None:
    made = read_distilled(folder / "distilled.safetensors")
    cells = re.findall(r'<td class="held"[^>]*>([\d,]+)</td>', html)
    assert [int(cell) for cell in cells] == [n for held in made.sites.values() for n in held]


def test_parts_of_a_contribution_add_up_to_its_file(folder) -> None:
    paths = sorted((folder / "contributions").glob("*.safetensors"))
    assert len(paths) == 3
    for path in paths:
        header, parts = parts_of(path)
        assert sum(parts.values()) == path.stat().st_size
        assert tuple(parts) == PARTS
        assert all((size > 0) == (part != OWN) for part, size in parts.items())
        assert gather(folder).sent[header["site"]] == parts


def test_the_settings_of_the_page_make_the_same_experiment(folder, tmp_path) -> None:
    path = tmp_path / "experiment.toml"
    path.write_text(settings_toml(gather(folder)), encoding="utf-8")
    again = simulation(path, None, {}, {})
    results = json.loads((folder / "results.json").read_text())
    assert {k: v for k, v in again.model_dump(mode="json").items() if k != "plan"} == {
        k: v for k, v in results["experiment"].items() if k != "plan"
    }
    assert again.plan["refinement"]["passes"] == 2
    assert again.plan["network"] == PLAN["network"]


def test_plots_lie_beside_the_page_as_svg_and_png_and_are_the_same_each_time(folder, html, tmp_path) -> None:
    written = write_report([folder], tmp_path / "page.html")
    names = {path.stem for path in written[1:]}
    assert names == {"bytes", "refinement", "classes", "confusion", "parts"}
    for path in written[1:]:
        if path.suffix == ".png":
            assert min(Image.open(io.BytesIO(path.read_bytes())).size) > 300
        else:
            assert path.read_text().startswith("<?xml")
    assert (tmp_path / "page.html").read_text() == html


def test_the_text_of_plots_takes_the_ink_of_the_page(html) -> None:
    assert html.count("<svg role") == 5
    assert "currentColor" in html
    assert "#1b1f24" not in html.partition("</style>")[2]


def test_several_rounds_stand_on_one_page(folder, tmp_path) -> None:
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
    assert names == {"bytes", "parts"}


def test_several_networks_have_a_table_of_their_own() -> None:
    scores = [Score("a", "ConvNet", (0.5, 0.7), 1), Score("a", "VGG11", (0.4,), 1), Score("b", "ConvNet", (0.3,), 1)]
    found = re.findall(r"<td>(.*?)</td>", network_table(Round("r", None, scores)))
    assert found == ["60.0 ± 14.1", "40.0 ± 0.0", "30.0 ± 0.0", "-"]
    assert network_table(Round("r", None, scores[:1])) == ""


def test_robust_scores_are_shown_where_they_were_asked_for() -> None:
    scores = {"lrs": 0.25, "ars": 0.34, "hlr": 0.3, "ior": 0.2, "std": {"lrs": 0.01}, "n": 3}
    page = robust_scores(Round("r", None, [], results={"robustness": scores}))
    assert "<td>0.250 ± 0.010</td>" in page
    assert "<td>20.0 ± 0.0</td>" in page
    assert "n = 3" in page
    assert robust_scores(Round("r", None, [])) == ""


def test_class_names_are_text_and_not_markup(folder) -> None:
    made = gather(folder)
    odd = Score("<script>alert(1)</script>", "ConvNet", (0.5,), 1)
    made.scores[:] = [odd]
    assert "<script>" not in result_table(made)


@pytest.mark.parametrize("content", [None, "{}", '{"scores": 3}'])
def test_a_folder_without_a_round_is_refused(tmp_path, content) -> None:
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(DocumentError, match="should hold a distilled set, or results"):
        write_report([tmp_path], tmp_path / "report.html")
    assert run("report", tmp_path / "nowhere").code == 2


# --- in a browser --------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_the_page_without_errors_and_without_overflow(html, tmp_path, width) -> None:
    state = state_of(html, tmp_path, width)
    assert state["problems"] == []
    assert state["seen"] == width
    assert state["width"] <= width
    assert state["pictures"] == 21  # 20 of the set, one in the viewer
    assert state["broken"] == 0
    assert state["zoomed"]
    assert state["plots"] == 5

"""The work behind the operator's page: its checks, and that it contributes as the command does."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command import NETWORK, OPEN, TINY, cells, done, picture_folder
from served import Page, served

from collabdm.matching.compute import Compute
from collabdm.rounds.resumable import state_path
from collabdm.site_page.form import Form, read_form
from collabdm.site_page.work import Settings, Work


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    work = Work(Settings(Compute, Path(OPEN[1])), Form(folder=str(tmp_path / "out")))
    with served(work) as page:
        yield page


@pytest.fixture
def inputs(tmp_path: Path) -> tuple[Path, Path]:
    """A plan of three classes, and the data of a site."""
    data = picture_folder(tmp_path / "data", cat=5, dog=4, ship=6)
    plan = tmp_path / "plan.json"
    done("plan", "--classes", "cat,dog,ship", "--image-size", "3x8", *TINY, "-o", plan)
    return plan, data


def form(data: Path, folder: Path, **changes: Any) -> str:
    return json.dumps({"site": "north", "data": str(data), "folder": str(folder), **changes})


def checked(page: Page, inputs: tuple[Path, Path], folder: Path, **changes: Any) -> dict[str, Any]:
    """The state after a check."""
    plan, data = inputs
    status, answer = page.post("plan", plan.read_bytes(), X_File_Name="plan.json")
    assert status == 200, answer
    return page.run("check", form(folder=folder, **{"data": data} | changes))


# --- checks that fail ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "/nowhere"}, "`/nowhere` should be a folder, a file or one of digits"),
        ({"site": "../../up"}, "`site` should be 1 to 64 letters, digits"),
        ({"without": ["shp"]}, "found shp: did you mean ship?"),
        ({"class_names": "a,a"}, "class names should be distinct"),
    ],
)
def test_a_check_that_fails_shows_the_message_of_the_command(
    page, inputs, tmp_path, changes, message
) -> None:
    state = checked(page, inputs, tmp_path / "out", **changes)
    assert message in state["error"]
    assert state["phase"] == "ready"
    assert page.post("contribute", str(state["check"]))[0] == 409
    assert not (tmp_path / "out").exists()


def test_an_incomplete_form_names_all_that_lacks(page, inputs) -> None:
    page.post("plan", inputs[0].read_bytes())
    status, answer = page.post("check", "{}")
    assert status == 400
    assert [line.split()[0] for line in answer["error"].splitlines()] == [
        *("`site`", "`data`", "`folder`"),
    ]


@pytest.mark.parametrize("text", ["[", "3", '{"unknown": 1}', '{"smallest_class": 0}'])
def test_a_form_that_does_not_fit_is_refused(page, text) -> None:
    assert page.post("check", text)[0] == 400


def test_a_check_needs_a_plan(page, inputs, tmp_path) -> None:
    status, answer = page.post("check", form(inputs[1], tmp_path))
    assert (status, "a plan should be chosen" in answer["error"]) == (409, True)


def test_the_default_policy_lets_no_real_image_leave(inputs, tmp_path) -> None:
    plan = tmp_path / "real.json"
    words = ("--classes", "cat,dog,ship", "--image-size", "3x8", *TINY, "--local", "random")
    done("plan", *words, "-o", plan)
    work = Work(Settings(Compute))
    work.take_plan(plan.read_bytes(), "real.json")
    for allowed in (False, True):
        entered = form(inputs[1], tmp_path, allow_real_images=allowed, smallest_class=1)
        work.ask_check(read_form(entered.encode()))
        work.run_next(1.0)
        assert ("`raw_images` is false" in work.state()["error"]) == (not allowed)


# --- the contribution ----------------------------------------------------------------------------


def test_a_check_shows_the_rows_of_a_dry_run(page, inputs, tmp_path) -> None:
    plan, data = inputs
    state = checked(page, inputs, tmp_path / "out", without=["dog"])
    words = ("--data", data, "--site", "north", "--without", "dog", "--json", tmp_path / "t.json")
    done("contribute", plan, *OPEN, *words, "--dry-run", "-o", tmp_path / "x")
    (table,) = json.loads((tmp_path / "t.json").read_text())["tables"]
    assert state["rows"] == [[row["part"], row["value"]] for row in table["rows"]]
    assert "withheld: dog: left out by this site" in state["warnings"]
    assert any("15 images of 3 classes" in line for line in state["notes"])


def test_the_contribution_is_the_file_of_the_command(page, inputs, tmp_path) -> None:
    plan, data = inputs
    check = checked(page, inputs, tmp_path / "out")["check"]
    state = page.run("contribute", str(check))
    words = ("--data", data, "--site", "north", "--device", "cpu", "--precision", "float32")
    printed = done("contribute", plan, *OPEN, *words, "-o", tmp_path / "command.safetensors")

    content = (tmp_path / "command.safetensors").read_bytes()
    assert page.get("contribution") == content
    assert (tmp_path / "out" / "north.safetensors").read_bytes() == content
    assert (state["phase"], state["result"]["bytes"]) == ("done", len(content))
    assert state["result"]["path"] == str(tmp_path / "out" / "north.safetensors")
    assert [part for part, _ in state["rows"]] == [row[0] for row in cells(printed.out) if row[0]]
    assert page.get("picture").startswith(b"\x89PNG")


def test_the_download_is_that_of_the_contribution_whatever_the_address(
    page, inputs, tmp_path
) -> None:
    assert page.ask("GET", f"/{page.server.token}/contribution")[0] == 404
    page.run("contribute", str(checked(page, inputs, tmp_path / "out")["check"]))
    (tmp_path / "out" / "secret").write_text("private")
    for name in ("secret", "contribution/../secret", "../out/secret", "contribution%2f..%2fsecret"):
        assert page.ask("GET", f"/{page.server.token}/{name}")[0] == 404
    _, content, headers = page.ask("GET", f"/{page.server.token}/contribution?file=secret")
    assert content == (tmp_path / "out" / "north.safetensors").read_bytes()
    assert headers["Content-Disposition"] == 'attachment; filename="north.safetensors"'
    (tmp_path / "out" / "north.safetensors").unlink()
    assert page.ask("GET", f"/{page.server.token}/contribution")[0] == 404


def test_only_the_last_check_can_be_contributed(page, inputs, tmp_path) -> None:
    first = checked(page, inputs, tmp_path / "out")["check"]
    checked(page, inputs, tmp_path / "out", without=["dog"])
    status, answer = page.post("contribute", str(first))
    assert (status, "check again" in answer["error"]) == (409, True)
    assert page.post("contribute", "nonsense")[0] == 409


def test_one_job_runs_at_a_time(page, inputs, tmp_path) -> None:
    plan, data = inputs
    page.post("plan", plan.read_bytes())
    assert page.post("check", form(data, tmp_path))[0] == 200
    assert page.post("check", form(data, tmp_path))[0] == 409
    assert page.post("plan", plan.read_bytes())[0] == 409


def at_event(work: Work, number: int, action: Callable[[], object]) -> None:
    """Do something at an event of the progress of the next contribution."""
    seen, report = [], work._report

    def watched(event: Any) -> None:
        seen.append(event)
        if len(seen) == number:
            action()
        report(event)

    work._report = watched  # type: ignore[method-assign]


def test_work_that_was_stopped_continues_to_the_same_bytes(page, inputs, tmp_path) -> None:
    check = checked(page, inputs, tmp_path / "out")["check"]
    at_event(page.work, 3, lambda: page.post("cancel", ""))
    state = page.run("contribute", str(check))
    output = tmp_path / "out" / "north.safetensors"
    assert (state["phase"], state["cancelling"], output.exists()) == ("cancelled", False, False)
    assert state_path(output).exists()

    assert page.run("contribute", str(check))["phase"] == "done"
    assert not state_path(output).exists()
    continued = page.get("contribution")
    output.unlink()
    page.run("contribute", str(check))
    assert page.get("contribution") == continued


def test_ctrl_c_ends_the_page_and_not_only_the_work(page, inputs, tmp_path) -> None:
    check = checked(page, inputs, tmp_path / "out")["check"]

    def stop() -> None:
        raise KeyboardInterrupt

    at_event(page.work, 2, stop)
    page.post("contribute", str(check))
    with pytest.raises(KeyboardInterrupt):
        page.work.run_next(1.0)


def test_a_folder_that_cannot_be_written_is_refused_by_the_check(page, inputs, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    state = checked(page, inputs, tmp_path / "file")
    assert "north.safetensors should be writable; Not a directory" in state["error"]


def test_a_plan_with_masks_gives_the_masked_file_of_the_command(
    page, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("COLLABDM_SITE_FOLDER", str(tmp_path / "private"))
    data = picture_folder(tmp_path / "data", cat=5, dog=4, ship=6)
    for site in ("north", "south", "west"):
        done("keys", site)
    public = sorted((tmp_path / "private").glob("*.pub.json"))
    masks = [word for path in public for word in ("--masked-for", path)]
    words = ("--classes", "cat,dog,ship", "--image-size", "3x8", "--largest-class", "50", *masks)
    small = ("--ipc", "1", "--steps", "3", "--batch", "all", "--network", NETWORK)
    done("plan", *words, *small, "-o", tmp_path / "plan.json")

    state = checked(page, (tmp_path / "plan.json", data), tmp_path / "out")
    assert state["rows"][-1][0] == "keys in the plan"
    state = page.run("contribute", str(state["check"]))
    assert (state["phase"], state["result"]["legend"]) == ("done", None)
    words = ("--data", data, "--site", "north", "-o", tmp_path / "masked")
    done("contribute", tmp_path / "plan.json", *OPEN, *words)
    assert page.get("contribution") == (tmp_path / "masked").read_bytes()

"""The operator's page in a browser: a plan, a check, a contribution and its download."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import OPEN, PROGRAM, TINY, done, picture_folder
from driven_browser import Browser, driven


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan of three classes, and the data of a site."""
    root = tmp_path_factory.mktemp("site")
    picture_folder(root / "data", cat=5, dog=4, ship=6)
    words = ("--classes", "cat,dog,ship", "--image-size", "3x8", "--sites", "north,south")
    done("plan", *words, *TINY, "-o", root / "plan.json")
    (root / "broken.json").write_text("{]")
    return root


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    """The command, in a process of its own; Ctrl-C ends it with 130."""
    command = [
        *(*PROGRAM, "site", "--policy", OPEN[1], "-o", folder / "out"),
        *("--device", "cpu", "--precision", "float32"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        assert process.stdout is not None
        printed = process.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{43}/", printed), printed
        yield printed
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with driven(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


def text(browser: Browser, selector: str) -> str:
    return browser.value(f"document.querySelector({selector!r}).innerText")


def open_page(browser: Browser, address: str, width: int = 1280, dark: bool = False) -> None:
    browser.open(address, width, dark)
    browser.wait("document.body.dataset.ready")


def fits(browser: Browser, width: int) -> None:
    assert browser.value("document.documentElement.scrollWidth") <= width
    assert browser.problems == []


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_an_operator_checks_a_plan_and_contributes(
    browser, address, folder, tmp_path, width, dark
) -> None:
    open_page(browser, address, width, dark)
    browser.choose("#plan-file", folder / "plan.json")
    browser.wait("document.querySelectorAll('#classes input').length === 3")
    assert text(browser, "#plan-summary").startswith("plan.json\nplan ")
    fits(browser, width)

    browser.type("[name=site]", "north")
    browser.type("[name=data]", str(folder / "data"))
    browser.value("document.querySelector('#leaves').open = true")
    browser.value("document.querySelector('#classes input[value=dog]').checked = true")
    browser.click("#check")
    browser.wait("state.phase === 'checked'")
    assert text(browser, "#rows").startswith("class means")
    assert "withheld: dog: left out by this site" in text(browser, "#warnings")
    fits(browser, width)

    browser.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    browser.click("#contribute")
    browser.wait("state.phase === 'done' && document.querySelector('#picture').naturalWidth > 200")
    browser.click("#download")
    written = (folder / "out" / "north.safetensors").read_bytes()
    downloaded = tmp_path / "north.safetensors"
    for _ in range(100):
        if downloaded.exists():
            break
        browser.value("new Promise(done => setTimeout(done, 100))")
    assert downloaded.read_bytes() == written
    assert text(browser, "#result-bytes") == f"{len(written):,} bytes"
    fits(browser, width)


def test_a_change_of_the_form_asks_for_another_check(browser, address, folder) -> None:
    open_page(browser, address)
    browser.choose("#plan-file", folder / "plan.json")
    browser.wait("document.querySelectorAll('#classes input').length === 3")
    browser.type("[name=site]", "north")
    browser.type("[name=data]", str(folder / "data"))
    browser.click("#check")
    browser.wait("state.phase === 'checked' && !document.querySelector('#contribute-step').hidden")
    browser.type("[name=site]", "south")
    browser.wait("document.querySelector('#contribute-step').hidden")
    assert text(browser, "#check-note") == "the entries have changed: check again"


def test_faults_are_shown_where_they_belong(browser, address, folder) -> None:
    open_page(browser, address)
    browser.choose("#plan-file", folder / "broken.json")
    browser.wait("!document.querySelector('#plan-error').hidden")
    assert "broken.json should be a plan, JSON" in text(browser, "#plan-error")

    browser.choose("#plan-file", folder / "plan.json")
    browser.wait("document.querySelector('#plan-error').hidden")
    browser.type("[name=site]", "west")
    browser.type("[name=data]", "/nowhere")
    browser.click("#check")
    browser.wait("!document.querySelector('#check-error').hidden")
    assert "`site` should be one of north, south; found 'west'" in text(browser, "#check-error")
    browser.problems.clear()  # the browser logs answers of 400, such as that to the broken plan

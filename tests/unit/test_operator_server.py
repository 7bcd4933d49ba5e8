"""The server of the operator's page: whom it answers, and what it refuses to read."""

import contextlib
import http.client
import json
import re
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import OPEN, PROGRAM, TINY, done, picture_folder, run
from served import Page, served

from collabdm.documents.plan_file import PLAN_LIMIT
from collabdm.errors import OutputError
from collabdm.matching.compute import Compute
from collabdm.site_page.form import Form
from collabdm.site_page.server import PageServer
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


# --- who is answered -----------------------------------------------------------------------------


def test_it_listens_on_the_loopback_address_alone(page) -> None:
    assert page.server.socket.getsockname()[0] == "127.0.0.1"
    assert page.server.address.startswith("http://127.0.0.1:")
    with contextlib.suppress(socket.gaierror):  # a machine without a name of its own
        others = {found[4][0] for found in socket.getaddrinfo(socket.gethostname(), None)}
        for address in others - {"127.0.0.1"}:
            with pytest.raises(OSError):  # noqa: PT011 - systems differ in the reason
                socket.create_connection((address, page.server.server_port), timeout=5)


def test_every_token_is_new_and_cannot_be_guessed(page) -> None:
    with PageServer(page.work) as other:
        assert other.token != page.server.token
        assert len(other.token) >= 43  # 256 bits


@pytest.mark.parametrize("name", ["", "form", "state", "contribution", "picture", "unknown"])
@pytest.mark.parametrize("token", ["", "wrong", "{token}0", "%C3%A9"])
def test_a_request_without_the_token_is_forbidden(page, name, token) -> None:
    wrong = token.replace("{token}", page.server.token)
    status, content, _ = page.ask("GET", f"/{wrong}/{name}")
    assert status == 403
    assert page.server.token.encode() not in content


@pytest.mark.parametrize("name", ["plan", "check", "contribute", "cancel"])
def test_nothing_can_be_done_without_the_token(page, name, inputs) -> None:
    assert page.ask("POST", f"/wrong/{name}", inputs[0].read_bytes())[0] == 403
    assert page.work.state()["phase"] == "empty"
    assert not page.work.run_next(0.01)


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "[::1]:{port}"]
)
def test_a_foreign_host_header_is_forbidden(page, host) -> None:
    named = host.format(port=page.server.server_port)
    assert page.ask("GET", f"/{page.server.token}/", Host=named)[0] == 403


def test_localhost_is_this_machine(page) -> None:
    host = f"localhost:{page.server.server_port}"
    assert page.ask("GET", f"/{page.server.token}/state", Host=host)[0] == 200


def test_the_page_loads_nothing_from_elsewhere(page) -> None:
    status, content, headers = page.ask("GET", f"/{page.server.token}/")
    html, policy = content.decode(), headers["Content-Security-Policy"]
    (nonce,) = set(re.findall(r"nonce-([\w-]+)", policy))
    assert status == 200
    assert html.count(f'nonce="{nonce}"') == 2
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "://" not in html
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["Cache-Control"] == "no-store"
    again = page.ask("GET", f"/{page.server.token}/")[2]["Content-Security-Policy"]
    assert nonce not in again


def test_a_port_in_use_is_refused(page) -> None:
    with pytest.raises(OutputError, match="`--port` should be a free port"):
        PageServer(page.work, page.server.server_port)


@pytest.mark.slow
def test_the_command_serves_the_page_until_ctrl_c(inputs) -> None:
    plan, data = inputs
    command = [*PROGRAM, "site", plan, "--data", data, "--site", "a"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as ran:
        assert ran.stdout is not None
        address = ran.stdout.readline().strip()
        with urllib.request.urlopen(f"{address}state", timeout=60) as answer:
            state = json.load(answer)
        with urllib.request.urlopen(f"{address}form", timeout=60) as answer:
            form = json.load(answer)
        ran.send_signal(signal.SIGINT)
        _, errors = ran.communicate(timeout=60)
    assert (state["phase"], state["plan"]["name"]) == ("ready", "plan.json")
    assert (form["site"], form["data"]) == ("a", str(data))
    assert (ran.returncode, errors) == (130, "stopped; the same command resumes the work\n")


@pytest.mark.parametrize("words", [("nowhere.json",), ("--policy", "nowhere.toml")])
def test_a_fault_in_the_options_ends_the_command_before_it_serves(words) -> None:
    result = run("site", *words)
    assert (result.code, words[-1] in result.err, result.out) == (2, True, "")


# --- what is refused -----------------------------------------------------------------------------


def test_a_file_that_is_no_plan_is_refused_in_the_words_of_the_command(page) -> None:
    status, answer = page.post("plan", b"{]", X_File_Name="my%20plan.json")
    assert status == 400
    assert answer["error"].startswith("my plan.json should be a plan, JSON; found text that is not")
    assert page.work.state()["plan"] is None


def test_a_plan_that_was_edited_is_refused(page, inputs) -> None:
    edited = inputs[0].read_text().replace('"ipc": 1', '"ipc": 2')
    status, answer = page.post("plan", edited)
    assert status == 400
    assert "the plan was changed after it was made" in answer["error"]


def test_a_file_that_is_too_large_is_refused_before_it_is_read(page) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", page.server.server_port, timeout=60)
    connection.putrequest("POST", f"/{page.server.token}/plan")
    connection.putheader("Content-Length", str(PLAN_LIMIT + 1))
    connection.endheaders()  # and no body
    answer = connection.getresponse()
    assert answer.status == 413
    assert "should have at most 4,194,304 bytes" in json.loads(answer.read())["error"]
    connection.close()


def test_a_body_without_a_length_is_refused(page) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", page.server.server_port, timeout=60)
    connection.putrequest("POST", f"/{page.server.token}/plan")
    connection.putheader("Content-Length", "-1")
    connection.endheaders()
    assert connection.getresponse().status == 411
    connection.close()

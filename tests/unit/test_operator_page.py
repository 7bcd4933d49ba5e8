"""The operator's page: who is answered, what is refused, and that it contributes as the command does."""

import http.client
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from command import NETWORK, OPEN, TINY, cells, done, picture_folder

from collabdm.documents.plan_file import PLAN_LIMIT
from collabdm.errors import OutputError
from collabdm.matching.compute import Compute
from collabdm.rounds.resumable import state_path
from collabdm.site_page.form import Form, read_form
from collabdm.site_page.server import PageServer
from collabdm.site_page.work import Settings, Work


class Page:
    """A served page, and its jobs, which run in this thread."""

    def __init__(self, server: PageServer) -> None:
        self.server, self.work = server, server.work

    def ask(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        """One request, to the path as it is; returns status, content and headers."""
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content, answer.headers

    def get(self, name: str) -> bytes:
        status, content, _ = self.ask("GET", f"/{self.server.token}/{name}")
        assert status == 200, content
        return content

    def post(self, name: str, body: bytes | str, **headers: str) -> tuple[int, Any]:
        content = body if isinstance(body, bytes) else body.encode()
        status, answer, _ = self.ask("POST", f"/{self.server.token}/{name}", content, **headers)
        return status, json.loads(answer)

    def run(self, name: str, body: bytes | str) -> dict[str, Any]:
        """Ask for a job, run it, and return the state after it."""
        status, answer = self.post(name, body)
        assert status == 200, answer
        assert self.work.run_next(1.0)
        return json.loads(self.get("state"))


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    work = Work(Settings(Compute, Path(OPEN[1])), Form(folder=str(tmp_path / "out")))
    with PageServer(work) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Page(server)
        server.shutdown()
        thread.join()


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


# --- who is answered -----------------------------------------------------------------------------


def test_it_listens_on_the_loopback_address_alone(page) -> None:
    assert page.server.socket.getsockname()[0] == "127.0.0.1"
    assert page.server.address.startswith("http://127.0.0.1:")
    others = {found[4][0] for found in socket.getaddrinfo(socket.gethostname(), None)}
    for address in others - {"127.0.0.1"}:
        with pytest.raises(OSError, match=r"refused|unreachable|not known|Invalid"):
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

"""The checks of a site before a round: server, key, plan, data and policy."""

import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer

import numpy as np
import pytest
from command import OPEN, cells, run
from deployed import free_port, make_certificates, tool
from tiny import tiny_data, tiny_plan

from collabdm.documents.plan_file import write_plan
from collabdm.flower import connection
from collabdm.flower.connection import DeploymentError, check_flower, check_key, check_server


class Silent(BaseRequestHandler):
    """Takes a connection and waits for its end."""

    def handle(self) -> None:
        self.request.settimeout(5)
        try:
            self.request.recv(1)
        except OSError:
            return


@pytest.fixture
def certified(tmp_path: Path) -> Path:
    make_certificates(tmp_path)
    return tmp_path


@pytest.fixture
def plain() -> Iterator[str]:
    with ThreadingTCPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


class OverTLS(ThreadingTCPServer):
    """The same over TLS; a client that turns away is no error here."""

    context: ssl.SSLContext

    def get_request(self) -> tuple:
        connection, address = super().get_request()
        return self.context.wrap_socket(connection, server_side=True), address


@pytest.fixture
def secure(certified: Path) -> Iterator[str]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certified / "server.crt", certified / "server.key")
    with OverTLS(("127.0.0.1", 0), Silent) as server:
        server.context = context
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_server_with_the_certificate_is_found(secure, certified) -> None:
    assert "no certificate was asked for" in check_server(secure, None)
    said = check_server(secure, certified / "ca.crt")
    assert said.startswith(f"{secure} answers, TLSv1.3, certificate until ")


def test_a_server_with_another_certificate_or_name_is_told(secure, certified, tmp_path) -> None:
    (tmp_path / "other").mkdir()
    make_certificates(tmp_path / "other")
    with pytest.raises(DeploymentError, match=r"should be for 127\.0\.0\.1 and signed by"):
        check_server(secure, tmp_path / "other" / "ca.crt")


def test_a_server_without_tls_is_told(plain, certified, monkeypatch) -> None:
    monkeypatch.setattr(connection, "TIMEOUT", 0.5)
    assert "answers; no certificate was asked for" in check_server(plain, None)
    with pytest.raises(DeploymentError, match=r"should answer; found no server|should use TLS"):
        check_server(plain, certified / "ca.crt")


def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(DeploymentError, match="should answer; found no server"):
        check_server(f"127.0.0.1:{free_port()}", None)


@pytest.mark.parametrize(
    "address", ["server", "server:", "server:0", "server:99999", ":1", "https://server:1:2:x"]
)
def test_an_address_is_host_and_port(address) -> None:
    with pytest.raises(DeploymentError, match="`--server` should be HOST:PORT"):
        check_server(address, None)


def test_a_root_that_is_no_certificate_is_told(plain, tmp_path) -> None:
    (tmp_path / "ca.crt").write_text("nothing")
    with pytest.raises(DeploymentError, match="should be a certificate, PEM"):
        check_server(plain, tmp_path / "ca.crt")


def test_a_key_is_private_and_readable_by_its_owner_alone(tmp_path) -> None:
    key = tmp_path / "key"
    tool("ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", key)
    assert check_key(key) == f"{key} is a private key"
    with pytest.raises(DeploymentError, match="found another file"):
        check_key(tmp_path / "key.pub")
    key.chmod(0o644)
    with pytest.raises(DeploymentError, match="readable by its owner alone; found 644: chmod 600"):
        check_key(key)
    with pytest.raises(DeploymentError, match="should be a readable private key"):
        check_key(tmp_path / "none")


@pytest.mark.parametrize(
    ("version", "fits"), [("1.39.0", False), ("1.40.0", True), ("1.42.0", True), ("1.43.0", False)]
)
def test_flower_is_of_a_version_that_was_measured(version, fits, monkeypatch) -> None:
    monkeypatch.setattr(connection.importlib.metadata, "version", lambda name: version)
    monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", "0")
    if fits:
        assert check_flower() == f"flwr {version}, telemetry is off here"
    else:
        with pytest.raises(DeploymentError, match=f"found {version}"):
            check_flower()


@pytest.mark.parametrize("value", [None, "1"])
def test_telemetry_that_is_on_is_reported(value, monkeypatch) -> None:
    monkeypatch.setattr(connection.importlib.metadata, "version", lambda name: "1.42.0")
    monkeypatch.delenv("FLWR_TELEMETRY_ENABLED", raising=False)
    if value is not None:
        monkeypatch.setenv("FLWR_TELEMETRY_ENABLED", value)
    advice = "export FLWR_TELEMETRY_ENABLED=0 before starting a node"
    assert check_flower() == f"flwr 1.42.0, telemetry is on here: {advice}"


def test_the_command_says_all_that_is_wrong_at_once(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = tiny_data((4, 3, 2))
    write_plan(tiny_plan(), "plan.json")
    np.savez(
        "mine.npz", images=data.images.numpy(), labels=data.labels.numpy(), classes=data.classes
    )
    words = ("check", "plan.json", "--data", "mine.npz", "--site", "north")
    good = run(*words, *OPEN)
    assert good.code == 0
    rows = {row[0]: row[1] for row in cells(good.out)}
    assert rows["would send: numbers of images"] == "cat: 4, dog: 3, owl: 2"
    monkeypatch.setattr("collabdm.cli.checking.check_flower", lambda: "flwr")
    Path("site.toml").write_text("raw_images = false\n")
    bad = run(
        *words, "--policy", "site.toml", "--key", "none", "--server", f"127.0.0.1:{free_port()}"
    )
    assert bad.code == 2
    assert bad.out.count("WRONG") == 3
    assert "key, server, policy should be corrected before the round; see the table" in bad.err


def test_what_cannot_be_checked_is_named(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_plan(tiny_plan(), "plan.json")
    later, both = ("policy", "machine"), "the plan and data"
    for words, rows in (
        (("other.json", "--data", "none"), {"data": "the plan", **dict.fromkeys(later, both)}),
        (("plan.json", "--data", "./none"), dict.fromkeys(later, both)),
    ):
        result = run("check", *words, "--site", "north")
        assert result.code == 2
        shown = {row[0]: row[1] for row in cells(result.out)}
        skipped = {name: text for name, text in shown.items() if text.startswith("not checked")}
        assert skipped == {name: f"not checked: needs {needed}" for name, needed in rows.items()}
        wrong = "plan" if "data" in rows else "data"
        assert shown[wrong].startswith("WRONG: ")
        assert f"error: {wrong} should be corrected before the round; see the table" in result.err

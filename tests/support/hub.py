"""A server with the part of the Hugging Face hub's HTTP interface that an upload uses.

It keeps what it receives: the repositories with their visibility, and the files of each commit.
"""

import base64
import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

OWNER, TOKEN = "lab", "hf_a_token_of_the_lab"


@dataclass
class Hub:
    """What the server received; repositories and files by name."""

    address: str = ""
    visibility: dict[str, str] = field(default_factory=dict)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a client may close early
            super().handle_error(request, client_address)


@contextmanager
def hub() -> Iterator[Hub]:
    """Run the server on a free port of this machine."""
    received = Hub()
    server = _Server(("127.0.0.1", 0), _handler(received))
    received.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _handler(received: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self._is_allowed() and self.path == "/api/whoami-v2":
                self._answer(200, {"name": OWNER, "type": "user"})
            elif self._is_allowed():
                self._answer(404, {"error": "not found"})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if not self._is_allowed():
                return
            if self.path == "/api/validate-yaml":
                self._answer(200, {"errors": [], "warnings": []})
            elif self.path == "/api/repos/create":
                self._create(json.loads(body))
            elif "/preupload/" in self.path:
                paths = [file["path"] for file in json.loads(body)["files"]]
                modes = [
                    {"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths
                ]
                self._answer(200, {"files": modes})
            elif "/commit/" in self.path:
                self._commit([json.loads(line) for line in body.splitlines()])
            else:
                self._answer(404, {"error": "not found"})

        def _is_allowed(self) -> bool:
            allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            if not allowed:
                self._answer(401, {"error": "Invalid credentials"})
            return allowed

        def _create(self, wanted: dict[str, Any]) -> None:
            name = f"{wanted['organization']}/{wanted['name']}"
            if wanted["organization"] != OWNER:
                self._answer(403, {"error": "no rights to create under this namespace"})
                return
            received.visibility.setdefault(name, wanted["visibility"])
            self._answer(200, {"url": f"{received.address}/datasets/{name}"})

        def _commit(self, lines: list[dict[str, Any]]) -> None:
            name = "/".join(self.path.split("/")[3:5])
            files = received.files.setdefault(name, {})
            for line in lines:
                if line["key"] == "file":
                    assert line["value"]["encoding"] == "base64"
                    files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            commit = "a" * 40
            url = f"{received.address}/datasets/{name}/commit/{commit}"
            self._answer(200, {"commitUrl": url, "commitOid": commit})

        def _answer(self, status: int, document: dict[str, Any]) -> None:
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *args: object) -> None:
            pass

    return Handler

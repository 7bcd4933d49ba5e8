"""A served operator's page, whose jobs run in the thread of the test."""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from collabdm.site_page.server import PageServer
from collabdm.site_page.work import Work


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


@contextmanager
def served(work: Work) -> Iterator[Page]:
    """Serve a page from another thread."""
    with PageServer(work) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield Page(server)
        server.shutdown()
        thread.join()

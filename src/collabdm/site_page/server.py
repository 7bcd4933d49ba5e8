"""The server of the operator's page, for one operator on this machine.

It listens on 127.0.0.1 alone. The address contains a token, and every request without it is
answered with 403, so that other users of the machine and other pages in the browser have no access.
The `Host` header must be that of this server: a foreign name that resolves to 127.0.0.1 (DNS
rebinding) is answered in the same way. The page loads nothing from elsewhere.
"""

import json
import logging
import secrets
import shutil
import socketserver
from collections.abc import Callable, Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from collabdm.documents.plan_file import PLAN_LIMIT
from collabdm.errors import CollabDMError, OutputError
from collabdm.site_page.form import read_form
from collabdm.site_page.work import NotNowError, Work

ADDRESS = "127.0.0.1"
FORM_LIMIT = 2**20  # bytes
SECONDS = 60.0  # without a byte, after which a connection is closed
NONCE = "{{nonce}}"  # in the template

HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

logger = logging.getLogger("collabdm")


class Answer(NamedTuple):
    """An answer: its status, media type and content, which can be a file, and further headers."""

    status: HTTPStatus
    kind: str
    content: bytes | Path
    headers: Mapping[str, str] = {}


class PageServer(ThreadingHTTPServer):
    """The server; it serves the state of some work, which runs in another thread."""

    daemon_threads = True

    def __init__(self, work: Work, port: int = 0) -> None:
        """Listen on a port.

        Args:
            work: the work to show and to steer.
            port: the port; 0 takes a free one.

        Raises:
            OutputError: the port cannot be used.
        """
        self.work, self.token = work, secrets.token_urlsafe(32)
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            raise OutputError(
                f"`--port` should be a free port of this machine; {port} cannot be used "
                f"({error.strerror}): choose another one, or leave it out"
            ) from error

    def server_bind(self) -> None:
        """Bind the socket, without looking up a name for its address."""
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = ADDRESS, self.server_address[1]

    @property
    def address(self) -> str:
        """The address of the page, with its token."""
        return f"http://{ADDRESS}:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log what went wrong with a request, such as a connection that the browser closed."""
        logger.info("a request to the page failed", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: PageServer
    server_version, sys_version = "collabdm", ""
    timeout = SECONDS

    def do_GET(self) -> None:
        """Answer a request for something."""
        self._respond("GET")

    def do_POST(self) -> None:
        """Answer a request to do something."""
        self._respond("POST")

    def log_message(self, format: str, *values: Any) -> None:
        """Print nothing: the addresses contain the token."""

    def _respond(self, method: str) -> None:
        try:
            answer = self._answer(method)
        except _RefusedError as error:
            answer = _failure(error.status, str(error))
        except NotNowError as error:
            answer = _failure(HTTPStatus.CONFLICT, str(error))
        except CollabDMError as error:
            answer = _failure(HTTPStatus.BAD_REQUEST, str(error))
        with suppress(ConnectionError):  # the browser has left
            self._send(answer)

    def _answer(self, method: str) -> Answer:
        _, token, name = [*self.path.split("/", 2), "", ""][:3]
        known = secrets.compare_digest(token.encode(), self.server.token.encode())
        hosts = [f"{host}:{self.server.server_port}" for host in (ADDRESS, "localhost")]
        if not known or self.headers.get("Host") not in hosts:
            raise _RefusedError(
                HTTPStatus.FORBIDDEN,
                "the address should be the one that `collabdm site` has printed; found another one",
            )
        action = ACTIONS.get((method, name.partition("?")[0]))
        if action is None:
            raise _RefusedError(HTTPStatus.NOT_FOUND, "the page should exist; found no such page")
        return action(self)

    def body(self, limit: int) -> bytes:
        """Read the body of the request.

        Raises:
            _RefusedError: its length is not stated, or above the limit; nothing is read then.
        """
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise _RefusedError(HTTPStatus.LENGTH_REQUIRED, "`Content-Length` should be stated")
        if int(length[:20]) > limit:
            raise _RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the file should have at most {limit:,} bytes; found {int(length[:20]):,}",
            )
        return self.rfile.read(int(length))

    def _send(self, answer: Answer) -> None:
        headers = {"Content-Security-Policy": NOTHING} | HEADERS | dict(answer.headers)
        content = answer.content
        if isinstance(content, bytes):
            self._send_head(answer, len(content), headers)
            self.wfile.write(content)
            return

        try:
            with content.open("rb") as file:
                self._send_head(answer, content.stat().st_size, headers)
                shutil.copyfileobj(file, self.wfile)
        except FileNotFoundError:
            self._send(_failure(HTTPStatus.NOT_FOUND, f"{content} should exist; it was removed"))

    def _send_head(self, answer: Answer, length: int, headers: Mapping[str, str]) -> None:
        self.send_response(answer.status)
        every = {"Content-Type": answer.kind, "Content-Length": str(length), **headers}
        for name, value in every.items():
            self.send_header(name, value)
        self.end_headers()


class _RefusedError(Exception):
    """A request that is not answered, with the status and the reason."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def _failure(status: HTTPStatus, reason: str) -> Answer:
    return _json({"error": reason}, status)


def _json(values: Any, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    content = json.dumps(values, ensure_ascii=False).encode()
    return Answer(status, "application/json; charset=utf-8", content)


# --- what the page can ask for -------------------------------------------------------------------


def _page(handler: _Handler) -> Answer:
    nonce = secrets.token_urlsafe(16)
    text = files("collabdm.site_page").joinpath("page.html").read_text(encoding="utf-8")
    policy = (
        f"{NOTHING}; img-src 'self' data:; connect-src 'self'; style-src 'nonce-{nonce}'; "
        f"script-src 'nonce-{nonce}'"
    )
    content = text.replace(NONCE, nonce).encode()
    return Answer(
        HTTPStatus.OK, "text/html; charset=utf-8", content, {"Content-Security-Policy": policy}
    )


def _state(handler: _Handler) -> Answer:
    return _json(handler.server.work.state())


def _form(handler: _Handler) -> Answer:
    return _json(handler.server.work.form.model_dump(mode="json"))


def _plan(handler: _Handler) -> Answer:
    name = unquote(handler.headers.get("X-File-Name", ""))
    handler.server.work.take_plan(handler.body(PLAN_LIMIT), name)
    return _state(handler)


def _check(handler: _Handler) -> Answer:
    handler.server.work.ask_check(read_form(handler.body(FORM_LIMIT)))
    return _state(handler)


def _contribute(handler: _Handler) -> Answer:
    text = handler.body(FORM_LIMIT).decode(errors="replace")
    handler.server.work.ask_contribution(int(text) if text.isdecimal() and len(text) < 10 else 0)
    return _state(handler)


def _cancel(handler: _Handler) -> Answer:
    handler.server.work.ask_cancel()
    return _state(handler)


def _contribution(handler: _Handler) -> Answer:
    path = handler.server.work.contribution
    if path is None:
        raise _RefusedError(HTTPStatus.NOT_FOUND, "a contribution should exist; found none yet")
    disposition = {"Content-Disposition": f'attachment; filename="{path.name}"'}
    return Answer(HTTPStatus.OK, "application/octet-stream", path, disposition)


def _picture(handler: _Handler) -> Answer:
    content = handler.server.work.picture
    if content is None:
        raise _RefusedError(HTTPStatus.NOT_FOUND, "a picture should exist; found none")
    return Answer(HTTPStatus.OK, "image/png", content)


ACTIONS: dict[tuple[str, str], Callable[[_Handler], Answer]] = {
    ("GET", ""): _page,
    ("GET", "form"): _form,
    ("GET", "state"): _state,
    ("GET", "contribution"): _contribution,
    ("GET", "picture"): _picture,
    ("POST", "plan"): _plan,
    ("POST", "check"): _check,
    ("POST", "contribute"): _contribute,
    ("POST", "cancel"): _cancel,
}

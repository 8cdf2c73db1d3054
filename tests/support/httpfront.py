"""
Small HTTP servers in a thread, for answers that real S3 servers give seldom, or that are not S3.

`Answering` gives one and the same answer to everything. `Front` stands before a real server: it
answers the first requests of a kind with an error, and passes all others on.
"""

from __future__ import annotations

from contextlib import closing
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from tests.support.serving import HOST

if TYPE_CHECKING:
    from collections.abc import Callable

ERROR = """<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>{code}</Code><Message>Please try again.</Message><RequestId>1</RequestId></Error>"""
CODES = {500: "InternalError", 503: "SlowDown"}

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "date", "server"}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.answer(self, body)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815  its names

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002  its name
        """Write nothing."""

    def reply(
        self, status: int, body: bytes, headers: list[tuple[str, str]], left_out: int = 0
    ) -> None:
        """Answer; to HEAD without the body, and perhaps without its last bytes."""
        self.send_response(status)
        for name, value in headers:
            if self.command == "HEAD" or name.lower() != "content-length":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) - left_out])


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, answer: Callable[[_Handler, bytes], None]) -> None:
        super().__init__((HOST, 0), _Handler)
        self.answer = answer

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that has left."""


class Answering:
    """A server that answers everything alike, for the `with` block; it is none of S3."""

    def __init__(self, status: int, body: bytes, kind: str = "text/html") -> None:
        self._status, self._body, self._kind = status, body, kind
        self._server = _Server(self._answer)
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def endpoint(self) -> str:
        """Its URL."""
        return f"http://{HOST}:{self._server.server_port}"

    def __enter__(self) -> Self:
        """Begin to answer."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, handler: _Handler, _body: bytes) -> None:
        handler.reply(self._status, self._body, [("Content-Type", self._kind)])


class Front(Answering):
    """
    A server that passes requests on to an S3 server, once it has answered some with errors.

    Args:
        endpoint: The real server's URL.
        wrong: Returns the status to answer a request with, by method and path with query, or 0 to
            pass it on.

    Attributes:
        refused: How many requests were answered with an error.
        loses: Says of which requests the first answer is lost: the server has done what it was
            asked for, and the client sees the connection break.
        lost: How many answers were.
        breaks: Says of which requests the first answer breaks off before its last byte.
        broken: How many answers did.
        headers: Method, path with query, and names of headers of all requests passed on.

    """

    def __init__(self, endpoint: str, wrong: Callable[[str, str], int]) -> None:
        super().__init__(503, b"")
        self._target, self._wrong, self._lock = urlsplit(endpoint).netloc, wrong, Lock()
        self.refused = self.lost = self.broken = 0
        self.loses: Callable[[str, str], bool] = lambda _method, _path: False
        self.breaks: Callable[[str, str], bool] = lambda _method, _path: False
        self.headers: list[tuple[str, str, set[str]]] = []

    def _answer(self, handler: _Handler, body: bytes) -> None:
        with self._lock:
            status = self._wrong(handler.command, handler.path)
            self.refused += bool(status)
            if not status:
                names = {name.lower() for name in handler.headers}
                self.headers.append((handler.command, handler.path, names))
        if status:
            text = ERROR.format(code=CODES.get(status, "Error")).encode()
            handler.reply(status, text, [("Content-Type", "application/xml")])
            return
        with closing(HTTPConnection(self._target, timeout=60)) as there:
            there.putrequest(
                handler.command, handler.path, skip_host=True, skip_accept_encoding=True
            )
            for name, value in handler.headers.items():  # Host, too: it is signed
                if name.lower() != "expect":
                    there.putheader(name, value)
            there.endheaders(body)
            answer = there.getresponse()
            headers = [(n, v) for n, v in answer.getheaders() if n.lower() not in _HOP_BY_HOP]
            text = answer.read()
        with self._lock:
            lost = not self.lost and self.loses(handler.command, handler.path)
            self.lost += lost
            broken = not self.broken and self.breaks(handler.command, handler.path)
            self.broken += broken
        if lost or broken:
            handler.close_connection = True
        if not lost:
            handler.reply(answer.status, text, headers, left_out=int(broken))

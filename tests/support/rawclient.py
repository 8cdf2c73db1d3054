"""
A client of the server that says whatever a test wants, and what ButterSink's own never would.

The server is a process of its own with pipes to it; what it answers is read with patience, so that
a test fails and does not hang.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from buttersink.remote.protocol import MAGIC, Decoder, Kind, encode
from buttersink.version import program_version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.support.command import Argument

PATIENCE = 30.0  # seconds


class RawClient:
    """One connection to a server; `raw` sends any bytes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        """Begin with nothing said."""
        self.process = process
        self._decoder = Decoder()
        self._frames: list[tuple[Kind, bytes]] = []

    def raw(self, data: bytes) -> None:
        """Send bytes."""
        assert self.process.stdin
        with suppress(BrokenPipeError):  # it may have had enough
            self.process.stdin.write(data)
            self.process.stdin.flush()

    def send(self, kind: Kind, document: object = None, payload: bytes = b"") -> None:
        """Send a frame, of a document or of any payload."""
        self.raw(encode(kind, payload if document is None else json.dumps(document).encode()))

    def greet(self, **wish: object) -> tuple[Kind, Any]:
        """Say hello and wish for something; return how the server answers that."""
        wish = {"mode": "r", "role": "listing", "single": None, "all_below": True, **wish}
        hello = {"versions": [1, 1], "program": program_version(), "kernel": "6", "wish": wish}
        self.raw(MAGIC)
        self.send(Kind.HELLO, hello)
        assert self.next()[0] is Kind.HELLO
        return self.next()

    def ask(self, request: str, **fields: object) -> tuple[Kind, Any]:
        """Make a request; return what ends it."""
        self.send(Kind.REQUEST, {"op": request, **fields})
        while (answer := self.next())[0] in (Kind.ITEM, Kind.DATA):
            pass
        return answer

    def catalogue(self) -> dict[str, list[Any]]:
        """Return what the server lists."""
        self.send(Kind.REQUEST, {"op": "catalogue"})
        found: dict[str, list[Any]] = {}
        while (answer := self.next())[0] is Kind.ITEM:
            for key, entries in answer[1].items():
                found.setdefault(key, []).extend(entries)
        assert answer[0] is Kind.END, answer
        return found

    def next(self) -> tuple[Kind, Any]:
        """Return the next frame that is not about being alive; END with None if it has hung up."""
        assert self.process.stdout
        until = time.monotonic() + PATIENCE
        while True:
            while self._frames:
                kind, payload = self._frames.pop(0)
                if kind is not Kind.ALIVE:
                    return kind, payload if kind is Kind.DATA else json.loads(payload or b"{}")
            fd = self.process.stdout.fileno()
            ready, _, _ = select.select([fd], [], [], until - time.monotonic())
            assert ready, "the server says nothing"
            data = os.read(fd, 65536)
            if not data:
                return Kind.END, None
            self._frames += [(f.kind, bytes(f.payload)) for f in self._decoder.feed(data)]

    def leave(self) -> int:
        """Hang up; return the server's exit status."""
        assert self.process.stdin
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        return self.process.wait(PATIENCE)


@contextmanager
def raw_client(
    directory: Path, mode: str = "w", environment: Mapping[str, str] | None = None
) -> Iterator[RawClient]:
    """Start a server, in a login of root unless the environment says otherwise; be its client."""
    server = ("--server", "--mode", mode, "--unconfined", directory)
    command = (sys.executable, "-m", "buttersink", *server)
    login = {"SSH_CONNECTION": "127.0.0.1 40000 127.0.0.1 22", **(environment or {})}
    with raw_client_of(*command, environment=login) as client:
        yield client


@contextmanager
def raw_client_of(
    *command: Argument, environment: Mapping[str, str] | None = None
) -> Iterator[RawClient]:
    """Run what leads to a server, such as ssh; be its client."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **(environment or {})},
    )
    with process:
        try:
            yield RawClient(process)
        finally:
            process.kill()

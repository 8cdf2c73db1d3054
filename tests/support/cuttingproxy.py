"""
A TCP proxy that breaks connections when it is told to: now, or when so many bytes have passed.

An event loop in one thread owns all the sockets, and what a test calls is done there, so that
nothing of it is half done when a call returns. A cut is a reset, as by a router that forgot the
connection; what was not yet passed on is lost.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from threading import Thread
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from tests.support.serving import HOST

if TYPE_CHECKING:
    from collections.abc import Coroutine

CHUNK = 64 << 10
CALL_SECONDS = 10.0  # a call that takes longer is a fault of the proxy
NO_LINGERING = struct.pack("ii", 1, 0)  # man 7 socket, SO_LINGER: to close is to reset


class CuttingProxy:
    """
    A proxy to the server at an HTTP endpoint, which it serves for the `with` block.

    Attributes:
        passed: Bytes passed on so far, both directions together.
        connections: How many were accepted so far.

    """

    def __init__(self, endpoint: str) -> None:
        self.passed = 0
        self.connections = 0
        url = urlsplit(endpoint)
        self._target = (url.hostname, url.port)
        self._port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="cutting proxy", daemon=True)
        self._listener: socket.socket | None = None
        self._links: dict[asyncio.Task[None], list[asyncio.StreamWriter]] = {}
        self._resets = 0
        self._left: int | None = None
        self._then_refuse = False

    @property
    def endpoint(self) -> str:
        """The URL to use instead of the server's."""
        return f"http://{HOST}:{self._port}"

    def __enter__(self) -> Self:
        """Listen on a free port."""
        self._thread.start()
        self._do(self._accept())
        return self

    def __exit__(self, *_: object) -> None:
        """Break all connections, and end the thread."""
        try:
            self._do(self._refuse())
            self._do(self._cut())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def cut(self) -> None:
        """Break all connections."""
        self._do(self._cut())

    def refuse(self) -> None:
        """Let nobody connect any more; connections that are there go on."""
        self._do(self._refuse())

    def accept(self) -> None:
        """Let everybody connect again, at the same endpoint, and cut no more."""
        self._do(self._accept())

    def cut_after(self, count: int, *, then_refuse: bool = False) -> None:
        """
        Break all connections when `count` more bytes have passed, once; perhaps refuse new ones.

        Bytes of all connections and both directions count. Not one more is passed on before.
        """
        self._do(self._limit(count, then_refuse=then_refuse))

    def _do(self, what: Coroutine[None, None, None]) -> None:
        asyncio.run_coroutine_threadsafe(what, self._loop).result(CALL_SECONDS)

    async def _accept(self) -> None:
        self._left = None
        if self._listener is None:
            self._listener = socket.create_server((HOST, self._port))
            self._listener.settimeout(0)
            self._port = self._listener.getsockname()[1]
            self._loop.add_reader(self._listener, self._welcome, self._listener)

    async def _limit(self, count: int, *, then_refuse: bool) -> None:
        self._left, self._then_refuse = count, then_refuse

    async def _refuse(self) -> None:
        self._stop_listening()

    async def _cut(self) -> None:
        """Return when nothing is left of any connection."""
        self._reset()
        if self._links:
            await asyncio.wait(self._links)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _welcome(self, listener: socket.socket) -> None:
        """
        Accept a client, in one step.

        `asyncio.start_server` takes several, and leaves one that it is closed between hanging.
        """
        with suppress(OSError):  # it has gone already
            client, _address = listener.accept()
            self.connections += 1
            task = self._loop.create_task(self._link(client, self._resets))
            self._links[task] = []

    def _reset(self) -> None:
        self._resets += 1
        for writers in self._links.values():
            abort(writers)

    async def _link(self, client: socket.socket, resets: int) -> None:
        """Connect a client to the server, until both have said everything or it is cut."""
        task = asyncio.current_task()
        assert task
        writers = self._links[task]
        try:
            reader, writer = await asyncio.open_connection(sock=client)
            writers.append(writer)
            with suppress(OSError):  # without a server the client sees its connection close
                there, back = await asyncio.open_connection(*self._target)
                writers.append(back)
                if self._resets != resets:  # when these were not there yet
                    abort(writers)
                await asyncio.gather(self._pass_on(reader, back), self._pass_on(there, writer))
        finally:
            for each in writers:
                each.close()
                with suppress(OSError):
                    await each.wait_closed()
            del self._links[task]

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on one direction; an error is the other end's, or comes of a cut."""
        writer.transport.set_write_buffer_limits(high=0)  # so that `drain` leaves nothing behind
        with suppress(OSError):
            while chunk := await reader.read(CHUNK):
                writer.write(chunk[: self._allowed(len(chunk))])
                await writer.drain()
                if self._left == 0:
                    self._limit_reached()
            writer.write_eof()

    def _allowed(self, count: int) -> int:
        """Return how many of so many bytes may pass, and count those."""
        if self._left is not None:
            count = min(count, self._left)
            self._left -= count
        self.passed += count
        return count

    def _limit_reached(self) -> None:
        self._left = None
        if self._then_refuse:
            self._stop_listening()
        self._reset()


def abort(writers: list[asyncio.StreamWriter]) -> None:
    """Reset connections."""
    for writer in writers:
        connection = writer.get_extra_info("socket")
        with suppress(OSError):  # it may be closed already
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGERING)
        writer.transport.abort()

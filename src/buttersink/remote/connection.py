"""
Frames over two descriptors, for either side: one thread that sends and receives, one that is alive.

Both descriptors are non-blocking. Whoever waits to write also reads, so that two sides that write
at once do not wait for each other; what is read then is kept, a few frames at most. When a side has
sent nothing for a while its second thread says that it is alive, and a side from which nothing came
for longer than that allows is taken to be gone.
"""

from __future__ import annotations

import fcntl
import os
import select
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING

from buttersink.errors import ConnectionLostError, ProtocolError, printable
from buttersink.remote.protocol import (
    MAGIC,
    MAX_PAYLOAD,
    Decoder,
    ForeignBytesError,
    Frame,
    Kind,
    encode,
    header,
    json_bytes,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

ALIVE_SECONDS = 15.0
SILENCE_SECONDS = 60.0
_PIPE_BYTES = 1024 * 1024  # what an unprivileged process may ask for: pipe(7), pipe-max-size
_MOST_WAITING = 8  # frames that came while this side was writing
_BANNER_BYTES, _BANNER_SECONDS = 400, 0.3


class Connection:
    """
    One end of a connection; the descriptors are its own and closed with it.

    `ConnectionLostError` if the other side is gone, `ProtocolError` if it is not what it should be.

    Attributes:
        name: What a person calls the other side.
        broken: Whether nothing can follow: the other side is gone, or an interruption has left a
            frame that was begun and not ended.

    """

    def __init__(self, read_fd: int, write_fd: int, name: str) -> None:
        self.name = name
        self._read_fd, self._write_fd = read_fd, write_fd
        self._was_blocking = [os.get_blocking(fd) for fd in (read_fd, write_fd)]
        for fd in (read_fd, write_fd):
            os.set_blocking(fd, False)
            with suppress(OSError):  # a socket, or the user has many pipes
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self._decoder = Decoder()
        self._waiting: deque[Frame] = deque()
        self._ended = False  # nothing more will come
        self.broken = False
        self._writing = threading.Lock()
        self._sent_at = self._heard_at = time.monotonic()
        self._stop_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread: threading.Thread | None = None

    def greet(self, hello: Mapping[str, Any]) -> None:
        """Send what every connection begins with."""
        with self._writing:
            self._write([MAGIC + encode(Kind.HELLO, json_bytes(hello))])

    def keep_alive(self, lost: Callable[[], None] | None = None) -> None:
        """Say from now on that this side is alive; `lost` is called if the other side goes."""
        self._thread = threading.Thread(target=self._beat, args=(lost,), name="alive", daemon=True)
        self._thread.start()

    def _beat(self, lost: Callable[[], None] | None) -> None:
        poll = select.poll()
        poll.register(self._stop_fd, select.POLLIN)
        poll.register(self._write_fd, 0)
        while True:
            left = self._sent_at + ALIVE_SECONDS - time.monotonic()
            for fd, _events in poll.poll(max(left, 0.1) * 1000):
                if fd == self._write_fd and lost is not None:
                    lost()
                return
            if time.monotonic() - self._sent_at >= ALIVE_SECONDS:
                self._say_alive()

    def _say_alive(self) -> None:
        """Send one frame, unless that would make this thread wait: then bytes are under way."""
        if not self._writing.acquire(blocking=False):
            return
        try:
            poll = select.poll()
            poll.register(self._write_fd, select.POLLOUT)
            if not self.broken and poll.poll(0):
                with suppress(OSError, ConnectionLostError):
                    os.write(self._write_fd, encode(Kind.ALIVE))
            self._sent_at = time.monotonic()
        finally:
            self._writing.release()

    def send(self, kind: Kind, payload: bytes | memoryview = b"") -> None:
        """Send a frame, however long the other side takes to read."""
        view = memoryview(payload)
        head = header(kind, view)
        with self._writing:
            self._write([head, view])

    def send_json(self, kind: Kind, document: Mapping[str, Any]) -> None:
        """Send a frame with a document."""
        self.send(kind, json_bytes(document))

    def send_data(self, chunk: memoryview) -> None:
        """Send bytes of a stream in as many frames as it takes."""
        for start in range(0, len(chunk), MAX_PAYLOAD):
            self.send(Kind.DATA, chunk[start : start + MAX_PAYLOAD])

    def _write(self, parts: list[bytes | memoryview]) -> None:
        if self.broken:
            raise self._lost("it has ended before")
        self.broken = True
        while parts:
            try:
                count = os.writev(self._write_fd, parts)
            except BlockingIOError:
                self._wait_to_write()
                continue
            except OSError as error:
                raise self._lost(error.strerror or str(error)) from error
            while parts and count >= len(parts[0]):
                count -= len(parts.pop(0))
            if count:
                parts[0] = memoryview(parts[0])[count:]
        self.broken = False
        self._sent_at = time.monotonic()

    def _wait_to_write(self) -> None:
        """Return when there is room, having read meanwhile what the other side may wait with."""
        began = time.monotonic()
        poll = select.poll()
        poll.register(self._write_fd, select.POLLOUT)
        while True:
            reads = not self._ended and len(self._waiting) < _MOST_WAITING
            if reads:
                poll.register(self._read_fd, select.POLLIN)
            left = max(began, self._heard_at) + SILENCE_SECONDS - time.monotonic()
            ready = dict(poll.poll(max(left, 0) * 1000))
            if self._write_fd in ready:
                return
            if not ready:
                raise self._silent(SILENCE_SECONDS)
            self._read()
            self._keep_frames()
            poll.unregister(self._read_fd)

    def _keep_frames(self) -> None:
        """Put by what came; what says that the other side is alive has done so by coming."""
        while frame := self._decoder.frame():
            if frame.kind is not Kind.ALIVE:
                self._waiting.append(Frame(frame.kind, memoryview(bytes(frame.payload))))

    def has_frame(self) -> bool:
        """Return whether a frame has come, without waiting for one."""
        for _ in range(_MOST_WAITING):  # not for ever, whatever comes
            self._keep_frames()
            if self._waiting or self._ended or not self._read():
                break
        return bool(self._waiting) or self._ended

    def receive(self, patience: float = SILENCE_SECONDS) -> Frame:
        """Return the next frame that says something; its payload is valid until the next call."""
        frame = self.receive_or_end(patience)
        if frame is None:
            held = self._decoder.held
            raise self._lost(f"it ended in the middle of a message ({held} bytes)" if held else "")
        return frame

    def receive_or_end(self, patience: float = SILENCE_SECONDS) -> Frame | None:
        """Return the next frame that says something, None if nothing more comes."""
        if self._waiting:
            return self._waiting.popleft()
        began = time.monotonic()
        poll = select.poll()
        poll.register(self._read_fd, select.POLLIN)
        while True:
            frame = self._decoder.frame()
            if frame is not None and frame.kind is not Kind.ALIVE:
                return frame
            if frame is not None:
                continue
            if self._ended:
                return None
            if not self._read():
                left = max(began, self._heard_at) + patience - time.monotonic()
                if not poll.poll(max(left, 0) * 1000):
                    raise self._silent(patience)

    def _read(self) -> bool:
        """Read what is there; return whether anything was, be it the end."""
        try:
            count = os.readv(self._read_fd, [self._decoder.room()])
        except BlockingIOError:
            return False
        except OSError:  # the other side was killed: ECONNRESET
            count = 0
        if not count:
            self._ended = True
            return True
        self._heard_at = time.monotonic()
        try:
            self._decoder.received(count)
        except ForeignBytesError as error:
            raise self._foreign(error) from error
        except ProtocolError as error:
            error.where = self.name
            raise
        return True

    def _foreign(self, error: ForeignBytesError) -> ProtocolError:
        """Return the error that quotes what was there in place of the program."""
        seen, until = error.seen, time.monotonic() + _BANNER_SECONDS
        poll = select.poll()
        poll.register(self._read_fd, select.POLLIN)
        while len(seen) < _BANNER_BYTES and poll.poll(max(0, until - time.monotonic()) * 1000):
            with suppress(OSError):
                more = os.read(self._read_fd, _BANNER_BYTES)
                if not more:
                    break
                seen += more
        text = printable(seen.partition(MAGIC)[0][:_BANNER_BYTES].strip())
        return ProtocolError(
            "something else than buttersink answers",
            where=self.name,
            why=f"the remote shell prints {text!r} on stdout",
            hint="Make its start-up files silent for commands.",
        )

    def _lost(self, why: str) -> ConnectionLostError:
        self.broken = True
        return ConnectionLostError("the connection is lost", where=self.name, why=why)

    def _silent(self, seconds: float) -> ConnectionLostError:
        return self._lost(f"nothing has come for {seconds:.0f} seconds")

    def last_words(self) -> Frame | None:
        """Return the error that the other side has told of before it went, None if it did not."""
        with suppress(ProtocolError, OSError):
            while len(self._waiting) < _MOST_WAITING and not self._ended and self._read():
                self._keep_frames()
        return next((frame for frame in self._waiting if frame.kind is Kind.ERROR), None)

    def close(self) -> None:
        """Let go of the descriptors, which tells the other side to end. May be called again."""
        if self._read_fd < 0:
            return
        os.eventfd_write(self._stop_fd, 1)
        if self._thread is not None:
            self._thread.join()
        fds = {self._read_fd, self._write_fd}
        for fd, blocking in zip((self._read_fd, self._write_fd), self._was_blocking, strict=True):
            with suppress(OSError):
                os.set_blocking(fd, blocking)
        self._read_fd = self._write_fd = -1
        for fd in (*fds, self._stop_fd):
            os.close(fd)

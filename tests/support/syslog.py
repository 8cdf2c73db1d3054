"""The system log of a far host, as long as a test wants to read it."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from threading import Condition, Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LONGEST = 64 << 10  # bytes of a message
WAIT_SECONDS = 10.0


class Syslog:
    """What was logged so far, each message as syslog(3) sends it, with `<priority>` in front."""

    def __init__(self) -> None:
        self._messages: list[str] = []
        self._news = Condition()

    @property
    def messages(self) -> list[str]:
        """The messages in the order of their arrival."""
        with self._news:
            return list(self._messages)

    def wait_for(self, text: str, after: int = 0) -> str:
        """Return a message with this text that came after so many; else an AssertionError."""
        with self._news:
            came = self._news.wait_for(lambda: self._with(text, after), WAIT_SECONDS)
            assert came, f"{text} is in none of the messages {self._messages[after:]}"
            return came[0]

    def add(self, message: str) -> None:
        """Take a message in."""
        with self._news:
            self._messages.append(message)
            self._news.notify_all()

    def _with(self, text: str, after: int) -> list[str]:
        return [message for message in self._messages[after:] if text in message]


@contextmanager
def received_at(path: Path) -> Iterator[Syslog]:
    """
    Receive at a socket what programs log, for the block; `path` is where it is to be made.

    A thread reads, because a program waits in syslog(3) when nobody does.
    """
    log = Syslog()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(os.fspath(path))
        path.chmod(0o666)
        reader = Thread(target=_read, args=(receiver, log), name="syslog")
        reader.start()
        try:
            yield log
        finally:
            receiver.shutdown(socket.SHUT_RD)
            reader.join()
            path.unlink()


def _read(receiver: socket.socket, log: Syslog) -> None:
    while message := receiver.recv(LONGEST):
        log.add(os.fsdecode(message).rstrip("\0"))

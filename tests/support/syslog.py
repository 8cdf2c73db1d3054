"""The system log of a far host, as long as a test wants to read it."""

from __future__ import annotations

import os
import socket
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

LONGEST = 64 << 10  # bytes of a message


@contextmanager
def received_at(path: Path) -> Iterator[Callable[[], list[str]]]:
    """
    Receive at a socket what programs log, for the block; `path` is where it is to be made.

    What is given returns the messages so far, as syslog(3) sends them, with `<priority>` in front.
    A thread reads, because a program waits in syslog(3) when nobody does.
    """
    received: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(os.fspath(path))
        path.chmod(0o666)
        reader = Thread(target=_read, args=(receiver, received), name="syslog")
        reader.start()
        try:
            yield lambda: list(received)
        finally:
            receiver.shutdown(socket.SHUT_RD)
            reader.join()
            path.unlink()


def _read(receiver: socket.socket, received: list[str]) -> None:
    while message := receiver.recv(LONGEST):
        received.append(os.fsdecode(message).rstrip("\0"))

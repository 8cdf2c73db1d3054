"""
The command, as a process of its own, with small segments and little patience with the other side.

    python -m tests.support.impatient ARGUMENT...

What takes a minute for people takes a second here, so that tests can wait for it.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from buttersink.cli import command
from buttersink.remote import connection
from buttersink.remote.connection import Connection
from buttersink.stores.btrfs import segmented
from buttersink.stores.ssh import link
from buttersink.stores.ssh.link import Link
from buttersink.stores.ssh.process import SshProcess

if TYPE_CHECKING:
    from tests.support.command import Argument

SEGMENT_BYTES = 1 << 20  # small, but no less than what may be on its way
SILENCE_SECONDS = 1.0
ALIVE_SECONDS = 0.2
END_SECONDS = 0.3  # that ssh has to end by itself


def impatient(*arguments: Argument) -> list[Argument]:
    """Return what starts the command so."""
    return [sys.executable, "-m", "tests.support.impatient", *arguments]


def _be_impatient() -> None:
    connection.SILENCE_SECONDS, connection.ALIVE_SECONDS = SILENCE_SECONDS, ALIVE_SECONDS
    for waits in (Connection.receive, Connection.receive_or_end, Link.next, Link.hear):
        waits.__defaults__ = (SILENCE_SECONDS,)
    SshProcess.wait.__defaults__ = (END_SECONDS,)
    link._LAST_SECONDS = END_SECONDS  # noqa: SLF001


if __name__ == "__main__":
    segmented.SEGMENT_BYTES = SEGMENT_BYTES
    _be_impatient()
    command(sys.argv[1:])

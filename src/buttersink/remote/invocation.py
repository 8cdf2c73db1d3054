"""
How the far side is started: the one command line that it has. No I/O here.

`buttersink --server --mode M DIR`, exactly so: a line in sudoers may have wildcards, which match
blanks, and then whoever may run it chooses more arguments than its author meant. A client that logs
in as root puts `--unconfined` before DIR. A forced command does not have that, and nothing else
tells it for sure: where its owner's client asks for no command, sshd leaves no trace of that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from buttersink.errors import UsageError, printable
from buttersink.stores.base import Mode

if TYPE_CHECKING:
    from collections.abc import Sequence

SERVER = "--server"
_UNCONFINED = b"--unconfined"


class Invocation(NamedTuple):
    """
    What a server was started for.

    Attributes:
        mode: The most that a client may do.
        directory: Absolute path, as given.
        unconfined: Whether the client is to be trusted with what lies outside, too.

    """

    mode: Mode
    directory: bytes
    unconfined: bool = False

    @property
    def arguments(self) -> list[bytes]:
        """What follows the name of the program."""
        trusted = [_UNCONFINED] if self.unconfined else []
        return [SERVER.encode(), b"--mode", self.mode.value.encode(), *trusted, self.directory]


def parse_invocation(arguments: Sequence[bytes]) -> Invocation:
    """Return what the command line says; `UsageError` unless it is exactly as it has to be."""
    unconfined = arguments[3:4] == [_UNCONFINED]
    plain = [*arguments[:3], *arguments[4:]] if unconfined else arguments
    if len(plain) == 4:
        server, option, mode, directory = plain
        known = {each.value.encode(): each for each in Mode}
        if (
            (server, option) == (SERVER.encode(), b"--mode")
            and mode in known
            and directory.startswith(b"/")
            and b"\0" not in directory
        ):
            return Invocation(known[mode], directory, unconfined)
    raise UsageError(
        "not served",
        why=f"the arguments are {printable(b' '.join(arguments[:8]))[:300]!r}",
        hint="As a server buttersink is started by --server --mode r|a|w /directory alone.",
    )

"""
One `btrfs receive` process being fed a stream whose identity is changed on the way.

It knows sockets, exit codes and what the process says; where the result lies, when it is durable
and under which name it appears is the store's.

The stream goes through a socket. Who writes to a full pipe is woken by every read of the other end,
20,000 times for 1 GiB; who writes to a full socket, once most of it has been read.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from buttersink.errors import NoSpaceError, ReceiveError
from buttersink.stream import Guard, Rewriter

if TYPE_CHECKING:
    from buttersink.kernel.mounts import PrivateMount
    from buttersink.stream import Identity

_AHEAD_BYTES = 1024 * 1024  # of the stream in the socket; socket(7): wmem_max may allow less
_STDERR_BYTES = 4096  # as much of what it said as fits an error message
_CHATTER = (b"At subvol ", b"At snapshot ")  # btrfs-progs cmds/receive.c: no errors


class ReceiveProcess:
    """
    Hands a stream to `btrfs receive`; end it with `finish` or `abort`.

    Args:
        mount: Private mount in which the process runs.
        directory: Descriptor, in that mount, of where the subvolume is to be made.
        identity: What the stream's first command shall say.
        locked: Descriptor with the destination's lock: should this program be killed, the lock
            holds until the process, too, has ended.
        receives: The highest version of a send stream that the process takes well.

    """

    def __init__(
        self,
        mount: PrivateMount,
        directory: int,
        identity: Identity,
        locked: int,
        receives: int,
    ) -> None:
        self._rewriter = Rewriter(identity)
        self._guard = Guard(identity.parent, frozenset(identity.clones.values()), receives)
        self._stderr = os.memfd_create("btrfs-receive-stderr")
        self._stdin, stdin = socket.socketpair()
        try:
            self._stdin.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _AHEAD_BYTES)
            # Of a path the receiver resolves links by itself, and a directory may become one.
            self._process = mount.start(
                ["btrfs", "receive", "."],
                working_in=directory,
                stdin=stdin.fileno(),
                stderr=self._stderr,
                keep_open=(locked,),
            )
        except FileNotFoundError as error:
            self._close()
            why, hint = "there is no command btrfs", "Install btrfs-progs."
            raise ReceiveError("cannot receive", why=why, hint=hint) from error
        except BaseException:
            self._close()
            raise
        finally:
            stdin.close()

    def begin(self, opening: bytes, before: int) -> None:
        """Hand on how a stream begins of which `before` bytes were received earlier."""
        self.write(memoryview(opening))
        self._rewriter.consumed = before

    def write(self, chunk: memoryview) -> None:
        """Hand on the next bytes; `ReceiveError` if the process has died, `StreamError`."""
        try:
            for part in self._rewriter.feed(chunk):
                self._guard.check(part)
                self._stdin.sendall(part)
        except ConnectionError as error:  # EPIPE, or ECONNRESET if it has not read everything
            raise self._failure() from error

    def finish(self) -> None:
        """Wait until the process has taken everything; `ReceiveError` with what it said if not."""
        self._rewriter.finish()
        self._stdin.close()
        if self._process.wait():
            raise self._failure()
        self._close()

    def abort(self) -> None:
        """End the process, whatever it does; may be called again and after `finish`."""
        if self._stderr >= 0:
            self._process.kill()
            self._process.wait()
            self._close()

    def _failure(self) -> ReceiveError:
        """Reap the process and return its end as an error."""
        status = self._process.wait()
        said = self._said()
        self._close()
        how = f"exit status {status}" if status >= 0 else f"killed by signal {-status}"
        kind = NoSpaceError if "No space left on device" in said else ReceiveError
        return kind("btrfs receive failed", why=f"{how}: {said}" if said else how)

    def _said(self) -> str:
        os.lseek(self._stderr, max(0, os.lseek(self._stderr, 0, os.SEEK_END) - _STDERR_BYTES), 0)
        lines = os.read(self._stderr, _STDERR_BYTES).split(b"\n")
        useful = [line.removeprefix(b"ERROR: ") for line in lines if not line.startswith(_CHATTER)]
        return "; ".join(os.fsdecode(line) for line in useful if line)

    def _close(self) -> None:
        self._stdin.close()
        if self._stderr >= 0:
            os.close(self._stderr)
        self._stderr = -1

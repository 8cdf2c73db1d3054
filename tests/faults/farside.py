"""
The other host of a run over ssh: its servers are forked from what has everything imported.

`ssh`, found first in PATH, is a script that hands its words and its three descriptors to a process
that listens on a socket. For each of them that forks a server, which has the line as its input and
output as sshd would give it, and the script ends as that does. Interpreters start slowly; and so a
server, too, can stop at its moment.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import struct
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

HOST = "far"
_SOCKET = "far.socket"
_MOST = 64 * 1024  # bytes of the words
_STATUS = struct.Struct("=i")

_SSH = """\
#!/bin/sh
for word; do [ "$word" = -G ] && { echo "user root"; exit 0; }; done
exec PYTHON -I -S HERE/knock.py "$@"
"""
_KNOCK = """\
import socket, struct, sys
line = socket.socket(socket.AF_UNIX)
line.connect("HERE/SOCKET")
words = sys.argv[sys.argv.index("--") + 2]
socket.send_fds(line, [words.encode("utf-8", "surrogateescape")], [0, 1, 2])
told = line.recv(4)
sys.exit(struct.unpack("=i", told)[0] % 256 if told else 255)
"""


def install(directory: Path, python: str) -> None:
    """Make the script in a directory that is there, and have it found by processes from now on."""
    knock = _KNOCK.replace("HERE", str(directory)).replace("SOCKET", _SOCKET)
    (directory / "knock.py").write_text(knock)
    script = directory / "ssh"
    script.write_text(_SSH.replace("PYTHON", python).replace("HERE", str(directory)))
    script.chmod(0o755)
    os.environ["PATH"] = f"{directory}:{os.environ['PATH']}"


def start(
    directory: Path, serve: Callable[[Sequence[str]], NoReturn], not_there: Sequence[int]
) -> int:
    """
    Fork the host, which leads a session of its own, and return its process once it listens.

    `serve` is called in each server's process with the words of its command; it does not return.
    `not_there` are descriptors that the host has no business with.
    """
    listening = socket.socket(socket.AF_UNIX)
    (directory / _SOCKET).unlink(missing_ok=True)
    listening.bind(str(directory / _SOCKET))
    listening.listen()
    pid = os.fork()
    if pid:
        listening.close()
        return pid
    try:
        os.setsid()
        for fd in not_there:
            os.close(fd)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for who attends
        while True:
            line, _ = listening.accept()
            if not os.fork():
                listening.close()
                _attend(line, serve)
            line.close()
    finally:
        os._exit(0)


def _attend(line: socket.socket, serve: Callable[[Sequence[str]], NoReturn]) -> NoReturn:
    """Have one command served, and tell the script how that ended."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        words, fds, _flags, _address = socket.recv_fds(line, _MOST, 3)
        pid = os.fork()
        if not pid:
            line.close()
            for number, fd in enumerate(fds):
                os.dup2(fd, number)
                os.close(fd)
            os.environ["SSH_CONNECTION"] = "127.0.0.1 40000 127.0.0.1 22"
            serve(shlex.split(words.decode("utf-8", "surrogateescape")))
        for fd in (*fds, 0, 1, 2):
            os.close(fd)
        _, status = os.waitpid(pid, 0)
        line.sendall(_STATUS.pack(os.waitstatus_to_exitcode(status)))
    finally:
        os._exit(0)


def end(pid: int) -> None:
    """End the host, whose servers have ended by themselves."""
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)

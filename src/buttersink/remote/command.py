"""
The far side as a command: its arguments, its descriptors, the system's log.

Nothing but the protocol may come on standard output, so the descriptor is taken away before
anything else is done, and what writes there writes to standard error.
"""

from __future__ import annotations

import os
import syslog
from typing import TYPE_CHECKING

from buttersink.errors import Error, printable
from buttersink.remote.invocation import parse_invocation
from buttersink.remote.server import Surroundings, serve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


def run_server(
    arguments: Sequence[bytes], environment: Mapping[str, str], cache: bytes | None
) -> int:
    """
    Serve whoever is on standard input and output; return the exit status.

    Args:
        arguments: What follows the name of the program.
        environment: Of the process: says who has started it.
        cache: Directory in which sizes may be remembered.

    """
    syslog.openlog("buttersink", syslog.LOG_PID, syslog.LOG_DAEMON)
    client = _client(environment)

    def log(text: str) -> None:
        syslog.syslog(syslog.LOG_INFO, printable(f"server for {client}: {text}"))

    try:
        invocation = parse_invocation(arguments)
    except Error as error:
        log(f"refused: {error}")
        os.write(2, f"buttersink: error: {printable(str(error))}\n".encode(errors="replace"))
        return error.exit_code
    confined = not (invocation.unconfined and _is_root_login(environment))
    read_fd, write_fd = _private_descriptors()
    return serve(invocation, Surroundings(confined, cache, log), read_fd, write_fd)


def _is_root_login(environment: Mapping[str, str]) -> bool:
    """
    Return whether this was started by who has logged in as root and might start anything else.

    sudo, doas and pkexec take away what sshd sets, and most clients have a forced command leave a
    trace.
    """
    by_another = ("SUDO_UID", "DOAS_USER", "PKEXEC_UID", "SSH_ORIGINAL_COMMAND")
    return "SSH_CONNECTION" in environment and not any(name in environment for name in by_another)


def _client(environment: Mapping[str, str]) -> str:
    """Return who has started this, and from where, as far as the environment tells."""
    user = environment.get("SUDO_USER") or environment.get("LOGNAME") or f"uid {os.getuid()}"
    address = environment.get("SSH_CONNECTION", "").partition(" ")[0]
    return f"{user} at {address}" if address else user


def _private_descriptors() -> tuple[int, int]:
    """Return standard input and output under numbers that no child process has."""
    read_fd, write_fd = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return read_fd, write_fd

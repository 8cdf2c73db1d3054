"""
Why there is no connection, in one sentence with what to do: read from what ssh and sudo say.

They say it on stderr and end with a status; nothing else tells. ssh does so in English, and the
others where the other host takes over the locale that ssh was started with.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from buttersink.errors import ConnectionLostError, LocationError, ProtocolError, printable

_BY_HAND = "Log in once by hand"


class _Sign(NamedTuple):
    """What is said, what that means, and what to do; `{}` is how ssh is called for the host."""

    pattern: str
    why: str
    hint: str


_SUDOERS = "README.md, section Another host over ssh, has the line for sudoers."
_SIGNS = tuple(
    _Sign(*sign)
    for sign in (
        (
            r"could not resolve hostname",
            "the host is not known",
            "Check its name, or give it a Host entry in ~/.ssh/config.",
        ),
        (
            r"remote host identification has changed",
            "its host key is not the one it had: another host answers, or it was set up anew",
            "If you know why, remove the old key by ssh-keygen -R, and log in once by hand: {}.",
        ),
        (
            r"host key verification failed|no \S+ host key is known",
            "its host key is not known",
            f"{_BY_HAND}, and compare the fingerprint: {{}}.",
        ),
        (
            r"connection refused",
            "nothing listens on its ssh port",
            "Does sshd run there? Another port is written ssh://host:port/path/.",
        ),
        (
            r"timed out|no route to host|network is unreachable",
            "the host does not answer",
            "Is it up, and does a firewall let ssh through?",
        ),
        (
            r"permission denied \(|too many authentication failures|no supported authentication",
            "it does not accept this user's key",
            f"{_BY_HAND} until no password is asked for: {{}}. Under sudo, ssh uses root's keys.",
        ),
        (
            r"sudo: (a password is required|a terminal is required|no tty|.*must have a tty)",
            "sudo wants a password there, as it does where no line in sudoers allows the command",
            _SUDOERS,
        ),
        (
            r"not allowed to execute|not in the sudoers file|may not run sudo|not allowed to run",
            "sudo does not allow the command there",
            _SUDOERS,
        ),
        (
            r"connection (closed|reset) by|connection closed|kex_exchange_identification",
            "the host closed the connection",
            f"{_BY_HAND} to see why: {{}}.",
        ),
    )
)
_NOT_FOUND = re.compile(r"command not found|: not found|no such file or directory", re.IGNORECASE)
_NO_SUDO = re.compile(r"(^|[ :])sudo: (command )?not found", re.IGNORECASE | re.MULTILINE)
_OLD = re.compile(r"unrecognized arguments: --server|error: .*--server", re.IGNORECASE)


def diagnose(where: str, by_hand: str, said: str, status: int | None) -> LocationError:
    """
    Return why ssh has ended before ButterSink answered.

    Args:
        where: The location.
        by_hand: How a person logs in there.
        said: What was said on stderr.
        status: How ssh has ended; None if it has not.

    """
    what = "cannot connect"
    last = printable((said.strip().splitlines() or [""])[-1].strip())
    if _NO_SUDO.search(said):
        return LocationError(
            what,
            where=where,
            why="sudo is not installed there",
            hint="Install it, log in as root, or name the command by --remote-command.",
        )
    if status == 127 or (status in (1, 126) and _NOT_FOUND.search(said)):
        return LocationError(
            "buttersink cannot be started there",
            where=where,
            why=last or "there is no such command",
            hint="Install it there, or say where it is by --remote-command.",
        )
    if _OLD.search(said):
        return ProtocolError(
            "the versions of buttersink are too far apart",
            where=where,
            why="the one there does not know --server",
            hint="Upgrade buttersink there.",
        )
    for sign in _SIGNS:
        if re.search(sign.pattern, said, re.IGNORECASE):
            return LocationError(what, where=where, why=sign.why, hint=sign.hint.format(by_hand))
    ended = "it has not ended" if status is None else f"ssh ended with status {status}"
    return LocationError(
        what, where=where, why=last or ended, hint=f"{_BY_HAND} to see why: {by_hand}."
    )


def lost(where: str, said: str, why: str) -> ConnectionLostError:
    """Return why a connection ended on which ButterSink had answered."""
    last = printable((said.strip().splitlines() or [""])[-1].strip())
    return ConnectionLostError(
        "the connection is lost",
        where=where,
        why=last or why,
        hint="Run the same command again: it goes on from the last checkpoint.",
    )

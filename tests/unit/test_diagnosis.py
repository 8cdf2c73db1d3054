"""What ssh, sudo and shells say, in one sentence that says what to do."""

from __future__ import annotations

import pytest

from buttersink.errors import ConnectionLostError, LocationError, ProtocolError
from buttersink.stores.ssh.diagnosis import diagnose, lost

WHERE, BY_HAND = "ssh://me@h/p/", "ssh me@h"

SAID = [
    (
        "ssh: Could not resolve hostname h: Name or service not known",
        255,
        "the host is not known",
        "Check its name",
    ),
    (
        "ssh: connect to host h port 22: Connection refused",
        255,
        "nothing listens",
        "ssh://host:port/",
    ),
    ("ssh: connect to host h port 22: Connection timed out", 255, "does not answer", "Is it up"),
    ("ssh: connect to host h port 22: No route to host", 255, "does not answer", "Is it up"),
    (
        (
            "No ED25519 host key is known for h and you have requested strict checking.\n"
            "Host key verification failed."
        ),
        255,
        "its host key is not known",
        "compare the fingerprint: ssh me@h.",
    ),
    (
        (
            "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\n"
            "Host key verification failed."
        ),
        255,
        "its host key is not the one it had",
        "ssh-keygen -R",
    ),
    ("me@h: Permission denied (publickey).", 255, "does not accept", "Under sudo"),
    (
        "Received disconnect from h port 22:2: Too many authentication failures",
        255,
        "does not accept",
        "ssh me@h",
    ),
    ("sudo: a password is required", 1, "sudo wants a password", "sudoers"),
    (
        "sudo: a terminal is required to read the password; either use the -S option",
        1,
        "sudo wants a password",
        "sudoers",
    ),
    (
        "Sorry, user me is not allowed to execute '/usr/sbin/buttersink --server' as root on h.",
        1,
        "sudo does not allow the command",
        "sudoers",
    ),
    ("me is not in the sudoers file.", 1, "sudo does not allow the command", "sudoers"),
    ("bash: line 1: sudo: command not found", 127, "sudo is not installed there", "log in as root"),
    ("sh: 1: sudo: not found", 127, "sudo is not installed there", "--remote-command"),
    ("sudo: buttersink: command not found", 1, "buttersink: command not found", "Install it there"),
    ("bash: line 1: buttersink: command not found", 127, "command not found", "--remote-command"),
    ("sh: 1: /opt/x/buttersink: not found", 127, "not found", "--remote-command"),
    ("", 127, "there is no such command", "--remote-command"),
    (
        "buttersink: error: unrecognized arguments: --server --mode. See buttersink --help.",
        2,
        "does not know --server",
        "Upgrade buttersink there.",
    ),
    ("Connection closed by 127.0.0.1 port 22", 255, "the host closed the connection", "ssh me@h"),
    (
        "kex_exchange_identification: read: Connection reset by peer",
        255,
        "the host closed the connection",
        "ssh me@h",
    ),
    ("strange\nvery strange\x1b[31m", 9, r"very strange\x1b[31m", "ssh me@h"),
    ("", 255, "ssh ended with status 255", "ssh me@h"),
    ("", None, "it has not ended", "ssh me@h"),
]


@pytest.mark.parametrize(("said", "status", "why", "hint"), SAID)
def test_each(said: str, status: int | None, why: str, hint: str) -> None:
    error = diagnose(WHERE, BY_HAND, said, status)
    assert isinstance(error, LocationError)
    assert error.exit_code == 1
    assert error.where == WHERE
    assert why in error.why
    assert hint in error.hint
    assert "\n" not in str(error)
    assert str(error).isprintable()


def test_one_that_is_too_old_is_a_matter_of_versions() -> None:
    said = "buttersink: error: unrecognized arguments: --server"
    assert isinstance(diagnose(WHERE, BY_HAND, said, 2), ProtocolError)


@pytest.mark.parametrize(
    ("said", "why", "shown"),
    [
        ("", "nothing has come for 60 seconds", "nothing has come for 60 seconds"),
        ("client_loop: send disconnect: Broken pipe\n", "x", "Broken pipe"),
        ("", "", ""),
    ],
)
def test_a_lost_connection_says_that_it_can_be_gone_on_with(
    said: str, why: str, shown: str
) -> None:
    error = lost(WHERE, said, why)
    assert isinstance(error, ConnectionLostError)
    assert shown in error.why
    assert "goes on from the last checkpoint" in error.hint

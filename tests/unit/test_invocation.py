"""The one command line that a server has, and that nothing else is one."""

from __future__ import annotations

import pytest

from buttersink.errors import UsageError
from buttersink.remote.invocation import Invocation, parse_invocation
from buttersink.stores.base import Mode
from tests.support.command import buttersink


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("directory", [b"/", b"/mnt/a", b"/mnt/ a\n\xff/", b"/-n", b"/../x"])
def test_is_read_as_it_is_written(mode: Mode, directory: bytes) -> None:
    invocation = Invocation(mode, directory)
    assert invocation.arguments == [b"--server", b"--mode", mode.value.encode(), directory]
    assert parse_invocation(invocation.arguments) == invocation


def test_may_say_that_the_client_is_trusted() -> None:
    invocation = Invocation(Mode.READ, b"/a", unconfined=True)
    assert invocation.arguments == [b"--server", b"--mode", b"r", b"--unconfined", b"/a"]
    assert parse_invocation(invocation.arguments) == invocation


REFUSED = [
    [b"--server"],
    [b"--server", b"--mode", b"r"],
    [b"--mode", b"r", b"--server", b"/a"],
    [b"--server", b"/a", b"--mode", b"r"],
    [b"--server", b"--mode", b"x", b"/a"],
    [b"--server", b"--mode", b"", b"/a"],
    [b"--server", b"--mode", b"rw", b"/a"],
    [b"--server", b"--mode", b"R", b"/a"],
    [b"--server", b"--mode", b"r", b""],
    [b"--server", b"--mode", b"r", b"a"],
    [b"--server", b"--mode", b"r", b"./a"],
    [b"--server", b"--mode", b"r", b"/a", b"/b"],
    [b"--server", b"--mode", b"r", b"/a", b""],
    [b"--server", b"--mode", b"w", b"/a", b"--mode", b"r"],
    [b"--server", b"--mode", b"r", b"--unconfined"],
    [b"--server", b"--mode", b"r", b"/a", b"--unconfined"],
    [b"--server", b"--unconfined", b"--mode", b"r", b"/a"],
    [b"--server", b"--mode", b"r", b"--unconfined", b"--unconfined", b"/a"],
    [b"--server", b"--mode", b"r", b"--unconfined", b"a"],
    [b"-v", b"--server", b"--mode", b"r", b"/a"],
    [b"--server", b"-v", b"--mode", b"r", b"/a"],
    [b"--server", b"--mode=r", b"/a"],
    [b"--server", b"--mode", b"r", b"--help"],
    [b"/x/", b"/y/", b"--server"],
    [b"--server", b"--mode", b"r", b"/a", b"--logfile", b"/etc/passwd"],
]


@pytest.mark.parametrize("arguments", [*REFUSED, [b"--server", b"--mode", b"r", b"/a\0b"]])
def test_anything_else_is_refused(arguments: list[bytes]) -> None:
    with pytest.raises(UsageError, match="not served"):
        parse_invocation(arguments)


@pytest.mark.parametrize("arguments", REFUSED)
def test_and_by_the_command_before_any_option_is_looked_at(arguments: list[bytes]) -> None:
    ended = buttersink(*arguments, status=2)
    assert ended.out == ""
    assert ended.err.startswith("buttersink: error: not served: ")
    assert ended.err.count("\n") == 1

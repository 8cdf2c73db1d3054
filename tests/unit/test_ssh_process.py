"""The command line of ssh: what is in it, and that a remote shell takes each word as it is."""

from __future__ import annotations

import os
import subprocess

import pytest

from buttersink.location import SshLocation
from buttersink.remote.invocation import Invocation
from buttersink.stores.base import Mode
from buttersink.stores.ssh.process import command_line

HOSTILE = [b"/a b", b"/$(id)", b"/`id`", b"/;id", b"/'x\"", b"/new\nline", b"/\xff", b"/~", b"/*"]


def line(
    user: str = "", port: int | None = None, directory: bytes = b"/p", **settings: str
) -> list[str]:
    location = SshLocation(user, "h", port, directory, all_below=True)
    arguments = Invocation(Mode.READ, directory).arguments
    return command_line(location, arguments, (), settings)


def test_ends_with_host_and_one_word_for_the_shell() -> None:
    assert line(user="me", port=22)[-5:] == [
        "-p",
        "22",
        "--",
        "me@h",
        "sudo -n buttersink --server --mode r /p",
    ]
    assert line()[-3:-1] == ["--", "h"]


def test_has_no_sudo_for_root() -> None:
    """Which is for ssh to say, whatever the location says."""
    assert line(user="root")[-1].startswith("sudo ")
    location = SshLocation("", "h", None, b"/p", all_below=True)
    found = command_line(location, [b"--server"], (), {"user": "root"})
    assert found[-1] == "buttersink --server"


def test_has_other_words_where_they_are_given() -> None:
    location = SshLocation("", "h", None, b"/p", all_below=True)
    words = ("doas", "/opt/my tools/buttersink")
    found = command_line(location, [b"--server"], words, {"user": "root"})
    assert found[-1] == "doas '/opt/my tools/buttersink' --server"


def test_the_users_patience_holds() -> None:
    assert "ConnectTimeout=30" in line()
    assert "ConnectTimeout=30" in line(connecttimeout="none")
    assert not any(word.startswith("ConnectTimeout") for word in line(connecttimeout="7"))


@pytest.mark.parametrize("directory", HOSTILE, ids=repr)
def test_a_shell_takes_the_directory_as_it_is(directory: bytes) -> None:
    command = os.fsencode(line(directory=directory)[-1]).replace(b"sudo", b"printf '%s\\0'", 1)
    found = subprocess.run(["sh", "-c", command], capture_output=True, check=True).stdout
    words = [b"-n", b"buttersink", b"--server", b"--mode", b"r", directory]
    assert found.split(b"\0")[:-1] == words

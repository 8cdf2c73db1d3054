"""What a person reads when another host cannot be used, with an `ssh` that fails like it."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from buttersink.remote.protocol import MAGIC, Kind, encode
from tests.support.command import Completed, buttersink
from tests.support.fakessh import fake_ssh

if TYPE_CHECKING:
    from pathlib import Path

FAR = "ssh://host/proc/"


def run(directory: Path, *arguments: str, status: int, **options: str) -> Completed:
    environment = fake_ssh(directory / "bin", **options)  # type: ignore[arg-type]
    done = buttersink(*(arguments or (FAR,)), status=status, environment=environment)
    assert done.out == ""
    assert done.err.count("\n") == 1, done.err
    assert done.err.startswith("buttersink: error: ")
    return done


@pytest.mark.parametrize(
    ("said", "status", "expected"),
    [
        (
            "ssh: Could not resolve hostname host: Name or service not known",
            255,
            "cannot connect: ssh://host/proc/: the host is not known. Check its name",
        ),
        ("me@host: Permission denied (publickey).", 255, "it does not accept this user's key"),
        ("sudo: a password is required", 1, "sudo wants a password there"),
        (
            "sh: 1: buttersink: not found",
            127,
            "buttersink cannot be started there: ssh://host/proc/: sh: 1: buttersink: not found",
        ),
    ],
)
def test_what_ssh_says_is_understood(tmp_path: Path, said: str, status: int, expected: str) -> None:
    done = run(tmp_path, status=1, before=f'echo "{said}" >&2; exit {status}')
    assert expected in done.err


def test_there_is_no_ssh(tmp_path: Path) -> None:
    done = buttersink(FAR, status=1, environment={"PATH": os.fspath(tmp_path)})
    assert "there is no command ssh. Install it" in done.err


@pytest.mark.parametrize("banner", ["Welcome!", "buttersink", ""])
def test_a_shell_that_prints_is_told_from_buttersink(tmp_path: Path, banner: str) -> None:
    done = run(tmp_path, status=1, before=f'echo "{banner}"')
    assert f"the remote shell prints '{banner}' on stdout" in done.err
    assert "Make its start-up files silent for commands." in done.err


def test_a_directory_that_is_no_btrfs(tmp_path: Path) -> None:
    done = run(tmp_path, status=1)
    assert "cannot use the location: ssh://host/proc: it is not on a btrfs file system" in done.err


def test_a_directory_that_is_missing(tmp_path: Path) -> None:
    done = run(tmp_path, "ssh://host/no/such/", status=1)
    assert "cannot open the location: ssh://host/no/such: No such file or directory" in done.err


def speaker(tmp_path: Path, raw: bytes, then: str = "") -> str:
    """Return what says these bytes in place of buttersink."""
    (tmp_path / "raw").write_bytes(raw)
    return f"sh -c 'cat {tmp_path}/raw; {then or 'cat >/dev/null'}'"


def test_versions_too_far_apart(tmp_path: Path) -> None:
    hello = b'{"versions": [7, 8], "program": "9.0", "mode": "r", "directory": "/proc"}'
    program = speaker(tmp_path, MAGIC + encode(Kind.HELLO, hello))
    done = run(tmp_path, status=1, program=program)
    assert "the versions of buttersink are too far apart: ssh://host/proc/: it speaks" in done.err
    assert "Upgrade buttersink here." in done.err


def hello(directory: str = "/proc", mode: str = "r") -> bytes:
    text = f'{{"versions": [1, 1], "mode": "{mode}", "directory": "{directory}"}}'
    return MAGIC + encode(Kind.HELLO, text.encode())


def test_a_far_side_for_another_directory(tmp_path: Path) -> None:
    done = run(tmp_path, status=2, program=speaker(tmp_path, hello("/srv/backup")))
    assert "is for /srv/backup alone. Write ssh://host/srv/backup/." in done.err


def test_a_far_side_that_goes_at_once(tmp_path: Path) -> None:
    program = speaker(tmp_path, hello(), "exit 0")
    assert (
        "the connection is lost: ssh://host/proc/" in run(tmp_path, status=1, program=program).err
    )


CATALOGUES = [
    b'{"snapshots": [{"path": "../../etc/x"}]}',
    b'{"snapshots": [1]}',
    b'{"snapshots": {}}',
    b'{"lineage": [["x", "y"]]}',
    b'{"partials": [{"path": "/etc/passwd"}]}',
    b"[" * 50_000,
    b"\xff",
]


@pytest.mark.parametrize("item", CATALOGUES, ids=range(len(CATALOGUES)))
def test_a_far_side_that_lies(tmp_path: Path, item: bytes) -> None:
    raw = hello() + encode(Kind.END, b"{}") + encode(Kind.ITEM, item) + encode(Kind.END, b"{}")
    done = run(tmp_path, status=1, program=speaker(tmp_path, raw))
    assert "internal error" not in done.err
    assert "damaged message" in done.err or "refused" in done.err


def test_a_far_side_whose_errors_are_garbage(tmp_path: Path) -> None:
    error = b'{"class": "KeyboardInterrupt", "what": "x\\n\\u001b[31m", "where": "/a\\nb"}'
    raw = hello() + encode(Kind.ERROR, error)
    done = run(tmp_path, status=1, program=speaker(tmp_path, raw))
    assert r"x\n\x1b[31m: ssh://host/a\nb" in done.err


def test_the_remote_command_can_be_said(tmp_path: Path) -> None:
    words = f"{sys.executable} -m buttersink"
    done = run(tmp_path, "--remote-command", words, FAR, status=1, user="me", program="false")
    assert "not on a btrfs file system" in done.err


def test_a_user_that_is_not_root_has_sudo(tmp_path: Path) -> None:
    """The script `sudo` beside `ssh` hands on what it gets."""
    log = tmp_path / "log"
    run(tmp_path, status=1, user="me", program=f'echo "$SUDO_USER $*" >{log}; exit 1 #')
    assert log.read_text() == "guest --server --mode r /proc\n"

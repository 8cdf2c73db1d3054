"""
Locations on the far host of tests/support/sshd.py, and the command that uses them as a person does.

The command runs here, with the client's `ssh` first in $PATH. What runs there is this checkout, or
for a block another command in its place: one with small segments, or with little patience.
"""

from __future__ import annotations

import os
import re
import shlex
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.support.command import Argument, Completed, buttersink
from tests.support.farhost import NAME, PROGRAM
from tests.support.sshd import LIMITED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from tests.support.sshd import StartedSshd

CHECKOUT = Path(__file__).parents[2]
README_USER, README_DIRECTORY = "laptop", "/mnt/backup/laptop"
INSTALLED = "/usr/local/sbin/buttersink"  # where README.md puts a link to the program
SECURE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEBIANS_SUDOERS = f'Defaults secure_path="{SECURE_PATH}"'  # a line of the sudoers file it installs
GONE_SECONDS = 10.0
_OTHER_PROGRAM = """\
#!/bin/sh
cd {checkout} && PYTHONPATH=src:. exec {words} "$@"
"""


class FarLocations:
    """
    The command, and locations on a far host.

    Attributes:
        sshd: The server there, which runs.

    """

    def __init__(self, sshd: StartedSshd) -> None:
        self.sshd = sshd

    @property
    def environment(self) -> Mapping[str, str]:
        """What the command needs to find the client's `ssh`."""
        return self.sshd.client.environment

    def run(self, *arguments: Argument, status: int | None = 0) -> Completed:
        """Run the command; it has to end with `status` unless that is None."""
        return buttersink(*arguments, status=status, environment=self.environment)

    @contextmanager
    def program(self, *words: Argument) -> Iterator[None]:
        """Let this be what runs as `buttersink` there, for the block."""
        program = self.sshd.host.root / PROGRAM
        before = program.read_text()
        line = shlex.join(map(os.fsdecode, words))
        program.write_text(_OTHER_PROGRAM.format(checkout=shlex.quote(str(CHECKOUT)), words=line))
        try:
            yield
        finally:
            program.write_text(before)

    @contextmanager
    def readme_sudoers(self, directory: Path) -> Iterator[None]:
        """Let `limited` do what README.md's lines for sudoers let its user do, in a directory."""
        with self.sshd.host.sudoers(DEBIANS_SUDOERS, *readme_sudoers(directory)):
            yield

    @contextmanager
    def writing_sudoers(self, directory: Path) -> Iterator[None]:
        """Let `limited` delete there as well, by the line that README.md says to add."""
        lines = readme_sudoers(directory)
        more = [line.replace("--mode a", "--mode w") for line in lines if "--mode a" in line]
        assert len(more) == 1
        with self.sshd.host.sudoers(DEBIANS_SUDOERS, *lines, *more):
            yield

    def clients(self) -> dict[int, bytes]:
        """Return the command lines of this client's `ssh` processes, by pid."""
        found = {}
        configuration = os.fsencode(self.sshd.client.configuration)
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:  # it has just ended
                continue
            if configuration in line:
                found[int(entry.name)] = line
        return found

    def servers(self) -> list[int]:
        """Return the far host's processes that are ButterSink's server, a child of its last."""
        return sorted(
            pid
            for pid, words in self.sshd.sessions().items()
            if b"--server" in words and b"python" in words[0]
        )

    def assert_gone(self, seconds: float = GONE_SECONDS) -> None:
        """Fail unless soon nothing runs any more on either side, and nothing is mounted there."""
        self.sshd.wait_until_idle(seconds)
        deadline = time.monotonic() + GONE_SECONDS
        while left := self.clients():
            assert time.monotonic() < deadline, left
            time.sleep(0.01)
        mounts = (self.sshd.host.root / "proc/1/mounts").read_text()
        assert " /run/buttersink " not in mounts

    def logins(self) -> int:
        """Return how often somebody has logged in so far."""
        return self.sshd.server.log.read_bytes().count(b"Accepted publickey for ")


def at(directory: Path, user: str = "") -> str:
    """Return the location of every snapshot below a directory of the far host."""
    return f"ssh://{f'{user}@' if user else ''}{NAME}{directory}/"


def readme_sudoers(directory: Path) -> list[str]:
    """Return README.md's lines for sudoers, with our user and directory in place of its own."""
    lines = readme_block("sudoers").splitlines()
    assert len(lines) == 3
    assert all(INSTALLED in line for line in lines)
    return [_ours(line, directory) for line in lines]


def readme_key_options(directory: Path) -> str:
    """Return the options that README.md gives a key in authorized_keys, with our directory."""
    (line,) = [line for line in _readme().splitlines() if line.startswith("restrict,command=")]
    options, key, _rest = line.partition(" ssh-ed25519 ")
    assert key
    return _ours(options, directory)


def readme_block(language: str) -> str:
    """Return the one code block of README.md in this language."""
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", _readme(), re.MULTILINE | re.DOTALL)
    return str(found)


def _readme() -> str:
    return (CHECKOUT / "README.md").read_text()


def _ours(line: str, directory: Path) -> str:
    if line.startswith(f"{README_USER} "):
        line = line.replace(README_USER, LIMITED, 1)
    return line.replace(README_DIRECTORY, os.fspath(directory))

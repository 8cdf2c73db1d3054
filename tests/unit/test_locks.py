"""Who holds a lock on a file."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from buttersink.kernel.locks import flock_holder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

HOLD = "import fcntl, sys; f = open(sys.argv[1]); fcntl.flock(f, fcntl.LOCK_EX); print(); input()"


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_nobody(fd: int) -> None:
    assert flock_holder(fd) is None


def test_this_process_by_another_descriptor(fd: int, tmp_path: Path) -> None:
    other = os.open(tmp_path, os.O_RDONLY)
    try:
        fcntl.flock(other, fcntl.LOCK_EX)
        assert flock_holder(fd) == os.getpid()
    finally:
        os.close(other)
    assert flock_holder(fd) is None


def test_another_process(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    command = [sys.executable, "-c", HOLD, str(file)]
    with (
        file.open() as mine,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process,
    ):
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        assert flock_holder(mine.fileno()) == process.pid
        process.stdin.close()

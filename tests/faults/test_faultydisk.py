"""The disk that fails does so when it is told to, and not before."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.faults.faultydisk import MIB, FaultyDisk
from tests.support.loopfs import is_mounted, mounted, run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.root

OLD, NEW = b"old" * 4096, b"new" * 4096


@pytest.fixture
def image(tmp_path: Path) -> Path:
    image = tmp_path / "image"
    image.write_bytes(OLD + bytes(2 * MIB))
    return image


@pytest.fixture
def disk(tmp_path: Path) -> FaultyDisk:
    (tmp_path / "shown").mkdir()
    return FaultyDisk(tmp_path / "shown")


@contextmanager
def opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDWR)
    try:
        yield fd
    finally:
        os.close(fd)


ACTIONS: dict[str, Callable[[int], object]] = {
    "read": lambda fd: os.pread(fd, 4096, 0),
    "write": lambda fd: os.pwrite(fd, NEW, 0),
    "flush": os.fsync,
}


def failing(fd: int) -> list[str]:
    """Return what fails now."""
    return [name for name, act in ACTIONS.items() if error_of(act, fd) == errno.EIO]


def error_of(act: Callable[[int], object], fd: int) -> int | None:
    try:
        act(fd)
    except OSError as error:
        return error.errno
    return None


def test_it_is_the_image(disk: FaultyDisk, image: Path, tmp_path: Path) -> None:
    with disk.showing(image) as shown:
        assert shown.read_bytes() == image.read_bytes()
        with opened(shown) as fd:
            os.pwrite(fd, NEW, MIB)
    assert image.read_bytes()[MIB:].startswith(NEW)
    assert not is_mounted(tmp_path / "shown")


@pytest.mark.parametrize("what", ["read", "write", "flush"])
def test_only_what_it_is_told_fails(disk: FaultyDisk, image: Path, what: str) -> None:
    with disk.showing(image) as shown, opened(shown) as fd:
        assert failing(fd) == []
        disk.order(f"fail {what}")
        assert failing(fd) == [what]
        disk.order("fail")
        assert failing(fd) == []


def test_a_power_cut_loses_what_was_not_flushed_and_no_more(disk: FaultyDisk, image: Path) -> None:
    found = set()
    for seed in range(20):
        with disk.showing(image) as shown, opened(shown) as fd:
            os.pwrite(fd, OLD, 0)
            os.pwrite(fd, NEW, MIB)
            os.fsync(fd)
            os.pwrite(fd, NEW, 0)
            disk.order(f"cut {seed}")
            assert failing(fd) == list(ACTIONS)
        now = image.read_bytes()
        assert now[MIB : MIB + len(NEW)] == NEW
        found.add(now[: len(OLD)])
    assert found == {OLD, NEW}


def test_a_btrfs_on_it_is_checked_by_btrfs(disk: FaultyDisk, tmp_path: Path) -> None:
    image = tmp_path / "btrfs"
    image.touch()
    os.truncate(image, 128 * MIB)
    run("mkfs.btrfs", "--quiet", image)
    with disk.showing(image) as shown, mounted(shown, tmp_path / "top") as top:
        (top / "file").write_bytes(NEW)
        run("sync", "--file-system", top)
        disk.order("cut 1")
    with mounted(image, tmp_path / "top") as top:
        assert (top / "file").read_bytes() == NEW
    run("btrfs", "check", image)

"""
Data that subvolumes share otherwise than by one being a snapshot of the other.

Each function makes two lots of snapshots below a directory on btrfs: the plain way to send them
moves data again that a receiver has by then.
"""

from __future__ import annotations

import fcntl
import os
import struct
from typing import TYPE_CHECKING

from tests.support.loopfs import MIB, create_subvolume, run, snapshot

if TYPE_CHECKING:
    from pathlib import Path

DATA = 12 * MIB  # bytes that are shared
_FIDEDUPERANGE = 0xC0189436  # linux/fs.h: _IOWR(0x94, 54, 24)


def bring_back(place: Path) -> Path:
    """Delete a file, later get it back by reflink from an old snapshot; much else changes."""
    live, snaps = _live(place, "live"), place / "snaps"
    snaps.mkdir()
    snapshot(live, snaps / "1")
    (live / "data").unlink()
    (live / "other").write_bytes(os.urandom(2 * DATA))
    snapshot(live, snaps / "2")
    run("cp", "--reflink=always", snaps / "1" / "data", live / "data")
    snapshot(live, snaps / "3")
    return snaps


def copy_by_reflink(place: Path) -> Path:
    """Make a second subvolume with `cp --reflink`: it has no origin."""
    live, snaps = _live(place, "live"), place / "snaps"
    snaps.mkdir()
    snapshot(live, snaps / "a")
    copied = create_subvolume(place / "copied")
    run("cp", "--archive", "--reflink=always", f"{live}/.", copied)
    (copied / "more").write_bytes(os.urandom(50_000))
    snapshot(copied, snaps / "b")
    return snaps


def deduplicate(place: Path) -> Path:
    """Let a subvolume share the data that it had in common with another one."""
    one, other, snaps = _live(place, "one"), create_subvolume(place / "other"), place / "snaps"
    snaps.mkdir()
    (other / "same").write_bytes((one / "data").read_bytes())
    snapshot(one, snaps / "a")
    snapshot(other, snaps / "b1")
    deduplicate_file(one / "data", other / "same")
    snapshot(other, snaps / "b2")
    return snaps


def _live(place: Path, name: str) -> Path:
    live = create_subvolume(place / name)
    (live / "data").write_bytes(os.urandom(DATA))
    return live


def deduplicate_file(kept: Path, given_up: Path) -> None:
    """Let the second of two equal files use the data of the first, as tools for that do."""
    os.sync()  # the kernel compares what is on disk
    with kept.open("rb") as source, given_up.open("r+b") as target:
        for start in range(0, os.fstat(source.fileno()).st_size, MIB):
            request = struct.pack(
                "=QQHHIqQQiI", start, MIB, 1, 0, 0, target.fileno(), start, 0, 0, 0
            )
            buffer = bytearray(request)
            fcntl.ioctl(source.fileno(), _FIDEDUPERANGE, buffer)
            done, status = struct.unpack_from("=Qi", buffer, 40)
            if (done, status) != (MIB, 0):
                raise OSError(status, "not deduplicated", given_up)

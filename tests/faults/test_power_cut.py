"""
The power fails while snapshots arrive: what has a snapshot's name is whole.

The destination's image lies on another btrfs, which copies it by reference at random moments: that
is what a disk without a cache would hold. Each copy is mounted and looked at afterwards.
"""

from __future__ import annotations

import subprocess
import time
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.support.command import buttersink, checksumdir, command_line, listing, paths
from tests.support.history import make_history
from tests.support.loopfs import MIB, btrfs, loop_filesystem, mounted, run

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeFilesystem

pytestmark = pytest.mark.root

CUTS = 12


def test_what_has_its_name_is_whole(source: Path, make_filesystem: MakeFilesystem) -> None:
    history = make_history(source, seed=9, count=6, base_bytes=48 * MIB, change_bytes=6 * MIB)
    true = {path: checksumdir(history.directory / path).out for path in paths(history.directory)}
    host = make_filesystem("host", size_bytes=8192 * MIB).mountpoint
    cuts: list[Path] = []
    with loop_filesystem(host, label="disk") as disk:
        command = command_line("-e", f"{history.directory}/", disk.mountpoint)
        started = time.monotonic()
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            random = Random(12)
            while process.poll() is None and len(cuts) < 4 * CUTS:
                time.sleep(0.08 * random.random())
                cuts.append(host / f"cut{len(cuts)}.img")
                run("cp", "--reflink=always", disk.image, cuts[-1])
        assert process.returncode == 0
        assert time.monotonic() - started < 60
    seen = 0
    for cut in cuts[:: max(1, len(cuts) // CUTS)]:
        btrfs("device", "scan", "--forget")  # the copies have one and the same identity
        with mounted(cut, host / "after") as after:
            for each in listing(after)["snapshots"]:
                assert checksumdir(after / each["path"]).out == true[each["path"]]
                seen += 1
            if cut is cuts[0]:
                buttersink(f"{history.directory}/", after)
                assert paths(after) == sorted(true)
    assert seen > 0

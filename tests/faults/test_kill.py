"""SIGKILL at random moments: never a false snapshot, and the next run finishes."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

from tests.support.command import buttersink, checksumdir, command_line, listing, paths
from tests.support.history import make_history
from tests.support.loopfs import MIB, btrfs, is_mounted

if TYPE_CHECKING:
    from tests.conftest import MakeFilesystem

pytestmark = pytest.mark.root

KILLS = 20


def digests(directory: Path) -> dict[str, str]:
    return {path: checksumdir(directory / path).out for path in paths(directory)}


def empty(directory: Path) -> None:
    for path in os.listdir(directory):
        btrfs("subvolume", "delete", directory / path)


def test_twenty_kills(source: Path, make_filesystem: MakeFilesystem) -> None:
    # btrfs clears away what was deleted in its own time, so there is room for all the runs
    destination = make_filesystem("destination", size_bytes=8192 * MIB).mountpoint
    history = make_history(source, seed=7, count=5, base_bytes=24 * MIB, change_bytes=4 * MIB)
    true = digests(history.directory)
    command = command_line("-e", f"{history.directory}/", destination)
    started = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    whole = time.monotonic() - started
    random = Random(20)
    killed = 0
    for number in range(KILLS):
        empty(destination)
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            # spread over the whole run, a little jitter so that no phase is missed
            time.sleep(whole * (number + random.random()) / KILLS)
            process.kill()
        killed += process.returncode == -9
        found = listing(destination)
        for each in found["snapshots"]:
            assert checksumdir(destination / each["path"]).out == true[each["path"]]
        for each in found["partials"]:
            assert each["path"].startswith(".buttersink-")
        buttersink(f"{history.directory}/", destination)
        assert digests(destination) == true
        assert listing(destination)["partials"] == []
        assert sorted(os.listdir(destination)) == sorted(true)
    assert killed >= KILLS // 2
    assert not is_mounted(Path("/run/buttersink"))


@pytest.mark.parametrize("signal", [2, 15])
def test_a_signal_ends_it_cleanly(source: Path, destination: Path, signal: int) -> None:
    history = make_history(source, seed=8, count=2, base_bytes=200 * MIB, change_bytes=MIB)
    with subprocess.Popen(
        command_line(f"{history.directory}/", destination),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        while not os.listdir(destination):
            time.sleep(0.005)
        asked = time.monotonic()
        process.send_signal(signal)
        _out, said = process.communicate(timeout=10)
        assert time.monotonic() - asked < 2
    assert process.returncode == 128 + signal
    assert "Traceback" not in said
    assert listing(destination)["snapshots"] == []
    assert os.listdir(destination) == []

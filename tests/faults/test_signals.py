"""A signal ends a run cleanly and soon."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.support.command import assert_nothing_arrived, command_line, listing
from tests.support.history import make_history
from tests.support.loopfs import MIB

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root


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
    assert_nothing_arrived(destination)


@pytest.mark.parametrize("signal", [2, 15])
def test_a_signal_after_all_was_told_changes_nothing(destination: Path, signal: int) -> None:
    """It may be too late for it: then the status is that of the run."""
    for each in range(20):
        with subprocess.Popen(
            command_line(f"{destination}/"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout
            process.stdout.read(1)
            time.sleep(each / 4000)
            process.send_signal(signal)
            _out, said = process.communicate(timeout=10)
        assert process.returncode in {0, 128 + signal}
        assert said == ""

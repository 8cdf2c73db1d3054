"""
The command, as a process of its own, with segments so small that little data makes many of them.

    python -m tests.support.smallsegments BYTES CHECKPOINTS SECONDS ARGUMENT...

So many seconds after so many checkpoints it kills itself as by SIGKILL; 0 checkpoints let it end.
"""

from __future__ import annotations

import os
import signal
import sys
from threading import Timer
from typing import TYPE_CHECKING

from buttersink.cli import command
from buttersink.stores.btrfs import segmented
from buttersink.stores.btrfs.arrival import Place
from tests.support.command import run_raw

if TYPE_CHECKING:
    from collections.abc import Mapping

    from buttersink.catalogue import Diff
    from buttersink.stream import Checkpoint
    from tests.support.command import Argument

SEGMENT_BYTES = 1 << 19


def small_segments(
    *arguments: Argument, kill_after: int = 0, seconds_later: float = 0
) -> list[Argument]:
    """Return what starts the command with small segments."""
    module = (sys.executable, "-m", "tests.support.smallsegments")
    return [*module, str(SEGMENT_BYTES), str(kill_after), str(seconds_later), *arguments]


def killed_after(
    checkpoints: int, *arguments: Argument, environment: Mapping[str, str] | None = None
) -> None:
    """Run the command until it has made so many checkpoints in this run, and no further."""
    command = small_segments(*arguments, kill_after=checkpoints)
    done = run_raw(command, environment=environment)
    assert done.returncode == -signal.SIGKILL, done


def _kill_after(checkpoints: int, seconds_later: float) -> None:
    """Have this process die after a checkpoint was made: right then, or while it goes on."""
    made, make = 0, Place.make_checkpoint

    def make_and_count(place: Place, diff: Diff, checkpoint: Checkpoint) -> None:
        nonlocal made
        make(place, diff, checkpoint)
        made += 1
        if made == checkpoints and seconds_later:
            Timer(seconds_later, os.kill, (os.getpid(), signal.SIGKILL)).start()
        elif made == checkpoints:
            os.kill(os.getpid(), signal.SIGKILL)

    Place.make_checkpoint = make_and_count  # type: ignore[assignment, method-assign]


if __name__ == "__main__":
    segmented.SEGMENT_BYTES = int(sys.argv[1])
    if int(sys.argv[2]):
        _kill_after(int(sys.argv[2]), float(sys.argv[3]))
    command(sys.argv[4:])

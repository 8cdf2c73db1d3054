"""
What checkpoints cost: one full snapshot received with them, and as if there were none, in turns.

Both are this program, each run a process of its own with an empty cache, from a source in the page
cache to a new file system. As if there were none: the stream is not even looked at on its way, and
nothing is synced before its end. With them: as they are made, and by choice only after so many
bytes or only after so many seconds. With a rate, bytes come no faster than on a slow line.

    TMPDIR=/dev/shm unshare --mount .venv/bin/python -m bench.checkpoints --runs 15
    TMPDIR=/dev/shm unshare --mount .venv/bin/python -m bench.checkpoints --mib 256 --rate 8
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import NamedTuple

from bench.local import Measured, filesystem, machine, scratch, timed
from buttersink.stores.btrfs.segmented import FIRST_SECONDS, SEGMENT_BYTES, SEGMENT_SECONDS
from tests.support.history import make_history
from tests.support.loopfs import MIB

SOURCES = os.fspath(Path(__file__).parents[1] / "src")
NEVER = 1 << 60  # bytes
CHILD = f"""
import sys, time
sys.path.insert(0, {SOURCES!r})
from buttersink.cli import main
from buttersink.stores.btrfs import segmented
from buttersink.stores.btrfs.segmented import SegmentedReceive

size, first, seconds, rate = int(sys.argv.pop(1)), *(float(sys.argv.pop(1)) for _ in range(3))
segmented.SEGMENT_BYTES, segmented.FIRST_SECONDS, segmented.SEGMENT_SECONDS = size, first, seconds
if not size:
    SegmentedReceive.write = lambda self, chunk: (self._process or self._begin()).write(chunk)
if rate:
    write, start, passed = SegmentedReceive.write, 0, 0
    def wait_and_write(self, chunk):
        global start, passed
        start, passed = start or time.monotonic(), passed + len(chunk)
        time.sleep(max(0, start + passed / rate - time.monotonic()))
        write(self, chunk)
    SegmentedReceive.write = wait_and_write
sys.exit(main())
"""


class Way(NamedTuple):
    """When checkpoints are made: after so many bytes, 0 for never, or seconds, first and later."""

    name: str
    bytes: int
    first: float
    seconds: float


def received(way: Way, rate: float, source: Path, directory: Path) -> Measured:
    """Receive everything into a new file system, at most `rate` bytes a second unless that is 0."""
    with filesystem(directory, "destination") as target, scratch() as cache:
        words = (*map(str, way[1:]), str(rate))
        command = (sys.executable, "-c", CHILD, *words, "-qq", "-e", f"{source}/", f"{target}/")
        return timed(*command, cache=cache)


def show(ways: list[Way], runs: dict[Way, list[Measured]]) -> None:
    """Print wall and processor seconds, and their ratios to those without checkpoints."""
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    for way in ways:
        print(way.name)
        for name in ("seconds", "cpu_seconds"):
            taken, plain = ([getattr(run, name) for run in runs[w]] for w in (way, ways[0]))
            print(
                f"  {name}: {median(taken):.2f} ({min(taken):.2f}-{max(taken):.2f}), ratio of "
                f"medians {median(taken) / median(plain):.3f}, of the least "
                f"{min(taken) / min(plain):.3f}"
            )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mib", type=int, default=2048, help="size of the snapshot")
    parser.add_argument("--runs", type=int, default=7, help="measured runs of each")
    parser.add_argument("--segment", type=int, nargs="*", default=[], help="MiB, and no time")
    parser.add_argument("--seconds", type=float, nargs="*", default=[], help="time, and no bytes")
    parser.add_argument("--rate", type=float, default=0.0, metavar="MB/s", help="0: no limit")
    chosen = parser.parse_args()
    ways = [
        Way("without", 0, NEVER, NEVER),
        Way("as it is", SEGMENT_BYTES, FIRST_SECONDS, SEGMENT_SECONDS),
        *(Way(f"after {each} MiB", each * MIB, NEVER, NEVER) for each in chosen.segment),
        *(Way(f"after {each:g} s", NEVER, each, each) for each in chosen.seconds),
    ]
    runs: dict[Way, list[Measured]] = {way: [] for way in ways}
    started = perf_counter()
    with scratch() as directory, filesystem(directory, "source") as top:
        history = make_history(top, seed=1, count=1, base_bytes=chosen.mib * MIB)
        for number in range(chosen.runs + 1):
            for way in ways if number % 2 else reversed(ways):
                one = received(way, chosen.rate * 1e6, history.directory, directory)
                if number:  # the first of each is not measured
                    runs[way].append(one)
    show(ways, runs)
    print(f"{perf_counter() - started:.0f} s in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())

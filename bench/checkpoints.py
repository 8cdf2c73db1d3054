"""
What checkpoints cost: one full snapshot received with them, and as if there were none, in turns.

Both are this program, each run a process of its own with an empty cache, from a source in the page
cache to a new file system. As if there were none: the stream is not even looked at on
its way, and nothing is synced before its end.

    TMPDIR=/dev/shm unshare --mount .venv/bin/python -m bench.checkpoints --runs 15
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from statistics import median
from time import perf_counter

from bench.local import filesystem, machine, scratch, timed
from tests.support.history import make_history
from tests.support.loopfs import MIB

WITHOUT = 0
CHILD = (
    "import sys; from buttersink.stores.btrfs import segmented;"
    "segmented.SEGMENT_BYTES = int(sys.argv.pop(1)) << 20;"
    "segmented.SEGMENT_BYTES or setattr("
    " segmented.SegmentedReceive, 'write',"
    " lambda self, chunk: (self._process or self._begin()).write(chunk));"
    "from buttersink.cli import main; sys.exit(main())"
)


def seconds(segment: int, source: Path, directory: Path) -> float:
    """Receive everything with segments of so many MiB, 0 for none, into a new file system."""
    with filesystem(directory, "destination") as target, scratch() as cache:
        command = (sys.executable, "-c", f"import sys; sys.path.insert(0, {SOURCES!r}); {CHILD}")
        return timed(
            *command, str(segment), "-qq", "-e", f"{source}/", f"{target}/", cache=cache
        ).seconds


SOURCES = os.fspath(Path(__file__).parents[1] / "src")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=2048, help="size of the snapshot")
    parser.add_argument("--runs", type=int, default=7, help="measured runs of each")
    parser.add_argument("--segment", type=int, nargs="+", default=[512], help="MiB of segments")
    chosen = parser.parse_args()
    lengths = [WITHOUT, *chosen.segment]
    times: dict[int, list[float]] = {length: [] for length in lengths}
    started = perf_counter()
    with scratch() as directory, filesystem(directory, "source") as top:
        history = make_history(top, seed=1, count=1, base_bytes=chosen.mib * MIB)
        for number in range(chosen.runs + 1):
            for length in lengths if number % 2 else reversed(lengths):
                one = seconds(length, history.directory, directory)
                if number:  # the first of each is not measured
                    times[length].append(one)
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    plain = median(times[WITHOUT])
    for length, taken in times.items():
        name = "without" if length == WITHOUT else f"segments of {length} MiB"
        low, high = min(taken), max(taken)
        print(
            f"{name}: {median(taken):.2f} s ({low:.2f}-{high:.2f}), "
            f"ratio of medians {median(taken) / plain:.3f}, of the least "
            f"{low / min(times[WITHOUT]):.3f}"
        )
    print(f"{perf_counter() - started:.0f} s in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())

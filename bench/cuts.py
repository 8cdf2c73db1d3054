"""
What a cut of the line, or a kill, costs a transfer over ssh that is as long as real ones are.

One snapshot of random data, some big files and thousands of small ones, goes to another host by the
real program and a real sshd, over a line that this program carries and cuts after a number of bytes
that a seed chooses. Nobody is told of the cut: each side finds out by itself, when nothing has come
for a minute. Then the line is mended and the same command run again. Kills are the same with pulls,
and SIGKILL of the client, its ssh and the server in turn.

Each interruption has a destination of its own. The table says how much of the stream had arrived,
from where the second run went on, what came twice, and whether the result equals the source. It
ends with an error if one does not, or if anything still runs on either side.

    TMPDIR=/dev/shm script/bench cuts
    TMPDIR=/dev/shm script/bench cuts --cuts 1 --kills 0 --size 100
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from bench.local import filesystem, machine, scratch
from bench.tables import print_rows
from tests.support.command import assert_same
from tests.support.history import make_history
from tests.support.loopfs import MIB
from tests.support.sshd import started_sshd
from tests.support.sshlocation import FarLocations, at

if TYPE_CHECKING:
    from tests.support.line import Line

REPOSITORY = Path(__file__).parent.parent
VICTIMS = ("client", "ssh", "server")
END_SECONDS = 100.0  # that a side has to find out that the line is dead, and to end
SSHD_SECONDS = 300.0  # that sshd, which goes by TCP alone, has to find out the same
HEADINGS = ("interrupted by", "arrived", "ended after", "went on from", "came twice", "equal")


@dataclass(frozen=True, slots=True)
class Interruption:
    """
    A run that was interrupted, and the one after it.

    Attributes:
        by: What interrupted it.
        arrived: Bytes of the stream that the line had carried by then.
        seconds: From then until both sides had ended.
        resumed: Bytes that the second run did not send again.
        size: Of the whole stream.
        equal: Whether the result is the source.
        said: The first run's errors.

    """

    by: str
    arrived: int
    seconds: float
    resumed: int
    size: int
    equal: bool
    said: list[str]

    @property
    def row(self) -> tuple[str, ...]:
        """What the table shows."""
        twice = max(0, self.arrived - self.resumed)
        numbers = [f"{count / MIB:,.0f} MiB" for count in (self.arrived, self.resumed, twice)]
        numbers.insert(1, f"{self.seconds:.0f} s")
        return (self.by, *numbers, "yes" if self.equal else "NO")


@dataclass(frozen=True, slots=True)
class Setting:
    """What all have in common: the far host, the line to it, a directory, a snapshot's size."""

    far: FarLocations
    line: Line
    directory: Path
    source: Path
    random: Random
    size: int

    def interrupt(self, by: str) -> Interruption:
        """Push until the line is cut, or pull until one is killed; then once more to the end."""
        with filesystem(self.directory, "destination") as target, scratch() as cache:
            words: tuple[str, ...] = (f"{self.source}/", at(target))
            if by in VICTIMS:
                words = (at(self.source), f"{target}/")
            first = self._start(*words, cache=cache)
            carried, seconds = self._meddle(first, by)
            said = first.communicate()[1].splitlines()
            self.line.mend()
            before = self.line.passed
            second = self._start("--json", *words, cache=cache)
            out, complaints = second.communicate()
            if second.returncode:
                sys.exit(f"the second run failed: {complaints}")
            step = json.loads(out)["result"]["steps"][0]
            overhead = (self.line.passed - before) / step["bytes"]
            self.far.assert_gone(SSHD_SECONDS)
            left = os.listdir(target)
            return Interruption(
                "cut" if by == "cut" else f"kill of {by}",
                round(carried / overhead),
                seconds,
                step["resumed_from"] or 0,
                step["bytes"] + (step["resumed_from"] or 0),
                _is_same(self.source, target, left),
                [line for line in said if "error" in line],
            )

    def _start(self, *words: str, cache: Path) -> subprocess.Popen[str]:
        """Start the program of this checkout, with nothing remembered."""
        return subprocess.Popen(
            (sys.executable, "-m", "buttersink", "-q", *words),
            env={
                **os.environ,
                **self.far.environment,
                "PYTHONPATH": f"{REPOSITORY / 'src'}",
                "XDG_CACHE_HOME": f"{cache}",
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _meddle(self, process: subprocess.Popen[str], by: str) -> tuple[int, float]:
        """Interrupt at a random point; return the bytes carried, and what it took to end."""
        before, after = self.line.passed, self.random.randrange(self.size)
        if by == "cut":
            self.line.cut_after(after)
        while self.line.passed < before + after and process.poll() is None:
            time.sleep(0.002)
        if process.poll() is not None:
            sys.exit(f"it ended before it was interrupted: {process.communicate()[1]}")
        if by == "client":
            process.kill()
        elif by in VICTIMS:
            pids = self.far.servers() if by == "server" else self.far.clients()
            os.kill(min(pids), signal.SIGKILL)
        started = time.monotonic()
        while process.poll() is None or self.far.servers() or self.far.clients():
            if time.monotonic() > started + END_SECONDS:
                sys.exit("one side has not ended")
            time.sleep(0.05)
        return self.line.passed - before, time.monotonic() - started


def _is_same(source: Path, target: Path, left: list[str]) -> bool:
    names = os.listdir(source)
    try:
        for name in names:
            assert_same(source / name, target / name)
    except AssertionError:
        return False
    return left == names


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="script/bench cuts",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", type=int, default=1000, metavar="MB", help="of the snapshot")
    parser.add_argument("--cuts", type=int, default=10, help="of the line, in pushes")
    parser.add_argument("--kills", type=int, default=9, help="of a process, in pulls")
    parser.add_argument("--seed", default="1", help="chooses after how many bytes")
    parser.add_argument("--delay", type=float, default=0.0, metavar="ms", help="each way")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw numbers there")
    return parser.parse_args()


def run(chosen: argparse.Namespace) -> list[Interruption]:
    """Interrupt transfers and tell of each as it is over."""
    found = list[Interruption]()
    kinds = ["cut"] * chosen.cuts + [VICTIMS[n % len(VICTIMS)] for n in range(chosen.kills)]
    size = chosen.size * 1000 * 1000
    with (
        scratch() as directory,
        started_sshd(directory, with_line=True) as sshd,
        scratch() as work,
        filesystem(work, "source") as top,
    ):
        history = make_history(top, seed=1, count=1, base_bytes=size)
        assert sshd.line
        sshd.line.set_quality(delay_seconds=chosen.delay / 1000)
        random = Random(chosen.seed)
        setting = Setting(
            FarLocations(sshd), sshd.line, work, history.directory, random, size * 95 // 100
        )
        for kind in kinds:
            found.append(setting.interrupt(kind))
            print("  ".join(found[-1].row), *found[-1].said, file=sys.stderr)
    return found


def main() -> int:
    """Measure, print a table, and write the raw numbers."""
    chosen = options()
    found = run(chosen)
    print(", ".join(f"{key} {value}" for key, value in machine().items()))
    print_rows(HEADINGS, [each.row for each in found])
    if chosen.json:
        raw = {"machine": machine(), "interruptions": [asdict(each) for each in found]}
        chosen.json.write_text(json.dumps(raw, indent=1) + "\n")
    if not all(each.equal for each in found):
        sys.exit("not all equal the source")
    size = found[0].size if found else 0
    print(f"all {len(found)} equal the source, {size:,} bytes, and nothing runs any more")
    return 0


if __name__ == "__main__":
    sys.exit(main())

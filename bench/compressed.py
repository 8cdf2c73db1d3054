"""
Data that are compressed on disk, sent as they are and sent plain, between local file systems.

One full snapshot of a file system that compresses with zstd: text, and a fifth of it noise. Four
ways to a new file system, in rounds: ButterSink; ButterSink where btrfs-progs are too old to take
compressed data, so that it sends version 1; `btrfs send | btrfs receive`, and the same of version
2 with compressed data, each with `btrfs filesystem sync`. What arrives is compared with the source
each time, which is not in the times.

    TMPDIR=/dev/shm script/bench compressed --mib 1000 --runs 5
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from bench.local import PROGRAMS, Measured, filesystem, scratch, timed
from bench.rounds import added, contest, show
from tests.support.compressible import words
from tests.support.loopfs import MIB, btrfs, create_subvolume, run, snapshot, sync_filesystem
from tests.support.oldprogs import old_progs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_FILE_MIB = 4
_NOISE = 5  # every so many files are of that
_PROGRAM = str(PROGRAMS / "buttersink")
_VERSION_2 = ("--proto", "2", "--compressed-data")


def fill(live: Path, mebibytes: int) -> None:
    """Write files of text and of noise."""
    btrfs("property", "set", live, "compression", "zstd")
    random = Random(1)
    text = words(random, _FILE_MIB * MIB)
    for number in range(mebibytes // _FILE_MIB):
        start = random.randrange(len(text))
        content = text[start:] + text[:start]
        if number % _NOISE == 0:
            content = random.randbytes(_FILE_MIB * MIB)
        (live / f"{number:04}").write_bytes(content)


class Ways:
    """Each way to get a snapshot into a new file system, and how many bytes it took."""

    def __init__(self, source: Path, directory: Path) -> None:
        """Look at the source once."""
        self._source, self._directory = source, directory
        self._expected = self._checksums(source)
        self._old = old_progs(directory / "old")
        self.sent: dict[str, int] = {}

    def _checksums(self, top: Path) -> str:
        return run(str(PROGRAMS / "checksumdir"), top / "first").replace(str(top), "")

    def _into_new(self, way: Callable[[Path, Path], Measured]) -> Measured:
        with filesystem(self._directory, "destination") as target, scratch() as cache:
            measured = way(target, cache)
            if self._checksums(target) != self._expected:
                sys.exit("what arrived is not what was sent")
            return measured

    def ours(self, name: str, environment: Mapping[str, str]) -> Measured:
        """Have ButterSink do it, in an environment."""

        def way(target: Path, cache: Path) -> Measured:
            command = (_PROGRAM, "--json", f"{self._source}/", f"{target}/")
            measured = timed(*command, cache=cache, environment=environment)
            self.sent[name] = measured.document["result"]["sent_bytes"]
            return measured

        return self._into_new(way)

    def raw(self, options: tuple[str, ...]) -> Measured:
        """Have btrfs-progs do it, with options for the sending side."""

        def way(target: Path, cache: Path) -> Measured:
            send = ("btrfs", "send", "--quiet", *options, str(self._source / "first"))
            receive = ("btrfs", "receive", "--quiet", str(target))
            taken = timed(*send, "|", *receive, cache=cache)
            return added(taken, timed("btrfs", "filesystem", "sync", str(target), cache=cache))

        return self._into_new(way)

    def contenders(self) -> Mapping[str, Callable[[], Measured]]:
        """Return all by their names."""
        return {
            "ButterSink": lambda: self.ours("ButterSink", {}),
            "ButterSink, plain": lambda: self.ours("ButterSink, plain", self._old),
            "send | receive": lambda: self.raw(()),
            "the same, compressed": lambda: self.raw(_VERSION_2),
        }


def main() -> int:
    """Measure, print, and write the raw numbers."""
    parser = argparse.ArgumentParser(
        prog="script/bench compressed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--mib", type=int, default=1000, help="size of the snapshot")
    parser.add_argument("--runs", type=int, default=5, help="measured rounds")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw numbers there")
    chosen = parser.parse_args()
    with scratch() as directory, filesystem(directory, "source") as top:
        live = create_subvolume(top / "live")
        fill(live, chosen.mib)
        (top / "snapshots").mkdir()
        snapshot(live, top / "snapshots" / "first")
        sync_filesystem(top)
        ways = Ways(top / "snapshots", directory)
        found = contest(f"{chosen.mib} MiB", chosen.runs, ways.contenders())
    show({}, [found], {"sent": ways.sent}, chosen.json)
    print(", ".join(f"{name}: {count:,} bytes" for name, count in ways.sent.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())

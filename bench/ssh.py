"""
ButterSink over ssh, beside btrfs-progs over ssh, with the same sshd, key and cipher.

    a  push one snapshot of incompressible data: `btrfs send | ssh host btrfs receive`
    b  pull it: `ssh host btrfs send | btrfs receive`
    c  push many small snapshots: one `btrfs send -p | ssh host btrfs receive` for each
    d  those again, when there is nothing to do: how many times ssh logs in

The sshd is a real one on 127.0.0.1, on this machine: both ends share its processors. Each round
runs every contender once, and each round begins with another one. Processor time is that of the
near side. ButterSink's side is the whole command, with planning. Every run has a new destination,
and ends with `btrfs filesystem sync` of it.
"""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.local import Measured, add_snapshots, filesystem, scratch, timed
from bench.rounds import added, contest, one_snapshot, show
from tests.support.loopfs import create_subvolume, sync_filesystem
from tests.support.sshd import StartedSshd, started_sshd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.rounds import Contenders

PARTS = "abcd"
HOST = "root@testhost"
OURS = "ButterSink"
REPOSITORY = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class Setting:
    """
    What all runs share.

    Attributes:
        sshd: The other host, which sees this one's file systems.
        directory: For what runs need, and nothing of it after.
        runs: Measured rounds.

    """

    sshd: StartedSshd
    directory: Path
    runs: int

    def run(self, *command: str) -> Measured:
        """Run programs that find the host."""
        found = {**self.sshd.client.environment, "PYTHONPATH": f"{REPOSITORY / 'src'}"}
        with scratch() as cache:
            return timed(*command, cache=cache, environment=found)

    def ours(self, *arguments: str) -> Measured:
        """Run ButterSink, of the checkout that this is in."""
        return self.run(sys.executable, "-m", "buttersink", *arguments)

    def to_a_new_place(self, run: Callable[[Path], Measured]) -> Measured:
        """Give a run a new file system, and add what it takes to make that durable."""
        with filesystem(self.directory, "destination") as target:
            taken = run(target)
            return added(taken, self.run("btrfs", "filesystem", "sync", str(target)))


def pushes(setting: Setting, source: Path, name: str) -> Contenders:
    """Return the ways to bring one snapshot to the host."""
    send = ("btrfs", "send", "--quiet", f"{source / name}")
    receive = ("btrfs", "receive", "--quiet")

    def ours(target: Path) -> Measured:
        return setting.ours(f"{source}/", f"ssh://{HOST}{target}/")

    def raw(target: Path) -> Measured:
        return setting.run(*send, "|", "ssh", HOST, *receive, f"{target}")

    return {
        OURS: lambda: setting.to_a_new_place(ours),
        "send | ssh receive": lambda: setting.to_a_new_place(raw),
    }


def pulls(setting: Setting, source: Path, name: str) -> Contenders:
    """Return the ways to bring one snapshot from the host."""
    send = ("btrfs", "send", "--quiet", f"{source / name}")
    receive = ("btrfs", "receive", "--quiet")

    def ours(target: Path) -> Measured:
        return setting.ours(f"ssh://{HOST}{source}/", f"{target}/")

    def raw(target: Path) -> Measured:
        return setting.run("ssh", HOST, *send, "|", *receive, f"{target}")

    return {
        OURS: lambda: setting.to_a_new_place(ours),
        "ssh send | receive": lambda: setting.to_a_new_place(raw),
    }


def many(setting: Setting, source: Path) -> Contenders:
    """Return the ways to bring many small snapshots to the host."""
    names = sorted(os.listdir(source))

    def ours(target: Path) -> Measured:
        return setting.ours(f"{source}/", f"ssh://{HOST}{target}/")

    def raw(target: Path) -> Measured:
        taken = list[Measured]()
        for number, name in enumerate(names):
            parent = ("-p", f"{source / names[number - 1]}") if number else ()
            send = ("btrfs", "send", "--quiet", *parent, f"{source / name}")
            receive = ("|", "ssh", HOST, "btrfs", "receive", "--quiet", f"{target}")
            taken.append(setting.run(*send, *receive))
        return added(*taken)

    return {
        OURS: lambda: setting.to_a_new_place(ours),
        "one ssh each": lambda: setting.to_a_new_place(raw),
    }


def logins(setting: Setting, source: Path) -> dict[str, int]:
    """Return how many times ssh logs in for a first run, and for one with nothing to do."""
    log, counts = setting.directory / "sshd.log", dict[str, int]()

    def logged() -> int:
        return log.read_text(errors="replace").count("Accepted publickey")

    with filesystem(setting.directory, "destination") as target:
        for name in ("logins with all to send", "logins with nothing to do"):
            before = logged()
            setting.ours(f"{source}/", f"ssh://{HOST}{target}/")
            counts[name] = logged() - before
    return counts


@contextmanager
def small_snapshots(directory: Path, count: int) -> Iterator[Path]:
    """Have a directory with many snapshots, each with a small change to the one before."""
    with filesystem(directory, "source") as top:
        live = create_subvolume(top / "live")
        snapshots = top / "snapshots"
        snapshots.mkdir()
        add_snapshots(live, snapshots, range(count))
        sync_filesystem(top)
        yield snapshots


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="script/bench ssh",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", default=",".join(PARTS), help="parts to run, such as a,d")
    parser.add_argument("--size", type=int, default=1024, metavar="MiB", help="of the snapshot")
    parser.add_argument("--count", type=int, default=1000, help="of small snapshots")
    parser.add_argument("--runs", type=int, default=3, help="measured rounds of a and b")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw numbers there")
    chosen = parser.parse_args()
    chosen.only = set(chosen.only.split(","))
    if not chosen.only <= set(PARTS) or min(chosen.runs, chosen.size, chosen.count) < 1:
        parser.error(f"--only takes some of {','.join(PARTS)}; the numbers are at least 1")
    return chosen


def main() -> int:
    """Measure what is asked for, print tables, and write the raw numbers."""
    chosen = options()
    contests, counted = [], dict[str, int]()
    load = os.getloadavg()[0]
    with scratch() as directory, started_sshd(directory) as sshd, scratch() as work:
        setting = Setting(sshd, work, chosen.runs)
        if chosen.only & {"a", "b"}:
            with one_snapshot(work, chosen.size) as source:
                if "a" in chosen.only:
                    ways = pushes(setting, source, "first")
                    contests.append(contest("push", chosen.runs, ways))
                if "b" in chosen.only:
                    ways = pulls(setting, source, "first")
                    contests.append(contest("pull", chosen.runs, ways))
        if chosen.only & {"c", "d"}:
            with small_snapshots(work, chosen.count) as source:
                if "c" in chosen.only:
                    contests.append(contest(f"{chosen.count:,} small", 1, many(setting, source)))
                if "d" in chosen.only:
                    counted = logins(Setting(sshd, directory, 1), source)
    where = {
        "snapshot": f"{chosen.size} MiB",
        "load before and after": f"{load:.1f} {os.getloadavg()[0]:.1f}",
    }
    show(where, contests, {"logins": counted}, chosen.json)
    for name, number in counted.items():
        print(f"{name}: {number}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

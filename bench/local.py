"""
ButterSink between two local btrfs file systems, beside the raw pipe with the same parents.

    a  a history of 12 snapshots with a rollback branch
    b  one full snapshot of 1 GB
    c  peak memory of ButterSink in a and b
    d  1,000 snapshots synchronised again with nothing to do; 5,000 snapshots listed
    e  whether a and b sent the bytes that the plan said

The raw side is `btrfs send [-p] | btrfs receive` and `btrfs filesystem sync` for each step of the
plan that ButterSink made. Both sides write to a new file system every time and read a source that
is in the page cache; runs alternate, after one unmeasured run of each. ButterSink's time is that of
the whole process, planning with an empty cache included. Ratios are of neighbouring runs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from bench.tables import Comparison, Transfer, print_comparisons, print_memory, print_plans
from tests.support.history import make_history
from tests.support.loopfs import (
    MIB,
    btrfs,
    create_subvolume,
    loop_filesystem,
    run,
    send_and_receive,
    snapshot,
    sync_filesystem,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

PROGRAMS = Path(sys.executable).parent
TIMED = Path(__file__).with_name("timed.py")
IMAGE_BYTES = 16 << 30  # sparse
PARTS = "abcde"
MODULES = "buttersink.cli, buttersink.stores.btrfs"  # what every run of the command imports

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of a program: seconds, those of processors, peak memory, and what it printed."""

    seconds: float
    cpu_seconds: float
    peak_bytes: int
    stdout: str = ""

    @property
    def document(self) -> Document:
        """The JSON that was printed."""
        document: Document = json.loads(self.stdout)
        return document


@contextmanager
def scratch() -> Iterator[Path]:
    """Have a directory that is gone after the block."""
    with tempfile.TemporaryDirectory(prefix="buttersink-bench-") as name:
        yield Path(name)


@contextmanager
def filesystem(directory: Path, label: str) -> Iterator[Path]:
    """Have a new btrfs, with nothing of earlier runs waiting to be written to disk."""
    with loop_filesystem(directory, label=label, size_bytes=IMAGE_BYTES) as made:
        os.sync()
        yield made.mountpoint


def buttersink(*arguments: str, cache: Path) -> Measured:
    """Run ButterSink with a directory for what it remembers; it has to succeed."""
    return timed(str(PROGRAMS / "buttersink"), *arguments, cache=cache)


def timed(
    *command: str, cache: Path, environment: Mapping[str, str] = MappingProxyType({})
) -> Measured:
    """Run a program under `timed.py`, or several with "|" between them; they have to succeed."""
    with tempfile.NamedTemporaryFile("r") as result:
        done = subprocess.run(
            [sys.executable, "-I", "-S", TIMED, result.name, *command],
            env={**os.environ, "XDG_CACHE_HOME": str(cache), "PYTHONPATH": "", **environment},
            capture_output=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"{' '.join(command)}: {done.returncode}: {os.fsdecode(done.stderr)}")
        return Measured(**json.load(result), stdout=os.fsdecode(done.stdout))


def in_turns(
    runs: int, ours: Callable[[], Measured], other: Callable[[], float]
) -> tuple[list[Measured], list[float]]:
    """Run both sides `runs` times, one after the other."""
    pairs = [(ours(), other()) for _ in range(runs)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def compare_transfer(name: str, source: Path, directory: Path, runs: int) -> Transfer:
    """Synchronise all snapshots below `source` with a new file system, both ways in turns."""

    def ours() -> Measured:
        with filesystem(directory, "destination") as target, scratch() as cache:
            return buttersink("--json", f"{source}/", f"{target}/", cache=cache)

    def raw() -> float:
        with filesystem(directory, "destination") as target:
            return raw_seconds(steps, source, target)

    steps = ours().document["plan"]["steps"]
    raw()
    measured, raw_times = in_turns(runs, ours, raw)
    documents = [each.document for each in measured]
    return Transfer(
        Comparison(name, "send | receive", [each.seconds for each in measured], raw_times),
        peak_bytes=[each.peak_bytes for each in measured],
        plan_bytes=[document["plan"]["send_bytes"] for document in documents],
        sent_bytes=[document["result"]["sent_bytes"] for document in documents],
        steps_differing=sum(differing_steps(document) for document in documents),
    )


def raw_seconds(steps: list[Document], source: Path, target: Path) -> float:
    """Carry out the sends of a plan with btrfs-progs alone."""
    started = perf_counter()
    for step in steps:
        parent = source / step["from_path"] if step["from_path"] else None
        send_and_receive(source / step["path"], target, parent=parent)
        sync_filesystem(target)
    return perf_counter() - started


def differing_steps(document: Document) -> int:
    """Count the steps that sent another number of bytes than the plan said."""
    planned = {step["uuid"]: step["size"] for step in document["plan"]["steps"]}
    return sum(planned[step["uuid"]] != step["bytes"] for step in document["result"]["steps"])


def history_transfer(directory: Path, runs: int) -> Transfer:
    """Compare on a history: 400 MB of mixed files, and eleven times 30 MB of changes."""
    with filesystem(directory, "source") as top:
        history = make_history(top, seed=12, count=12, base_bytes=400 * MIB, change_bytes=30 * MIB)
        return compare_transfer("12 snapshots, 1 branch", history.directory, directory, runs)


def full_transfer(directory: Path, runs: int) -> Transfer:
    """Compare on one snapshot of 1 GB: big files, and some thousands of small ones."""
    with filesystem(directory, "source") as top:
        history = make_history(top, seed=1, count=1, base_bytes=10**9)
        return compare_transfer("1 full snapshot, 1 GB", history.directory, directory, runs)


def compare_many(directory: Path, runs: int) -> Iterator[Comparison]:
    """Compare what has nothing to send with listing by btrfs-progs, and bare Python with both."""
    with (
        filesystem(directory, "source") as source,
        filesystem(directory, "destination") as target,
        scratch() as cache,
    ):
        live = create_subvolume(source / "live")
        snapshots = source / "snapshots"
        snapshots.mkdir()
        add_snapshots(live, snapshots, range(1000))
        sync = (f"{snapshots}/", f"{target}/")
        buttersink(*sync, cache=cache)
        yield from compare_listing("1,000 again, none to send", sync, [source, target], cache, runs)
        add_snapshots(live, snapshots, range(1000, 5000))
        listing = ("-e", f"{snapshots}/")
        yield from compare_listing("5,000 listed", listing, [source], cache, runs)


def add_snapshots(live: Path, directory: Path, numbers: range) -> None:
    """Take snapshots with a small change before each."""
    for number in numbers:
        (live / f"{number % 20}").write_text(f"{number}\n" * 500)
        snapshot(live, directory / f"{number:04d}")


def compare_listing(
    name: str, arguments: tuple[str, ...], tops: list[Path], cache: Path, runs: int
) -> Iterator[Comparison]:
    """
    Compare a command that sends nothing with `btrfs subvolume list` of the file systems.

    The second comparison leaves out what starting ButterSink takes: the interpreter, its modules.
    """

    def ours() -> Measured:
        return buttersink(*arguments, cache=cache)

    def started() -> float:
        return timed(sys.executable, "-c", f"import {MODULES}", cache=cache).seconds

    def lists() -> float:
        started = perf_counter()
        for top in tops:
            btrfs("subvolume", "list", top)
        return perf_counter() - started

    turns = [(ours().seconds, started(), lists()) for _ in range(runs + 1)][1:]
    whole, starts, listed = (list(times) for times in zip(*turns, strict=True))
    other = "subvolume list" + (" twice" if len(tops) == 2 else "")
    yield Comparison(name, other, whole, listed)
    working = [each - start for each, start in zip(whole, starts, strict=True)]
    yield Comparison("   the same after its start", other, working, listed)


def interpreter_start(runs: int) -> list[float]:
    """Return the seconds in which the same Python starts and does nothing."""
    with scratch() as cache:
        return [timed(sys.executable, "-c", "", cache=cache).seconds for _ in range(runs)]


def machine() -> dict[str, str]:
    """Say where the numbers are from."""
    return {
        "kernel": platform.release(),
        "btrfs-progs": btrfs("version").split()[-1],
        "python": platform.python_version(),
        "cpus": str(os.cpu_count()),
        "images on": run("df", "--output=source,fstype", tempfile.gettempdir()).split("\n")[1],
    }


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="script/bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", default=",".join(PARTS), help="parts to run, such as a,d")
    parser.add_argument("--runs", type=int, default=5, help="measured runs of each side")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw numbers there")
    chosen = parser.parse_args()
    chosen.only = set(chosen.only.split(","))
    if not chosen.only <= set(PARTS) or chosen.runs < 1:
        parser.error(f"--only takes some of {','.join(PARTS)}, and --runs at least 1")
    return chosen


def main() -> int:
    """Measure what is asked for, print tables, and write the raw numbers."""
    chosen = options()
    transfers, listings, starts = list[Transfer](), list[Comparison](), list[float]()
    both = not chosen.only & {"a", "b"} and chosen.only & {"c", "e"}
    with scratch() as directory:
        if "a" in chosen.only or both:
            transfers.append(history_transfer(directory, chosen.runs))
        if "b" in chosen.only or both:
            transfers.append(full_transfer(directory, chosen.runs))
        if "d" in chosen.only:
            listings.extend(compare_many(directory, chosen.runs))
            starts.extend(interpreter_start(chosen.runs))
    where = machine()
    print(", ".join(f"{key} {value}" for key, value in where.items()))
    print_comparisons([*(each.comparison for each in transfers), *listings], starts)
    if "c" in chosen.only:
        print_memory(transfers)
    if "e" in chosen.only:
        print_plans(transfers)
    if chosen.json:
        raw = {
            "machine": where,
            "transfers": [asdict(each) for each in transfers],
            "listings": [asdict(each) for each in listings],
            "interpreter_seconds": starts,
        }
        chosen.json.write_text(json.dumps(raw, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

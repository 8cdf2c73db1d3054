"""Contests: several that do the same, in rounds, and what comes out written down."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from bench.local import Document, Measured, filesystem, machine
from bench.tables import Contender, Contest, print_contest
from tests.support.loopfs import MIB, create_subvolume, snapshot, sync_filesystem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    Contenders = Mapping[str, Callable[[], Measured]]

FILE_MIB = 16  # of a snapshot's files


def contest(name: str, runs: int, contenders: Contenders) -> Contest:
    """Run all in rounds, after one that does not count."""
    names, rounds = [*contenders], list[dict[str, Measured]]()
    for number in range(runs + 1):
        first = number % len(names)
        order = names[first:] + names[:first]
        rounds.append({each: contenders[each]() for each in order})
        said = (f"{each} {run.seconds:.2f} s" for each, run in rounds[-1].items())
        print(f"{name}: {', '.join(said)}", file=sys.stderr)
    measured = rounds[1:]
    return Contest(
        name,
        [
            Contender(
                each,
                [runs[each].seconds for runs in measured],
                [runs[each].cpu_seconds for runs in measured],
                [runs[each].peak_bytes for runs in measured],
            )
            for each in names
        ],
    )


def added(*parts: Measured) -> Measured:
    """Return what several runs took one after the other."""
    return Measured(
        sum(each.seconds for each in parts),
        sum(each.cpu_seconds for each in parts),
        max(each.peak_bytes for each in parts),
    )


@contextmanager
def one_snapshot(directory: Path, size_mib: int) -> Iterator[Path]:
    """Have a directory with one snapshot, of data that nothing can compress."""
    with filesystem(directory, "source") as top:
        live = create_subvolume(top / "live")
        for number in range(-(-size_mib // FILE_MIB)):
            with (live / f"{number:04}").open("wb") as file, open("/dev/urandom", "rb") as random:
                file.write(random.read(FILE_MIB * MIB))
        snapshots = top / "snapshots"
        snapshots.mkdir()
        snapshot(live, snapshots / "first")
        sync_filesystem(top)
        yield snapshots


def show(
    where: Mapping[str, str], contests: list[Contest], more: Document, file: Path | None
) -> None:
    """Print what was measured where, and write the raw numbers to a file if there is one."""
    setting = {**machine(), **where}
    print(", ".join(f"{key} {value}" for key, value in setting.items()))
    for each in contests:
        print_contest(each)
    if file:
        raw = {"machine": setting, "contests": [asdict(each) for each in contests], **more}
        file.write_text(json.dumps(raw, indent=1) + "\n")

"""
Prove what a store of diffs holds: that chains are whole, and each diff what was sent.

Strategy: the listing names the diffs that lead to the snapshots asked for; several threads take one
diff at a time and look at it; what is broken is left out, and what then cannot be reached is lost.
One diff that fails stops no other. The reporter is told from the calling thread alone. Nothing is
changed.
"""

from __future__ import annotations

import time
from collections import deque
from concurrent.futures import FIRST_EXCEPTION, wait
from threading import Lock
from types import MappingProxyType
from typing import TYPE_CHECKING

from buttersink.catalogue import uuid_text
from buttersink.errors import Error, UsageError, VerifyError
from buttersink.planner.mending import repairs
from buttersink.progress import Verification
from buttersink.stores.base import Comparison
from buttersink.stream import StreamCheck
from buttersink.verdict import Depth, Finding, Loss, Verdict, diff_name
from buttersink.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from buttersink.catalogue import Catalogue, Diff, Size, Uuid
    from buttersink.planner import PlanOptions
    from buttersink.progress import Reporter
    from buttersink.stores.base import Store
    from buttersink.stream import StreamFacts

_THREADS = {Depth.CHECKSUMS: 16, Depth.FULL: 4}  # requests that wait; bytes that fill a line
_BEAT = 0.1  # seconds between two looks at how far the threads are


def verify(store: Store, depth: Depth, options: PlanOptions, reporter: Reporter) -> Verdict:
    """
    Return what is broken in a store of diffs, and what is lost by that.

    What `options` exclude is looked at only where it is part of another snapshot's chain.
    `UsageError` for a store that holds snapshots.
    """
    if not store.traits.verifies:
        raise UsageError(
            "nothing to verify",
            where=store.location,
            why="it holds snapshots, not diffs",
            hint="There btrfs checks what it reads: use btrfs scrub, or compare two copies with "
            "checksumdir.",
        )
    started = time.monotonic()
    found = store.catalogue()
    paths: dict[Uuid, bytes] = {}
    for snapshot in found.snapshots:
        paths.setdefault(snapshot.uuid, snapshot.path)
    wanted = dict.fromkeys(s.uuid for s in found.snapshots if not options.excludes(s))
    diffs = _leading_to(wanted, found)
    look = _Look(store, depth, diffs, paths, reporter)
    try:
        look.at_all()
    finally:
        reporter.finished()
    broken = {finding.diff for finding in look.broken}
    lost = repairs(diffs, broken, wanted)
    return Verdict(
        depth=depth,
        diffs=len(diffs),
        snapshots=len(wanted),
        bytes=look.bytes,
        seconds=time.monotonic() - started,
        broken=_in_order(look.broken, diffs),
        lost=tuple(Loss(uuid, repair) for uuid, repair in lost.items()),
        notes=_in_order(look.notes, diffs),
        partials=tuple(p for p in found.partials if not options.excludes(p)),
        paths=MappingProxyType(paths),
    )


def _leading_to(wanted: Iterable[Uuid], found: Catalogue) -> dict[Diff, Size]:
    """Return the diffs that are part of any chain to a wanted snapshot."""
    making: dict[Uuid, list[Diff]] = {}
    for diff in found.diffs:
        making.setdefault(diff.to, []).append(diff)
    waiting: list[Uuid | None] = [*wanted]
    seen: set[Uuid | None] = {None}
    while waiting:
        uuid = waiting.pop()
        if uuid is not None and uuid not in seen:
            waiting += (diff.parent for diff in making.get(uuid, ()))
        seen.add(uuid)
    return {diff: size for diff, size in found.diffs.items() if diff.to in seen}


def _in_order(findings: Iterable[Finding], diffs: Iterable[Diff]) -> tuple[Finding, ...]:
    place = {diff: number for number, diff in enumerate(diffs)}
    return tuple(sorted(findings, key=lambda finding: place[finding.diff]))


class _Look:
    """The state of one verification: which diffs are still to be looked at, and what was found."""

    def __init__(
        self,
        store: Store,
        depth: Depth,
        diffs: Mapping[Diff, Size],
        paths: Mapping[Uuid, bytes],
        reporter: Reporter,
    ) -> None:
        self._store, self._depth, self._diffs, self._paths = store, depth, diffs, paths
        self._reporter = reporter
        self._all_bytes = sum(s.bytes for s in diffs.values()) if depth is Depth.FULL else 0
        self._waiting = deque(diffs)
        self._stopped = False
        self._lock = Lock()  # over what follows
        self._done = 0
        self.bytes = 0
        self.broken: list[Finding] = []
        self.notes: list[Finding] = []

    def at_all(self) -> None:
        """Look at every diff, several at a time."""
        if self._depth is Depth.FULL:
            self._with_threads(self._read)
        elif self._depth is Depth.CHECKSUMS:
            self._with_threads(self._store.check)

    def _with_threads(self, look: Callable[[Diff], Comparison]) -> None:
        told = 0
        count = _THREADS[self._depth]
        threads = Workers(count, "verify")
        try:
            left = {threads.submit(self._work, look) for _ in range(count)}
            while left:
                done, left = wait(left, _BEAT, FIRST_EXCEPTION)
                for worker in done:
                    worker.result()  # what is no `Error` is a bug, and ends the run
                told = self._tell(told)
        finally:
            self._stopped = True
            self._waiting.clear()
            threads.stop()

    def _tell(self, told: int) -> int:
        """Tell how far it is and what is broken but for the first `told`; return how many are."""
        with self._lock:
            done, count, broken = self._done, self.bytes, self.broken[told:]
        for finding in broken:
            name = diff_name(finding.diff, self._paths)
            self._reporter.failed(VerifyError("broken diff", where=name, why=finding.text))
        self._reporter.verifying(Verification(done, len(self._diffs), count, self._all_bytes))
        return told + len(broken)

    def _work(self, look: Callable[[Diff], Comparison]) -> None:
        """Look at one diff after the other until none is left; runs in several threads."""
        while True:
            try:
                diff = self._waiting.popleft()
            except IndexError:
                return
            try:
                outcome = look(diff)
            except Error as error:
                outcome = Comparison(wrong=str(error))
            with self._lock:
                self._done += 1
                if outcome.wrong:
                    self.broken.append(Finding(diff, outcome.wrong))
                if outcome.note:
                    self.notes.append(Finding(diff, outcome.note))

    def _read(self, diff: Diff) -> Comparison:
        """Read every byte of a diff."""
        check = StreamCheck()
        with self._store.send(diff) as chunks:
            for chunk in chunks:
                check.feed(chunk)
                with self._lock:
                    self.bytes += len(chunk)
                if self._stopped:
                    return Comparison()
        facts = check.finish()
        wrong = _mismatch(facts, diff, self._diffs[diff])
        return Comparison(wrong, "" if wrong else _beside(facts, diff))


def _mismatch(facts: StreamFacts, diff: Diff, size: Size) -> str:
    """Return how a sound stream is not the one it is kept as; empty if it is that."""
    if facts.uuid != diff.to:
        return f"it is a stream of another snapshot, {uuid_text(facts.uuid)}"
    if facts.parent != diff.parent:
        origin = f"starts from {uuid_text(facts.parent)}" if facts.parent else "is a full one"
        return f"it is another stream of this snapshot, which {origin}"
    if facts.bytes != size.bytes:
        return f"it has {facts.bytes:,} bytes, and {size.bytes:,} are listed"
    return ""


def _beside(facts: StreamFacts, diff: Diff) -> str:
    """Return what a restore needs beside the parent: snapshots that data are cloned from."""
    known = {diff.to, diff.parent, *diff.clones}
    others = ", ".join(sorted(uuid_text(uuid) for uuid in facts.clone_sources - known))
    return f"it takes data from other snapshots, too: {others}" if others else ""

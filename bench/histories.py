"""
Made-up histories of snapshots whose diff sizes are known exactly, for benchmarks and tests.

Each subvolume is a block map: slots of heavy-tailed size, each holding the number of the write that
filled it. A step rewrites hot slots, fills new ones, empties some, brings some back from an older
snapshot, and now and then rewrites a lot; a rollback goes on from the map of an older snapshot, so
blocks are shared with it and with nothing else. The size of a diff is counted from the two maps.
Nothing here estimates, and the same seed gives the same history.
"""

from __future__ import annotations

import random
from array import array
from dataclasses import dataclass, field
from itertools import accumulate, compress
from operator import and_, ne
from typing import TYPE_CHECKING

from buttersink.catalogue import Diff, Measurement, Snapshot, Uuid
from buttersink.planner import Arrival, Survey
from buttersink.planner.measuring import Measuring

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

KINDS = ("linear", "gfs", "branchy", "many", "mixed")
"""Every snapshot kept; thinned with age; 10 % rollbacks; many thinned subvolumes; thinned with 1 %
rollbacks."""

_SLOTS = 300
_YOUNG = 100
_HEADER = 200
_METADATA = 2048
_COMMAND = 48 * 1024  # the longest write command of a send stream


@dataclass(frozen=True, slots=True)
class Habits:
    """
    How a subvolume changes; the three exponents are those of Pareto distributions.

    Attributes:
        heat: Of the slots that are rewritten: the higher, the fewer slots take all writes.
        bursts: Of the number of rewrites in a step: the lower, the more often are there many.
        back: Of how far rollbacks go: the lower, the farther.
        rollbacks: How many there are, in multiples of what the kind of history has.
        forgotten: The share of the writable subvolumes that have been deleted, so that nothing
            tells any more what their snapshots branched off from.

    """

    heat: float = 1.2
    bursts: float = 1.1
    back: float = 0.7
    rollbacks: float = 1.0
    forgotten: float = 0.0


@dataclass(frozen=True, slots=True)
class History:
    """
    Snapshots and what a diff between any two of them takes.

    Attributes:
        snapshots: In the order of their making.
        lineage: Own UUID to parent UUID of every subvolume that is still there, as a store says.

    """

    snapshots: tuple[Snapshot, ...]
    lineage: Mapping[Uuid, Uuid]
    _maps: Mapping[Uuid, _Map]

    def size(self, parent: Uuid | None, to: Uuid) -> int:
        """Return the bytes of the diff that makes `to` out of `parent`, or of a full send."""
        new = self._maps[to]
        old = self._maps[parent] if parent is not None else None
        if old is None or old.weights is not new.weights:
            return _HEADER + new.full
        changed = bytes(map(ne, old.versions, new.versions))
        moved = sum(compress(new.weights, map(and_, changed, new.present)))
        return _HEADER + _METADATA * changed.count(1) + moved

    def newer(self, parent: Uuid | None, to: Uuid) -> int:
        """Return the bytes of a snapshot that were written after another one was made, or all."""
        new = self._maps[to]
        old = self._maps[parent] if parent is not None else None
        if old is None or old.weights is not new.weights:
            return new.full
        return sum(compress(new.weights, (version > old.written for version in new.versions)))


@dataclass(frozen=True, slots=True)
class _Map:
    """
    The block map of one snapshot.

    `weights` is one list for all of a subvolume. Up to version `written` all was written before.
    """

    weights: list[int]
    versions: array[int]
    present: bytes
    full: int
    written: int


@dataclass(slots=True)
class _Line:
    """A writable subvolume that is being changed and snapshotted."""

    uuid: Uuid
    parent: Uuid | None
    versions: list[int]


@dataclass(slots=True)
class _Taken:
    """A snapshot before it is known whether thinning keeps it."""

    uuid: Uuid
    line: _Line
    step: int
    versions: array[int]
    written: int


@dataclass(slots=True)
class _Volume:
    """One subvolume, all its branches and snapshots. Slots are made as appends need them."""

    chance: random.Random
    name: bytes
    habits: Habits
    weights: list[int] = field(default_factory=list)
    lines: list[_Line] = field(default_factory=list)
    taken: list[_Taken] = field(default_factory=list)
    last_write: int = 0

    def begin(self) -> None:
        line = _Line(self.new_uuid(), None, [])
        for _ in range(_SLOTS):
            self.append(line)
        self.lines.append(line)

    def new_uuid(self) -> Uuid:
        return Uuid(self.chance.randbytes(16))

    def write(self, line: _Line, slot: int) -> None:
        self.last_write += 1
        line.versions[slot] = self.last_write

    def append(self, line: _Line) -> None:
        self.weights.append(int(4096 * min(self.chance.paretovariate(0.9), 1000)))
        line.versions += [0] * (len(self.weights) - len(line.versions))
        self.write(line, len(self.weights) - 1)

    def change(self, line: _Line) -> None:
        """Do what happens to a subvolume between two snapshots."""
        chance = self.chance
        slots = len(line.versions)
        for _ in range(1 + int(min(chance.paretovariate(self.habits.bursts), 40))):
            self.write(line, int(chance.paretovariate(self.habits.heat) - 1) % slots)
        if chance.random() < 0.3:
            self.come_or_go(line, chance.randrange(slots * 2 // 3, slots))
        if chance.random() < 0.02:
            self.append(line)
        if chance.random() < 0.03:
            self.restore(line)
        if chance.random() < 0.01:
            for slot in chance.sample(range(slots), min(slots, int(5 * chance.paretovariate(0.9)))):
                self.write(line, slot)
        if chance.random() < 0.001:
            for slot in range(slots // 3):
                self.write(line, slot)

    def come_or_go(self, line: _Line, slot: int) -> None:
        """Empty a full slot, fill an empty one with something new."""
        if line.versions[slot]:
            line.versions[slot] = 0
        else:
            self.write(line, slot)

    def restore(self, line: _Line) -> None:
        """Bring some slots back as an older snapshot has them, as one restores a directory."""
        own = [taken for taken in self.taken[-_YOUNG:] if taken.line is line]
        if not own:
            return
        old = own[-int(min(self.chance.paretovariate(1.0), len(own)))].versions
        start = self.chance.randrange(len(old))
        line.versions[start : start + 3] = old[start : start + 3]

    def _snapshot(self, line: _Line, step: int) -> _Taken:
        return _Taken(self.new_uuid(), line, step, array("i", line.versions), self.last_write)

    def roll_back(self) -> None:
        """Go on from an older snapshot: near ones more often than far ones."""
        back = int(min(self.chance.paretovariate(self.habits.back) * 3, len(self.taken)))
        base = self.taken[-back]
        self.lines.append(_Line(self.new_uuid(), base.uuid, list(base.versions)))

    def run(
        self, steps: int, rollbacks: float, heads: int = 1, keep: Container[int] | None = None
    ) -> None:
        """
        Change and snapshot `steps` times; up to `heads` of the branches go on in parallel.

        Snapshots of steps that are not in `keep` go when they are old.
        """
        self.begin()
        for step in range(steps):
            line = self.chance.choice(self.lines[-heads:])
            self.change(line)
            self.taken.append(self._snapshot(line, step))
            if self.chance.random() < rollbacks * self.habits.rollbacks:
                self.roll_back()
            if keep is not None and step >= _YOUNG and self.taken[-_YOUNG].step not in keep:
                del self.taken[-_YOUNG]
        if keep is not None:
            self.taken = [taken for taken in self.taken if taken.step in keep]


def make(kind: str, snapshots: int, seed: int, habits: Habits = Habits()) -> History:
    """Return a history of about `snapshots` snapshots; `kind` is one of `KINDS`."""
    chance = random.Random(f"{kind} {snapshots} {seed}")
    volumes = _MAKERS[kind](chance, snapshots, habits)
    return _finish(chance, volumes, habits.forgotten)


def _thinned(
    chance: random.Random, name: bytes, habits: Habits, count: int, rollbacks: float
) -> _Volume:
    """Keep a third of `count` from every step of late, every 7th before, every 30th before."""
    third = count // 3
    every = [*[30] * third, *[7] * third, *[1] * (count - 2 * third)]
    steps = list(accumulate(every))
    volume = _Volume(chance, name, habits)
    volume.run(steps[-1] + 1, rollbacks, keep=frozenset(steps))
    return volume


def _linear(chance: random.Random, snapshots: int, habits: Habits) -> list[_Volume]:
    volume = _Volume(chance, b"home", habits)
    volume.run(snapshots, rollbacks=0.01)
    return [volume]


def _gfs(chance: random.Random, snapshots: int, habits: Habits) -> list[_Volume]:
    return [_thinned(chance, b"home", habits, snapshots, rollbacks=0)]


def _branchy(chance: random.Random, snapshots: int, habits: Habits) -> list[_Volume]:
    volume = _Volume(chance, b"home", habits)
    volume.run(snapshots, rollbacks=0.1, heads=4)
    return [volume]


def _many(chance: random.Random, snapshots: int, habits: Habits) -> list[_Volume]:
    count = max(2, snapshots // 250)
    each = [snapshots // count + (number < snapshots % count) for number in range(count)]
    return [_thinned(chance, b"subvolume%d" % n, habits, keep, 0) for n, keep in enumerate(each)]


def _mixed(chance: random.Random, snapshots: int, habits: Habits) -> list[_Volume]:
    return [_thinned(chance, b"home", habits, snapshots, rollbacks=0.01)]


_MAKERS: dict[str, Callable[[random.Random, int, Habits], list[_Volume]]] = {
    "linear": _linear,
    "gfs": _gfs,
    "branchy": _branchy,
    "many": _many,
    "mixed": _mixed,
}


def _finish(chance: random.Random, volumes: list[_Volume], forgotten: float) -> History:
    made: list[Snapshot] = []
    lineage: dict[Uuid, Uuid] = {}
    maps: dict[Uuid, _Map] = {}
    for volume in volumes:
        for line in volume.lines:
            if line.parent is not None and chance.random() >= forgotten:
                lineage[line.uuid] = line.parent
        for taken in volume.taken:
            made.append(_as_snapshot(taken, volume.name))
            lineage[taken.uuid] = taken.line.uuid
            maps[taken.uuid] = _as_map(taken, volume.weights)
    made.sort(key=lambda snapshot: (snapshot.generation, snapshot.uuid))
    return History(tuple(made), lineage, maps)


def _as_snapshot(taken: _Taken, name: bytes) -> Snapshot:
    return Snapshot(
        uuid=taken.uuid,
        own_uuid=taken.uuid,
        parent_uuid=taken.line.uuid,
        received_uuid=None,
        generation=1000 + 10 * taken.step,
        created=10**18 + 3600 * 10**9 * taken.step,
        path=b"snapshots/%b.%05d" % (name, taken.step),
        subvolume_id=256 + taken.step,
    )


def _as_map(taken: _Taken, weights: list[int]) -> _Map:
    versions = taken.versions
    versions.extend([0] * (len(weights) - len(versions)))
    present = bytes(map(bool, versions))
    full = sum(compress(weights, present)) + _METADATA * sum(present)
    return _Map(weights, versions, present, full, taken.written)


def measured_pairs(history: History, *, scale: int = 1) -> list[Diff]:
    """
    Return what is measured to its end where a diff has about a command for each changed file.

    With a large `scale` files are so many times as large: then sending is dear beside measuring.
    """
    arrivals = tuple(Arrival(snapshot, snapshot.path) for snapshot in history.snapshots)
    measuring = Measuring(Survey(send=arrivals, lineage=history.lineage))
    known: list[Diff] = []
    while True:
        if questions := measuring.questions():
            for diff in questions:
                measuring.look(diff, history.newer(diff.parent, diff.to) * scale)
            continue
        if not (batch := measuring.next()):
            return known
        limits = measuring.limits(batch)
        for diff in batch:
            length = history.size(diff.parent, diff.to) * scale
            least = min(length, limits.get(diff, length))
            finished = length == least
            commands = 1 + least // scale // _COMMAND
            measuring.learn(Measurement(diff, least, commands, finished=finished))
            known += [diff] if finished else []

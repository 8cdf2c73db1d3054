"""
Which snapshot grew out of which: the neighbourhood in which small diffs are found. No I/O here.

UUIDs tell it where they can: snapshots of one writable subvolume follow each other, the first of
them follows the snapshot that the subvolume itself was made from (a rollback, a clone), and a
received snapshot follows the one it was received on top of. Where the trail ends (full receives
have no parent; a writable subvolume or the snapshot it began from may be deleted) a snapshot is
put after the latest older one in the same place, as a guess: in paths that differ only in numbers
and dates, or else in the same directory. A guess can be wrong, so it may only cost measurements.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from buttersink.catalogue import Uuid

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from buttersink.catalogue import Snapshot

NONE = -1
_ORIGIN = -2
_NOTHING = Uuid(bytes(16))
_NUMBER = re.compile(rb"[0-9]+(?:[-_.:T+ ]*[0-9]+)*Z?")


@dataclass(frozen=True, slots=True)
class Ancestry:
    """
    Snapshots in the order of time, and for each the older one that it grew out of.

    Attributes:
        snapshots: One for each effective UUID, by generation.
        before: For each the index of the one it grew out of, -1 where there is none older.
        guessed: For each whether `before` is a guess from place and time.

    """

    snapshots: tuple[Snapshot, ...]
    before: tuple[int, ...]
    guessed: tuple[bool, ...]

    def families(self) -> list[list[int]]:
        """Return the indices of the snapshots that hang together, each family in order of time."""
        first = list(range(len(self.before)))
        families: dict[int, list[int]] = defaultdict(list)
        for index, before in enumerate(self.before):
            if before != NONE:
                first[index] = first[before]
            families[first[index]].append(index)
        return list(families.values())

    def family_of(self) -> list[list[int]]:
        """Return for each snapshot the family that it belongs to."""
        found: list[list[int]] = [[] for _ in self.before]
        for family in self.families():
            for index in family:
                found[index] = family
        return found

    def below(self) -> list[list[int]]:
        """Return for each snapshot the indices of those that grew directly out of it."""
        below: list[list[int]] = [[] for _ in self.before]
        for index, older in enumerate(self.before):
            if older != NONE:
                below[older].append(index)
        return below

    def depths(self) -> list[int]:
        """Return how many snapshots each one has above it."""
        depths: list[int] = []
        for older in self.before:
            depths.append(0 if older == NONE else depths[older] + 1)
        return depths

    def lines(self) -> list[list[int]]:
        """Return for each snapshot its line: those that follow each other without fork or guess."""
        lines: list[list[int]] = []
        for index, older in enumerate(self.before):
            goes_on = older != NONE and not self.guessed[index] and lines[older][-1] == older
            lines.append(lines[older] if goes_on else [])
            lines[index].append(index)
        return lines

    def rehung(self, origins: Mapping[int, int]) -> Ancestry:
        """Return it with other origins for some, each older than what grows out of it."""
        before = tuple(origins.get(index, older) for index, older in enumerate(self.before))
        return replace(self, before=before)

    def only(self, useful: Container[Uuid]) -> Ancestry:
        """
        Leave out all but the `useful`; each then grew out of the nearest useful one above it.

        Where none is above it, but its family has one that is older, it is put after the oldest.
        """
        before, guessed = list(self.before), list(self.guessed)
        keeps = [snapshot.uuid in useful for snapshot in self.snapshots]
        for index, older in enumerate(self.before):
            if older != NONE and not keeps[older]:
                before[index] = before[older]
                guessed[index] |= guessed[older]
        for family in self.families():
            left = [index for index in family if keeps[index]]
            for index in left[1:]:
                if before[index] == NONE:
                    before[index] = left[0]
        left = [index for index, keep in enumerate(keeps) if keep]
        number = {NONE: NONE} | {index: new for new, index in enumerate(left)}
        return Ancestry(
            tuple(self.snapshots[index] for index in left),
            tuple(number[before[index]] for index in left),
            tuple(guessed[index] for index in left),
        )


def ancestry(snapshots: Iterable[Snapshot], lineage: Mapping[Uuid, Uuid]) -> Ancestry:
    """
    Return what grew out of what.

    `lineage` maps the own UUID of every subvolume of the file system, writable ones too, to that of
    its parent; sixteen zero bytes say that it was made from nothing, so that nothing is guessed
    about its snapshots. The order of `snapshots` does not matter.
    """
    copies: dict[Uuid, list[Snapshot]] = defaultdict(list)
    for snapshot in snapshots:
        copies[snapshot.uuid].append(snapshot)
    nodes = sorted((min(same, key=_seniority) for same in copies.values()), key=_seniority)
    index_of = {node.uuid: index for index, node in enumerate(nodes)}
    for same in copies.values():
        index_of.update((copy.own_uuid, index_of[copy.uuid]) for copy in same)
    before = _by_uuid(nodes, index_of, lineage)
    unknown = [index for index, older in enumerate(before) if older == NONE]
    _guess(before, unknown, [_pattern(node.path) for node in nodes])
    joined = set(before)
    alone = [index for index in unknown if before[index] == NONE and index not in joined]
    _guess(before, alone, [_directory(node.path) for node in nodes])
    guessed = [False] * len(nodes)
    for index in unknown:
        guessed[index] = before[index] != NONE
    return Ancestry(tuple(nodes), tuple(max(older, NONE) for older in before), tuple(guessed))


def _seniority(snapshot: Snapshot) -> tuple[int, int, bytes, bytes]:
    return snapshot.generation, snapshot.created, snapshot.uuid, snapshot.own_uuid


def _by_uuid(
    nodes: Sequence[Snapshot], index_of: Mapping[Uuid, int], lineage: Mapping[Uuid, Uuid]
) -> list[int]:
    """Return for each node the older one that UUIDs lead to, or -1, or `_ORIGIN`."""
    latest: dict[Uuid, int] = {}
    before = []
    for index, node in enumerate(nodes):
        parent = node.parent_uuid or lineage.get(node.own_uuid, _NOTHING)
        before.append(_follow(parent, index, index_of, latest, lineage))
        latest[parent] = index
    return before


def _follow(
    above: Uuid,
    index: int,
    index_of: Mapping[Uuid, int],
    latest: dict[Uuid, int],
    lineage: Mapping[Uuid, Uuid],
) -> int:
    """
    Go from parent to parent up to one that is an older node, or has had an older node below it.

    Every UUID on the way remembers the node in `latest`, so that what branches off later finds it
    there, and no stretch is walked twice. A way that ends in a writable subvolume made from nothing
    gives `_ORIGIN`, one that is lost gives -1.
    """
    while above != _NOTHING:
        here = index_of.get(above, index)
        if here < index:
            return here
        if above in latest:
            return latest[above] if latest[above] != index else NONE
        latest[above] = index
        beyond = lineage.get(above)
        if beyond == _NOTHING and above not in index_of:
            return _ORIGIN
        above = beyond or _NOTHING
    return NONE


def _guess(before: list[int], unknown: Sequence[int], places: Sequence[bytes]) -> None:
    """Put each of the `unknown` after the latest older one in its place."""
    wanted = set(unknown)
    latest: dict[bytes, int] = {}
    for index, place in enumerate(places):
        if index in wanted:
            before[index] = latest.get(place, NONE)
        latest[place] = index


def _pattern(path: bytes) -> bytes:
    """
    Return the path with what tells the snapshots of one series apart taken out.

    That is every part that is nothing but a number or date (`12/snapshot`), or if there is none,
    the numbers in the last part that has some (`host2/home.20240101`).
    """
    parts = path.split(b"/")
    numbers = [place for place, part in enumerate(parts) if _NUMBER.fullmatch(part)]
    if not numbers:
        numbers = [place for place, part in enumerate(parts) if _NUMBER.search(part)][-1:]
    for place in numbers:
        parts[place] = _NUMBER.sub(b"#", parts[place])
    return b"/".join(parts)


def _directory(path: bytes) -> bytes:
    return _pattern(path).rpartition(b"/")[0]

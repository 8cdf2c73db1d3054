"""
Which diffs are worth measuring: a few for every snapshot, by lineage and not by time. No I/O here.

What is near in lineage differs little. So each snapshot is paired with the nearest it grew out of
and with the nearest that grew out of it, with its siblings at a fork, and, the farther the rarer,
with far ones, so that chains can be short. Families so small that all pairs are few get them all.
Where a snapshot's origin is only guessed it is paired with older ones at growing distances, and
`closer` then searches between those as their sizes become known. The number of pairs grows with the
number of snapshots and no faster.
"""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import pairwise, permutations
from typing import TYPE_CHECKING

from buttersink.catalogue import Diff
from buttersink.planner.lineage import NONE, Ancestry, ancestry

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from buttersink.catalogue import Snapshot, Uuid

_SMALL = 8  # families up to this size get all pairs
_OLDER = 4  # nearest to be made from, back along the lineage
_NEWER = 2  # nearest to be made from, forward: they gain less, and two find nearly all of it
_SIBLINGS = 2  # next ones at a fork
_JUMP = 8  # the first of the far distances, which double
_JUMPS = 4  # far distances of one snapshot
_SPREAD = 2.0  # least ratio between the distances at which an unknown origin is searched
_PROBES = 6  # most such distances of one snapshot
_SHARE = 100  # a diff over this part of the whole is worth a search
_PART = 8  # if it is also over this part of a full send
_FAR = 1.6  # ratio between far distances when there are many
_VALLEYS = 3  # how many of the best found so far are searched around


def candidates(
    wanted: Sequence[Snapshot],
    held: Sequence[Snapshot],
    lineage: Mapping[Uuid, Uuid],
    others: Iterable[Snapshot] = (),
    *,
    far: bool = False,
) -> tuple[Diff, ...]:
    """
    Return the diffs worth measuring, a full send of each wanted snapshot among them.

    Each makes a wanted snapshot, from nothing or from a wanted or held one. `held` are snapshots of
    the source that the destination has too; `others` are the rest of the source's, which show where
    branches fork and are no parents. The order of the input does not matter, and snapshots of the
    same effective UUID count once. With `far` there are many more far pairs, as a limit on the
    length of chains needs. The diffs of one snapshot follow each other, the full one first.
    """
    goals = {snapshot.uuid for snapshot in wanted}
    tree = _useful(goals, wanted, held, lineage, others)
    parents: list[set[int]] = [set() for _ in tree.snapshots]
    for to, parent in _pairs(tree, far=far):
        parents[to].add(parent)
    uuids = [snapshot.uuid for snapshot in tree.snapshots]
    diffs: list[Diff] = []
    for to, uuid in enumerate(uuids):
        if uuid in goals:
            diffs.append(Diff(uuid, None))
            diffs += (Diff(uuid, uuids[parent]) for parent in sorted(parents[to]))
    return tuple(diffs)


def origins(
    wanted: Sequence[Snapshot],
    held: Sequence[Snapshot],
    lineage: Mapping[Uuid, Uuid],
    others: Iterable[Snapshot] = (),
) -> tuple[Diff, ...]:
    """Return for each wanted snapshot the diff from what it grew out of, full if from nothing."""
    goals = {snapshot.uuid for snapshot in wanted}
    tree = _useful(goals, wanted, held, lineage, others)
    return tuple(
        Diff(snapshot.uuid, None if older == NONE else tree.snapshots[older].uuid)
        for snapshot, older in zip(tree.snapshots, tree.before, strict=True)
        if snapshot.uuid in goals
    )


def closer(
    wanted: Sequence[Snapshot],
    held: Sequence[Snapshot],
    lineage: Mapping[Uuid, Uuid],
    sizes: Mapping[Diff, int],
    others: Iterable[Snapshot] = (),
) -> tuple[Diff, ...]:
    """
    Return further diffs worth measuring, now that the `sizes` of some are known in bytes.

    They search the lineage of the snapshots whose origin is guessed, and of those that would cost a
    good part of the whole (what returns after long absence is near something old): at doubling
    distances first, then half-way from the best parents known to their known neighbours. Measure
    them and ask again until there are none: about as many rounds as the number of snapshots has
    bits, and mostly one.
    """
    goals = {snapshot.uuid for snapshot in wanted}
    tree = _useful(goals, wanted, held, lineage, others)
    index_of = {snapshot.uuid: index for index, snapshot in enumerate(tree.snapshots)}
    known: dict[int, dict[int, int]] = defaultdict(dict)
    for diff, size in sizes.items():
        if diff.to in goals and (diff.parent is None or diff.parent in index_of):
            parent = NONE if diff.parent is None else index_of[diff.parent]
            known[index_of[diff.to]][parent] = size
    dear = _dear(known)
    depth = _depths(tree)
    found = []
    for to, ancestors, _ in _descend(tree):
        probes: set[int] = set()
        if to in dear:
            probes.update(ancestors[-back] for back in _probes(len(ancestors), _SPREAD))
        if to in dear or tree.guessed[to]:
            probes.update(_around_best(ancestors, known[to], depth))
        uuid = tree.snapshots[to].uuid
        new = sorted(probes - known[to].keys())
        found += [Diff(uuid, tree.snapshots[parent].uuid) for parent in new]
    return tuple(found)


def _dear(known: Mapping[int, Mapping[int, int]]) -> set[int]:
    """Return the snapshots whose cheapest diff from an older one is a good part of the whole."""
    cheapest = {
        to: min((size for parent, size in sizes.items() if NONE < parent < to), default=0)
        for to, sizes in known.items()
    }
    total = sum(cheapest.values())
    return {
        to
        for to, size in cheapest.items()
        if size * _SHARE > total and size * _PART > known[to].get(NONE, 0)
    }


def _around_best(
    ancestors: Sequence[int], known: Mapping[int, int], depth: Sequence[int]
) -> Iterator[int]:
    """Yield the ancestors half-way from the best known ones to the known ones on both sides."""
    last = len(ancestors) - 1
    depths = sorted(
        depth[index]
        for index in known
        if index != NONE and depth[index] <= last and ancestors[depth[index]] == index
    )
    if not depths:
        return
    bounds = [-1, *depths, len(ancestors)]
    best = sorted(range(len(depths)), key=lambda place: known[ancestors[depths[place]]])
    gaps = {gap for place in best[:_VALLEYS] for gap in pairwise(bounds[place : place + 3])}
    yield from (ancestors[(low + high) // 2] for low, high in sorted(gaps) if high - low > 1)


def _useful(
    goals: set[Uuid],
    wanted: Sequence[Snapshot],
    held: Sequence[Snapshot],
    lineage: Mapping[Uuid, Uuid],
    others: Iterable[Snapshot],
) -> Ancestry:
    return _without_others(
        ancestry((*wanted, *held, *others), lineage),
        goals.union(snapshot.uuid for snapshot in held),
    )


def _without_others(tree: Ancestry, useful: set[Uuid]) -> Ancestry:
    """
    Leave out all but the `useful`; each then grew out of the nearest useful one above it.

    Where none is above it, but its family has one that is older, it is put after the oldest.
    """
    before, guessed = list(tree.before), list(tree.guessed)
    keeps = [snapshot.uuid in useful for snapshot in tree.snapshots]
    for index, older in enumerate(tree.before):
        if older != NONE and not keeps[older]:
            before[index] = before[older]
            guessed[index] |= guessed[older]
    for family in tree.families():
        left = [index for index in family if keeps[index]]
        for index in left[1:]:
            if before[index] == NONE:
                before[index] = left[0]
    left = [index for index, keep in enumerate(keeps) if keep]
    number = {NONE: NONE} | {index: new for new, index in enumerate(left)}
    return Ancestry(
        tuple(tree.snapshots[index] for index in left),
        tuple(number[before[index]] for index in left),
        tuple(guessed[index] for index in left),
    )


def _pairs(tree: Ancestry, *, far: bool) -> Iterator[tuple[int, int]]:
    """Yield what to make and what to make it from, as indices; a pair may come more than once."""
    for family in tree.families():
        if len(family) <= _SMALL:
            yield from permutations(family, 2)
    for siblings in _below(tree):
        for place, one in enumerate(siblings):
            yield from ((one, other) for other in siblings[place + 1 : place + 1 + _SIBLINGS])
            yield from ((other, one) for other in siblings[place + 1 : place + 1 + _SIBLINGS])
    ratio = _probe_ratio(tree)
    for index, ancestors, own in _descend(tree):
        near = own or len(ancestors)
        yield from ((index, older) for older in ancestors[-min(near, _OLDER) :])
        yield from ((older, index) for older in ancestors[-min(near, _NEWER) :])
        for distance in _jumps(len(ancestors)) if not far else _probes(len(ancestors), _FAR):
            yield index, ancestors[-distance]
            yield ancestors[-distance], index
        if tree.guessed[index]:
            yield from ((index, ancestors[-back]) for back in _probes(len(ancestors), ratio))


def _jumps(depth: int) -> list[int]:
    """Return the longest of the doubling distances that divide `depth`, so that few have any."""
    distances = []
    distance = _JUMP
    while distance <= depth and depth % distance == 0:
        distances.append(distance)
        distance *= 2
    return distances[-_JUMPS:]


def _probes(depth: int, ratio: float) -> list[int]:
    """Return the distances back, each `ratio` times the one before, that are within `depth`."""
    distances = []
    distance = ratio
    while distance <= depth:
        distances.append(int(distance))
        distance *= ratio
    return distances


def _probe_ratio(tree: Ancestry) -> float:
    """Return the ratio of distances that makes for about one probe per snapshot in the whole."""
    allowance = min(_PROBES, len(tree.before) // max(1, sum(tree.guessed)))
    if allowance < 2:  # a single probe would only reach the oldest
        return math.inf
    return max(_SPREAD, math.pow(max(_depths(tree)), 1 / allowance))


def _descend(tree: Ancestry) -> Iterator[tuple[int, list[int], int]]:
    """
    Yield every snapshot with its ancestors, oldest first, and how many of the last are its own.

    Its own are those that UUIDs lead to, without a guess on the way. The list is only lent.
    """
    below = _below(tree)
    depth = _depths(tree)
    own = [0] * len(tree.before)
    ancestors: list[int] = []
    waiting = [index for index, older in enumerate(tree.before) if older == NONE]
    while waiting:
        index = waiting.pop()
        older = tree.before[index]
        if older != NONE and not tree.guessed[index]:
            own[index] = own[older] + 1
        del ancestors[depth[index] :]
        yield index, ancestors, own[index]
        ancestors.append(index)
        waiting += below[index]


def _below(tree: Ancestry) -> list[list[int]]:
    below: list[list[int]] = [[] for _ in tree.before]
    for index, older in enumerate(tree.before):
        if older != NONE:
            below[older].append(index)
    return below


def _depths(tree: Ancestry) -> list[int]:
    depths: list[int] = []
    for older in tree.before:
        depths.append(0 if older == NONE else depths[older] + 1)
    return depths

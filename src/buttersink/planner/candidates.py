"""
Which diffs are worth measuring: a few for every snapshot, by lineage and not by time. No I/O here.

What is near in lineage differs little. So each snapshot is paired with the nearest it grew out of
and with the nearest that grew out of it, with its siblings at a fork, and, the farther the rarer,
with far ones, so that chains can be short. Families so small that all pairs are few get them all.
The number of pairs grows with the number of snapshots and no faster.
"""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING

from buttersink.catalogue import Diff
from buttersink.planner.lineage import NONE, Ancestry, ancestry

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from buttersink.catalogue import Snapshot, Uuid

_SMALL = 8  # families up to this size get all pairs
_OLDER = 4  # nearest to be made from, back along the lineage
_NEWER = 2  # nearest to be made from, forward: they gain less, and two find nearly all of it
_SIBLINGS = 2  # next ones at a fork
_JUMP = 8  # the first of the far distances, which double
_JUMPS = 4  # far distances of one snapshot
_FAR = 1.6  # ratio between far distances when there are many
_FULL = 4  # a full send promises as little as a diff over this distance

Pair = tuple[int, int]
"""What to make and what to make it from, as indices into an `Ancestry`; -1 is nothing."""


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
    tree = kin(wanted, held, lineage, others)
    goals = {snapshot.uuid for snapshot in wanted}
    made = {index for index, snapshot in enumerate(tree.snapshots) if snapshot.uuid in goals}
    return tuple(diff_of(tree, pair) for pair in sorted(distances(tree, made, far=far)))


def kin(
    wanted: Sequence[Snapshot],
    held: Sequence[Snapshot],
    lineage: Mapping[Uuid, Uuid],
    others: Iterable[Snapshot] = (),
) -> Ancestry:
    """Return how the wanted and the held grew out of each other; `others` help to find it out."""
    useful = {snapshot.uuid for snapshot in (*wanted, *held)}
    return ancestry((*wanted, *held, *others), lineage).only(useful)


def diff_of(tree: Ancestry, pair: Pair) -> Diff:
    """Return the diff that a pair of indices stands for."""
    to, parent = pair
    return Diff(tree.snapshots[to].uuid, tree.snapshots[parent].uuid if parent != NONE else None)


def distances(tree: Ancestry, made: Collection[int], *, far: bool = False) -> dict[Pair, int]:
    """
    Return the pairs worth measuring that make one of the snapshots `made`.

    With each comes how far apart the two are: steps in the lineage, and one more where it leads
    back in time or to a sibling. The nearer they are, the more likely is a small diff.
    """
    found = {(to, NONE): _FULL for to in made}
    for to, parent, distance in _pairs(tree, far=far):
        if to in made:
            pair = to, parent
            found[pair] = min(distance, found.get(pair, distance))
    return found


def _pairs(tree: Ancestry, *, far: bool) -> Iterator[tuple[int, int, int]]:
    """Yield what to make, what to make it from, and how far that is; some more than once."""
    for family in tree.families():
        if len(family) <= _SMALL:
            yield from ((to, parent, _SMALL) for to, parent in permutations(family, 2))
    for siblings in tree.below():
        for place, one in enumerate(siblings):
            for other in siblings[place + 1 : place + 1 + _SIBLINGS]:
                yield one, other, 2
                yield other, one, 2
    for index, ancestors in descend(tree):
        for distance, older in enumerate(reversed(ancestors[-_OLDER:]), start=1):
            yield index, older, distance
            if distance <= _NEWER:
                yield older, index, distance + 1
        for distance in _jumps(len(ancestors)) if not far else _spread(len(ancestors)):
            yield index, ancestors[-distance], distance
            yield ancestors[-distance], index, distance + 1


def _jumps(depth: int) -> list[int]:
    """Return the longest of the doubling distances that divide `depth`, so that few have any."""
    distances = []
    distance = _JUMP
    while distance <= depth and depth % distance == 0:
        distances.append(distance)
        distance *= 2
    return distances[-_JUMPS:]


def _spread(depth: int) -> list[int]:
    """Return the distances back that grow by a fixed ratio and are within `depth`."""
    distances = []
    distance = _FAR
    while distance <= depth:
        distances.append(int(distance))
        distance *= _FAR
    return distances


def descend(tree: Ancestry) -> Iterator[tuple[int, list[int]]]:
    """Yield every snapshot with its ancestors, oldest first. The list is only lent."""
    below, depth = tree.below(), tree.depths()
    ancestors: list[int] = []
    waiting = [index for index, older in enumerate(tree.before) if older == NONE]
    while waiting:
        index = waiting.pop()
        del ancestors[depth[index] :]
        yield index, ancestors
        ancestors.append(index)
        waiting += below[index]

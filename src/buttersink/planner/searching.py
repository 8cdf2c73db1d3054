"""
Where snapshots came from that nothing tells about: a search by the sizes of diffs. No I/O here.

After thinning, the snapshot that a branch began from is mostly gone, and with it every trace of
where the branch belongs: it follows what was latest then only as a guess. But a diff from near the
place where it forked off is small. So each snapshot of guessed origin is tried from older ones at
growing distances in time, and then half-way between the best found and their known neighbours, in
time and along the line of each, until all around the best is known. Where it is told how old its
data are that begins near the place where it seems to have forked off: it has data written between
any two snapshots that it grew out of, and next to none from later. What costs most is searched
first. Then what would still cost a good part of the whole (what returns after long absence is near
something old) is searched likewise, among newer snapshots too, if first tries find anything better.

A try takes about as long as measuring the best known so far did, since it need not be measured
beyond that.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict, deque
from itertools import pairwise, zip_longest
from typing import TYPE_CHECKING

from buttersink.planner.arborescence import minimum_arborescence
from buttersink.planner.lineage import NONE

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from buttersink.planner.candidates import Pair
    from buttersink.planner.lineage import Ancestry

_SPREAD = 1.6  # least ratio between the distances tried first
_BEST = 4  # how many of the best found so far are searched around
_BACK = 2  # how many of the best found are made from what was searched, too
_ROUNDS = 48  # rounds that the measurements are spread over, so that the dearest get more
_PLANS = 4  # times to look what is still dear
_DEAR = 100  # a diff over this part of the whole is worth a search
_PART = 8  # if it is also over this part of a full send
_SPARSE = 3  # least ratio between the distances first tried for those
_FINE = 1.1  # ratio between the distances of which it is asked how much data is newer
_WRITTEN = 2  # data from a time weigh so many times as much as that there are none


class Search:
    """
    Ask `next` what to measure, tell `learn` what came out, until there is nothing to ask.

    Args:
        tree: The lineage as far as it is known.
        made: The snapshots to make.
        room: How many measurements the search may take, about.

    """

    def __init__(self, tree: Ancestry, made: Collection[int], room: int) -> None:
        self._tree, self._made = tree, made
        self._lines = tree.lines()
        self._family = tree.family_of()
        self._sizes: dict[int, dict[int, int]] = defaultdict(dict)
        self._tried: dict[int, set[int]] = defaultdict(set)
        self._end: dict[int, int] = {}
        self._round = max(_BACK * _BEST, room // _ROUNDS)
        self._plans = _PLANS
        self._guessed = [index for index in sorted(made) if tree.guessed[index]]
        self._room = room
        self._times: dict[int, float] = {}
        self._open: set[int] = set()
        self._before: dict[int, int] = {}
        self._ready: deque[Pair] | None = None
        self._forks: dict[int, int] = {}

    def ages(self) -> list[Pair]:
        """Return, until it has begun, of what it helps to know how much data is newer."""
        if self._ready is not None:
            return []
        return [(index, older) for index in self._guessed for older in self._older(index)]

    def _older(self, index: int) -> list[int]:
        """Return some of the older ones of a snapshot's family, in time."""
        family = self._family[index]
        here = bisect_left(family, index)
        return [family[here - distance] for distance in reversed(growing(here, _FINE))]

    def begin_near(self, newer: Callable[[Pair], int | None]) -> None:
        """Begin where snapshots seem to have forked off, by how many bytes are newer than what."""
        if self._ready is not None:
            return
        for index in self._guessed:
            told = [(older, newer((index, older))) for older in self._older(index)]
            known = [(older, length) for older, length in told if length is not None]
            if known:
                self._forks[index] = _fork(known)

    def learn(self, pair: Pair, length: int, time: float) -> None:
        """Take a size in bytes, whoever asked for it, and the seconds that it took."""
        to, parent = pair
        if length < self._cheapest(to) or not self._sizes[to]:
            self._times[to] = time
        self._sizes[to][parent] = length

    def time(self, to: int) -> float:
        """Return how many seconds the cheapest diff known that makes a snapshot took."""
        return self._times.get(to, 0)

    def next(self, most: int, allowance: float) -> list[Pair]:
        """
        Return at most so many further pairs to measure; empty when the search is over.

        None that takes more seconds than what the others leave of the allowance.
        """
        if self._ready is None:
            self._ready = deque(self._first(allowance))
        batch: list[Pair] = []
        while len(batch) < most:
            if not self._ready and batch:
                break
            if not self._ready:
                self._ready.extend(self._closer())
            if not self._ready and self._plans:
                self._plans -= 1
                self._ready.extend(self._dear())
            if not self._ready:
                break
            to, parent = self._ready.popleft()
            time = self.time(to)
            if self._is_new(to, parent) and time <= allowance:
                allowance -= time
                batch.append((to, parent))
        return batch

    def _first(self, allowance: float) -> Iterator[Pair]:
        """Yield the first tries for those of guessed origin, the more the more there is room."""
        each = sum(map(self.time, self._guessed))
        rounds = self._room // max(1, len(self._guessed))
        rounds = min(rounds, int(allowance // each)) if each else rounds
        ratio = max(_SPREAD, len(self._tree.before) ** (1 / max(2, rounds // 2)))
        yield from self._begin({index: index for index in self._guessed}, ratio)

    def _is_new(self, to: int, parent: int) -> bool:
        known = parent in self._tried[to] or parent in self._sizes[to]
        self._tried[to].add(parent)
        return not known and to in self._made

    def origins(self) -> dict[int, int]:
        """Return for each snapshot of guessed origin the older one that it is nearest to."""
        return {
            index: min(older, key=older.__getitem__)
            for index in self._guessed
            if (older := {p: s for p, s in self._sizes[index].items() if NONE < p < index})
        }

    def _begin(self, ends: Mapping[int, int], ratio: float) -> Iterator[Pair]:
        """
        Take up searches, for each snapshot among those of its family before an end.

        Yields what to try first, in turns.
        """
        self._end |= ends
        self._open |= ends.keys()
        self._before |= {index: self._cheapest(index) for index in ends}
        dearest = sorted(ends, key=lambda index: (-self._cheapest(index), index))
        ways = [self._outwards(index, ends[index], ratio) for index in dearest]
        for turn in zip_longest(*ways):
            yield from (pair for pair in turn if pair)

    def _outwards(self, index: int, end: int, ratio: float) -> Iterator[Pair]:
        """Yield pairs that make a snapshot, from others at growing distances in time."""
        family = self._family[index]
        here = bisect_left(family, self._forks.get(index, index))
        if family[here] < index:
            yield index, family[here]
        for distance in growing(max(here, len(family) - here), ratio):
            if distance <= here:
                yield index, family[here - distance]
            if here + distance < len(family) and family[here + distance] < end:
                yield index, family[here + distance]

    def _closer(self) -> Iterator[Pair]:
        """Yield a round of tries around the best found, for the dearest first."""
        origins = self.origins()
        forks: dict[int, list[int]] = defaultdict(list)
        for index, origin in origins.items():
            forks[origin].append(index)
        tries = 0
        for index in sorted(self._open, key=lambda index: (-self._cheapest(index), index)):
            new = set(self._around_best(index, origins, forks)) - self._sizes[index].keys()
            new = {parent for parent in new - self._tried[index] if parent < self._end[index]}
            new.discard(index)
            if self._cheapest(index) >= self._before[index] and not self._tree.guessed[index]:
                new.clear()  # nothing better far and wide
            yield from ((index, parent) for parent in sorted(new))
            if not new:
                self._open.remove(index)
                yield from ((parent, index) for parent in self._best(index)[:_BACK])
            tries += len(new)
            if tries >= self._round:
                return

    def _cheapest(self, index: int) -> int:
        return min(self._sizes[index].values(), default=0)

    def _best(self, index: int) -> list[int]:
        sizes = self._sizes[index]
        return sorted((p for p in sizes if p != NONE), key=lambda p: (sizes[p], -p))[:_BEST]

    def _around_best(
        self, index: int, origins: dict[int, int], forks: dict[int, list[int]]
    ) -> Iterator[int]:
        tried = self._sizes[index].keys() | self._tried[index]
        for parent in self._best(index):
            for way in (self._family[parent], self._lines[parent]):
                yield from _halves(way, parent, tried, self._end[index])
            if self._lines[parent][0] == parent:
                origin = origins.get(parent, self._tree.before[parent])
                yield from [origin] if origin != NONE else []
            yield from forks[parent]

    def _dear(self) -> Iterator[Pair]:
        """Yield the first tries for those that the best plan so far pays most for."""
        plan = self._plan()
        total = sum(plan.values())
        full = max((sizes[NONE] for sizes in self._sizes.values() if NONE in sizes), default=0)
        everything = len(self._tree.before)
        dear = {
            index: everything
            for index, size in plan.items()
            if size * _DEAR > total and size * _PART > full
            if self._tree.before[index] != NONE and self._end.get(index) != everything
        }
        yield from self._begin(dear, _SPARSE)

    def _plan(self) -> dict[int, int]:
        """Return what each snapshot costs in the cheapest plan from the sizes known."""
        made = sorted(self._made)
        node = {index: place for place, index in enumerate(made, start=1)}
        tails, heads = [0] * len(made), list(node.values())
        sizes = [sum(size for known in self._sizes.values() for size in known.values()) + 1]
        sizes *= len(made)  # what has no size yet is made from nothing, at more than all the rest
        for to in made:
            for parent, size in self._sizes[to].items():
                tails.append(node.get(parent, 0))
                heads.append(node[to])
                sizes.append(size)
        entering = minimum_arborescence(len(made) + 1, tails, heads, sizes)
        return {index: sizes[entering[head]] for index, head in node.items() if self._sizes[index]}


def _fork(newer: Sequence[tuple[int, int]]) -> int:
    """Return the last of some snapshots, in time, that one seems to have grown out of."""
    fork, score, best = newer[0][0], 0, 0
    for (_, before), (snapshot, after) in pairwise(newer):
        score += _WRITTEN if after < before else -1
        if score >= best:
            fork, best = snapshot, score
    return fork


def _halves(way: Sequence[int], at: int, tried: Iterable[int], end: int) -> Iterator[int]:
    """Yield what lies half-way on a sorted `way` from one place to the next tried on each side."""
    here = bisect_left(way, at)
    low, high = -1, bisect_left(way, end)
    for other in tried:
        place = bisect_left(way, other, low + 1, high)
        if place < high and way[place] == other and place != here:
            low, high = (place, high) if place < here else (low, place)
    if here - low > 1:
        yield way[(here + low) // 2]
    if high - here > 1:
        yield way[(here + high) // 2]


def growing(most: int, ratio: float) -> list[int]:
    """Return the whole distances from 1 to `most`, each `ratio` times the one before."""
    distances = []
    distance = 1.0
    while distance <= most:
        distances.append(int(distance))
        distance = max(distance * ratio, distance + 1)
    return distances

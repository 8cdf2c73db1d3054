"""
The cheapest chains of limited length among those whose diffs do not cross. No I/O here.

Lay the snapshots in a row, what is near in lineage side by side, and draw each diff as an arc above
it: that two arcs cross is hardly ever worth it. Where none do, what is made from a snapshot and on
from there is a stretch of the row around it, and the cheapest way to make a stretch follows from
those of shorter stretches with one diff less: a dynamic programme over the number of diffs left,
the snapshot that a stretch is made from, and its end. Both sides of a snapshot are alike, so the
row is read from left to right and then from right to left.

The outermost stretches, which begin with a full send or with a diff from something stored, end at
some places only, and a jump has a greatest distance, so that time and memory grow with the number
of snapshots. Everything is in integers, repeatable, without recursion.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import count
from operator import add
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_CUTS = 12  # places where an outermost stretch may end, beside the end of the row


class Jump(NamedTuple):
    """A diff along the row, over `distance` places; `rate` is for each snapshot below it."""

    distance: int
    cost: int
    rate: int
    arc: int


class Entry(NamedTuple):
    """A diff from outside the row, after which chains may be `left` diffs longer."""

    left: int
    cost: int
    rate: int
    arc: int


Jumps = list[list[Jump]]
"""For each place the jumps from there in reading direction, nearest first."""

_Rows = list[list[int]]
_Sides = tuple[_Rows, _Rows]


class _Stretch(NamedTuple):
    """
    What remains to be chosen: all that `place` leads to by `left` diffs or fewer, up to an end.

    `end` is the number of a cut if it is an outermost stretch, else the distance of its last place.
    """

    side: int
    place: int
    left: int
    end: int
    outermost: bool


class Row:
    """
    The snapshots of a row and all that can be made along it.

    Reading from right to left, places count from the right.
    """

    def __init__(
        self,
        forth: Jumps,
        back: Jumps,
        entries: Sequence[Sequence[Entry]],
        cuts: Iterable[int],
        never: int,
    ) -> None:
        """
        Take the jumps both ways and the entries at each place.

        Outermost stretches may end before the places `cuts` too; `never` is more than any choice
        costs.
        """
        self._jumps = (forth, back)
        self._entries = entries
        self._never = never
        size = self._size = len(entries)
        cuts = sorted({*cuts, *range(0, size, 1 + (size - 1) // _CUTS), size})
        self._cuts = (cuts, [size - cut for cut in reversed(cuts)])
        self._inner: list[_Sides] = []  # [left][side][place][distance of the end]
        self._outer: list[_Sides] = []  # [left][side][place][number of the cut]
        self._fill(max((entry.left for some in entries for entry in some), default=0))

    def cheapest(self) -> list[int] | None:
        """Return for each place the arc that makes it; None if no way is short enough."""
        arcs = [-1] * self._size
        waiting = self._outermost(arcs)
        if waiting is None:
            return None
        while waiting:
            stretch = waiting.pop()
            waiting += self._choose(stretch, arcs)
        return arcs

    def _fill(self, most: int) -> None:
        places = range(self._size)
        alone: _Rows = [[0] for _ in places]
        self._inner.append((alone, alone))
        self._outer.append((self._closed(0), self._closed(1)))
        for _ in range(most):
            inner, outer = self._inner[-1], self._outer[-1]
            rows: _Sides = ([], [])
            ends: _Sides = ([], [])
            for side in (0, 1):
                for place in places:
                    row, end = self._extend(side, place, inner, outer[side])
                    rows[side].append(row)
                    ends[side].append(end)
            self._inner.append(rows)
            self._outer.append(ends)

    def _closed(self, side: int) -> _Rows:
        """Return what the outermost stretches cost to which nothing is added."""
        cuts = self._cuts[side]
        return [
            [0 if cut == place + 1 else self._never for cut in cuts] for place in range(self._size)
        ]

    def _extend(
        self, side: int, place: int, inner: _Sides, outer: _Rows
    ) -> tuple[list[int], list[int]]:
        """Return what stretches from `place` cost; `inner` and `outer` have one diff less."""
        cuts, never = self._cuts[side], self._never
        jumps = self._jumps[side][place]
        longest = jumps[-1].distance if jumps else 0
        row = [0]
        end = list(self._outer[0][side][place])
        for distance, cost, rate, _ in jumps:
            onto = place + distance
            between = inner[1 - side][self._size - 1 - onto]
            base = cost + self._gap(row, between, distance, rate)
            if base >= never:
                continue
            row += [never] * (distance - len(row))
            beyond = inner[side][onto][: longest - distance]
            beyond = list(map(add, beyond, count(base + rate, rate)))
            row[distance:] = _cheaper(row[distance:], beyond)
            first = bisect_right(cuts, onto)
            base -= rate * onto
            after = zip(outer[onto][first:], cuts[first:], strict=True)
            end[first:] = _cheaper(end[first:], [base + sum_ + rate * cut for sum_, cut in after])
        return row, end

    def _gap(self, row: Sequence[int], between: Sequence[int], distance: int, rate: int) -> int:
        """Return the least that the places under a jump cost, made from its two ends."""
        first = max(0, distance - len(between))
        sums = map(add, row[first:distance], between[distance - 1 - first :: -1])
        return min(map(add, sums, count(rate * (distance - 1 - first), -rate)), default=self._never)

    def _outermost(self, arcs: list[int]) -> list[_Stretch] | None:
        """Divide the row, note the entries, and return the stretches on both sides of each."""
        last = len(self._cuts[0]) - 1
        taken = self._divide()
        stretches = []
        end = last
        while end:
            piece = taken[end]
            if piece is None:
                return None
            begin, place, entry = piece
            arcs[place] = entry.arc
            stretches.append(_Stretch(0, place, entry.left, end, outermost=True))
            mirrored = self._size - 1 - place
            stretches.append(_Stretch(1, mirrored, entry.left, last - begin, outermost=True))
            end = begin
        return stretches

    def _divide(self) -> list[tuple[int, int, Entry] | None]:
        """Return for each cut where the last piece before it begins, and its entry and place."""
        cuts = self._cuts[0]
        last = len(cuts) - 1
        total = [0] + [self._never] * last
        taken: list[tuple[int, int, Entry] | None] = [None] * len(cuts)
        for number in range(1, len(cuts)):
            for place in range(cuts[number - 1], cuts[number]):
                for entry in self._entries[place]:
                    left = self._outer[entry.left][1][self._size - 1 - place]
                    right = self._outer[entry.left][0][place]
                    sums = [total[n] + left[last - n] - entry.rate * cuts[n] for n in range(number)]
                    begin = min(range(number), key=sums.__getitem__)
                    base = sums[begin] + entry.cost
                    for end in range(number, len(cuts)):
                        sum_ = base + right[end] + entry.rate * cuts[end]
                        if sum_ < total[end]:
                            total[end] = sum_
                            taken[end] = (begin, place, entry)
        return taken

    def _choose(self, stretch: _Stretch, arcs: list[int]) -> Iterator[_Stretch]:
        """Note the arc of the last jump in a stretch, and yield what remains of it."""
        side, place, left, end, outermost = stretch
        last = self._cuts[side][end] - 1 if outermost else place + end
        if last == place:
            return
        jump = self._last_jump(stretch, last)
        onto = place + jump.distance
        arcs[self._size - 1 - onto if side else onto] = jump.arc
        own = self._split(stretch, jump)
        under = _Stretch(
            1 - side, self._size - 1 - onto, left - 1, jump.distance - 1 - own, outermost=False
        )
        yield _Stretch(side, place, left, own, outermost=False)
        yield under
        yield _Stretch(side, onto, left - 1, end if outermost else last - onto, outermost)

    def _last_jump(self, stretch: _Stretch, last: int) -> Jump:
        """Return the best last jump from the place of a stretch that ends with place `last`."""
        side, place, left, end, outermost = stretch
        row = self._inner[left][side][place]
        inner, outer = self._inner[left - 1], self._outer[left - 1][side]
        found = []
        for jump in self._jumps[side][place]:
            onto = place + jump.distance
            if onto > last:
                break
            beyond, at = (outer[onto], end) if outermost else (inner[side][onto], last - onto)
            if at < len(beyond):
                between = inner[1 - side][self._size - 1 - onto]
                gap = self._gap(row, between, jump.distance, jump.rate)
                found.append((jump.cost + gap + beyond[at] + jump.rate * (last - onto + 1), jump))
        return min(found)[1]

    def _split(self, stretch: _Stretch, jump: Jump) -> int:
        """Return how many of the places under a jump are best made from where it begins."""
        side, place, left = stretch[:3]
        row = self._inner[left][side][place]
        onto = place + jump.distance
        between = self._inner[left - 1][1 - side][self._size - 1 - onto]
        most = jump.distance - 1
        return min(
            range(max(0, jump.distance - len(between)), min(jump.distance, len(row))),
            key=lambda own: row[own] + between[most - own] + jump.rate * (most - own),
        )


def _cheaper(one: list[int], other: list[int]) -> list[int]:
    """Return the lower of each two, and what the longer list has beyond the other."""
    lower = [
        a if a < b else b  # noqa: FURB136  min() takes twice as long, and most of the time is here
        for a, b in zip(one, other, strict=False)
    ]
    return lower + one[len(lower) :] + other[len(lower) :]

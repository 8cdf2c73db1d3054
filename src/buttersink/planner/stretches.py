"""
What it costs to make each stretch of a row of snapshots by diffs that do not cross. No I/O here.

A stretch is all that one snapshot, its place, leads to on one side of it, up to an end. Its last
jump divides it in three that are shorter: what the place leads to before the jump ends, what is
made from there backwards, and what is made from there onwards. So the costs follow from each other:
with a limit on chains by the number of diffs that are left, since each of the three has fewer;
without one by length, which takes hardly longer than one of those rounds.
"""

from __future__ import annotations

from bisect import bisect_right
from itertools import chain, count
from operator import add
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class Jump(NamedTuple):
    """A diff along the row, over `distance` places; `rate` is for each snapshot below it."""

    distance: int
    cost: int
    rate: int
    arc: int


Jumps = list[list[Jump]]
"""For each place the jumps from there in reading direction, nearest first."""

_Rows = list[list[int]]
_Sides = tuple[_Rows, _Rows]
_Way = tuple[int, int, int]  # a jump: its distance, cost with that of what is under it, and rate
_Ways = list[list[_Way]]  # for each place


class Stretches:
    """
    The costs of all stretches of a row; what cannot be made costs `never` or more.

    Attributes:
        inner: By how many diffs are left, side, place and distance of the end.
        outer: Of the outermost stretches by how many are left, side, place and number of the cut.

    """

    def __init__(
        self, jumps: tuple[Jumps, Jumps], cuts: tuple[list[int], list[int]], never: int
    ) -> None:
        """Take the jumps and the places before which outermost stretches end, for both sides."""
        self._jumps = jumps
        self._cuts = cuts
        self._never = never
        self._size = len(jumps[0])
        self._longest = max((jump.distance for some in chain(*jumps) for jump in some), default=0)
        self.inner: list[_Sides] = []
        self.outer: list[_Sides] = []

    def fill(self, most: int) -> None:
        """Work out all costs for 0 to `most` diffs that are left."""
        places = range(self._size)
        alone: _Rows = [[0] for _ in places]
        self.inner.append((alone, alone))
        self.outer.append((self._closed(0), self._closed(1)))
        for _ in range(most):
            inner, outer = self.inner[-1], self.outer[-1]
            rows: _Sides = ([], [])
            ends: _Sides = ([], [])
            for side in (0, 1):
                for place in places:
                    row, end = self._extend(side, place, inner, outer[side])
                    rows[side].append(row)
                    ends[side].append(end)
            self.inner.append(rows)
            self.outer.append(ends)

    def fill_without_limit(self) -> None:
        """Work out all costs for chains of any length; there is one number of diffs left, 0."""
        rows: _Sides = ([[0] for _ in self._jumps[0]], [[0] for _ in self._jumps[0]])
        ways: tuple[_Ways, _Ways] = ([[] for _ in rows[0]], [[] for _ in rows[1]])
        starting: dict[int, list[tuple[int, int, Jump]]] = {}
        for side, jumps in enumerate(self._jumps):
            for place, some in enumerate(jumps):
                for jump in some:
                    starting.setdefault(jump.distance, []).append((side, place, jump))
        for length in range(1, self._longest + 1):
            for side, place, jump in starting.get(length, ()):
                between = rows[1 - side][self._size - 1 - place - length]
                base = jump.cost + self.gap(rows[side][place], between, length, jump.rate)
                if base < self._never:
                    ways[side][place].append((length, base, jump.rate))
            for side in (0, 1):
                _lengthen(rows[side], ways[side], length, self._never)
        self.inner.append(rows)
        self.outer.append((self._ends(0, ways[0]), self._ends(1, ways[1])))

    def gap(self, row: Sequence[int], between: Sequence[int], distance: int, rate: int) -> int:
        """Return the least that the places under a jump cost, made from its two ends."""
        first = max(0, distance - len(between))
        sums = map(add, row[first:distance], between[distance - 1 - first :: -1])
        return min(map(add, sums, count(rate * (distance - 1 - first), -rate)), default=self._never)

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
        row = [0]
        end = list(self.outer[0][side][place])
        for distance, cost, rate, _ in jumps:
            onto = place + distance
            between = inner[1 - side][self._size - 1 - onto]
            base = cost + self.gap(row, between, distance, rate)
            if base >= never:
                continue
            row += [never] * (distance - len(row))
            beyond = inner[side][onto][: self._longest - distance]
            beyond = list(map(add, beyond, count(base + rate, rate)))
            row[distance:] = _cheaper(row[distance:], beyond)
            _go_on(end, outer[onto], cuts, place, (distance, base, rate))
        return row, end

    def _ends(self, side: int, ways: _Ways) -> _Rows:
        """Return what the outermost stretches cost without a limit, which end where others do."""
        cuts, outer = self._cuts[side], self._closed(side)
        for place in reversed(range(self._size)):
            end = outer[place]
            for way in ways[place]:
                _go_on(end, outer[place + way[0]], cuts, place, way)
        return outer


def _go_on(end: list[int], beyond: list[int], cuts: Sequence[int], place: int, way: _Way) -> None:
    """Lower what outermost stretches cost by a way from a place, and `beyond` from its end."""
    distance, base, rate = way
    first = bisect_right(cuts, place + distance)
    base -= rate * (place + distance)
    after = zip(beyond[first:], cuts[first:], strict=True)
    end[first:] = _cheaper(end[first:], [base + sum_ + rate * cut for sum_, cut in after])


def _lengthen(rows: _Rows, ways: _Ways, length: int, never: int) -> None:
    """Add to each row what the stretch of that length costs; the shorter ones are there."""
    for place, row in enumerate(rows):
        least = never
        for distance, base, rate in ways[place]:
            beyond = length - distance
            least = min(least, base + rows[place + distance][beyond] + rate * (beyond + 1))
        row.append(least)


def _cheaper(one: list[int], other: list[int]) -> list[int]:
    """Return the lower of each two, and what the longer list has beyond the other."""
    lower = [
        a if a < b else b  # noqa: FURB136  min() takes twice as long, and most of the time is here
        for a, b in zip(one, other, strict=False)
    ]
    return lower + one[len(lower) :] + other[len(lower) :]

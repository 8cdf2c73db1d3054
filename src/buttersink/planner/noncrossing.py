"""
The cheapest chains among those whose diffs do not cross. No I/O here.

Lay the snapshots in a row, what is near in lineage side by side, and draw each diff as an arc above
it: that two arcs cross is hardly ever worth it. Where none do, what is made from a snapshot and on
from there is a stretch of the row around it, whose cheapest choice follows from those of the
stretches within it, as `Stretches` has them. Both sides of a snapshot are alike, so the row is read
from left to right and then from right to left.

The outermost stretches, which begin with a full send or with a diff from something stored, end at
some places only, and a jump has a greatest distance, so that time and memory grow with the number
of snapshots. Everything is in integers, repeatable, without recursion.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from buttersink.planner.stretches import Jumps, Stretches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from buttersink.planner.stretches import Jump

_CUTS = 12  # places where an outermost stretch may end, beside the end of the row


class Entry(NamedTuple):
    """A diff from outside the row, after which chains may be `left` diffs longer."""

    left: int
    cost: int
    rate: int
    arc: int


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
        *,
        limited: bool,
    ) -> None:
        """
        Take the jumps both ways and the entries at each place.

        Outermost stretches may end before the places `cuts` too; `never` is more than any choice
        costs. Where chains are not `limited`, let what is left after each entry be 0.
        """
        self._jumps = (forth, back)
        self._entries = entries
        self._never = never
        size = self._size = len(entries)
        cuts = sorted({*cuts, *range(0, size, 1 + (size - 1) // _CUTS), size})
        self._cuts = (cuts, [size - cut for cut in reversed(cuts)])
        self._stretches = Stretches(self._jumps, self._cuts, never)
        if limited:
            self._stretches.fill(max((entry.left for some in entries for entry in some), default=0))
        else:
            self._stretches.fill_without_limit()

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
        outer = self._stretches.outer
        total = [0] + [self._never] * last
        taken: list[tuple[int, int, Entry] | None] = [None] * len(cuts)
        for number in range(1, len(cuts)):
            for place in range(cuts[number - 1], cuts[number]):
                for entry in self._entries[place]:
                    left = outer[entry.left][1][self._size - 1 - place]
                    right = outer[entry.left][0][place]
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
        fewer = _one_less(left)
        under = _Stretch(
            1 - side, self._size - 1 - onto, fewer, jump.distance - 1 - own, outermost=False
        )
        yield _Stretch(side, place, left, own, outermost=False)
        yield under
        yield _Stretch(side, onto, fewer, end if outermost else last - onto, outermost)

    def _last_jump(self, stretch: _Stretch, last: int) -> Jump:
        """Return the best last jump from the place of a stretch that ends with place `last`."""
        side, place, left, end, outermost = stretch
        row = self._stretches.inner[left][side][place]
        fewer = _one_less(left)
        inner, outer = self._stretches.inner[fewer], self._stretches.outer[fewer][side]
        found = []
        for jump in self._jumps[side][place]:
            onto = place + jump.distance
            if onto > last:
                break
            beyond, at = (outer[onto], end) if outermost else (inner[side][onto], last - onto)
            if at < len(beyond):
                between = inner[1 - side][self._size - 1 - onto]
                gap = self._stretches.gap(row, between, jump.distance, jump.rate)
                found.append((jump.cost + gap + beyond[at] + jump.rate * (last - onto + 1), jump))
        return min(found)[1]

    def _split(self, stretch: _Stretch, jump: Jump) -> int:
        """Return how many of the places under a jump are best made from where it begins."""
        side, place, left = stretch[:3]
        row = self._stretches.inner[left][side][place]
        onto = place + jump.distance
        between = self._stretches.inner[_one_less(left)][1 - side][self._size - 1 - onto]
        most = jump.distance - 1
        return min(
            range(max(0, jump.distance - len(between)), min(jump.distance, len(row))),
            key=lambda own: row[own] + between[most - own] + jump.rate * (most - own),
        )


def _one_less(left: int) -> int:
    """Return how many diffs are left after one more; without a limit that is always 0."""
    return max(left - 1, 0)

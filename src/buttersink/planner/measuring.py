"""
Which sizes to ask for, and when to stop asking. No I/O here.

First every snapshot's diff from what it grew out of: with those a plan can be made, and mostly they
are that plan. Where a snapshot grew out of what is only guessed, or would cost a good part of the
whole, a better origin is searched for, since much can be won. Then other candidates, those first
that promise most: of dear snapshots, from near ones. That goes on for as long as measuring stays
cheap beside sending, and never beyond a fixed number for each snapshot. Both are counted in
commands: a measurement has as many as the send, which has to carry them out at the other end, too,
and to move the data. Small histories and those of large files are measured whole, so their plan is
the true minimum over all candidates; elsewhere what is left out can save next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from buttersink.catalogue import Diff, Exactness, Size
from buttersink.planner.candidates import diff_of, distances, kin
from buttersink.planner.lineage import NONE
from buttersink.planner.searching import Search

if TYPE_CHECKING:
    from buttersink.catalogue import Measurement, Uuid
    from buttersink.planner.candidates import Pair
    from buttersink.planner.surveying import Survey

_ALWAYS = 10_000  # commands that optional measurements may have: about 0.1 s
_SHARE = 8  # measuring may take one part in so many of sending
_CARRY_OUT = 2  # sending a command takes so many times what measuring it takes (about 20 us)
_DATA = 8192  # and moving so many bytes takes as long as one command measured
_SEND = 100  # commands that starting one measurement counts for
_BATCH = 16  # most optional measurements between two looks at what they have cost
_MOST = 8  # measurements for each snapshot to send
_MOST_OF_FEW = 12  # measurements where that is fewer than this: for a single one
_FOR_CLONES = 2  # of those, kept for looking for clone sources when the diff is chosen
_SEARCH = 5  # those of them after which nothing is searched for any more
_SEARCH_OF_FEW = 9


class Measuring:
    """
    Ask `next` what to measure, tell `learn` what came out, until there is nothing to ask.

    At most 8 measurements for each snapshot to send are asked for, and 10 for a single one: 12 less
    two that are left for other uses. With `far` there are also those that a limit on the length of
    chains needs, and no such bound.

    Attributes:
        sizes: What is known so far, to plan with.

    """

    def __init__(self, survey: Survey, *, far: bool = False) -> None:
        wanted = [arrival.snapshot for arrival in survey.send if not arrival.problem]
        wanted += survey.rehang
        goals = {snapshot.uuid for snapshot in wanted}
        self._tree = kin(wanted, survey.held, survey.lineage, survey.others)
        self._index: dict[Uuid | None, int] = {None: NONE}
        for index, snapshot in enumerate(self._tree.snapshots):
            self._index[snapshot.uuid] = index
        self._made = frozenset(self._index[uuid] for uuid in goals)
        self._far = far
        self._most = max(_MOST_OF_FEW - _FOR_CLONES, _MOST * len(goals))
        self._bound = max(_MOST_OF_FEW, self._most)
        self._most_searched = max(_SEARCH_OF_FEW, _SEARCH * len(goals))
        self.sizes: dict[Diff, Size] = {}
        self._asked: set[Pair] = set()
        self._search = Search(self._tree, self._made, self._most_searched - len(goals))
        self._first = [(index, self._tree.before[index]) for index in sorted(self._made)]
        self._left: list[Pair] | None = None  # optional ones, the best last
        self._allowance = 0.0
        self._work = 0

    @property
    def asked(self) -> int:
        """How many measurements were asked for."""
        return len(self._asked)

    @property
    def candidates(self) -> int:
        """How many diffs were found worth one."""
        return self.asked + len(self._left or ())

    @property
    def room(self) -> int:
        """How many measurements more, of anything, the bounds allow."""
        return max(0, self._bound - self.asked)

    def next(self) -> tuple[Diff, ...]:
        """Return what to measure now, in any order; empty when enough is known."""
        batch, self._first = self._first, []
        if not batch and self._left is None:
            batch = self._search.next(self._most_searched - self.asked)
        if not batch:
            batch = self._optional()
        self._asked.update(batch)
        return tuple(diff_of(self._tree, pair) for pair in batch)

    def _optional(self) -> list[Pair]:
        """Return the most promising of what is left, as many as can be afforded."""
        if self._left is None:
            self._left = self._by_promise()
            self._allowance = _ALWAYS + max(0.0, self._allowance)
        each = self._work / max(1, len(self.sizes))  # guesses cost nothing
        affordable = int(self._allowance / each) if each else _BATCH
        room = len(self._left) if self._far else self._most - self.asked
        count = max(0, min(affordable, _BATCH, room, len(self._left)))
        return [self._left.pop() for _ in range(count)]

    def _by_promise(self) -> list[Pair]:
        """Return all other candidates, those last that are near and make what is dear so far."""
        tree = self._tree.rehung(self._search.origins())
        cheapest: dict[int, int] = {}
        for diff, size in self.sizes.items():
            to = self._index[diff.to]
            cheapest[to] = min(size.bytes, cheapest.get(to, size.bytes))
        apart = distances(tree, self._made, far=self._far)

        def promise(pair: Pair) -> tuple[float, int, Pair]:
            return cheapest.get(pair[0], 0) / apart[pair] ** 2, -apart[pair], pair

        return sorted((pair for pair in apart if pair not in self._asked), key=promise)

    def learn(self, measurement: Measurement) -> None:
        """Take what one measurement has found."""
        self._take(measurement.diff, Size(measurement.bytes, Exactness.MEASURED))
        work = measurement.commands + _SEND
        self._work += work
        self._allowance -= work
        if self._left is None:
            sending = measurement.commands * _CARRY_OUT + measurement.bytes / _DATA
            self._allowance += sending / _SHARE

    def guess(self, diff: Diff, length: int) -> None:
        """Take a rough size instead."""
        self._take(diff, Size(length, Exactness.ESTIMATED))

    def _take(self, diff: Diff, size: Size) -> None:
        self.sizes[diff] = size
        self._search.learn((self._index[diff.to], self._index[diff.parent]), size.bytes)

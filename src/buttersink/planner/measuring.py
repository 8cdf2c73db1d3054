"""
Which sizes to ask for, and when to stop asking. No I/O here.

First every snapshot's diff from what it grew out of: with those a plan can be made, and mostly they
are that plan. Where a snapshot grew out of what is only guessed, or would cost a good part of the
whole, a better origin is searched for, since much can be won. Then what guesses of the sizes of all
show to be worth it, and other candidates, those first that promise most: of dear snapshots, from
near ones. That goes on for as long as measuring stays cheap beside sending, and never beyond a
fixed number for each snapshot.

A measurement takes as long as the kernel's part of the send, whose commands have to be carried out
at the other end, too, its data moved and all of it made durable; and two are done at a time. So the
first ones mostly take a third of the time of sending, or less (`python -m bench.real`). What turns
out much dearer than what is known need not be measured to its end. Small histories and those of
large files are measured whole, so their plan is the true minimum over all candidates; elsewhere
what is left out saves little.
"""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING

from buttersink.catalogue import Diff, Exactness, Size
from buttersink.planner import timing
from buttersink.planner.candidates import diff_of, distances, kin
from buttersink.planner.costs import Weights
from buttersink.planner.guessing import Guessing
from buttersink.planner.lineage import NONE
from buttersink.planner.searching import Search

if TYPE_CHECKING:
    from collections.abc import Sequence

    from buttersink.catalogue import Measurement, Uuid
    from buttersink.planner.candidates import Pair
    from buttersink.planner.surveying import Survey

_SHARE = 0.36  # of the time of sending is what all measurements may take,
_CLONES = 0.06  # less what is left for looking for clone sources, where there may be some,
_PLANNING = 0.04  # and less so many seconds, which surveying and planning take
_FURTHER = 0.04  # but this part of it those beyond the first, however dear those were,
_ANYWAY = 0.05  # or so many seconds
_SHOWN = 0.1  # and so much more what guesses show to be worth it,
_TOGETHER = 0.42  # but with that hardly more than this
_AT_ONCE = 2  # measurements are done at a time, mostly
_TO_SEARCH = 0.5  # part of the allowance that the search may use where guesses find more
_BATCH = 16  # most further measurements between two looks at what they have cost
_MOST = 8  # measurements for each snapshot to send
_MOST_OF_FEW = 12  # measurements where that is fewer than this: for a single one
_FOR_CLONES = 2  # of those, kept for looking for clone sources when the diff is chosen
_SEARCH = 5  # those of them after which nothing is searched for any more
_SEARCH_OF_FEW = 9
_MUCH = 200  # parts of the whole: what is known to save less than one need not be measured
_DEARER = 1.25  # a diff so many times as long as the cheapest known is hardly ever in a plan


class Measuring:
    """
    Ask `next` what to measure, tell `learn` what came out, until there is nothing to ask.

    Ask `questions` first each time, and tell `look`, where answers are to be had: they save much.

    At most 8 measurements for each snapshot to send are asked for, and 10 for a single one: 12 less
    two that are left for other uses. With `far` there are also those that a limit on the length of
    chains needs, and no such bound.

    Attributes:
        sizes: What is known so far, to plan with.

    """

    def __init__(
        self, survey: Survey, weights: Weights | None = None, *, far: bool = False
    ) -> None:
        wanted = [arrival.snapshot for arrival in survey.send if not arrival.problem]
        wanted += survey.rehang
        goals = {snapshot.uuid for snapshot in wanted}
        self._tree = kin(wanted, survey.held, survey.lineage, survey.others)
        self._index: dict[Uuid | None, int] = {None: NONE}
        for index, snapshot in enumerate(self._tree.snapshots):
            self._index[snapshot.uuid] = index
        self._sharing = [len(family) for family in self._tree.family_of()]
        self._made = frozenset(self._index[uuid] for uuid in goals)
        self._far = far
        self._most = max(_MOST_OF_FEW - _FOR_CLONES, _MOST * len(goals))
        self._bound = max(_MOST_OF_FEW, self._most)
        self._most_searched = max(_SEARCH_OF_FEW, _SEARCH * len(goals))
        self.sizes: dict[Diff, Size] = {}
        self._cheapest: dict[int, int] = {}  # from what is older
        self._asked: set[Pair] = set()
        self._broken_off: set[Pair] = set()
        self._again = 0  # how many of those were asked for once more
        self._shown: set[Pair] = set()  # by guesses, to be worth one
        self._search = Search(self._tree, self._made, self._most_searched - len(goals))
        weights = weights or Weights()
        self._share = _SHARE if weights.keeps_diffs else _SHARE - _CLONES
        self._guessing = Guessing(self._made, weights)
        self._ahead: list[Pair] = []  # of the search, to measure next
        self._may_look = False
        self._first = [(index, self._tree.before[index]) for index in sorted(self._made)]
        self._left: list[Pair] | None = None  # optional ones, the best last
        self._alone = False  # the one that was asked for last, so that a processor is idle
        # Seconds: to send the first, to measure one of them, to look at all data; spent.
        self._sending = self._usual = self._looks = self._spent = 0.0
        self._known_whole = False  # how long that takes
        self._allowed = self._allowance = 0.0  # allowed beyond the first, and what is left of that

    @property
    def asked(self) -> int:
        """How many measurements were asked for."""
        return len(self._asked) + self._again

    @property
    def candidates(self) -> int:
        """How many diffs were found worth one."""
        return self.asked + len(self._left or ())

    @property
    def room(self) -> int:
        """How many measurements more, of anything, the bounds allow."""
        return max(0, self._bound - self.asked)

    @property
    def times(self) -> dict[Uuid, float]:
        """About how many seconds it took to measure the cheapest diff that makes each snapshot."""
        return {self._tree.snapshots[to].uuid: self._search.time(to) for to in self._made}

    def next(self) -> tuple[Diff, ...]:
        """Return what to measure now, in any order; empty when enough is known."""
        batch, self._first = self._first, []
        batch = batch or self._search_on() or self._by_guesses() or self._optional()
        self._ahead = []
        self._again += len(self._broken_off.intersection(batch))
        self._broken_off.difference_update(batch)
        self._asked.update(batch)
        self._alone = len(batch) == 1
        return self._diffs(batch)

    def _search_on(self) -> list[Pair]:
        """Return what the search wants to know next."""
        if not self._ahead and self._left is None:
            most = min(_BATCH, self._most_searched - self.asked)
            kept_back = 0.0
            if self._can_look() and self._guessing.pays:
                kept_back = self._allowed * (1 - _TO_SEARCH)
            self._ahead = self._search.next(most, self._allowance - kept_back)
        return self._ahead

    def questions(self) -> tuple[Diff, ...]:
        """
        Return diffs worth a look before more is measured: how much data is newer than their parent.

        A diff has that at least, so many a try of the search need not be measured. When that is
        over, it shows what else is worth it. Tell `look` the answers, as far as there are any.
        """
        self._may_look = True
        if self._first or self._left is not None:
            return ()
        if self._can_look() and (wholes := self._guessing.wholes(self._tree)):
            self._allowance -= self._looks
            return self._diffs(wholes)
        if ages := self._guessing.about(self._search.ages()):
            return self._diffs(ages)
        self._search.begin_near(self._guessing.newer)
        new = self._about_tries()
        if not self._ahead and self._can_look() and self._guessing.pays:
            new = self._guessing.about_all(self._tree.rehung(self._search.origins()))
        return self._diffs(new)

    def _about_tries(self) -> list[Pair]:
        """Return questions about what the search wants to know next, all but what is hopeless."""
        while self._search_on():
            if new := self._guessing.about(self._ahead):
                return new
            self._ahead = [pair for pair in self._ahead if not self._is_hopeless(pair)]
            if self._ahead:
                break
        return []

    def _can_look(self) -> bool:
        """Return whether it is cheap to read how much data all snapshots hold."""
        may = self._may_look and self._known_whole and not self._far
        return may and self._looks <= self._allowed / 4

    def _diffs(self, pairs: list[Pair]) -> tuple[Diff, ...]:
        return tuple(diff_of(self._tree, pair) for pair in pairs)

    def look(self, diff: Diff, length: int) -> None:
        """Take the answer to a question, in bytes."""
        self._guessing.guess((self._index[diff.to], self._index[diff.parent]), length)

    def _is_hopeless(self, pair: Pair) -> bool:
        """Return whether a diff has more new data than another one has of everything."""
        length = self._guessing.least(pair)
        if length <= self._cheapest.get(pair[0], length):
            return False
        self._search.learn(pair, length, 0)
        return True

    def _by_guesses(self) -> list[Pair]:
        """Return what a plan by guesses has in it, as far as that can be afforded."""
        more = min(self._sending * _SHOWN, self._sending * _TOGETHER - self._spent)
        affordable = (self._allowance + max(0, more)) // (self._usual or 1)
        room = min(self._most_searched - self.asked, int(affordable))
        new = self._guessing.next(room)
        self._shown.update(new)
        return [pair for pair in new if pair not in self._asked or pair in self._broken_off]

    def limits(self, diffs: Sequence[Diff]) -> dict[Diff, int]:
        """
        Return after how many bytes diffs from a parent need not be measured to their end.

        Those are tries of the search that turn out much dearer than another diff that makes the
        same snapshot from nothing or an older one. If one is in a plan all the same, it can be
        measured then. What guesses show is worth it together with others, and other candidates are
        near, and not as dear. Where everything can be afforded everything is measured.
        """
        if self._far or self._left is not None or self._can_afford_all():
            return {}
        return {
            diff: int(_DEARER * self._cheapest[to])
            for diff in diffs
            if diff.parent and (to := self._index[diff.to]) in self._cheapest
            if (to, self._index[diff.parent]) not in self._shown
        }

    def _can_afford_all(self) -> bool:
        """Return whether as many can be measured as may be at most."""
        each = self._spent / max(1, len(self.sizes))
        return self._allowance > (self._most - self.asked) * each

    def _optional(self) -> list[Pair]:
        """Return the most promising of what is left, as many as can be afforded."""
        if self._left is None:
            self._left = self._by_promise()
        times = accumulate(self._search.time(to) for to, _ in reversed(self._left[-_BATCH:]))
        affordable = sum(time <= self._allowance or not time for time in times)
        room = len(self._left) if self._far else max(0, self._most - self.asked)
        return [self._left.pop() for _ in range(min(affordable, room))]

    def _by_promise(self) -> list[Pair]:
        """
        Return all other candidates, those last that are near and make what is dear so far.

        Where guesses have served, and not all can be afforded, only those are left that may save
        much, as far as is known.
        """
        tree = self._tree.rehung(self._search.origins())
        apart = distances(tree, self._made, far=self._far)
        picky = self._guessing.served and not self._can_afford_all()
        much = sum(self._cheapest.values()) / _MUCH if picky else 0

        def may_save(pair: Pair) -> int:
            cheapest = self._cheapest.get(pair[0], 0)
            return cheapest - (self._guessing.least(pair) or cheapest) if picky else cheapest

        def promise(pair: Pair) -> tuple[float, int, Pair]:
            return may_save(pair) / apart[pair] ** 2, -apart[pair], pair

        left = (pair for pair in apart if pair not in self._asked and may_save(pair) >= much)
        return sorted(left, key=promise)

    def learn(self, measurement: Measurement) -> None:
        """Take what one measurement has found."""
        sharing = self._sharing[self._index[measurement.diff.to]]
        busy = timing.measuring(measurement, sharing)
        time = busy / _AT_ONCE
        self._take(measurement.diff, measurement.size, time)
        self._spent += time
        if self.asked <= len(self._made):  # what each snapshot grew out of: nearly the plan
            self._sending += timing.sending(measurement, sharing)
            self._allowance = self._sending * self._share - _PLANNING - self._spent
            self._allowance = max(self._allowance, self._sending * _FURTHER, _ANYWAY)
            self._usual = self._spent / self.asked
            self._looks += timing.looking(measurement, sharing)
            self._known_whole |= not measurement.diff.parent
            self._allowed = self._allowance
        else:
            self._allowance -= busy if self._alone else time

    def guess(self, diff: Diff, length: int) -> None:
        """Take a rough size instead."""
        self._take(diff, Size(length, Exactness.ESTIMATED))

    def _take(self, diff: Diff, size: Size, time: float = 0) -> None:
        self.sizes[diff] = size
        to, parent = pair = self._index[diff.to], self._index[diff.parent]
        if parent < to:
            self._cheapest[to] = min(size.bytes, self._cheapest.get(to, size.bytes))
        self._search.learn(pair, size.bytes, time)
        if size.exactness is Exactness.UNFINISHED:  # a guess of the whole says more
            self._broken_off.add(pair)
        else:
            self._guessing.learn(pair, size.bytes)

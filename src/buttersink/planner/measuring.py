"""
Which sizes to ask for, and when to stop asking. No I/O here.

First every snapshot's diff from what it grew out of: with those a plan can be made, and mostly they
are that plan. Where such a diff is a good part of a full send, or where a snapshot grew out of what
is only guessed, its lineage is searched, since much can be won. Then other candidates, the nearest
in time first, for as long as measuring stays cheap beside sending: the work of a measurement is
counted in commands, of which sending has as many and has to carry them out at the other end, too.
Small histories are measured whole, so their plan is the true minimum over all candidates; in large
ones what is left out can save next to nothing.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from buttersink.catalogue import Diff, Exactness, Size
from buttersink.planner.candidates import candidates, closer, origins

if TYPE_CHECKING:
    from buttersink.catalogue import Measurement, Uuid
    from buttersink.planner.surveying import Survey

_ALWAYS = 10_000  # commands that optional measurements may have: about 0.1 s
_SHARE = 16  # and one for so many commands of the measurements that have to be
_SEARCH = 4  # measurements per snapshot after which its lineage is searched no further
_SEND = 100  # commands that starting one measurement counts for
_BATCH = 16  # most optional measurements between two looks at what they have cost


class Measuring:
    """
    Ask `next` what to measure, tell `learn` what came out, until there is nothing to ask.

    Attributes:
        sizes: What is known so far, to plan with.
        asked: How many measurements were asked for.
        candidates: How many diffs were found worth it.

    """

    def __init__(self, survey: Survey) -> None:
        wanted = [arrival.snapshot for arrival in survey.send if not arrival.problem]
        self._survey, self._wanted = survey, wanted
        possible = candidates(wanted, survey.held, survey.lineage, survey.others)
        first = origins(wanted, survey.held, survey.lineage, survey.others)
        age = {s.uuid: s.generation for s in (*wanted, *survey.held)}
        self.sizes: dict[Diff, Size] = {}
        self.asked = 0
        self._possible = set(possible).union(first)
        self.candidates = len(self._possible)
        self._first = first
        self._necessary = True
        nearest_first = sorted(self._possible, key=lambda diff: _distance(diff, age))
        self._left = filter(self._is_new, nearest_first)
        self._asked: set[Diff] = set()
        self._allowance = _ALWAYS
        self._work = 0

    def next(self) -> tuple[Diff, ...]:
        """Return what to measure now, in any order; empty when enough is known."""
        batch, self._first = self._first, ()
        if not batch and self._necessary:
            batch = self._search()
            self._necessary = bool(batch)
        if not batch and self._allowance > 0:
            affordable = self._allowance * len(self.sizes) // max(1, self._work)
            count = max(1, min(affordable, _BATCH))
            batch = tuple(islice(self._left, count))
        self.asked += len(batch)
        self._asked.update(batch)
        return batch

    def _is_new(self, diff: Diff) -> bool:
        return diff not in self._asked

    def _search(self) -> tuple[Diff, ...]:
        """Return diffs from further back in the lineage, where they may be much smaller."""
        if self.asked > _SEARCH * len(self._wanted):
            return ()
        lengths = {diff: size.bytes for diff, size in self.sizes.items()}
        full = max((length for diff, length in lengths.items() if diff.parent is None), default=0)
        known = {Diff(snapshot.uuid, None): full for snapshot in self._wanted} | lengths
        survey = self._survey
        found = closer(self._wanted, survey.held, survey.lineage, known, survey.others)
        new = tuple(filter(self._is_new, found))
        self._possible.update(new)
        self.candidates = len(self._possible)
        return new

    def learn(self, measurement: Measurement) -> None:
        """Take what one measurement has found."""
        self.sizes[measurement.diff] = Size(measurement.bytes, Exactness.MEASURED)
        work = measurement.commands + _SEND
        self._work += work
        self._allowance += work // _SHARE if self._necessary else -work

    def guess(self, diff: Diff, length: int) -> None:
        """Take a rough size instead."""
        self.sizes[diff] = Size(length, Exactness.ESTIMATED)


def _distance(diff: Diff, age: dict[Uuid, int]) -> tuple[bool, int, bytes, bytes]:
    if diff.parent is None:
        return True, age[diff.to], diff.to, b""
    return False, abs(age[diff.to] - age[diff.parent]), diff.to, diff.parent

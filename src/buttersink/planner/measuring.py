"""
Which sizes to ask for, and when to stop asking. No I/O here.

First every snapshot's diff from what it grew out of: with those a plan can be made, and mostly they
are that plan. Where such a diff is a good part of a full send, or where a snapshot grew out of what
is only guessed, its lineage is searched, since much can be won. Then other candidates, the nearest
in time first, for as long as measuring stays cheap beside sending. Both are counted in commands: a
measurement has as many as the send, which has to carry them out at the other end, too, and to move
the data. Small histories and those of large files are measured whole, so their plan is the true
minimum over all candidates; elsewhere what is left out can save next to nothing.
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
_SHARE = 8  # measuring may take one part in so many of sending
_CARRY_OUT = 2  # sending a command takes so many times what measuring it takes (about 20 us)
_DATA = 8192  # and moving so many bytes takes as long as one command measured
_SEARCH = 4  # measurements per snapshot after which its lineage is searched no further
_SEND = 100  # commands that starting one measurement counts for
_BATCH = 16  # most optional measurements between two looks at what they have cost


class Measuring:
    """
    Ask `next` what to measure, tell `learn` what came out, until there is nothing to ask.

    Attributes:
        sizes: What is known so far, to plan with.

    """

    def __init__(self, survey: Survey, *, far: bool = False) -> None:
        wanted = [arrival.snapshot for arrival in survey.send if not arrival.problem]
        wanted += survey.rehang
        self._survey, self._wanted = survey, wanted
        possible = candidates(wanted, survey.held, survey.lineage, survey.others, far=far)
        first = origins(wanted, survey.held, survey.lineage, survey.others)
        age = {s.uuid: s.generation for s in (*wanted, *survey.held)}
        self.sizes: dict[Diff, Size] = {}
        self._possible = set(possible).union(first)
        self._first = first
        self._necessary = True
        nearest_first = sorted(self._possible, key=lambda diff: _distance(diff, age))
        self._left = filter(self._is_new, nearest_first)
        self._asked: set[Diff] = set()
        self._allowance = 0.0
        self._work = 0

    @property
    def asked(self) -> int:
        """How many measurements were asked for."""
        return len(self._asked)

    @property
    def candidates(self) -> int:
        """How many diffs were found worth one."""
        return len(self._possible)

    def next(self) -> tuple[Diff, ...]:
        """Return what to measure now, in any order; empty when enough is known."""
        batch, self._first = self._first, ()
        if not batch and self._necessary:
            batch = self._search()
            self._necessary = bool(batch)
            if not batch:
                self._allowance = _ALWAYS + max(0.0, self._allowance)
        if not batch:
            each = self._work / max(1, len(self.sizes))  # guesses cost nothing
            affordable = int(self._allowance / each) if each else _BATCH
            batch = tuple(islice(self._left, max(0, min(affordable, _BATCH))))
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
        return new

    def learn(self, measurement: Measurement) -> None:
        """Take what one measurement has found."""
        self.sizes[measurement.diff] = Size(measurement.bytes, Exactness.MEASURED)
        work = measurement.commands + _SEND
        self._work += work
        self._allowance -= work
        if self._necessary:
            sending = measurement.commands * _CARRY_OUT + measurement.bytes / _DATA
            self._allowance += sending / _SHARE

    def guess(self, diff: Diff, length: int) -> None:
        """Take a rough size instead."""
        self.sizes[diff] = Size(length, Exactness.ESTIMATED)


def _distance(diff: Diff, age: dict[Uuid, int]) -> tuple[bool, int, bool, int, bytes]:
    """Sort the nearest in time first, and those that lead forward; full sends last."""
    to = age[diff.to]
    if diff.parent is None:
        return True, 0, False, to, diff.to
    since = to - age[diff.parent]
    return False, abs(since), since < 0, to, diff.to

"""
Which sizes to ask for, and when to stop asking. No I/O here.

First every snapshot's diff from what it grew out of: with those a plan can be made, and mostly they
are that plan. Then other candidates, the nearest in time first, for as long as measuring stays
cheap beside sending: the work of a measurement is counted in commands, of which sending has as many
and has to carry them out at the other end, too. Small histories are measured whole, so their plan
is the true minimum over all candidates; in large ones what is left out can save next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from buttersink.catalogue import Diff, Exactness, Size
from buttersink.planner.candidates import candidates, origins

if TYPE_CHECKING:
    from buttersink.catalogue import Measurement, Uuid
    from buttersink.planner.surveying import Survey

_ALWAYS = 10_000  # commands that optional measurements may have: about 0.1 s
_SHARE = 4  # and one for so many commands of the measurements that have to be
_SEND = 100  # commands that starting one measurement counts for
_BATCH = 16  # optional measurements between two looks at what they have cost


class Measuring:
    """
    Ask `next` what to measure, tell `learn` what came out, until there is nothing to ask.

    Attributes:
        sizes: What is known so far, to plan with.
        asked: How many measurements were asked for.
        candidates: How many diffs were worth it.

    """

    def __init__(self, survey: Survey) -> None:
        wanted = [arrival.snapshot for arrival in survey.send if not arrival.problem]
        related = (wanted, survey.held, survey.lineage, survey.others)
        possible = candidates(*related) if wanted else ()
        first = origins(*related) if wanted else ()
        age = {s.uuid: s.generation for s in (*wanted, *survey.held)}
        self.sizes: dict[Diff, Size] = {}
        self.asked = 0
        self.candidates = len(set(possible).union(first))
        self._first = first
        self._necessary = True
        rest = sorted(set(possible).difference(first), key=lambda diff: _distance(diff, age))
        self._optional = [tuple(rest[at : at + _BATCH]) for at in range(0, len(rest), _BATCH)]
        self._allowance = _ALWAYS

    def next(self) -> tuple[Diff, ...]:
        """Return what to measure now, in any order; empty when enough is known."""
        batch: tuple[Diff, ...] = ()
        self._necessary = bool(self._first)
        if self._first:
            batch, self._first = self._first, ()
        elif self._optional and self._allowance > 0:
            batch = self._optional.pop(0)
        self.asked += len(batch)
        return batch

    def learn(self, measurement: Measurement) -> None:
        """Take what one measurement has found."""
        self.sizes[measurement.diff] = Size(measurement.bytes, Exactness.MEASURED)
        work = measurement.commands + _SEND
        self._allowance += work // _SHARE if self._necessary else -work

    def guess(self, diff: Diff, length: int) -> None:
        """Take a rough size instead."""
        self.sizes[diff] = Size(length, Exactness.ESTIMATED)


def _distance(diff: Diff, age: dict[Uuid, int]) -> tuple[bool, int, bytes, bytes]:
    if diff.parent is None:
        return True, age[diff.to], diff.to, b""
    return False, abs(age[diff.to] - age[diff.parent]), diff.to, diff.parent

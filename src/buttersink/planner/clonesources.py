"""
Further snapshots that a diff may take data from, where that makes it much smaller. No I/O here.

A diff repeats what its parent does not have, though the destination may have it: files deleted and
brought back from an older snapshot, a subvolume that was copied by reflink, data deduplicated
between subvolumes. The kernel can clone them from any snapshot that both sides hold. Parents and
order are the plan's and stay. Each dear diff of it is measured again with sources to pick from,
unless a rough look shows that too little of its data can be older than those for the time that it
takes; and if that pays, once more with those alone that it used, which then are part of the plan.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from buttersink.catalogue import Diff
from buttersink.planner.lineage import NONE, Ancestry, ancestry
from buttersink.planner.plan import Action, Plan, Reason, Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from buttersink.catalogue import Measurement, Uuid
    from buttersink.planner.surveying import Survey

_LEAST = 1 << 20  # bytes from which a diff is dear,
_PART = 100  # if it is also this part of all that is sent
_MOST = 32  # sources to pick from; the kernel takes no longer for 58 than for one
_OTHERS = 12  # of them from other branches and lineages
_EACH = 64 * 1024  # bytes that a source has to save: as long as a stand-in for it takes
_LINE = 100e6  # bytes that a gigabit line moves in a second, instead


class CloneSources:
    """
    Ask `next` what to measure, tell `learn` what came out, until there is nothing to ask.

    Args:
        plan: The diffs, in order.
        survey: What there is.
        room: How many measurements may be asked for at most.
        times: How many seconds measuring a diff that makes it took, as far as is known.

    Attributes:
        asked: How many measurements were asked for.

    """

    def __init__(self, plan: Plan, survey: Survey, room: int, times: Mapping[Uuid, float]) -> None:
        self._plan = plan
        self._times = times
        self._lengths: dict[Uuid, int] = {}
        self._known = {snapshot.uuid: snapshot for snapshot in survey.held}
        self._waiting = tuple(self._offers(survey))
        self._narrowed: set[Diff] = set()
        self._taken: dict[Uuid, Measurement] = {}
        self._room = room
        self.asked = 0

    def _offers(self, survey: Survey) -> Iterator[Diff]:
        """Yield the dear diffs with sources that the destination has before they are sent."""
        sends = [step for step in self._plan.of(Action.SEND) if not step.problem]
        least = max(_LEAST, self._plan.send_bytes // _PART)
        relatives: _Relatives | None = None
        for step in sends:
            if step.snapshot is None or step.size is None:
                continue
            uuid, parent = step.snapshot.uuid, step.parent.uuid if step.parent else None
            there = self._known.keys() - {parent}
            if step.size.bytes >= least and there:
                relatives = relatives or _Relatives(survey)
                self._lengths[uuid] = step.size.bytes
                yield Diff(uuid, parent, tuple(sorted(relatives.sources(uuid, there))))
            self._known[uuid] = step.snapshot

    @property
    def increments(self) -> tuple[Diff, ...]:
        """The waiting diffs from a parent: quickly guessed, and mostly nothing to be gained."""
        return tuple(diff for diff in self._waiting if diff.parent)

    def guess(self, diff: Diff, length: int) -> None:
        """Take how much of the data is newer than every source, and forget what cannot gain."""
        meanwhile = _LINE * self._times.get(diff.to, 0)
        if not self._pays(diff.to, length, 1) or self._lengths[diff.to] - length < meanwhile:
            self._waiting = tuple(each for each in self._waiting if each != diff)

    def next(self) -> tuple[Diff, ...]:
        """Return what to measure now, in any order; empty when enough is known."""
        batch, self._waiting = self._waiting[: max(0, self._room - self.asked)], ()
        self.asked += len(batch)
        return batch

    def learn(self, measurement: Measurement) -> None:
        """Take what one measurement has found."""
        diff, used = measurement.diff, measurement.clones
        if not used or not self._pays(diff.to, measurement.bytes, len(used)):
            return
        if used == diff.clones or diff in self._narrowed:
            self._taken[diff.to] = measurement
            return
        narrowed = diff._replace(clones=used)
        self._narrowed.add(narrowed)
        self._waiting += (narrowed,)

    def _pays(self, uuid: Uuid, length: int, count: int) -> bool:
        """Return whether a diff of this length, with so many sources, is worth them."""
        return self._lengths[uuid] - length >= _EACH * count

    def plan(self) -> Plan:
        """Return the plan with the sources that pay; never one that sends more."""
        steps = tuple(self._improved(step) for step in self._plan.steps)
        plan = replace(self._plan, steps=steps)
        saved = self._plan.send_bytes - plan.send_bytes
        return replace(
            plan,
            lower_bound=min(plan.lower_bound, plan.send_bytes),
            cost=plan.cost - saved,
            cost_bound=min(plan.cost_bound, plan.cost - saved),
        )

    def _improved(self, step: Step) -> Step:
        if step.action is not Action.SEND or step.snapshot is None or step.size is None:
            return step
        taken = self._taken.get(step.snapshot.uuid)
        if taken is None:
            return step
        clones = tuple(self._known[uuid] for uuid in taken.diff.clones)
        size = taken.size
        reason = replace(step.reason or Reason(), unshared=step.size)
        return replace(step, clones=clones, size=size, reason=reason)


class _Relatives:
    """Which snapshots are likely to hold the data of another one."""

    def __init__(self, survey: Survey) -> None:
        wanted = (arrival.snapshot for arrival in survey.send)
        self._tree = ancestry((*wanted, *survey.held, *survey.others), survey.lineage)
        self._branch = _branches(self._tree)
        self._index = {node.uuid: index for index, node in enumerate(self._tree.snapshots)}

    def sources(self, uuid: Uuid, there: AbstractSet[Uuid]) -> Iterator[Uuid]:
        """
        Yield the most likely of those that are `there`.

        What was deleted and returned is in every snapshot before its deletion, so those that this
        one grew out of are taken at growing distances. Of every other branch and lineage it is the
        ones just before and after it, the nearest in time first.
        """
        nodes = self._tree.snapshots
        to = self._index[uuid]
        here = sorted(self._index[each] for each in there)
        ancestors = set(self._ancestors(to))
        others = self._neighbours(to, [index for index in here if index not in ancestors])
        others.sort(key=lambda index: abs(nodes[index].generation - nodes[to].generation))
        del others[_OTHERS:]
        own = [index for index in reversed(here) if index in ancestors]
        yield from (nodes[index].uuid for index in (*others, *_spaced(own, _MOST - len(others))))

    def _ancestors(self, index: int) -> Iterator[int]:
        while (index := self._tree.before[index]) != NONE:
            yield index

    def _neighbours(self, to: int, others: Sequence[int]) -> list[int]:
        """Return of each branch the last one older than `to` and the first newer one."""
        older = {self._branch[index]: index for index in others if index < to}
        newer = {self._branch[index]: index for index in reversed(others) if index > to}
        return [*older.values(), *newer.values()]


def _branches(tree: Ancestry) -> list[int]:
    """Return for each snapshot the first one of its branch; one goes on, the others begin anew."""
    branch: list[int] = []
    continued: set[int] = set()
    for index, before in enumerate(tree.before):
        branch.append(index if before == NONE or before in continued else branch[before])
        continued.add(before)
    return branch


def _spaced(nearest_first: Sequence[int], count: int) -> list[int]:
    """Return at most `count` of them, the farther the rarer, first and last among them."""
    if len(nearest_first) <= count:
        return list(nearest_first)
    ratio = len(nearest_first) ** (1 / (count - 1))
    return [nearest_first[place] for place in sorted({round(ratio**k) - 1 for k in range(count)})]

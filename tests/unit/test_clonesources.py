"""Which snapshots a diff is offered to take data from, and when they are taken."""

from __future__ import annotations

from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING

import pytest

from buttersink.catalogue import Diff, Exactness, Measurement, Size, Snapshot, Uuid
from buttersink.planner import Action, Arrival, Plan, Reason, Step, Survey
from buttersink.planner.clonesources import CloneSources

if TYPE_CHECKING:
    from collections.abc import Mapping

MIB = 1 << 20


def uuid(number: int) -> Uuid:
    return Uuid(number.to_bytes(16, "big"))


def made(number: int, live: int = 10**6) -> Snapshot:
    return Snapshot(uuid(number), uuid(number), uuid(live), None, number, number, b"%d" % number)


def sent(snapshot: Snapshot, parent: Snapshot | None, size: int) -> Step:
    measured = Size(size, Exactness.MEASURED)
    return Step(Action.SEND, snapshot.path, snapshot, parent, measured, reason=Reason())


def sources(
    *steps: Step, held: list[Snapshot], times: Mapping[Uuid, float] = MappingProxyType({})
) -> CloneSources:
    arrivals = tuple(Arrival(step.snapshot, step.path) for step in steps if step.snapshot)
    plan = Plan(steps)
    plan = Plan(steps, plan.send_bytes)
    return CloneSources(plan, Survey(send=arrivals, held=tuple(held)), room=100, times=times)


def offered(*steps: Step, held: list[Snapshot]) -> dict[Uuid, list[int]]:
    """Return the numbers of the clone sources, by what is to be made."""
    diffs = sources(*steps, held=held).next()
    return {diff.to: sorted(map(number_of, diff.clones)) for diff in diffs}


def number_of(uuid: Uuid) -> int:
    return int.from_bytes(uuid, "big")


class TestOffer:
    def test_is_all_that_is_held_but_the_parent(self) -> None:
        held = [made(number) for number in range(1, 5)]
        assert offered(sent(made(5), held[3], MIB), held=held) == {uuid(5): [1, 2, 3]}

    def test_is_what_earlier_steps_bring_and_not_what_later_ones_do(self) -> None:
        chain = [made(number) for number in range(1, 5)]
        pairs = zip(chain, (None, *chain[:3]), strict=True)
        steps = [sent(to, parent, MIB) for to, parent in pairs]
        assert offered(*steps, held=[]) == {uuid(3): [1], uuid(4): [1, 2]}

    def test_is_nothing_of_what_cannot_be_sent(self) -> None:
        blocked = Step(Action.SEND, b"1", made(1), problem="taken")
        assert offered(blocked, sent(made(2), None, MIB), held=[]) == {}

    def test_is_for_a_full_send_too(self) -> None:
        assert offered(sent(made(5), None, MIB), held=[made(1, live=7)]) == {uuid(5): [1]}

    @pytest.mark.parametrize("size", [0, MIB - 1])
    def test_is_not_for_what_is_cheap(self, size: int) -> None:
        assert offered(sent(made(3), made(2), size), held=[made(1), made(2)]) == {}

    def test_is_not_for_what_is_a_small_part_of_all(self) -> None:
        held = [made(1), made(2)]
        steps = [sent(made(3), held[1], 101 * MIB), sent(made(4), made(3), MIB)]
        assert offered(*steps, held=held).keys() == {uuid(3)}

    def test_reaches_back_to_the_oldest_the_farther_the_rarer(self) -> None:
        held = [made(number) for number in range(1, 1001)]
        (numbers,) = offered(sent(made(1001), held[999], MIB), held=held).values()
        assert len(numbers) <= 32
        assert numbers[0] == 1
        assert numbers[-3:] == [997, 998, 999]
        back = [1001 - number for number in numbers]
        assert all(far <= 2 * near for far, near in pairwise(back))

    def test_has_of_other_lineages_the_ones_just_before_and_after(self) -> None:
        own = [made(number, live=9001) for number in (10, 20)]
        others = [made(number, live=9002) for number in (11, 19, 31, 39)]
        step = sent(made(30, live=9001), own[1], MIB)
        assert offered(step, held=[*own, *others]) == {uuid(30): [10, 19, 31]}

    def test_leaves_room_for_its_own_lineage_beside_many_others(self) -> None:
        own = [made(2 * number, live=9000) for number in range(1, 100)]
        others = [made(2 * number + 1, live=9001 + number) for number in range(99)]
        step = sent(made(200, live=9000), own[-1], MIB)
        (numbers,) = offered(step, held=[*own, *others]).values()
        assert len(numbers) <= 32
        assert sum(number % 2 == 0 for number in numbers) >= 12
        assert [number for number in numbers if number % 2][-1] == 197


class TestTaking:
    HELD = (made(1), made(2), made(3))
    FOUND = Diff(uuid(4), uuid(3), (uuid(1), uuid(2)))

    @pytest.fixture
    def asked(self) -> CloneSources:
        found = sources(sent(made(4), self.HELD[2], 2 * MIB), held=[*self.HELD])
        assert found.increments == (self.FOUND,)
        assert found.next() == (self.FOUND,)
        return found

    def test_takes_what_was_used_with_its_own_size(self, asked: CloneSources) -> None:
        asked.learn(Measurement(self.FOUND, 1000, 5, (uuid(2),)))
        (narrowed,) = asked.next()
        assert narrowed == Diff(uuid(4), uuid(3), (uuid(2),))
        asked.learn(Measurement(narrowed, 1001, 5, (uuid(2),)))
        assert asked.next() == ()
        plan = asked.plan()
        (step,) = plan.steps
        assert step.clones == (self.HELD[1],)
        assert step.parent == self.HELD[2]
        assert step.size == Size(1001, Exactness.MEASURED)
        assert step.reason == Reason(unshared=Size(2 * MIB, Exactness.MEASURED))
        assert plan.lower_bound == plan.send_bytes == 1001
        assert asked.asked == 2

    def test_takes_all_at_once_if_all_were_used(self, asked: CloneSources) -> None:
        asked.learn(Measurement(self.FOUND, 1000, 5, self.FOUND.clones))
        assert asked.next() == ()
        assert asked.plan().steps[0].clones == self.HELD[:2]

    @pytest.mark.parametrize("saved", [-5, 0, 128 * 1024 - 1])
    def test_takes_nothing_where_that_saves_too_little(
        self, asked: CloneSources, saved: int
    ) -> None:
        asked.learn(Measurement(self.FOUND, 2 * MIB - saved, 5, self.FOUND.clones))
        assert asked.next() == ()
        assert asked.plan().steps[0].clones == ()
        assert asked.plan().send_bytes == asked.plan().lower_bound == 2 * MIB

    def test_takes_nothing_where_nothing_was_used(self, asked: CloneSources) -> None:
        asked.learn(Measurement(self.FOUND, 0, 5, ()))
        assert (asked.next(), asked.plan().send_bytes) == ((), 2 * MIB)


class TestGuess:
    """A rough look saves measurements."""

    @pytest.mark.parametrize(("new", "count"), [(0, 1), (2 * MIB - 65_537, 1), (2 * MIB, 0)])
    def test_forgets_what_has_nearly_only_new_data(self, new: int, count: int) -> None:
        found = sources(sent(made(3), made(2), 2 * MIB), held=[made(1), made(2)])
        found.guess(found.increments[0], new)
        assert len(found.next()) == found.asked == count

    @pytest.mark.parametrize(("seconds", "count"), [(0.01, 1), (0.1, 0)])
    def test_forgets_what_is_sent_sooner_than_it_is_measured(
        self, seconds: float, count: int
    ) -> None:
        step = sent(made(3), made(2), 2 * MIB)
        found = sources(step, held=[made(1), made(2)], times={uuid(3): seconds})
        found.guess(found.increments[0], 0)
        assert len(found.next()) == count

    def test_is_not_asked_for_what_is_sent_in_full(self) -> None:
        found = sources(sent(made(3), None, MIB), held=[made(1)])
        assert found.increments == ()
        assert len(found.next()) == 1

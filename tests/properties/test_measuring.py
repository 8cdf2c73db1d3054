"""Over made-up histories: few questions, none twice, and a plan whatever the answers are."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.histories import KINDS, Habits, History, make
from buttersink.catalogue import Diff, Measurement, Snapshot, Uuid
from buttersink.planner import Action, Arrival, Survey, make_plan
from buttersink.planner.measuring import Measuring

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    Answer = Callable[[Diff], Measurement]

LARGE = 1000  # times as large as the histories are: sending is dear, so all is measured
DEAR = 20  # the same where all is too much
COMMAND = DEAR * 48 * 1024  # bytes of one command then
FORGETFUL = Habits(rollbacks=2, forgotten=0.5)

histories = st.builds(
    make,
    st.sampled_from(KINDS),
    st.integers(6, 40),
    st.integers(0, 20),
    st.sampled_from([Habits(), FORGETFUL, Habits(rollbacks=20, forgotten=1)]),
)


@st.composite
def surveys(draw: st.DrawFn) -> tuple[History, Survey]:
    """Draw a history of which some is wanted, some held, and some neither."""
    history = draw(histories)
    roles = [draw(st.sampled_from("wwwwho")) for _ in history.snapshots]
    parts = [
        tuple(s for s, role in zip(history.snapshots, roles, strict=True) if role == part)
        for part in "who"
    ]
    return history, sending(history, *parts)


def sending(
    history: History,
    wanted: Sequence[Snapshot],
    held: Sequence[Snapshot] = (),
    others: Sequence[Snapshot] = (),
) -> Survey:
    return Survey(
        send=tuple(Arrival(snapshot, snapshot.path) for snapshot in wanted),
        held=tuple(held),
        others=tuple(others),
        lineage=history.lineage,
    )


def true_sizes(history: History) -> Answer:
    return lambda diff: Measurement(diff, LARGE * history.size(diff.parent, diff.to), 10)


def measured(
    survey: Survey, answer: Answer, look: Answer | None = None
) -> tuple[Measuring, list[Diff]]:
    measuring, asked = Measuring(survey), list[Diff]()
    while True:
        if look and (questions := measuring.questions()):
            for diff in questions:
                measuring.look(diff, look(diff).bytes)
        elif batch := measuring.next():
            asked += batch
            for diff in batch:
                measuring.learn(answer(diff))
        else:
            assert measuring.asked == len(asked)
            return measuring, asked


def any_size(diff: Diff, salt: int) -> int:
    """Return a size that follows from the pair alone, and from nothing it has in common."""
    return crc32(diff.to + (diff.parent or b""), salt) % 97


@cache
def long_history(kind: str, count: int, forgotten: float) -> History:
    return make(kind, count, 7, Habits(forgotten=forgotten))


@given(surveys(), st.data())
def test_whatever_the_answers_are_no_pair_comes_twice_and_both_bounds_hold(
    drawn: tuple[History, Survey], data: st.DataObject
) -> None:
    history, survey = drawn
    commands = data.draw(st.sampled_from([1, 10**6]))
    chance = data.draw(st.randoms(use_true_random=False))

    def answer(diff: Diff) -> Measurement:
        return Measurement(diff, chance.randrange(10**12), commands)

    look = data.draw(st.sampled_from([None, answer, true_sizes(history)]))
    _measuring, asked = measured(survey, answer, look)
    assert len(set(asked)) == len(asked)
    assert len(asked) <= max(12, 8 * len(survey.send))


@given(surveys(), st.integers(0, 100))
def test_a_plan_has_only_measured_diffs(drawn: tuple[History, Survey], salt: int) -> None:
    _history, survey = drawn
    measuring, asked = measured(survey, lambda diff: Measurement(diff, any_size(diff, salt), 1))
    plan = make_plan(survey, measuring.sizes)
    steps = [(step.snapshot, step.parent) for step in plan.of(Action.SEND)]
    sent = {Diff(to.uuid, parent.uuid if parent else None) for to, parent in steps if to}
    assert len(sent) == len(steps) == len(survey.send)
    assert sent <= set(asked)


@given(surveys(), st.sets(st.integers(0, 400)))
def test_whenever_measuring_is_cut_short_there_is_a_plan(
    drawn: tuple[History, Survey], silent: set[int]
) -> None:
    """After the first questions any may go without an answer."""
    history, survey = drawn
    measuring, answer, number = Measuring(survey), true_sizes(history), 0
    for diff in measuring.next():
        measuring.learn(answer(diff))
    while batch := measuring.next():
        for diff in batch:
            number += 1
            if number not in silent:
                measuring.learn(answer(diff))
        assert len(make_plan(survey, measuring.sizes).of(Action.SEND)) == len(survey.send)


@given(surveys(), st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_matter(
    drawn: tuple[History, Survey], chance: random.Random
) -> None:
    history, survey = drawn
    parts = [[arrival.snapshot for arrival in survey.send], [*survey.held], [*survey.others]]
    for part in parts:
        chance.shuffle(part)
    _measuring, expected = measured(survey, true_sizes(history))
    _measuring, asked = measured(sending(history, *parts), true_sizes(history))
    assert asked == expected


def broken_off(history: History, part: float) -> dict[Diff, list[bool]]:
    """
    Return for each diff whether each measurement of it came to its end.

    Looks find only a part of what diffs from far have.
    """
    measuring, found = Measuring(sending(history, history.snapshots)), dict[Diff, list[bool]]()
    while True:
        if questions := measuring.questions():
            for diff in questions:
                near = not diff.parent or diff in found
                size = history.size(diff.parent, diff.to) * DEAR
                measuring.look(diff, size if near else int(size * part))
        elif batch := measuring.next():
            limits = measuring.limits(batch)
            for diff in batch:
                size = history.size(diff.parent, diff.to)
                least = min(DEAR * size, limits.get(diff, DEAR * size) + 1)
                whole = least == DEAR * size
                found.setdefault(diff, []).append(whole)
                measuring.learn(Measurement(diff, least, 1 + least // COMMAND, finished=whole))
        else:
            assert measuring.asked == sum(map(len, found.values()))
            return found


def test_what_guesses_show_is_measured_to_its_end_even_if_that_was_broken_off() -> None:
    history = long_history("gfs", 200, 0.5)
    found = broken_off(history, 0.6)
    again = [each for each in found.values() if len(each) > 1]
    assert again
    assert all(each == [False, True] for each in again)
    assert sum(map(len, found.values())) <= 8 * len(history.snapshots)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [10, 100, 1000])
@pytest.mark.parametrize("forgotten", [0, 1])
def test_at_most_eight_for_each_snapshot(kind: str, count: int, forgotten: float) -> None:
    history = long_history(kind, count, forgotten)
    _measuring, asked = measured(sending(history, history.snapshots), true_sizes(history))
    assert len(asked) <= 8 * len(history.snapshots)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [10, 100, 1000])
@pytest.mark.parametrize("forgotten", [0, 1])
def test_a_single_new_one_needs_at_most_twelve(kind: str, count: int, forgotten: float) -> None:
    """The latest, and the latest two that are the first after a rollback."""
    history = long_history(kind, count, forgotten)
    first = {snapshot.parent_uuid: snapshot for snapshot in reversed(history.snapshots)}
    for new in [history.snapshots[-1], *list(first.values())[:2]]:
        held = [snapshot for snapshot in history.snapshots if snapshot is not new]
        _measuring, asked = measured(sending(history, [new], held), true_sizes(history))
        assert 2 < len(asked) <= 12


@pytest.mark.parametrize("parent", [b"W" * 16, None, b"lost" * 4, b"made" * 4])
def test_a_single_new_one_among_ten_thousand_needs_at_most_twelve(parent: Uuid | None) -> None:
    """After one of the same subvolume, after nothing, of one that is gone, after a rollback."""
    before = Uuid(b"W" * 16)
    held = [numbered(number, before) for number in range(10_000)]
    new = numbered(10_000, parent)
    lineage = {Uuid(b"made" * 4): held[5000].uuid}
    survey = Survey(send=(Arrival(new, new.path),), held=tuple(held), lineage=lineage)
    _measuring, asked = measured(survey, lambda diff: Measurement(diff, 10**9, 1))
    assert 2 < len(asked) <= 12


def numbered(number: int, parent: Uuid | None) -> Snapshot:
    uuid = Uuid(number.to_bytes(16, "big"))
    return Snapshot(uuid, uuid, parent, None, number, number, b"home.%d" % number)

"""What is asked for, and when asking stops."""

from __future__ import annotations

from dataclasses import replace

import pytest

from buttersink.catalogue import Diff, Exactness, Measurement, Size, Snapshot, Uuid
from buttersink.planner import Arrival, Survey
from buttersink.planner.candidates import candidates
from buttersink.planner.measuring import Measuring

MB = 10**6


def uuid(number: int) -> Uuid:
    return Uuid(number.to_bytes(16, "big"))


def made(number: int) -> Snapshot:
    return Snapshot(uuid(number), uuid(number), uuid(10**6), None, number, number, b"%d" % number)


def sending(*numbers: int, held: tuple[int, ...] = ()) -> Survey:
    return Survey(
        send=tuple(Arrival(made(n), b"%d" % n) for n in numbers),
        held=tuple(made(n) for n in held),
    )


def measured(
    survey: Survey, *, commands: int, scale: int = 1
) -> tuple[Measuring, list[tuple[Diff, ...]]]:
    """Answer every question with so many commands; return the questions, too."""
    measuring, batches = Measuring(survey), []
    while batch := measuring.next():
        batches.append(batch)
        for diff in batch:
            length = scale * (1000 if diff.parent else 100_000)
            measuring.learn(Measurement(diff, length, commands, extents=commands))
    return measuring, batches


def test_nothing_to_send_asks_for_nothing() -> None:
    assert Measuring(Survey()).next() == ()
    assert Measuring(sending(held=(1, 2))).next() == ()


def test_first_each_snapshot_from_what_it_grew_out_of() -> None:
    first = Measuring(sending(1, 2, 3)).next()
    assert set(first) == {Diff(uuid(1), None), Diff(uuid(2), uuid(1)), Diff(uuid(3), uuid(2))}


def test_what_is_held_is_grown_out_of_but_not_asked_for() -> None:
    assert Measuring(sending(2, held=(1,))).next() == (Diff(uuid(2), uuid(1)),)


def test_a_small_history_is_measured_whole() -> None:
    measuring, _batches = measured(sending(*range(1, 9)), commands=10, scale=10_000)
    assert len(measuring.sizes) == measuring.candidates == 64


def test_a_dear_one_is_measured_little_beyond_what_has_to_be() -> None:
    measuring, batches = measured(sending(*range(1, 101)), commands=50_000)
    assert len(batches[0]) == 100
    assert measuring.asked <= 170
    assert measuring.candidates > 400


@pytest.mark.parametrize("others", [0, 400])
def test_where_many_snapshots_share_the_data_less_is_measured(others: int) -> None:
    """The kernel looks for all that refer to an extent."""
    measuring = Measuring(sending(*range(1, 31), held=tuple(range(31, 31 + others))))
    while batch := measuring.next():
        for diff in batch:
            length = 60 * MB if diff.parent else 1000 * MB
            measuring.learn(Measurement(diff, length, 100, extents=90))
    assert (measuring.asked < 150) is (others > 0)


def test_a_large_difference_has_its_lineage_searched() -> None:
    measuring = Measuring(sending(*range(1, 41)))
    asked: list[Diff] = []
    while batch := measuring.next():
        asked += batch
        for diff in batch:
            length = MB if diff.parent else 100 * MB
            if diff.parent and diff.to == uuid(40):  # most like the twentieth, as after a restore
                length += 9 * MB // 2 * abs(20 - int.from_bytes(diff.parent, "big"))
            measuring.learn(Measurement(diff, length, 100))
    found = [size.bytes for diff, size in measuring.sizes.items() if diff.to == uuid(40)]
    assert min(found) < 10 * MB
    assert len(asked) <= 6 * 40


def searched(*, answers: bool) -> tuple[Measuring, list[Diff]]:
    """Measure a line of 40 of which the last is like the twentieth."""
    measuring, asked = Measuring(sending(*range(1, 41))), list[Diff]()

    def size(diff: Diff) -> int:
        length = MB if diff.parent else 100 * MB
        if diff.parent and uuid(40) in diff:
            other = diff.parent if diff.to == uuid(40) else diff.to
            length += 9 * MB // 2 * abs(20 - int.from_bytes(other, "big"))
        return length

    while True:
        if answers and (questions := measuring.questions()):
            for diff in questions:
                measuring.look(diff, size(diff))
        elif batch := measuring.next():
            asked += batch
            for diff in batch:
                measuring.learn(Measurement(diff, size(diff), 100))
        else:
            return measuring, asked


def test_tries_that_are_seen_to_be_hopeless_are_not_measured() -> None:
    blind, asked_blindly = searched(answers=False)
    seeing, asked = searched(answers=True)
    assert len(asked) < len(asked_blindly)
    for measuring in (blind, seeing):
        assert min(s.bytes for d, s in measuring.sizes.items() if d.to == uuid(40)) < 10 * MB


def test_all_are_looked_at_once_and_only_where_that_is_cheap() -> None:
    for commands, looks in ((1000, 1), (10**7, 0)):
        measuring = Measuring(sending(*range(1, 41)))
        seen = 0
        while True:
            if questions := measuring.questions():
                seen += len(questions) == 40
            elif batch := measuring.next():
                for diff in batch:
                    count = 100 if diff.parent else commands
                    measuring.learn(Measurement(diff, 10 * MB, count))
            else:
                break
        assert seen == looks


def test_nothing_is_asked_for_twice() -> None:
    _measuring, batches = measured(sending(*range(1, 41), held=(0, 50)), commands=100)
    asked = [diff for batch in batches for diff in batch]
    assert len(asked) == len(set(asked))


def test_what_cannot_be_sent_is_not_asked_for() -> None:
    survey = Survey(send=(Arrival(made(1), b"1", problem="taken"), Arrival(made(2), b"2")))
    _measuring, batches = measured(survey, commands=10)
    assert batches == [(Diff(uuid(2), None),)]


def test_a_batch_that_was_dearer_than_expected_is_the_last() -> None:
    measuring, batches = Measuring(sending(*range(1, 41))), 0
    while batch := measuring.next():
        batches += 1
        for diff in batch:
            length = 1000 if diff.parent else 100_000
            measuring.learn(Measurement(diff, length, 10 if batches == 1 else 10_000))
    assert batches == 2


def test_what_cannot_be_guessed_first_is_followed_by_all_the_rest() -> None:
    measuring = Measuring(sending(*range(1, 31)))
    first = measuring.next()
    rest: list[Diff] = []
    while batch := measuring.next():
        rest += batch
    assert len(first) + len(rest) == measuring.candidates


def test_guesses_are_kept_as_guesses() -> None:
    measuring = Measuring(sending(1))
    measuring.guess(Diff(uuid(1), None), 5)
    assert measuring.sizes[Diff(uuid(1), None)].exactness is Exactness.ESTIMATED


def test_a_try_that_is_much_dearer_than_another_way_is_not_measured_to_its_end() -> None:
    branch = [made(n) for n in range(1, 31)]
    branch += [replace(made(n), parent_uuid=uuid(2 * 10**6)) for n in range(31, 41)]
    measuring = Measuring(Survey(send=tuple(Arrival(s, s.path) for s in branch)))
    first = measuring.next()
    assert measuring.limits(first) == {}
    for diff in first:
        measuring.learn(Measurement(diff, 1000 if diff.parent else 50_000, 1000))
    tries = measuring.next()
    assert {diff.to for diff in tries} == {uuid(31)}
    assert measuring.limits(tries) == dict.fromkeys(tries, 1250)
    measuring.learn(Measurement(tries[0], 1251, 100, finished=False))
    assert measuring.sizes[tries[0]] == Size(1251, Exactness.UNFINISHED)


def test_where_all_can_be_afforded_all_is_measured_to_its_end() -> None:
    measuring = Measuring(sending(*range(1, 41)))
    for diff in measuring.next():
        measuring.learn(Measurement(diff, 10**9, 1))
    assert measuring.limits(measuring.next()) == {}


def test_a_limit_on_chains_may_need_dear_ones() -> None:
    measuring = Measuring(sending(1, 2, 3), far=True)
    for diff in measuring.next():
        measuring.learn(Measurement(diff, 1000, 1))
    assert measuring.limits(measuring.next()) == {}


def test_those_come_first_that_promise_most() -> None:
    """Once all necessary ones are known: of the dearest, from the nearest."""
    measuring = Measuring(sending(*range(1, 400)))
    for diff in measuring.next():
        length = 3000 if diff.to == uuid(200) else 1000
        measuring.learn(Measurement(diff, length if diff.parent else 50_000, 1))
    full, *dear = measuring.next()[:4]
    assert full == Diff(uuid(1), uuid(2))
    assert set(dear) == {
        Diff(uuid(1), uuid(3)),
        Diff(uuid(200), uuid(198)),
        Diff(uuid(200), uuid(201)),
    }


def test_a_branch_is_paired_with_what_lies_round_the_place_where_it_began() -> None:
    """Nothing tells that 1000 and those after it went on from 137."""
    branch = [replace(made(n), parent_uuid=uuid(10**7)) for n in range(1000, 1005)]
    snapshots = [*map(made, range(1, 300)), *branch]
    measuring = Measuring(Survey(send=tuple(Arrival(s, s.path) for s in snapshots)))
    while batch := measuring.next():
        for diff in batch:
            steps = [int.from_bytes(end, "big") if end else -10_000 for end in diff[:2]]
            steps = [step - 1000 + 138 if step >= 1000 else step for step in steps]
            apart = abs(steps[0] - steps[1])
            measuring.learn(Measurement(diff, 10**6 * apart, 1))
    assert {
        Diff(uuid(1000), uuid(137)),
        Diff(uuid(1001), uuid(137)),
        Diff(uuid(138), uuid(1000)),
        Diff(uuid(1000), uuid(138)),
    } <= measuring.sizes.keys()


def test_of_large_files_at_most_eight_for_each_snapshot() -> None:
    survey = sending(*range(1, 1001, 3), held=tuple(range(2, 1001, 3)))
    _measuring, batches = measured(survey, commands=0)
    assert sum(map(len, batches)) <= 8 * len(survey.send)


def test_for_short_chains_far_ones_are_asked_for_too() -> None:
    survey = sending(*range(1, 101))
    asked: set[Diff] = set()
    measuring = Measuring(survey, far=True)
    while batch := measuring.next():
        asked.update(batch)
        for diff in batch:
            measuring.learn(Measurement(diff, 10**9, 1))
    assert asked >= set(candidates([a.snapshot for a in survey.send], (), {}, far=True))
    assert len(asked) > 8 * 100

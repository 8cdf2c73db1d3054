"""Which snapshots are lost without some diffs, and what is said to bring them back."""

from __future__ import annotations

from buttersink.catalogue import Diff, Uuid
from buttersink.planner.mending import Repair, repairs

A, B, C, D, E = (Uuid(letter * 16) for letter in (b"a", b"b", b"c", b"d", b"e"))
CHAIN = [Diff(A, None), Diff(B, A), Diff(C, B), Diff(D, C)]


def test_whole_chains_need_nothing() -> None:
    assert repairs(CHAIN, [], [A, B, C, D]) == {}


def test_a_broken_diff_takes_what_is_behind_it_and_is_all_that_has_to_be_sent() -> None:
    again = Repair(B, (A,))
    assert repairs(CHAIN, [Diff(B, A)], [A, B, C, D]) == {B: again, C: again, D: again}


def test_a_broken_full_one_can_come_in_full() -> None:
    again = Repair(A, (None,))
    assert repairs(CHAIN, [Diff(A, None)], [A, B]) == {A: again, B: again}


def test_a_missing_link_is_what_has_to_be_sent() -> None:
    assert repairs([CHAIN[0], *CHAIN[2:]], [], [A, C, D]) == {C: Repair(B), D: Repair(B)}


def test_another_chain_makes_up_for_a_broken_diff() -> None:
    assert repairs([*CHAIN, Diff(C, None)], [Diff(B, A)], [A, B, C, D]) == {B: Repair(B, (A,))}


def test_what_is_broken_twice_has_to_be_sent_twice() -> None:
    broken = [Diff(B, A), Diff(D, C)]
    lost = repairs(CHAIN, broken, [A, B, C, D])
    assert lost == {B: Repair(B, (A,)), C: Repair(B, (A,)), D: Repair(D)}


def test_every_whole_origin_is_named() -> None:
    diffs = [Diff(A, None), Diff(B, None), Diff(C, A), Diff(C, B), Diff(C, E)]
    assert repairs(diffs, diffs[2:], [A, B, C]) == {C: Repair(C, (A, B))}


def test_what_nobody_wants_is_not_lost() -> None:
    assert repairs(CHAIN, [Diff(C, B)], [A, B]) == {}


def test_a_snapshot_without_any_diff_has_to_be_sent() -> None:
    assert repairs([], [], [A]) == {A: Repair(A)}


def test_a_circle_is_opened_at_one_place() -> None:
    assert repairs([Diff(A, B), Diff(B, A)], [], [A, B]) == {A: Repair(A), B: Repair(A)}


def test_two_missing_parents_of_one_are_not_both_sent() -> None:
    assert repairs([Diff(C, A), Diff(C, B)], [], [C]) == {C: Repair(A)}


def test_each_repair_does_what_it_says() -> None:
    diffs = [*CHAIN, Diff(E, C), Diff(E, D)]
    for broken in ([Diff(B, A)], [Diff(A, None), Diff(D, C)], diffs):
        lost = repairs(diffs, broken, [A, B, C, D, E])
        mended = {Diff(repair.snapshot, None) for repair in lost.values()}
        assert repairs([*diffs, *mended], set(broken) - mended, [A, B, C, D, E]) == {}

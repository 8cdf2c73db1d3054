"""Bounds on full sends that were not measured, from diffs that were."""

from __future__ import annotations

from bench.histories import KINDS, make
from buttersink.catalogue import Diff, Exactness, Size, Uuid
from buttersink.planner.bounds import full_sends

A, B, C = (Uuid(bytes([number]) * 16) for number in (1, 2, 3))


def measured(size: int) -> Size:
    return Size(size, Exactness.MEASURED)


def bounded(size: int) -> Size:
    return Size(size, Exactness.BOUNDED)


def test_is_the_shortest_way_from_a_full_send() -> None:
    sizes = {
        Diff(A, None): measured(100),
        Diff(B, A): measured(5),
        Diff(C, A): measured(50),
        Diff(C, B): measured(7),
    }
    assert full_sends([A, B, C], sizes) == {
        Diff(B, None): bounded(105),
        Diff(C, None): bounded(112),
    }


def test_does_not_follow_from_how_long_a_diff_is_at_least() -> None:
    at_least = Size(5, Exactness.UNFINISHED)
    assert full_sends([B], {Diff(A, None): measured(9), Diff(B, A): at_least}) == {}


def test_needs_a_full_send_to_begin_with() -> None:
    assert full_sends([B], {Diff(B, A): measured(5), Diff(A, B): measured(5)}) == {}


def test_is_only_for_what_is_wanted() -> None:
    assert full_sends([], {Diff(A, None): measured(9), Diff(B, A): measured(5)}) == {}


def test_is_no_less_than_the_full_send_is() -> None:
    for kind in KINDS:
        history = make(kind, 60, 3)
        uuids = [snapshot.uuid for snapshot in history.snapshots]
        pairs = [Diff(uuids[0], None), *map(Diff, uuids[1:], uuids)]
        sizes = {pair: measured(history.size(pair.parent, pair.to)) for pair in pairs}
        for diff, bound in full_sends(uuids, sizes).items():
            assert bound.bytes >= history.size(None, diff.to)

"""Few pairs, the right ones, and the same ones whatever the order of the input."""

from __future__ import annotations

import random
from dataclasses import replace
from itertools import pairwise

import pytest

from bench.histories import KINDS, History, make, measured_pairs
from buttersink.catalogue import Diff, Snapshot, Uuid
from buttersink.planner.arborescence import minimum_arborescence
from buttersink.planner.candidates import candidates


def line(count: int, *, parent: bytes = b"W", start: int = 0) -> list[Snapshot]:
    return [
        Snapshot(
            uuid=uuid,
            own_uuid=uuid,
            parent_uuid=Uuid(parent.ljust(16, b".")),
            received_uuid=None,
            generation=number,
            created=number,
            path=b"home.%06d" % number,
        )
        for number in range(start, start + count)
        for uuid in [Uuid(b"%016d" % number)]
    ]


def least(history: History, diffs: list[Diff]) -> int:
    """Return the bytes of the cheapest choice of one diff for every snapshot."""
    node: dict[Uuid | None, int] = {None: 0}
    for number, snapshot in enumerate(history.snapshots, start=1):
        node[snapshot.uuid] = number
    sizes = [history.size(diff.parent, diff.to) for diff in diffs]
    entering = minimum_arborescence(
        len(node), [node[diff.parent] for diff in diffs], [node[diff.to] for diff in diffs], sizes
    )
    return sum(sizes[arc] for arc in entering[1:])


def all_pairs(history: History) -> list[Diff]:
    uuids = [snapshot.uuid for snapshot in history.snapshots]
    diffs = [Diff(to, None) for to in uuids]
    return diffs + [Diff(to, parent) for to in uuids for parent in uuids if parent != to]


class TestCandidates:
    def test_small_families_get_all_pairs(self) -> None:
        snapshots = line(5)
        uuids = [snapshot.uuid for snapshot in snapshots]
        expected = {Diff(a, b) for a in uuids for b in [*uuids, None] if a != b}
        found = candidates(snapshots, (), {})
        assert set(found) == expected
        assert len(found) == len(expected)

    @pytest.mark.parametrize("kind", KINDS)
    def test_are_proper_pairs_of_the_snapshots_given(self, kind: str) -> None:
        history = make(kind, 120, 1)
        wanted, held, others = (history.snapshots[part::3] for part in range(3))
        found = candidates(wanted, held, history.lineage, others)
        goals = {snapshot.uuid for snapshot in wanted}
        parents: set[Uuid | None] = {None, *goals, *(snapshot.uuid for snapshot in held)}
        assert len(set(found)) == len(found)
        assert all(diff.to in goals and diff.parent in parents for diff in found)
        assert all(diff.to != diff.parent for diff in found)
        assert {diff.to for diff in found if diff.parent is None} == goals

    @pytest.mark.parametrize("kind", KINDS)
    def test_do_not_depend_on_the_order_of_the_input(self, kind: str) -> None:
        history = make(kind, 60, 2)
        snapshots = list(history.snapshots)
        expected = candidates(snapshots[:40], snapshots[40:50], history.lineage, snapshots[50:])
        for seed in range(3):
            wanted, held, others = snapshots[:40], snapshots[40:50], snapshots[50:]
            for part in (wanted, held, others):
                random.Random(seed).shuffle(part)
            assert candidates(wanted, held, history.lineage, others) == expected

    def test_snapshots_of_one_effective_uuid_count_once(self) -> None:
        snapshots = line(6)
        copies = [replace(s, own_uuid=Uuid(s.uuid[::-1]), path=b"c/" + s.path) for s in snapshots]
        assert candidates([*snapshots, *copies], (), {}) == candidates(snapshots, (), {})

    @pytest.mark.parametrize("kind", KINDS)
    def test_are_at_most_eight_for_each_snapshot(self, kind: str) -> None:
        history = make(kind, 400, 3)
        found = candidates(history.snapshots, (), history.lineage)
        assert len(found) <= 8 * len(history.snapshots)

    @pytest.mark.parametrize("count", [3, 100, 1024, 4097])
    def test_one_new_snapshot_needs_at_most_twelve(self, count: int) -> None:
        snapshots = line(count)
        assert 2 < len(candidates(snapshots[-1:], snapshots[:-1], {})) <= 12

    def test_more_far_ones_reach_back_to_the_beginning(self) -> None:
        snapshots = line(1001)
        last = snapshots[-1].uuid
        parents = {
            diff.parent for diff in candidates(snapshots, (), {}, far=True) if diff.to == last
        }
        back = sorted(1000 - int(parent) for parent in parents if parent)
        assert back[:6] == [1, 2, 3, 4, 6, 10]
        assert back[-1] > 600

    def test_the_snapshot_a_branch_began_from_is_a_parent_of_its_first(self) -> None:
        base = line(50)
        branch = line(10, parent=b"B", start=100)
        lineage = {Uuid(b"B".ljust(16, b".")): base[20].uuid}
        found = candidates([*base, *branch], (), lineage)
        assert Diff(branch[0].uuid, base[20].uuid) in found
        assert Diff(branch[0].uuid, base[21].uuid) in found
        assert Diff(base[21].uuid, branch[0].uuid) in found

    def test_go_backwards_in_time_too(self) -> None:
        snapshots = line(50)
        found = candidates(snapshots, (), {})
        for older, newer in pairwise(snapshots):
            assert Diff(older.uuid, newer.uuid) in found

    def test_a_fork_at_a_snapshot_that_is_no_parent_joins_its_neighbours(self) -> None:
        base = line(50)
        branch = line(10, parent=b"B", start=100)
        lineage = {Uuid(b"B".ljust(16, b".")): base[20].uuid}
        found = candidates([*base[:20], *base[21:], *branch], (), lineage, [base[20]])
        assert Diff(branch[0].uuid, base[19].uuid) in found
        assert Diff(branch[0].uuid, base[21].uuid) in found

    def test_a_fork_at_an_oldest_that_is_no_parent_still_joins_the_branches(self) -> None:
        base = line(20)
        branch = line(10, parent=b"B", start=100)
        lineage = {Uuid(b"B".ljust(16, b".")): base[0].uuid}
        found = candidates([*base[1:], *branch], (), lineage, [base[0]])
        assert Diff(branch[0].uuid, base[1].uuid) in found

    def test_of_nothing_are_none(self) -> None:
        assert candidates((), line(3), {}) == ()

    @pytest.mark.parametrize("kind", KINDS)
    def test_lose_next_to_nothing_against_all_pairs(self, kind: str) -> None:
        history = make(kind, 150, 1)
        asked = measured_pairs(history, scale=1000)
        assert least(history, asked) <= 1.002 * least(history, all_pairs(history))

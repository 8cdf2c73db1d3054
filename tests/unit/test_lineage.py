"""What grew out of what, from UUIDs where they tell and by place and time where they do not."""

from __future__ import annotations

import random

import pytest

from buttersink.catalogue import Snapshot, Uuid
from buttersink.planner.lineage import Ancestry, ancestry


def uuid(name: str) -> Uuid:
    return Uuid(name.encode().ljust(16, b"."))


def snap(
    name: str,
    generation: int,
    parent: str | None = None,
    path: bytes = b"",
    received: str | None = None,
) -> Snapshot:
    own = uuid(name)
    received_uuid = uuid(received) if received else None
    return Snapshot(
        uuid=received_uuid or own,
        own_uuid=own,
        parent_uuid=uuid(parent) if parent else None,
        received_uuid=received_uuid,
        generation=generation,
        created=generation,
        path=path or name.encode(),
    )


def links(tree: Ancestry) -> dict[str, str]:
    """Return child to parent by name; a guessed parent ends in `?`."""

    def name(index: int) -> str:
        return tree.snapshots[index].own_uuid.decode().rstrip(".")

    return {
        name(index): name(older) + ("?" if tree.guessed[index] else "")
        for index, older in enumerate(tree.before)
        if older >= 0
    }


class TestByUuid:
    def test_snapshots_of_one_writable_subvolume_follow_each_other_by_generation(self) -> None:
        snapshots = [snap("c", 30, "W"), snap("a", 10, "W"), snap("b", 20, "W")]
        assert links(ancestry(snapshots, {})) == {"b": "a", "c": "b"}

    def test_a_branch_begins_at_the_snapshot_its_subvolume_was_made_from(self) -> None:
        snapshots = [snap(n, g, "W") for n, g in (("a", 1), ("b", 2), ("c", 3))]
        snapshots += [snap("x", 9, "B"), snap("y", 12, "B")]
        assert links(ancestry(snapshots, {uuid("B"): uuid("a")})) == {
            "b": "a",
            "c": "b",
            "x": "a",
            "y": "x",
        }

    def test_a_branch_of_a_writable_subvolume_begins_at_its_latest_snapshot_then(self) -> None:
        snapshots = [snap("a", 1, "W"), snap("b", 2, "W"), snap("x", 3, "B"), snap("c", 4, "W")]
        tree = ancestry(snapshots, {uuid("B"): uuid("W")})
        assert links(tree) == {"b": "a", "c": "b", "x": "b"}

    def test_branches_of_one_deleted_snapshot_join(self) -> None:
        snapshots = [snap("x", 3, "B", b"p/x"), snap("y", 4, "C", b"q/y")]
        lineage = {uuid("B"): uuid("gone"), uuid("C"): uuid("gone")}
        assert links(ancestry(snapshots, lineage)) == {"y": "x"}

    def test_received_snapshots_follow_the_one_they_were_received_on(self) -> None:
        snapshots = [
            snap("a", 10, None, received="A"),
            snap("b", 20, "a", received="B"),
            snap("c", 30, "b", received="C"),
            snap("x", 40, "a", received="X"),
        ]
        assert links(ancestry(snapshots, {})) == {"b": "a", "c": "b", "x": "a"}

    def test_a_parent_with_a_received_uuid_is_found_by_its_own(self) -> None:
        snapshots = [snap("a", 1, received="A"), snap("x", 5, "W")]
        assert links(ancestry(snapshots, {uuid("W"): uuid("a")})) == {"x": "a"}

    def test_a_snapshot_made_from_a_later_one_is_put_after_what_that_grew_from(self) -> None:
        snapshots = [snap("a", 1), snap("c", 3, "a"), snap("b", 2, "c", b"elsewhere/b")]
        assert links(ancestry(snapshots, {uuid("c"): uuid("a")})) == {"b": "a", "c": "a"}

    def test_unlisted_snapshots_are_stepped_over(self) -> None:
        snapshots = [snap("a", 1), snap("d", 4, "c", b"elsewhere/d")]
        lineage = {uuid("c"): uuid("b"), uuid("b"): uuid("a")}
        assert links(ancestry(snapshots, lineage)) == {"d": "a"}

    def test_copies_of_one_effective_uuid_count_once(self) -> None:
        snapshots = [snap("a", 1), snap("copy", 2, received="a"), snap("b", 3, "copy")]
        tree = ancestry(snapshots, {})
        assert [s.uuid for s in tree.snapshots] == [uuid("a"), uuid("b")]
        assert links(tree) == {"b": "a"}

    def test_a_loop_in_the_lineage_ends(self) -> None:
        lineage = {uuid("V"): uuid("W"), uuid("W"): uuid("V")}
        assert links(ancestry([snap("a", 1, "V"), snap("b", 2, "V")], lineage)) == {"b": "a"}

    def test_a_chain_of_5000_needs_no_recursion(self) -> None:
        snapshots = [snap(str(n), n, str(n - 1)) for n in range(1, 5001)]
        tree = ancestry(snapshots, {})
        assert tree.before == (-1, *range(4999))
        assert not any(tree.guessed)

    def test_a_long_trail_without_snapshots_is_walked_once(self) -> None:
        lineage = {uuid(str(n)): uuid(str(n - 1)) for n in range(20_000)}
        snapshots = [snap(f"s{n}", n, str(n)) for n in range(10_000, 20_000)]
        assert ancestry(snapshots, lineage).before == (-1, *range(9_999))

    def test_order_of_the_input_does_not_matter(self) -> None:
        snapshots = [snap(f"s{n}", n // 2, f"W{n % 3}") for n in range(30)]
        lineage = {uuid("W1"): uuid("s4"), uuid("W2"): uuid("s7")}
        expected = ancestry(snapshots, lineage)
        for seed in range(5):
            random.Random(seed).shuffle(snapshots)
            assert ancestry(snapshots, lineage) == expected


class TestByPlace:
    @pytest.mark.parametrize(
        ("older", "newer"),
        [
            (b"1/snapshot", b"12/snapshot"),
            (b"home/.snapshots/9/snapshot", b"home/.snapshots/10/snapshot"),
            (b"home.20240101", b"home.20240102T0300+0100"),
            (b"home.20240101", b"home.20240101_1"),
            (b"daily/@home_2024-01-31_23-59", b"daily/@home_2024-02-01_00-01"),
            (b"2023/12/31/root", b"2024/01/01/root"),
            (b"2023-12-31/vm1", b"2024-01-01/vm1"),
            (b"weekly/old", b"weekly/new"),
            (b"first", b"second"),
        ],
    )
    def test_full_receives_of_one_series_follow_each_other(
        self, older: bytes, newer: bytes
    ) -> None:
        snapshots = [snap("a", 1, path=older), snap("b", 2, path=newer)]
        assert links(ancestry(snapshots, {})) == {"b": "a?"}

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (b"home/.snapshots/1/snapshot", b"root/.snapshots/2/snapshot"),
            (b"host1/home.2023", b"host2/home.2024"),
            (b"2023-12-31/vm1", b"2023-12-31/x/vm2"),
        ],
    )
    def test_other_places_do_not_join(self, one: bytes, other: bytes) -> None:
        assert links(ancestry([snap("a", 1, path=one), snap("b", 2, path=other)], {})) == {}

    def test_two_series_in_one_directory_stay_apart(self) -> None:
        snapshots = [
            snap(f"{name}{day}", day * 2 + place, path=b"%s.%d" % (name.encode(), day))
            for day in range(3)
            for place, name in enumerate(("home", "root"))
        ]
        assert links(ancestry(snapshots, {})) == {
            "home1": "home0?",
            "home2": "home1?",
            "root1": "root0?",
            "root2": "root1?",
        }

    def test_branch_of_a_deleted_subvolume_follows_the_latest_older_one(self) -> None:
        snapshots = [snap("a", 1, "W", b"s.1"), snap("b", 2, "W", b"s.2")]
        snapshots += [snap("x", 3, "gone", b"s.3"), snap("y", 4, "gone", b"s.4")]
        assert links(ancestry(snapshots, {})) == {"b": "a", "x": "b?", "y": "x"}

    def test_nothing_is_guessed_about_a_subvolume_made_from_nothing(self) -> None:
        snapshots = [snap("a", 1, "V", b"v.1"), snap("x", 2, "W", b"v.2"), snap("y", 3, "W")]
        lineage = {uuid("V"): Uuid(bytes(16)), uuid("W"): Uuid(bytes(16))}
        assert links(ancestry(snapshots, lineage)) == {"y": "x"}


class TestFamilies:
    def test_are_what_hangs_together_in_order_of_time(self) -> None:
        snapshots = [snap("a", 1, "V", b"p/a"), snap("x", 2, "W", b"q/x")]
        snapshots += [snap("b", 3, "V"), snap("y", 4, "W")]
        assert ancestry(snapshots, {}).families() == [[0, 2], [1, 3]]

    def test_of_nothing_are_none(self) -> None:
        assert ancestry([], {}).families() == []

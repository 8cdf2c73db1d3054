"""Snapshots of unknown origin find their place, and what stays dear finds what it is like."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from buttersink.catalogue import Snapshot, Uuid
from buttersink.planner.lineage import NONE, ancestry
from buttersink.planner.searching import Search

if TYPE_CHECKING:
    from collections.abc import Callable

    from buttersink.planner.candidates import Pair

FULL = 10**6
WORK = 100


def line(count: int, *, parent: bytes = b"W", start: int = 0) -> list[Snapshot]:
    return [
        Snapshot(uuid, uuid, Uuid(parent.ljust(16, b".")), None, number, number, b"%d" % number)
        for number in range(start, start + count)
        for uuid in [Uuid(b"%016d" % number)]
    ]


def searched(
    snapshots: list[Snapshot],
    size: Callable[[int, int], int],
    room: int,
    allowance: int = 10**9,
    newer: Callable[[Pair], int | None] | None = None,
) -> tuple[Search, list[Pair]]:
    """Answer all that is asked, after each snapshot's diff from what it grew out of."""
    tree = ancestry(snapshots, {})
    search = Search(tree, range(len(snapshots)), room)
    asked: list[Pair] = []
    for to, parent in enumerate(tree.before):
        search.learn((to, parent), size(to, parent) if parent != NONE else FULL, WORK)
    if newer:
        search.begin_near(newer)
    while batch := search.next(room - len(asked), allowance - WORK * len(asked)):
        asked += batch
        for to, parent in batch:
            search.learn((to, parent), size(to, parent), WORK)
    return search, asked


def apart(to: int, parent: int) -> int:
    return 1000 * abs(to - parent)


def forked(to: int, parent: int) -> int:
    """Return sizes for a branch from 300 on that began at 137."""
    if (to < 300) == (parent < 300):
        return apart(to, parent)
    return 1000 * (max(to, parent) - 299 + abs(min(to, parent) - 137))


def restored(to: int, parent: int) -> int:
    """Return sizes where 150 is most like 20, as after a restore, and 40 most like 120."""
    like = {150: 20, 40: 120}
    return 5000 * abs(like[to] - parent) if to in like else 1000


def test_a_branch_finds_where_it_began() -> None:
    snapshots = [*line(300), *line(20, parent=b"B", start=1000)]
    search, asked = searched(snapshots, forked, room=960)
    assert search.origins() == {300: 137}
    assert len(asked) <= 80


def test_a_branch_finds_where_it_began_with_few_tries() -> None:
    snapshots = [*line(300), *line(20, parent=b"B", start=1000)]
    search, asked = searched(snapshots, forked, room=20)
    assert abs(search.origins()[300] - 137) <= 20
    assert len(asked) <= 20


def written(pair: Pair) -> int:
    """Return the data of 300 that are newer, where it has some of every snapshot up to 137."""
    _to, older = pair
    return 500 + 1000 * max(0, 137 - older)


def brought_back(pair: Pair) -> int:
    """Return the same where it also has files of 230 and 260, and 50 left nothing in it."""
    _to, older = pair
    back = sum(9000 for source in (230, 260) if source > older)
    return written((300, 50 if older == 49 else older)) + back


@pytest.mark.parametrize("newer", [written, brought_back])
def test_by_the_age_of_its_data_a_branch_finds_soon_where_it_began(
    newer: Callable[[Pair], int],
) -> None:
    snapshots = [*line(300), *line(20, parent=b"B", start=1000)]
    search, asked = searched(snapshots, forked, room=20, newer=newer)
    assert abs(asked[0][1] - 137) <= 137 * 0.1
    assert abs(search.origins()[300] - 137) <= 1
    assert len(asked) <= 20


def test_where_no_ages_are_told_the_search_begins_without() -> None:
    snapshots = [*line(300), *line(20, parent=b"B", start=1000)]
    _, blind = searched(snapshots, forked, room=960)
    _, asked = searched(snapshots, forked, room=960, newer=lambda _pair: None)
    assert asked == blind


def test_ages_are_of_interest_until_it_has_begun() -> None:
    tree = ancestry([*line(30), *line(5, parent=b"B", start=1000)], {})
    search = Search(tree, range(35), room=90)
    assert {to for to, _older in search.ages()} == {30}
    assert {2, 28, 29} <= {older for _to, older in search.ages()} <= {*range(30)}
    search.next(1, 10**9)
    assert search.ages() == []


def test_no_more_is_tried_than_may_be_worked() -> None:
    snapshots = [*line(300), *line(20, parent=b"B", start=1000)]
    search, asked = searched(snapshots, forked, room=960, allowance=20 * WORK)
    assert len(asked) <= 20
    assert abs(search.origins()[300] - 137) <= 20


def test_what_is_nowhere_better_is_soon_given_up() -> None:
    def hopeless(to: int, _parent: int) -> int:
        return 500_000 if to == 150 else 1000

    _search, asked = searched(line(200), hopeless, room=600)
    assert 0 < len(asked) <= 12


def test_what_forked_is_a_parent_too() -> None:
    snapshots = [*line(300), *line(20, parent=b"B", start=1000)]
    _search, asked = searched(snapshots, forked, room=960)
    assert (137, 300) in asked


def test_what_stays_dear_is_tried_from_older_and_newer_ones() -> None:
    _search, asked = searched(line(200), restored, room=600)
    assert {(150, 20), (40, 120)} <= set(asked)
    assert len(asked) < 100


def test_where_all_is_clear_and_cheap_nothing_is_asked_for() -> None:
    _search, asked = searched(line(500), apart, room=1500)
    assert asked == []


def test_what_is_not_made_is_asked_for_only_as_parent() -> None:
    tree = ancestry([*line(30), *line(5, parent=b"B", start=100)], {})
    search = Search(tree, [30], room=90)
    while batch := search.next(16, 10**9):
        assert {to for to, _parent in batch} == {30}
        for to, parent in batch:
            search.learn((to, parent), apart(to, parent), WORK)


def test_what_is_never_answered_is_not_asked_for_again() -> None:
    tree = ancestry([*line(30), *line(5, parent=b"B", start=100)], {})
    search = Search(tree, range(35), room=90)
    asked: list[Pair] = []
    while batch := search.next(16, 10**9):
        asked += batch
    assert asked
    assert len(set(asked)) == len(asked)

"""What rough sizes show to be worth measuring."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from buttersink.catalogue import Snapshot, Uuid
from buttersink.planner.guessing import Guessing
from buttersink.planner.lineage import NONE, Ancestry

if TYPE_CHECKING:
    from collections.abc import Callable

    from buttersink.planner.candidates import Pair

COUNT = 40
NEW, MORE = 1000, 900  # bytes that each has new, and that it has more than the one before
LAST = COUNT - 1


def line(*, guessed: frozenset[int] = frozenset()) -> Ancestry:
    """Return a line of which some are guessed to follow the one before."""
    uuids = [Uuid(number.to_bytes(16, "big")) for number in range(1, COUNT + 1)]
    snapshots = tuple(
        Snapshot(uuid, uuid, None, None, number, number, b"%d" % number)
        for number, uuid in enumerate(uuids)
    )
    before = tuple(range(-1, COUNT - 1))
    return Ancestry(snapshots, before, tuple(index in guessed for index in range(COUNT)))


def size(pair: Pair) -> int:
    """Return the size of a diff, by made-up numbers: the last one is near to all."""
    to, parent = pair
    if parent == NONE:
        return 100_000 + MORE * to
    if parent < to:
        return NEW * (to - parent) if to < LAST else NEW
    return max(10, size((parent, to)) + size((to, NONE)) - size((parent, NONE)))


def uneven(pair: Pair) -> int:
    """Return the size of a diff where to make the first half backwards saves hardly anything."""
    to, parent = pair
    if parent == NONE or to == LAST:
        return size(pair)
    if parent < to:
        return sum(100 if step < COUNT // 2 else 5000 for step in range(parent, to))
    return max(10, uneven((parent, to)) + uneven((to, NONE)) - uneven((parent, NONE)))


def told(
    made: range, tree: Ancestry, wrong: float = 1.0, size: Callable[[Pair], int] = size
) -> Guessing:
    """Return it with neighbours measured and every question answered."""
    guessing = Guessing(made)
    guessing.learn((0, NONE), size((0, NONE)))
    for older, newer in pairwise(range(COUNT)):
        guessing.learn((newer, older), size((newer, older)))
    for pair in (*guessing.wholes(tree), *guessing.about_all(tree)):
        guessing.guess(pair, int(wrong * size(pair)))
    return guessing


def test_a_line_is_entered_at_its_end_where_the_ways_back_are_short() -> None:
    found = told(range(COUNT), line()).next(COUNT)
    backwards = {to for to, parent in found if parent > to}
    assert backwards >= set(range(20, LAST))
    assert any(to == LAST and parent < 20 for to, parent in found)


def test_what_is_measured_is_not_asked_for() -> None:
    guessing = told(range(COUNT), line())
    first = guessing.next(COUNT)
    for pair in first:
        guessing.learn(pair, 10**9)
    assert not {*first} & {*guessing.next(COUNT)}
    assert guessing.next(COUNT) == []  # looked often enough


def test_where_not_all_can_be_measured_it_is_what_saves_most() -> None:
    everything = told(range(COUNT), line(), size=uneven).next(COUNT)
    most = told(range(COUNT), line(), size=uneven).next(COUNT * 2 // 3)
    assert len(most) < len(everything)
    assert {to for to, parent in most if parent > to} == set(range(COUNT // 2 + 1, LAST))
    assert any(to == LAST and parent < COUNT // 2 for to, parent in most)
    assert told(range(COUNT), line(), size=uneven).next(0) == []


def test_guesses_that_prove_wrong_are_of_no_use() -> None:
    assert told(range(COUNT), line(), wrong=1.2).next(COUNT) == []


def test_guesses_that_nothing_proves_are_of_no_use() -> None:
    assert told(range(COUNT), line(guessed=frozenset(range(COUNT)))).next(COUNT) == []
    assert Guessing(range(COUNT)).next(COUNT) == []


def test_few_snapshots_need_none() -> None:
    assert not Guessing(range(8)).pays
    assert Guessing(range(COUNT)).pays


def test_a_diff_has_at_least_what_is_newer() -> None:
    guessing = Guessing(range(COUNT))
    assert guessing.about([(3, 1), (1, 3)]) == [(3, 1)]
    assert guessing.least((3, 1)) == 0
    guessing.guess((3, 1), 700)
    assert (guessing.least((3, 1)), guessing.least((1, 3))) == (700, 0)


def test_the_other_way_it_has_what_was_deleted_too() -> None:
    guessing = Guessing(range(COUNT))
    assert guessing.wholes(line()) == [(index, NONE) for index in range(COUNT)]
    guessing.guess((1, NONE), 6000)
    assert guessing.about([(1, 3)]) == []
    guessing.guess((3, NONE), 5000)
    assert guessing.about([(1, 3)]) == [(3, 1)]
    assert guessing.about([(1, 3), (3, 1)]) == []
    guessing.guess((3, 1), 700)
    assert guessing.least((1, 3)) == 1700
    guessing.guess((3, NONE), 9000)
    assert guessing.least((1, 3)) == 0

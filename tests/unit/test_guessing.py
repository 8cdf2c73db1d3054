"""What rough sizes show to be worth measuring."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from buttersink.catalogue import Snapshot, Uuid
from buttersink.planner import Weights
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


def far_end(pair: Pair) -> int:
    """Return the size of a diff, by made-up numbers: the last one is near to all."""
    to, parent = pair
    if parent == NONE:
        return 100_000 + MORE * to
    if parent < to:
        return NEW * (to - parent) if to < LAST else NEW
    return max(10, far_end((parent, to)) + far_end((to, NONE)) - far_end((parent, NONE)))


def uneven(pair: Pair) -> int:
    """Return the size of a diff where to make the first half backwards saves hardly anything."""
    to, parent = pair
    if parent == NONE or to == LAST:
        return far_end(pair)
    if parent < to:
        return sum(100 if step < COUNT // 2 else 5000 for step in range(parent, to))
    return max(10, uneven((parent, to)) + uneven((to, NONE)) - uneven((parent, NONE)))


def told(
    made: range,
    tree: Ancestry,
    wrong: float = 1.0,
    size: Callable[[Pair], int] = far_end,
    weights: Weights | None = None,
) -> Guessing:
    """Return it with neighbours measured and every question answered."""
    guessing = Guessing(made, weights or Weights())
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


def rounds(guessing: Guessing, room: int, size: Callable[[Pair], int]) -> list[list[Pair]]:
    """Return what is asked for, time by time, and answer it."""
    found: list[list[Pair]] = []
    while new := guessing.next(room):
        for pair in new:
            guessing.learn(pair, size(pair))
        found.append(new)
    return found


def test_what_is_measured_is_not_asked_for() -> None:
    for size in (far_end, uneven):
        found = rounds(told(range(COUNT), line(), size=size), COUNT, size)
        asked = [pair for each in found for pair in each]
        assert len(set(asked)) == len(asked)


def test_however_dear_the_answers_are_it_ends() -> None:
    assert 0 < len(rounds(told(range(COUNT), line()), COUNT, lambda _pair: 10**9)) <= 7


def test_what_saves_most_is_measured_first() -> None:
    first, then, last = rounds(told(range(COUNT), line(), size=uneven), COUNT, uneven)
    dear = set(range(COUNT // 2 + 1, LAST))
    assert {to for to, parent in first if parent > to} <= dear
    assert any(to == LAST and parent < COUNT // 2 for to, parent in first)
    assert {to for to, parent in first + then if parent > to} == dear
    assert {to for to, parent in last if parent > to} >= set(range(6, COUNT // 2 - 2))


def test_where_not_all_can_be_measured_it_is_what_saves_most() -> None:
    everything = rounds(told(range(COUNT), line(), size=uneven), COUNT, uneven)
    assert rounds(told(range(COUNT), line(), size=uneven), 10, uneven) == everything[:1]
    assert rounds(told(range(COUNT), line(), size=uneven), 7, uneven) == []


def test_where_chains_have_a_price_ways_to_shorter_ones_are_measured() -> None:
    chained = Weights(keeps_diffs=True, hop=0.01)
    (plain,) = rounds(told(range(COUNT), line()), COUNT, far_end)
    same, *priced = rounds(told(range(COUNT), line(), weights=chained), COUNT, far_end)
    assert same == plain
    leaps = [abs(to - parent) for found in priced for to, parent in found]
    assert leaps.count(1) < len(leaps) // 2


def test_what_nothing_is_known_to_lead_to_is_left_out() -> None:
    guessing = Guessing(range(COUNT), Weights())
    tree = line()
    for older, newer in pairwise(range(COUNT)):
        if newer != COUNT // 2:
            guessing.learn((newer, older), far_end((newer, older)))
    for pair in guessing.about_all(tree):
        if COUNT // 2 not in pair:
            guessing.guess(pair, far_end(pair))
    assert all(COUNT // 2 not in pair for pair in guessing.next(COUNT))
    assert guessing.served


def test_guesses_that_prove_wrong_are_of_no_use() -> None:
    assert told(range(COUNT), line(), wrong=1.2).next(COUNT) == []


def test_guesses_that_nothing_proves_are_of_no_use() -> None:
    assert told(range(COUNT), line(guessed=frozenset(range(COUNT)))).next(COUNT) == []
    assert Guessing(range(COUNT), Weights()).next(COUNT) == []


def test_few_snapshots_need_none() -> None:
    assert not Guessing(range(8), Weights()).pays
    assert Guessing(range(COUNT), Weights()).pays


def test_a_diff_has_at_least_what_is_newer() -> None:
    guessing = Guessing(range(COUNT), Weights())
    assert guessing.about([(3, 1), (1, 3)]) == [(3, 1)]
    assert guessing.least((3, 1)) == 0
    guessing.guess((3, 1), 700)
    assert (guessing.least((3, 1)), guessing.least((1, 3))) == (700, 0)


def test_the_other_way_it_has_what_was_deleted_too() -> None:
    guessing = Guessing(range(COUNT), Weights())
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

"""Whatever is stored and broken: what is said to mend it does, and nothing else is touched."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from buttersink.catalogue import Diff, Uuid
from buttersink.planner.mending import repairs
from buttersink.planner.reaching import reachable

EVERY = [Uuid(bytes([number]) * 16) for number in range(8)]
DIFFS = st.builds(Diff, st.sampled_from(EVERY), st.none() | st.sampled_from(EVERY), st.just(()))


@given(st.sets(DIFFS, max_size=20), st.sets(DIFFS, max_size=10), st.sets(st.sampled_from(EVERY)))
def test_repairs_make_whole_what_is_lost(
    diffs: set[Diff], broken: set[Diff], wanted: set[Uuid]
) -> None:
    sound = diffs - broken
    whole = reachable(sound)
    lost = repairs(sorted(diffs, key=str), broken, sorted(wanted))
    assert lost.keys() == wanted - whole
    for uuid, repair in lost.items():
        assert uuid in reachable([*sound, Diff(repair.snapshot, None)])
        assert repair.snapshot not in whole
        assert whole >= set(repair.origins)
        assert broken >= {Diff(repair.snapshot, origin) for origin in repair.origins}


@given(st.permutations(EVERY), st.sets(st.integers(0, 7)))
def test_of_one_chain_each_broken_diff_is_sent_once_more_and_no_other(
    order: list[Uuid], places: set[int]
) -> None:
    chain = [Diff(to, parent) for to, parent in zip(order, [None, *order[:-1]], strict=True)]
    lost = repairs(chain, {chain[place] for place in places}, order)
    assert {repair.snapshot for repair in lost.values()} == {order[place] for place in places}

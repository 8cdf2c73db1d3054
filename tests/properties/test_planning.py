"""Plans over random stores and sizes: the least to send, and always possible to carry out."""

from __future__ import annotations

import os
import re
from itertools import combinations
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from buttersink.catalogue import (
    Catalogue,
    Diff,
    Exactness,
    Measurement,
    Partial,
    Size,
    Snapshot,
    Uuid,
)
from buttersink.errors import RefusedError
from buttersink.planner import (
    Action,
    Arrival,
    Plan,
    PlanOptions,
    Survey,
    make_plan,
    survey,
)
from buttersink.planner.measuring import Measuring

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

MOST = 6  # snapshots that every way of sending is tried for

SIZES = st.integers(0, 30)  # bytes; few enough that many are equal

Table = dict[Diff, Size]


def uuid(number: int) -> Uuid:
    return Uuid(number.to_bytes(16, "big"))


def made(number: int) -> Snapshot:
    return Snapshot(uuid(number), uuid(number), None, None, number, 0, b"%d" % number)


def measured(size: int) -> Size:
    return Size(size, Exactness.MEASURED)


# --- the least to send ---------------------------------------------------------------------------


def complete(
    draw: st.DrawFn, wanted: list[Snapshot], held: list[Snapshot], size: st.SearchStrategy[int]
) -> Table:
    """Draw the size of every diff that makes one of the wanted."""
    return {
        Diff(to.uuid, parent): measured(draw(size))
        for to in wanted
        for parent in (None, *(each.uuid for each in (*wanted, *held) if each != to))
    }


@st.composite
def problems(draw: st.DrawFn, size: st.SearchStrategy[int] = SIZES) -> tuple[Survey, Table]:
    wanted = [made(number) for number in range(1, draw(st.integers(0, MOST)) + 1)]
    held = [made(100 + number) for number in range(draw(st.integers(0, 2)))]
    arrivals = tuple(Arrival(snapshot, snapshot.path) for snapshot in wanted)
    return Survey(send=arrivals, held=tuple(held)), complete(draw, wanted, held, size)


def least(found: Survey, table: Mapping[Diff, Size]) -> int:
    """Return the fewest bytes of all orders in which the snapshots can be sent."""
    wanted = [arrival.snapshot.uuid for arrival in found.send]
    here: list[Uuid | None] = [None, *(snapshot.uuid for snapshot in found.held)]
    best = {frozenset[Uuid](): 0}
    for count in range(1, len(wanted) + 1):
        for chosen in map(frozenset, combinations(wanted, count)):
            best[chosen] = min(
                best[chosen - {last}]
                + min(table[Diff(last, parent)].bytes for parent in (*here, *chosen - {last}))
                for last in chosen
            )
    return best[frozenset(wanted)]


def choices(plan: Plan) -> list[tuple[bytes, bytes | None]]:
    return [(step.path, step.parent.path if step.parent else None) for step in plan.of(Action.SEND)]


@given(problems())
def test_no_way_sends_less(problem: tuple[Survey, Table]) -> None:
    plan = make_plan(*problem)
    assert plan.send_bytes == plan.lower_bound == least(*problem)


@given(problems())
def test_every_parent_is_there_when_it_is_needed(problem: tuple[Survey, Table]) -> None:
    found, table = problem
    depths = dict.fromkeys((None, *(snapshot.uuid for snapshot in found.held)), 0)
    for step in make_plan(found, table).of(Action.SEND):
        assert step.snapshot is not None
        parent = step.parent.uuid if step.parent else None
        depths[step.snapshot.uuid] = depths[parent] + 1
        assert step.depth == depths[step.snapshot.uuid]
        assert step.size == table[Diff(step.snapshot.uuid, parent)]
    assert depths.keys() >= {arrival.snapshot.uuid for arrival in found.send}


@given(problems(), st.integers(1, 10**12))
def test_sizes_in_another_unit_give_the_same_plan(problem: tuple[Survey, Table], unit: int) -> None:
    found, table = problem
    scaled = {diff: measured(size.bytes * unit) for diff, size in table.items()}
    plan = make_plan(found, scaled)
    assert choices(plan) == choices(make_plan(found, table))
    assert plan.lower_bound == make_plan(found, table).lower_bound * unit


@given(problems(), st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_change_the_bytes(
    problem: tuple[Survey, Table], chance: random.Random
) -> None:
    assert make_plan(*shuffled(problem, chance)).send_bytes == make_plan(*problem).send_bytes


@given(problems(st.just(0)), st.randoms(use_true_random=False))
def test_the_order_of_the_input_does_not_change_the_plan_where_one_is_best(
    problem: tuple[Survey, Table], chance: random.Random
) -> None:
    """No two sets of diffs are equally large where each is twice the one before."""
    found, table = problem
    powers = list(range(len(table)))
    chance.shuffle(powers)
    table = {diff: measured(1 << power) for diff, power in zip(table, powers, strict=True)}
    assert make_plan(*shuffled((found, table), chance)) == make_plan(found, table)


def shuffled(problem: tuple[Survey, Table], chance: random.Random) -> tuple[Survey, Table]:
    found, table = problem
    arrivals, held, diffs = list(found.send), list(found.held), list(table)
    chance.shuffle(arrivals)
    chance.shuffle(held)
    chance.shuffle(diffs)
    return Survey(send=tuple(arrivals), held=tuple(held)), {diff: table[diff] for diff in diffs}


@given(problems(), st.data())
def test_what_has_a_problem_is_as_if_it_were_not_there(
    problem: tuple[Survey, Table], data: st.DataObject
) -> None:
    found, table = problem
    taken = data.draw(st.sets(st.sampled_from(found.send)) if found.send else st.just(set()))
    arrivals = [
        Arrival(a.snapshot, a.path, problem="taken") if a in taken else a for a in found.send
    ]
    plan = make_plan(Survey(send=tuple(arrivals), held=found.held), table)
    rest = Survey(send=tuple(a for a in found.send if a not in taken), held=found.held)
    assert plan.send_bytes == least(rest, table)
    assert [step.path for step in plan.steps if step.problem] == [
        arrival.path for arrival in arrivals if arrival.problem
    ]


# --- what becomes of two stores ------------------------------------------------------------------


NUMBERS = st.integers(1, 6)
PATHS = st.sampled_from([b"a", b"b", b"c", b"d/e", b"d/f", b"tmp/g"])


@st.composite
def stores(draw: st.DrawFn, first: int) -> Catalogue:
    """Draw a store whose received snapshots have UUIDs of their own from `first` on."""
    own = iter(range(first, first + 100))

    def some() -> tuple[Snapshot, ...]:
        paths = sorted(draw(st.sets(PATHS, max_size=5)))
        return tuple(snapshot(draw(NUMBERS), next(own), path) for path in paths)

    inside, outside = some(), some()
    if draw(st.booleans()) and inside:
        number = draw(NUMBERS)
        inside = (snapshot(number, number, inside[0].path), *inside[1:])  # an original
    left = draw(st.sets(st.tuples(NUMBERS, st.sampled_from([b"", b"d/"])), max_size=2))
    partials = tuple(Partial(b"%s.%d" % (where, n), uuid(n), 0) for n, where in sorted(left))
    return Catalogue(inside, outside=outside, partials=partials)


def snapshot(number: int, own: int, path: bytes) -> Snapshot:
    received = None if number == own else uuid(number)
    return Snapshot(uuid(number), uuid(own), None, received, number, 0, path)


OPTIONS = st.builds(
    PlanOptions,
    delete=st.booleans(),
    exclude=st.lists(st.sampled_from([b"^tmp/", b"^d/", b"b"]).map(re.compile), max_size=2).map(
        tuple
    ),
)
RUNS = st.tuples(stores(1000), stores(2000), OPTIONS)
Run = tuple[Catalogue, Catalogue, PlanOptions]


def planned(run: Run) -> tuple[Survey, Plan]:
    """Survey and plan, with sizes that follow from the pair alone; nothing where refused."""
    try:
        found = survey(*run)
    except RefusedError:
        return Survey(), Plan(())
    measuring = Measuring(found)
    while batch := measuring.next():
        for pair in batch:
            measuring.learn(Measurement(pair, hash_of(pair), 1))
    return found, make_plan(found, measuring.sizes)


def excludes(options: PlanOptions, path: bytes) -> bool:
    return any(pattern.search(path) for pattern in options.exclude)


def hash_of(pair: Diff) -> int:
    return 1 + sum((pair.to + (pair.parent or b"\xff" * 3))[::3]) * 37 % 101


def carried_out(plan: Plan, destination: Catalogue) -> Catalogue:
    """Return what the destination holds after every step that can be done."""
    held = {snapshot.path: snapshot for snapshot in destination.snapshots}
    partials = list(destination.partials)
    for number, step in enumerate(plan.steps):
        if step.partial:
            partials.remove(step.partial)
        elif step.snapshot and step.action is Action.DELETE:
            assert held.pop(step.path) == step.snapshot
        elif step.snapshot and step.action is not Action.KEEP and not step.problem:
            assert held.get(step.path) == step.replaces
            new = int.from_bytes(step.snapshot.uuid, "big")
            held[step.path] = snapshot(new, 5000 + number, step.path)
            taken_up = (step.snapshot.uuid, os.path.dirname(step.path))
            partials = [p for p in partials if (p.uuid, os.path.dirname(p.path)) != taken_up]
    return Catalogue(
        tuple(held[path] for path in sorted(held)), destination.outside, partials=tuple(partials)
    )


@given(RUNS, st.data())
def test_a_plan_can_be_made_whenever_measuring_stops(run: Run, data: st.DataObject) -> None:
    found, _plan = planned(run)
    measuring = Measuring(found)
    while batch := measuring.next():
        for pair in data.draw(st.permutations(batch)):
            assert pair not in measuring.sizes
            measuring.learn(Measurement(pair, 1, data.draw(st.sampled_from([1, 10**6]))))
        plan = make_plan(found, measuring.sizes)
        assert len(plan.of(Action.SEND)) == len(found.send)


@given(RUNS)
def test_a_second_run_has_nothing_to_do(run: Run) -> None:
    source, destination, options = run
    _found, plan = planned(run)
    after = carried_out(plan, destination)
    _again, second = planned((source, after, options))
    assert [
        step for step in second.steps if step.action is not Action.KEEP and not step.problem
    ] == []


@given(RUNS)
def test_a_second_run_has_the_same_problems(run: Run) -> None:
    source, destination, options = run
    _found, plan = planned(run)
    _again, second = planned((source, carried_out(plan, destination), options))
    before = {
        (step.path, step.snapshot and step.snapshot.uuid) for step in plan.steps if step.problem
    }
    after = {
        (step.path, step.snapshot and step.snapshot.uuid) for step in second.steps if step.problem
    }
    assert after == before


@given(RUNS)
def test_everything_wanted_is_kept_copied_or_sent_once(run: Run) -> None:
    source, _destination, options = run
    found, _plan = planned(run)
    if found == Survey():
        return
    wanted = {each.uuid for each in source.snapshots if not options.excludes(each)}
    kept = {each.uuid for each in found.keep}
    arriving = [arrival.snapshot.uuid for arrival in (*found.copy, *found.send)]
    assert sorted([*kept, *arriving]) == sorted(wanted)


@given(RUNS)
def test_nothing_that_the_source_has_or_that_is_excluded_is_lost(run: Run) -> None:
    source, destination, options = run
    found, plan = planned(run)
    lost = {*found.delete, *(step.replaces for step in plan.steps if step.replaces)}
    assert lost <= set(destination.snapshots)
    assert not {each.uuid for each in lost} & {each.uuid for each in source.snapshots}
    assert not any(options.excludes(each) for each in lost)
    assert options.delete or not lost


@given(RUNS)
def test_with_delete_nothing_else_is_left(run: Run) -> None:
    source, destination, options = run
    found, plan = planned((source, destination, PlanOptions(delete=True, exclude=options.exclude)))
    if found == Survey():
        return
    known = {each.uuid for each in source.snapshots}
    left = carried_out(plan, destination)
    assert all(excludes(options, partial.path) for partial in left.partials)
    assert all(each.uuid in known or options.excludes(each) for each in left.snapshots)


@given(RUNS)
def test_every_parent_is_at_the_destination_all_the_time(run: Run) -> None:
    """No diff starts from what an earlier step of the plan has replaced."""
    _source, destination, _options = run
    _found, plan = planned(run)
    there = [*destination.snapshots, *destination.outside]
    for step in (*plan.of(Action.COPY), *plan.of(Action.SEND)):
        if step.problem:
            continue
        assert step.parent is None or step.parent.uuid in {each.uuid for each in there}
        if step.replaces:
            there.remove(step.replaces)
        if step.snapshot:
            there.append(step.snapshot)

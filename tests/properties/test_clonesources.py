"""Clone sources over random plans: there when they are needed, and never more to send."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from buttersink.catalogue import Diff, Exactness, Measurement, Size, Snapshot, Uuid
from buttersink.planner import Action, Arrival, Plan, Survey, make_plan
from buttersink.planner.clonesources import CloneSources

MIB = 1 << 20
SIZES = st.integers(0, 4 * MIB)


def uuid(number: int) -> Uuid:
    return Uuid(number.to_bytes(16, "big"))


@st.composite
def problems(draw: st.DrawFn) -> tuple[Survey, Plan]:
    """Draw a few lineages, part of them at the destination, and the plan for the rest."""
    snapshots = [
        Snapshot(uuid(number), uuid(number), uuid(1000 + live), None, generation, 0, b"%d" % number)
        for number, (live, generation) in enumerate(
            draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 50)), max_size=14)), start=1
        )
    ]
    where = [draw(st.integers(0, 3)) for _ in snapshots]
    held = tuple(s for s, place in zip(snapshots, where, strict=True) if place == 0)
    others = tuple(s for s, place in zip(snapshots, where, strict=True) if place == 1)
    wanted = [s for s, place in zip(snapshots, where, strict=True) if place > 1]
    arrivals = tuple(
        Arrival(s, s.path, problem=draw(st.sampled_from(["", "", "", "taken"]))) for s in wanted
    )
    survey = Survey(send=arrivals, held=held, others=others)
    sizes = {
        Diff(to.uuid, parent): Size(draw(SIZES), Exactness.MEASURED)
        for to in wanted
        for parent in (None, *(s.uuid for s in (*held, *wanted) if s != to))
    }
    return survey, make_plan(survey, sizes)


def improved(survey: Survey, plan: Plan, data: st.DataObject) -> tuple[Plan, CloneSources]:
    """Answer every question somehow."""
    room = data.draw(st.integers(0, 20))
    sources = CloneSources(plan, survey, room, {})
    for diff in sources.increments:
        if data.draw(st.booleans()):
            sources.guess(diff, data.draw(SIZES))
    while diffs := sources.next():
        for diff in data.draw(st.permutations(diffs)):
            used = tuple(clone for clone in diff.clones if data.draw(st.booleans()))
            sources.learn(Measurement(diff, data.draw(SIZES), 1, used))
    assert sources.asked <= room
    return sources.plan(), sources


@given(problems(), st.data())
def test_a_source_is_there_before_its_step(
    problem: tuple[Survey, Plan], data: st.DataObject
) -> None:
    survey, _plan = problem
    plan, _sources = improved(*problem, data)
    there = {snapshot.uuid for snapshot in survey.held}
    for step in plan.of(Action.SEND):
        clones = [clone.uuid for clone in step.clones]
        assert there.issuperset(clones)
        assert step.parent is None or step.parent.uuid not in clones
        assert clones == sorted(set(clones))
        if step.snapshot and not step.problem:
            there.add(step.snapshot.uuid)


@given(problems(), st.data())
def test_nothing_is_larger_for_them_and_nothing_else_changes(
    problem: tuple[Survey, Plan], data: st.DataObject
) -> None:
    _survey, before = problem
    plan, _sources = improved(*problem, data)
    for old, new in zip(before.steps, plan.steps, strict=True):
        assert old == replace(new, clones=(), size=old.size, reason=old.reason)
        assert (new == old) is (not new.clones)
        if old.size and new.size and new.clones:
            assert new.size.bytes + len(new.clones) * 65_536 <= old.size.bytes
    assert plan.lower_bound == min(before.lower_bound, plan.send_bytes)


@given(problems(), st.data())
def test_a_diff_is_measured_twice_at_most(
    problem: tuple[Survey, Plan], data: st.DataObject
) -> None:
    _survey, before = problem
    _plan, sources = improved(*problem, data)
    dear = [s for s in before.of(Action.SEND) if s.size and s.size.bytes >= MIB]
    assert sources.asked <= 2 * len(dear)

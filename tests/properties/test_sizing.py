"""A plan by sizes asks a source only so much, and has no size in it that is not exact."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

from hypothesis import given
from hypothesis import strategies as st

from bench.histories import KINDS, Habits, History, make
from buttersink.catalogue import Diff, Measurement
from buttersink.errors import SendError
from buttersink.planner import Action, Arrival, Survey, Weights
from buttersink.progress import Reporter
from buttersink.sizing import plan_by_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from buttersink.planner import Plan
    from buttersink.stores.base import Store

COMMAND = 50_000  # bytes for which a made-up diff has one command

histories = st.builds(
    make,
    st.sampled_from(KINDS),
    st.integers(6, 60),
    st.integers(0, 20),
    st.sampled_from([Habits(), Habits(rollbacks=20, forgotten=1)]),
)


@dataclass
class Source:
    """Measures diffs of a made-up history, no farther than it has to; looks at so many only."""

    history: History
    looks: int = 10**9
    fails: Callable[[Diff], bool] = lambda _diff: False
    finished: set[Diff] = field(default_factory=set)
    broken_off: set[Diff] = field(default_factory=set)

    def estimate(self, diffs: Sequence[Diff]) -> Iterator[tuple[Diff, int]]:
        for diff in diffs:
            if not self.looks:
                raise SendError("cannot look at the snapshot", where=b"path", why="it is gone")
            self.looks -= 1
            yield diff, self.history.size(diff.parent, diff.to)

    def measure(
        self, diffs: Sequence[Diff], limits: Mapping[Diff, int] = MappingProxyType({})
    ) -> Iterator[Measurement]:
        for diff in diffs:
            size = self.history.size(diff.parent, diff.to)
            least = min(size, limits.get(diff, size) + 1)
            commands = 1 + least // COMMAND
            if self.fails(diff):
                yield Measurement(diff, 0, 0, problem="it is broken")
            else:
                (self.finished if least == size else self.broken_off).add(diff)
                yield Measurement(diff, least, commands, finished=least == size)


def planned(source: Source, weights: Weights | None = None) -> Plan:
    weights = weights or Weights()
    survey = Survey(
        send=tuple(Arrival(s, s.path) for s in source.history.snapshots),
        lineage=source.history.lineage,
    )
    store = cast("Store", cast("Any", source))
    clones = not weights.keeps_diffs
    return plan_by_size(survey, store, Reporter(), weights, None, estimate=False, clones=clones)


@given(histories, st.sampled_from([Weights(), Weights(keeps_diffs=True)]))
def test_every_diff_sent_was_measured_to_its_end(history: History, weights: Weights) -> None:
    source = Source(history)
    plan = planned(source, weights)
    sends = plan.of(Action.SEND)
    assert len(sends) == len(history.snapshots)
    for step in sends:
        assert step.snapshot
        assert step.size
        diff = Diff(step.snapshot.uuid, step.parent.uuid if step.parent else None)
        assert diff in source.finished
        assert step.size.exact
        assert step.size.bytes == history.size(diff.parent, diff.to)
    assert plan.lower_bound <= plan.send_bytes
    assert plan.cost_bound <= plan.cost
    assert len(source.finished | source.broken_off) <= max(12, 8 * len(history.snapshots)) + 4


@given(histories, st.integers(0, 5), st.sampled_from([0, 3, 40, 100, 10**9]))
def test_what_cannot_be_measured_is_told_and_the_rest_is_sent(
    history: History, place: int, looks: int
) -> None:
    lost = history.snapshots[place]
    plan = planned(Source(history, looks, fails=lambda diff: lost.uuid in diff))
    (problem,) = (step for step in plan.steps if step.problem)
    assert problem.snapshot == lost
    assert problem.problem == "it is broken"
    sent = [step for step in plan.of(Action.SEND) if not step.problem]
    assert len(sent) == len(history.snapshots) - 1
    assert all(step.size and step.size.exact for step in sent)


@given(histories, st.integers(0, 100))
def test_what_cannot_be_looked_at_is_measured(history: History, looks: int) -> None:
    plan = planned(Source(history, looks=looks))
    assert not any(step.problem for step in plan.steps)
    assert len(plan.of(Action.SEND)) == len(history.snapshots)
    assert all(step.size and step.size.exact for step in plan.of(Action.SEND))

"""
A plan by the sizes of diffs: the planner says which it wants to know, the source measures those.

That is the only step back in the way of a run. First what the choice of diffs needs; then the
chosen ones of which only a bound is known, until there are none; last, where both sides have whole
snapshots, whether dear ones get smaller by further clone sources. Or all sizes are guessed.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from buttersink import planner
from buttersink.catalogue import Diff, Exactness
from buttersink.errors import SendError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from buttersink.catalogue import Measurement, Size
    from buttersink.planner.measuring import Measuring
    from buttersink.planner.plan import Plan
    from buttersink.progress import Reporter
    from buttersink.stores.base import Store

_NEARLY = 1.001  # times the least that a plan may cost: no need to look further
_ROUNDS = 2  # of looking further; more of them have found next to nothing


def plan_by_size(
    survey: planner.Survey,
    source: Store,
    reporter: Reporter,
    weights: planner.Weights,
    limit: int | None,
    *,
    estimate: bool,
    clones: bool,
) -> Plan:
    """
    Return the cheapest plan.

    Args:
        survey: What has to be done.
        source: Has the snapshots and measures diffs of them.
        reporter: Is told how far measuring is, and what it was good for.
        weights: What to make least.
        limit: The longest chain that a new diff may end, where diffs stay diffs.
        estimate: Whether to guess sizes instead.
        clones: Whether diffs may have further clone sources.

    """
    if estimate:
        return planner.make_plan(survey, _guessed(survey, source, limit), weights, limit)
    meter = _Meter(source, reporter)
    sizes, plain, measuring = _measured(survey, meter, weights, limit)

    def make_plan(sizes: Mapping[Diff, Size]) -> Plan:
        known = replace(survey, unreadable={**survey.unreadable, **meter.problems})
        return planner.make_plan(known, sizes, weights, limit)

    plan = _settled(sizes, meter, make_plan)
    if clones:
        plan = _with_clones(plan, survey, meter, measuring)
    reporter.measured(meter.measured, meter.candidates, meter.remembered)
    reporter.chosen(plan.send_bytes, plain)
    return plan


class _Meter:
    """
    Has the source measure, and counts.

    Attributes:
        source: What can be asked.
        measured: How many diffs were measured in this run,
        remembered: and how many were known from an earlier one,
        candidates: of so many that were found worth it.
        problems: Why some could not be measured.

    """

    def __init__(self, source: Store, reporter: Reporter) -> None:
        self.source = source
        self._reporter = reporter
        self.measured = self.remembered = self.candidates = 0
        self.problems: dict[Diff, str] = {}

    def measure(
        self, diffs: Sequence[Diff], limits: Mapping[Diff, int] = MappingProxyType({})
    ) -> Iterator[Measurement]:
        """Yield the size of each that has one, in the source's order, telling how far it is."""
        self.candidates += len(diffs)
        for measurement in self.source.measure(diffs, limits):
            self.remembered += measurement.remembered
            self.measured += not measurement.remembered
            if measurement.problem:
                self.problems[measurement.diff] = measurement.problem
            else:
                yield measurement
            self._reporter.measuring(self.measured + self.remembered, self.candidates)

    def look(self, diffs: Sequence[Diff]) -> Iterator[tuple[Diff, int]]:
        """Yield rough sizes up to the first that cannot be had; measuring tells why that is."""
        with suppress(SendError):
            yield from self.source.estimate(diffs)


def _guessed(survey: planner.Survey, source: Store, limit: int | None) -> dict[Diff, Size]:
    """Return rough sizes of what is worth one."""
    from buttersink.planner.measuring import Measuring

    measuring = Measuring(survey, far=limit is not None)
    while pairs := measuring.next():
        for diff, length in source.estimate(pairs):
            measuring.guess(diff, length)
    return measuring.sizes


def _measured(
    survey: planner.Survey, meter: _Meter, weights: planner.Weights, limit: int | None
) -> tuple[dict[Diff, Size], int, Measuring]:
    """
    Return the sizes of the diffs to choose from: measured, and of other full sends a bound.

    And the bytes that it takes to make each snapshot from the one that it grew out of, and what
    knows how much more may be measured.
    """
    from buttersink.planner.bounds import full_sends
    from buttersink.planner.measuring import Measuring

    measuring = Measuring(survey, weights, far=limit is not None)
    plain: tuple[Diff, ...] = ()
    while True:
        if questions := measuring.questions():
            for diff, length in meter.look(questions):
                measuring.look(diff, length)
        elif pairs := measuring.next():
            plain = plain or pairs  # the first that are asked for
            for measurement in meter.measure(pairs, measuring.limits(pairs)):
                measuring.learn(measurement)
        else:
            break
    candidates = measuring.candidates
    for measurement in meter.measure([Diff(d.to, None) for d in plain if d in meter.problems]):
        measuring.learn(measurement)
    meter.candidates = candidates
    wanted = (s.uuid for s in (*(a.snapshot for a in survey.send), *survey.rehang))
    sizes = full_sends(wanted, {**survey.stored, **measuring.sizes}) | measuring.sizes
    return sizes, sum(sizes[diff].bytes for diff in plain if diff in sizes), measuring


def _settled(
    sizes: dict[Diff, Size], meter: _Meter, make_plan: Callable[[Mapping[Diff, Size]], Plan]
) -> Plan:
    """
    Return the plan when all that is in it is measured, which is added to `sizes`.

    Diffs of which it is only known how long they are at least show what a plan would cost at least.
    Those that make that much less than what the plan without them costs are measured first.
    """
    rounds = _ROUNDS
    while True:
        plan = bound = make_plan(sizes)
        finished = {d: s for d, s in sizes.items() if s.exactness is not Exactness.UNFINISHED}
        if len(finished) < len(sizes):
            plan = make_plan(finished)
            if plan.cost > bound.cost * _NEARLY and rounds:
                plan, rounds = bound, rounds - 1
        if not plan.guesses:
            lower_bound = min(bound.lower_bound, plan.send_bytes)
            return replace(plan, lower_bound=lower_bound, cost_bound=bound.cost_bound)
        sizes |= {each.diff: each.size for each in meter.measure(plan.guesses)}
        for diff in meter.problems:
            sizes.pop(diff, None)


def _with_clones(plan: Plan, survey: planner.Survey, meter: _Meter, measuring: Measuring) -> Plan:
    """Return the plan with clone sources where they pay."""
    from buttersink.planner.clonesources import CloneSources

    sources = CloneSources(plan, survey, measuring.room, measuring.times)
    for diff, length in meter.look(sources.increments):
        sources.guess(diff, length)
    while diffs := sources.next():
        for measurement in meter.measure(diffs):
            sources.learn(measurement)
    return sources.plan()

"""
From what has to be done to a plan of steps: choose the diffs, put them in order. No I/O here.

Sends come parents first and among those that are possible the oldest first; then what the
destination lets go, children first. What is sent only because others start from it stays where
diffs stay diffs, since they need it there; elsewhere it passes.
"""

from __future__ import annotations

from heapq import heappop, heappush
from typing import TYPE_CHECKING

from buttersink.planner.costs import Weights
from buttersink.planner.plan import Action, Plan, Reason, Step
from buttersink.planner.pruning import children_first
from buttersink.planner.reaching import reachable
from buttersink.planner.surveying import Arrival

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from buttersink.catalogue import Diff, Size, Snapshot, Uuid
    from buttersink.planner.choosing import Choice, Problem
    from buttersink.planner.surveying import Survey


def make_plan(
    survey: Survey,
    sizes: Mapping[Diff, Size],
    weights: Weights | None = None,
    max_chain: int | None = None,
) -> Plan:
    """
    Return the cheapest plan.

    A snapshot that no diff leads to is in it with a problem, and so is one that cannot be made at
    its path; everything else is planned all the same.

    Args:
        survey: What has to be done.
        sizes: The diffs that can be sent.
        weights: What to make least; by default the bytes sent.
        max_chain: The longest chain that a new diff may end, where diffs stay diffs.

    """
    weights = weights or Weights()
    if not weights.keeps_diffs and all(arrival.problem for arrival in survey.send):
        return Plan((*_before(survey, survey.keep), *_unsendable(survey, {}), *_after(survey)))
    from buttersink.planner.choosing import choose

    problem = _problem(survey, sizes, weights, max_chain)
    choice = choose(problem)
    diffs = _Arranged(survey, problem, choice)
    sends = tuple(diffs.sends())
    passing = {step.snapshot.uuid for step in sends if step.passing and step.snapshot}
    return Plan(
        steps=(
            *_before(survey, diffs.kept()),
            *sends,
            *_unsendable(survey, choice.missing),
            *diffs.deletions(),
            *_after(survey, passing, whole=not weights.keeps_diffs),
        ),
        lower_bound=choice.fewest_bytes,
        cost=choice.cost,
        cost_bound=choice.cost_bound,
        requests=sum(weights.requests(step.size.bytes) for step in sends if step.size),
        faults=choice.faults,
    )


def _problem(
    survey: Survey, sizes: Mapping[Diff, Size], weights: Weights, max_chain: int | None
) -> Problem:
    from buttersink.planner.choosing import Problem

    arrivals = [arrival.snapshot.uuid for arrival in survey.send if not arrival.problem]
    passing = tuple(snapshot.uuid for snapshot in survey.passing)
    blocked = {a.snapshot.uuid for a in survey.send if a.problem}.difference(passing)
    offers = {
        diff: size
        for diff, size in sizes.items()
        if diff.to not in blocked and diff.parent not in blocked and diff not in survey.unreadable
    }
    held = tuple(snapshot.uuid for snapshot in survey.held)
    if not weights.keeps_diffs:
        return Problem(
            tuple(arrivals),
            offers,
            optional=passing,
            held=frozenset(held),
            unreadable=survey.unreadable,
            weights=weights,
        )
    # what is excluded, or goes, is not sent once more, however small the diff would be
    left_alone = set(held).difference(snapshot.uuid for snapshot in survey.keep)
    offers = {diff: size for diff, size in offers.items() if diff.to not in left_alone}
    there = reachable(survey.stored)
    stay = (s.uuid for s in (*survey.keep, *survey.stay) if s.uuid in there)
    return Problem(
        tuple(dict.fromkeys((*arrivals, *stay))),
        offers,
        optional=(*held, *passing),
        stored=survey.stored,
        unreadable=survey.unreadable,
        weights=weights,
        max_chain=max_chain,
        prunes=survey.prunes,
    )


def _before(survey: Survey, kept: Iterable[Snapshot]) -> Iterator[Step]:
    for snapshot in kept:
        yield Step(Action.KEEP, snapshot.path, snapshot)
    for arrival in survey.copy:
        yield _arriving(Action.COPY, arrival, arrival.problem)


def _unsendable(survey: Survey, missing: Mapping[Uuid, str]) -> Iterator[Step]:
    for arrival in survey.send:
        problem = arrival.problem or missing.get(arrival.snapshot.uuid, "")
        if problem:
            yield _arriving(Action.SEND, arrival, problem)


def _after(survey: Survey, passing: Collection[Uuid] = (), *, whole: bool = True) -> Iterator[Step]:
    """Yield what goes; the partials of what passes lie at the top, and are taken up by that."""
    for snapshot in survey.delete if whole else ():
        yield Step(Action.DELETE, snapshot.path, snapshot)
    for partial in survey.discard:
        if partial.uuid in passing and b"/" not in partial.path:
            continue
        yield Step(Action.DISCARD, partial.path, partial=partial)


def _arriving(action: Action, arrival: Arrival, problem: str) -> Step:
    return Step(
        action,
        arrival.path,
        arrival.snapshot,
        replaces=arrival.replaces,
        problem=problem,
    )


class _Arranged:
    """The chosen diffs as steps."""

    def __init__(self, survey: Survey, problem: Problem, choice: Choice) -> None:
        self._survey, self._problem, self._choice = survey, problem, choice
        self._sizes = {**problem.offers, **problem.stored}
        self._known = {s.uuid: s for s in (*survey.held, *survey.passing)}
        self._arrivals = {a.snapshot.uuid: a for a in survey.send if not a.problem}
        self._known.update((uuid, a.snapshot) for uuid, a in self._arrivals.items())
        self._arrivals.update(
            (kept.uuid, Arrival(self._known[kept.uuid], kept.path))
            for kept in survey.keep
            if kept.uuid in choice.diffs and choice.diffs[kept.uuid] not in problem.stored
        )
        self._passing = {
            snapshot.uuid: Arrival(snapshot, snapshot.path)
            for snapshot in survey.passing
            if snapshot.uuid not in self._arrivals
        }
        self._arrivals.update(self._passing)
        self._new = {uuid: d for uuid, d in choice.diffs.items() if d not in problem.stored}

    def kept(self) -> Iterator[Snapshot]:
        """Yield what is there and stays as it is, or is there again once its chain is whole."""
        yield from (snapshot for snapshot in self._survey.keep if snapshot.uuid not in self._new)
        for uuid, arrival in self._arrivals.items():
            here = uuid in self._choice.diffs and uuid not in self._new
            if here and uuid not in self._passing:
                yield arrival.snapshot

    def sends(self) -> Iterator[Step]:
        """Yield a step for every new diff."""
        children: dict[Uuid | None, list[Uuid]] = {}
        for uuid, diff in self._new.items():
            above = diff.parent if diff.parent in self._new else None
            children.setdefault(above, []).append(uuid)
        ready: list[tuple[int, bytes, Uuid]] = []
        done: Uuid | None = None
        while True:
            for uuid in children.get(done, ()):
                snapshot = self._arrivals[uuid].snapshot
                heappush(ready, (snapshot.generation, snapshot.path, uuid))
            if not ready:
                return
            done = heappop(ready)[-1]
            yield self._send(done)

    def _send(self, uuid: Uuid) -> Step:
        arrival, diff = self._arrivals[uuid], self._new[uuid]
        chained = self._problem.weights.keeps_diffs
        unwanted = uuid in self._passing
        return Step(
            Action.SEND,
            arrival.path,
            arrival.snapshot,
            parent=self._known[diff.parent] if diff.parent else None,
            size=self._sizes[diff],
            depth=self._choice.chains[uuid],
            restore=self._chain_bytes(uuid) if chained else 0,
            replaces=arrival.replaces,
            passing=unwanted and not chained,
            reason=self._reason(self._choice.runners_up.get(uuid), unwanted=unwanted),
        )

    def _chain_bytes(self, uuid: Uuid | None) -> int:
        total = 0
        while uuid is not None:
            diff = self._choice.diffs[uuid]
            total += self._sizes[diff].bytes
            uuid = diff.parent
        return total

    def _reason(self, other: Diff | None, *, unwanted: bool) -> Reason:
        note = "what is wanted starts from it" if unwanted else ""
        if other is None:
            return Reason(note)
        chain = self._choice.chains.get(other.parent, 0) + 1 if other.parent else 1
        return Reason(
            note,
            parent=self._known.get(other.parent) if other.parent else None,
            size=self._sizes[other],
            chain=chain if self._problem.weights.keeps_diffs else 0,
        )

    def deletions(self) -> Iterator[Step]:
        """Yield a step for every stored diff that goes."""
        if not self._survey.prunes:
            return
        stay = {snapshot.uuid for snapshot in self._survey.stay} - self._choice.diffs.keys()
        stored = self._problem.stored
        kept = {*self._choice.diffs.values(), *(diff for diff in stored if diff.to in stay)}
        there = {
            snapshot.uuid: snapshot
            for snapshot in (*self._survey.stay, *self._survey.delete, *self._survey.keep)
        }
        for diff in children_first(stored, kept):
            path = there[diff.to].path if diff.to in there else b""
            snapshot = there.get(diff.to)
            yield Step(Action.DELETE, path, snapshot, size=stored[diff], diff=diff)

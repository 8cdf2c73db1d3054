"""
Choose one diff for every snapshot to send so that all of them together are the least bytes.

The snapshots to send are nodes, the candidate diffs arcs; everything the destination has already,
and nothing at all, is the root. The cheapest arborescence is then the cheapest plan, proven, over
the candidates. No I/O here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from buttersink.planner.plan import Action, Plan, Step

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from buttersink.catalogue import Diff, Size, Uuid
    from buttersink.planner.surveying import Arrival, Survey


def make_plan(survey: Survey, sizes: Mapping[Diff, Size]) -> Plan:
    """
    Return the plan that sends the fewest bytes.

    Args:
        survey: What has to be done.
        sizes: The diffs to choose from. They have to reach every snapshot that is to be sent.

    """
    sends: tuple[Step, ...] = ()
    if _sendable(survey):
        sends = tuple(_in_order(survey, sizes, _cheapest(survey, sizes)))
    steps = (
        *(Step(Action.KEEP, snapshot.path, snapshot) for snapshot in survey.keep),
        *(_arriving(Action.COPY, arrival) for arrival in survey.copy),
        *sends,
        *(_arriving(Action.SEND, a) for a in survey.send if a.problem),
        *(Step(Action.DELETE, snapshot.path, snapshot) for snapshot in survey.delete),
        *(Step(Action.DISCARD, partial.path, partial=partial) for partial in survey.discard),
    )
    return Plan(steps, lower_bound=sum(step.size.bytes for step in sends if step.size))


def _sendable(survey: Survey) -> list[Arrival]:
    return [arrival for arrival in survey.send if not arrival.problem]


def _arriving(action: Action, arrival: Arrival) -> Step:
    return Step(
        action,
        arrival.path,
        arrival.snapshot,
        replaces=arrival.replaces,
        problem=arrival.problem,
    )


def _cheapest(survey: Survey, sizes: Mapping[Diff, Size]) -> dict[Uuid, Diff]:
    """Return for every snapshot to send the diff that makes it."""
    from buttersink.planner.arborescence import minimum_arborescence

    nodes = {a.snapshot.uuid: node for node, a in enumerate(_sendable(survey), start=1)}
    held: set[Uuid | None] = {None, *(snapshot.uuid for snapshot in survey.held)}
    arcs = [
        diff for diff in sizes if diff.to in nodes and (diff.parent in nodes or diff.parent in held)
    ]
    entering = minimum_arborescence(
        len(nodes) + 1,
        [nodes.get(diff.parent, 0) if diff.parent else 0 for diff in arcs],
        [nodes[diff.to] for diff in arcs],
        [sizes[diff].bytes for diff in arcs],
    )
    return {uuid: arcs[entering[node]] for uuid, node in nodes.items()}


def _in_order(
    survey: Survey, sizes: Mapping[Diff, Size], chosen: Mapping[Uuid, Diff]
) -> Iterator[Step]:
    """Yield a step for every chosen diff, parents first and the oldest first among the possible."""
    from heapq import heappop, heappush

    from buttersink.planner.reasons import reasons

    arrivals = {arrival.snapshot.uuid: arrival for arrival in _sendable(survey)}
    known = {snapshot.uuid: snapshot for snapshot in survey.held}
    known.update((uuid, arrival.snapshot) for uuid, arrival in arrivals.items())
    children: dict[Uuid | None, list[Uuid]] = {}
    for uuid, diff in chosen.items():
        children.setdefault(diff.parent if diff.parent in arrivals else None, []).append(uuid)
    why = reasons(sizes, chosen, known)
    ready: list[tuple[int, bytes, int, Uuid]] = []

    def release(parent: Uuid | None, depth: int) -> None:
        for uuid in children.get(parent, ()):
            snapshot = arrivals[uuid].snapshot
            heappush(ready, (snapshot.generation, snapshot.path, depth, uuid))

    release(None, 1)
    while ready:
        _generation, _path, depth, uuid = heappop(ready)
        arrival, diff = arrivals[uuid], chosen[uuid]
        yield Step(
            Action.SEND,
            arrival.path,
            arrival.snapshot,
            parent=known[diff.parent] if diff.parent else None,
            size=sizes[diff],
            depth=depth,
            replaces=arrival.replaces,
            reason=why[uuid],
        )
        release(uuid, depth + 1)

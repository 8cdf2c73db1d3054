"""
What has to be done at the destination, before it is known how: kept, copied, sent, deleted.

Snapshots are matched by effective UUID alone, never by name. Everything `--exclude` names is left
as it is on both sides. No I/O here.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from buttersink.catalogue import uuid_text
from buttersink.errors import RefusedError, printable
from buttersink.planner.reaching import reachable

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Iterator, Mapping

    from buttersink.catalogue import Catalogue, Diff, Partial, Size, Snapshot, Uuid


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """
    What the user asks of a plan.

    Attributes:
        delete: Let go of what the source does not have, and of partials.
        exclude: What has a path that one of these matches, anywhere in it, is left as it is.
        max_chain: The longest chain that a new diff may end, where diffs stay diffs.

    """

    delete: bool = False
    exclude: tuple[re.Pattern[bytes], ...] = ()
    max_chain: int | None = None

    def excludes(self, entry: Snapshot | Partial) -> bool:
        """Return whether a snapshot or partial is left as it is."""
        return any(pattern.search(entry.path) for pattern in self.exclude)


@dataclass(frozen=True, slots=True)
class Arrival:
    """
    A snapshot that has to appear at the destination.

    Attributes:
        snapshot: The source's to send, or the one of the destination's file system to copy.
        path: Where, relative to the destination.
        replaces: The snapshot that lies there and that `--delete` lets go.
        problem: Why it cannot appear there; empty if it can.

    """

    snapshot: Snapshot
    path: bytes
    replaces: Snapshot | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Survey:
    """
    What becomes of every snapshot.

    Attributes:
        keep: The destination's, already there.
        copy: On the destination's file system, but not inside the location.
        send: Only at the source.
        held: The source's snapshots that the destination's file system has, too: the parents.
        others: The rest of the source's; they show how the history went.
        passing: The source's that may be sent only because others start from them: of one that has
            no diffs but those it holds, what is not wanted or cannot appear at its path.
        lineage: Own UUID to parent UUID of the source's subvolumes.
        unreadable: Why some of the source's diffs cannot be had.
        delete: The destination's that the source does not have, and that go.
        stay: The destination's that the source does not have, and that do not go.
        discard: Partial transfers at the destination.
        stored: The diffs at the destination, where diffs stay diffs.
        rehang: Of `held`, those in the destination that have a diff from what is to go.
        prunes: Whether diffs that nothing needs go.

    """

    keep: tuple[Snapshot, ...] = ()
    copy: tuple[Arrival, ...] = ()
    send: tuple[Arrival, ...] = ()
    held: tuple[Snapshot, ...] = ()
    others: tuple[Snapshot, ...] = ()
    passing: tuple[Snapshot, ...] = ()
    lineage: Mapping[Uuid, Uuid] = field(default_factory=lambda: MappingProxyType({}))
    unreadable: Mapping[Diff, str] = field(default_factory=lambda: MappingProxyType({}))
    delete: tuple[Snapshot, ...] = ()
    stay: tuple[Snapshot, ...] = ()
    discard: tuple[Partial, ...] = ()
    stored: Mapping[Diff, Size] = field(default_factory=lambda: MappingProxyType({}))
    rehang: tuple[Snapshot, ...] = ()
    prunes: bool = False


def survey(
    source: Catalogue, destination: Catalogue, options: PlanOptions, *, keeps_diffs: bool = False
) -> Survey:
    """
    Compare what two stores hold; `keeps_diffs` tells that the destination holds diffs.

    Raises:
        RefusedError: `--delete` with a source that holds nothing, which is rather a file system
            that is not mounted than a wish to lose everything.

    """
    if options.delete and destination.snapshots and not source.snapshots:
        raise RefusedError(
            "refusing to delete everything",
            why="the source holds no snapshot at all",
            hint="Is it mounted? To empty the destination, delete its snapshots with btrfs.",
        )
    wanted = _one_each(s for s in source.snapshots if not options.excludes(s))
    there = destination.snapshots
    if keeps_diffs:  # one whose chain is broken cannot be had from there
        reached = reachable(destination.diffs)
        there = tuple(snapshot for snapshot in there if snapshot.uuid in reached)
    inside = _one_each(there)
    outside = _one_each(destination.outside)
    meet = _anywhere if keeps_diffs else _Obstacles(source, destination, options).meet
    arrivals = [(s, meet(s)) for uuid, s in wanted.items() if uuid not in inside]
    replaced = {a.replaces.own_uuid for _s, a in arrivals if a.replaces}
    here = {s.uuid for s in (*there, *destination.outside) if s.own_uuid not in replaced}
    known = _one_each((*source.snapshots, *source.outside))
    keep = tuple(s for s in there if s.uuid in wanted)
    delete = tuple(_deletable(source, destination, options, replaced))
    going = {snapshot.own_uuid for snapshot in delete} | replaced
    held = tuple(s for uuid, s in known.items() if uuid in here)
    others = tuple(s for uuid, s in known.items() if uuid not in here and uuid not in wanted)
    blocked = tuple(s for s, arrival in arrivals if arrival.problem and s.uuid not in here)
    return Survey(
        keep=keep,
        copy=tuple(
            replace(arrival, snapshot=outside[s.uuid])
            for s, arrival in arrivals
            if s.uuid in outside
        ),
        send=tuple(arrival for s, arrival in arrivals if s.uuid not in outside),
        held=held,
        others=others,
        passing=(*others, *blocked) if source.diffs else (),
        lineage=source.lineage,
        unreadable=source.unreadable,
        delete=delete,
        stay=tuple(
            s for s in destination.snapshots if s.uuid not in wanted and s.own_uuid not in going
        ),
        discard=tuple(_disposable(destination, options, arrivals)) if options.delete else (),
        stored=destination.diffs,
        rehang=tuple(_hanging(held, keep, delete, destination.diffs)),
        prunes=options.delete and keeps_diffs,
    )


def _anywhere(snapshot: Snapshot) -> Arrival:
    """Return that nothing is in the way where names hold the UUIDs, too."""
    return Arrival(snapshot, snapshot.path)


def _hanging(
    held: Iterable[Snapshot],
    keep: Iterable[Snapshot],
    delete: Iterable[Snapshot],
    stored: Mapping[Diff, Size],
) -> Iterator[Snapshot]:
    """Yield the source's snapshots that are kept and have a diff from what is to go."""
    kept = {snapshot.uuid for snapshot in keep}
    going = {snapshot.uuid for snapshot in delete}
    hanging = kept.intersection(diff.to for diff in stored if diff.parent in going)
    yield from (snapshot for snapshot in held if snapshot.uuid in hanging)


def _one_each(snapshots: Iterable[Snapshot]) -> dict[Uuid, Snapshot]:
    """Return one snapshot for each effective UUID: the original, else the first by path."""
    chosen: dict[Uuid, Snapshot] = {}
    for snapshot in snapshots:
        known = chosen.setdefault(snapshot.uuid, snapshot)
        if snapshot.own_uuid == snapshot.uuid and known.own_uuid != known.uuid:
            chosen[snapshot.uuid] = snapshot
    return chosen


class _Obstacles:
    """What lies at the destination where something else is to appear."""

    def __init__(self, source: Catalogue, destination: Catalogue, options: PlanOptions) -> None:
        self._source = {snapshot.uuid: snapshot for snapshot in source.snapshots}
        self._wanted = {s.path for s in source.snapshots if not options.excludes(s)}
        self._at = {snapshot.path: snapshot for snapshot in destination.snapshots}
        self._options = options

    def _inside_of(self, path: bytes) -> bytes:
        """Return the path of a snapshot, there or to arrive, that has this path inside it."""
        above = path.rpartition(b"/")[0]
        while above and above not in self._at and above not in self._wanted:
            above = above.rpartition(b"/")[0]
        return above

    def meet(self, snapshot: Snapshot) -> Arrival:
        """Return how a snapshot of the source can appear at its path."""
        old = self._at.get(snapshot.path)
        if above := self._inside_of(snapshot.path):
            problem = f"it would lie inside the read-only snapshot {printable(above)}"
            return Arrival(snapshot, snapshot.path, problem=problem)
        if old is None:
            return Arrival(snapshot, snapshot.path)
        twin = self._source.get(old.uuid)
        if self._options.delete and twin is None:
            return Arrival(snapshot, snapshot.path, replaces=old)
        problem = f"snapshot {uuid_text(old.uuid)} has this path at the destination"
        if twin is None:
            problem += "; --delete replaces it"
        else:
            problem += f"; at the source that is {printable(twin.path)}: rename it there"
        return Arrival(snapshot, snapshot.path, problem=problem)


def _disposable(
    destination: Catalogue, options: PlanOptions, arrivals: list[tuple[Snapshot, Arrival]]
) -> Iterator[Partial]:
    """Yield the partials that no arrival takes up: same snapshot, same directory."""
    taken_up = {(s.uuid, a.path.rpartition(b"/")[0]) for s, a in arrivals if not a.problem}
    for partial in destination.partials:
        place = (partial.uuid, partial.path.rpartition(b"/")[0])
        if place not in taken_up and not options.excludes(partial):
            yield partial


def _deletable(
    source: Catalogue, destination: Catalogue, options: PlanOptions, replaced: set[Uuid]
) -> Iterator[Snapshot]:
    if not options.delete:
        return
    keep = {snapshot.uuid for snapshot in source.snapshots}
    for snapshot in destination.snapshots:
        gone = snapshot.uuid not in keep and snapshot.own_uuid not in replaced
        if gone and not options.excludes(snapshot):
            yield snapshot

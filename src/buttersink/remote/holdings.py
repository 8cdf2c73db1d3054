"""
What a client may name: the snapshots and partials of the server's own catalogue. No I/O here.

A client says which it means by UUID and path, and gets the server's value of it or a refusal; it
never says what that is. What arrived in this session is added, what went is taken away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from buttersink.catalogue import Catalogue, uuid_text
from buttersink.errors import UsageError
from buttersink.planner.plan import Action, Step

if TYPE_CHECKING:
    from collections.abc import Iterable

    from buttersink.catalogue import Diff, Partial, Snapshot, Uuid
    from buttersink.remote.values import Delivery, Named

_HINT = "Run the same command again: it reads anew what is there."


class Holdings:
    """
    The things of one catalogue by the names that a client has for them.

    Args:
        found: The catalogue that the client was sent.

    """

    def __init__(self, found: Catalogue | None = None) -> None:
        found = found or Catalogue()
        self._inside = {(each.uuid, each.path): each for each in found.snapshots}
        self._outside = {(each.uuid, each.path): each for each in found.outside}
        self._partials = {(each.uuid, each.path): each for each in found.partials}
        self._count: dict[Uuid, list[Snapshot]] = {}
        for snapshot in (*found.snapshots, *found.outside):
            self._count.setdefault(snapshot.uuid, []).append(snapshot)

    def add(self, snapshot: Snapshot) -> None:
        """Note that diffs may now start from a snapshot that has arrived."""
        self._count.setdefault(snapshot.uuid, []).append(snapshot)

    def remove(self, snapshot: Snapshot) -> None:
        """Note that a snapshot is gone; another with its effective UUID may be left."""
        self._inside.pop((snapshot.uuid, snapshot.path), None)
        left = self._count.get(snapshot.uuid, [])
        left[:] = [each for each in left if each.path != snapshot.path]

    def inside(self, named: Named) -> Snapshot:
        """Return a snapshot inside the location; `UsageError` if it is none."""
        return _known(self._inside.get(named), named.uuid)

    def outside(self, named: Named) -> Snapshot:
        """Return a snapshot elsewhere that may be copied; `UsageError` if it is none."""
        return _known(self._outside.get(named), named.uuid)

    def partial(self, named: Named) -> Partial:
        """Return a partial; `UsageError` if it is none."""
        found = self._partials.get(named)
        if found is None:
            raise _refused(named.uuid)
        return found

    def usable(self, uuid: Uuid) -> Snapshot:
        """Return a snapshot that a diff may start from; `UsageError` if there is none."""
        return _known(next(iter(self._count.get(uuid, ())), None), uuid)

    def check(self, diffs: Iterable[Diff]) -> None:
        """Refuse with `UsageError` diffs of what is not here."""
        for diff in diffs:
            for uuid in (diff.to, *((diff.parent,) if diff.parent else ()), *diff.clones):
                self.usable(uuid)

    def step(self, delivery: Delivery) -> Step:
        """Return the step that a client asks for, made of what is here."""
        return Step(
            Action.SEND,
            delivery.path,
            snapshot=delivery.snapshot,
            parent=self.usable(delivery.parent) if delivery.parent else None,
            size=delivery.size,
            clones=tuple(map(self.usable, delivery.clones)),
            replaces=self.inside(delivery.replaces) if delivery.replaces else None,
            passing=delivery.passing,
        )

    def copy_step(self, source: Snapshot, path: bytes, replaces: Named | None) -> Step:
        """Return the step that copies a snapshot of this file system to a path."""
        old = self.inside(replaces) if replaces else None
        return Step(Action.COPY, path, snapshot=source, replaces=old)


def _known(found: Snapshot | None, uuid: Uuid) -> Snapshot:
    if found is None:
        raise _refused(uuid)
    return found


def _refused(uuid: Uuid) -> UsageError:
    return UsageError("no such snapshot", where=uuid_text(uuid), why="it is not here", hint=_HINT)

"""
What the last listing of a btrfs file system found, arranged for looking up.

Turns subvolumes into the catalogue's values and knows which subvolume stands for each effective
UUID: one inside the location before one outside, an original before a copy.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from buttersink.catalogue import (
    Catalogue,
    Exactness,
    Partial,
    Size,
    Snapshot,
    Uuid,
    uuid_from_text,
    uuid_text,
)
from buttersink.kernel.subvolumes import NO_UUID, join

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from buttersink.kernel.ioctl import SubvolumeInfo
    from buttersink.kernel.subvolumes import Subvolume

_PREFIX = b".buttersink-"
_PARTIAL = re.compile(
    rb"\.buttersink-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.(?:part[12]?|base(?:[1-9][0-9]*)?)"
)


def partial_name(uuid: Uuid, number: int = 0) -> bytes:
    """Return a name under which this snapshot arrives: the usual one or, by 1 or 2, another."""
    return _beside(uuid, b".part", number)


def base_name(uuid: Uuid, number: int = 0) -> bytes:
    """Return the name of a stand-in, counted from 0, for what this snapshot is made from."""
    return _beside(uuid, b".base", number)


def journal_name(uuid: Uuid) -> bytes:
    """Return the name of the file that says how much of this snapshot has arrived."""
    return _beside(uuid, b".journal")


def _beside(uuid: Uuid, ending: bytes, number: int = 0) -> bytes:
    return b"".join((_PREFIX, uuid_text(uuid).encode(), ending, b"%d" % number if number else b""))


def uuid_of_partial(name: bytes) -> Uuid | None:
    """Return the effective UUID of the snapshot a partial was going to be; None if it is none."""
    matched = _PARTIAL.fullmatch(name)
    return uuid_from_text(matched[1].decode("ascii")) if matched else None


class Index:
    """
    The subvolumes of one file system, seen from a directory of it.

    Where it is confined, what lies outside of the directory does not exist for whoever looks.

    Attributes:
        directory: Path of that directory from the top level.
        received: Numbers of the subvolumes that have a received UUID, by that.

    """

    def __init__(
        self,
        found: list[Subvolume],
        quota: Mapping[int, tuple[int, int]],
        directory: bytes,
        single: bytes | None,
        *,
        confined: bool = False,
    ) -> None:
        self.directory = directory
        self.received: dict[bytes, set[int]] = {}
        self._by_uuid: dict[Uuid, list[Snapshot]] = {}  # the one to use first
        self._top_path: dict[int, bytes] = {}
        self._ctransid: dict[int, int] = {}
        self._called: dict[int, Uuid] = {}
        self._inside: set[int] = set()
        self._arrange(found, quota, single, confined=confined)

    def _arrange(
        self,
        found: list[Subvolume],
        quota: Mapping[int, tuple[int, int]],
        single: bytes | None,
        *,
        confined: bool,
    ) -> None:
        prefix = self.directory + b"/" if self.directory else b""
        inside: list[Snapshot] = []
        outside: list[Snapshot] = []
        partials: list[Partial] = []
        altered: list[bytes] = []
        for each in found:
            below = each.path.startswith(prefix)
            path = each.path[len(prefix) :] if below else each.path
            if each.received_uuid:
                self.received.setdefault(each.received_uuid, set()).add(each.id)
                self._called[each.id] = Uuid(each.received_uuid)
            if _PREFIX in each.path and (uuid := uuid_of_partial(each.path.rpartition(b"/")[2])):
                if below and single is None:
                    size = quota[each.id][0] if each.id in quota else None
                    partials.append(Partial(path, uuid, each.created, each.id, size))
            elif confined and not below:
                continue
            elif each.read_only and each.path and each.uuid != NO_UUID:
                self._top_path[each.id] = each.path
                self._ctransid[each.id] = each.ctransid
                if below and single in (None, path):
                    if each.altered:
                        altered.append(path)
                    inside.append(_snapshot(each, path, quota))
                    self._inside.add(each.id)
                else:
                    outside.append(_snapshot(each, each.path, quota))
        for snapshot in (*sorted(inside, key=_preference), *sorted(outside, key=_preference)):
            self._by_uuid.setdefault(snapshot.uuid, []).append(snapshot)
        lineage = {Uuid(each.uuid): Uuid(each.parent_uuid or NO_UUID) for each in found}
        self.catalogue = Catalogue(
            snapshots=tuple(sorted(inside, key=_path)),
            outside=tuple(sorted(outside, key=_path)),
            lineage=_ancestry((*inside, *outside), lineage) if confined else lineage,
            partials=tuple(sorted(partials, key=_path)),
            altered=tuple(sorted(altered)),
        )

    def __getitem__(self, uuid: Uuid) -> Snapshot:
        return self._by_uuid[uuid][0]

    def is_inside(self, snapshot: Snapshot) -> bool:
        """Return whether a snapshot of this index has its path from the directory."""
        return snapshot.subvolume_id in self._inside

    def is_found(self, snapshot: Snapshot) -> bool:
        """Return whether it is just this one that has its received UUID."""
        received = snapshot.received_uuid
        return received is not None and self.received.get(received) == {snapshot.subvolume_id}

    def top_path(self, snapshot: Snapshot) -> bytes:
        """Return a snapshot's path from the top level of the file system."""
        return self._top_path[snapshot.subvolume_id]

    def ctransid(self, snapshot: Snapshot) -> int:
        """Return the transaction, of this file system, that last changed a snapshot's content."""
        return self._ctransid[snapshot.subvolume_id]

    def called(self, snapshot: Snapshot) -> Uuid:
        """
        Return what the kernel's send calls a snapshot.

        That is its effective UUID, but where it was changed after it had been received.
        """
        return self._called.get(snapshot.subvolume_id, snapshot.uuid)

    def is_unchanged(self, snapshot: Snapshot, found: SubvolumeInfo) -> bool:
        """Return whether a subvolume is a snapshot of this index, and as it was when it came in."""
        known = self._ctransid.get(snapshot.subvolume_id)  # not of what passes: it is not synced
        return (
            found.read_only and found.uuid == snapshot.own_uuid and known in (None, found.ctransid)
        )

    def add(
        self,
        snapshot: Snapshot,
        found: SubvolumeInfo,
        path: bytes,
        received: Uuid | None = None,
    ) -> None:
        """
        Note that a snapshot has arrived here as a subvolume, at a path relative to the directory.

        One that only passes has an invented received UUID, which is then to be given.
        """
        subvolume_id, passes = found.id, received is not None
        received = received or snapshot.uuid
        here = replace(
            snapshot,
            own_uuid=Uuid(found.uuid),
            received_uuid=received,
            path=path,
            subvolume_id=subvolume_id,
        )
        self._by_uuid.setdefault(snapshot.uuid, []).insert(0, here)
        self._top_path[subvolume_id] = join(self.directory, path)
        if not passes:
            self._ctransid[subvolume_id] = found.ctransid
        self._inside.add(subvolume_id)
        self.received.setdefault(received, set()).add(subvolume_id)

    def forget(self, snapshot: Snapshot) -> None:
        """Note that a snapshot of this index is gone; another of its effective UUID may be left."""
        same = self._by_uuid[snapshot.uuid]
        same[:] = [each for each in same if each.subvolume_id != snapshot.subvolume_id]
        self.received.get(snapshot.received_uuid or b"", set()).discard(snapshot.subvolume_id)

    def release(self, uuid: Uuid) -> None:
        """Note that what passed under an invented received UUID is gone, if it was here."""
        for snapshot in self._by_uuid.get(uuid, ())[:1]:
            if snapshot.received_uuid not in (None, uuid):
                self.forget(snapshot)


def _ancestry(snapshots: Iterable[Snapshot], lineage: dict[Uuid, Uuid]) -> dict[Uuid, Uuid]:
    """Return of a lineage what leads to these snapshots."""
    found: dict[Uuid, Uuid] = {}
    for snapshot in snapshots:
        uuid = snapshot.own_uuid
        while uuid in lineage and uuid not in found:
            found[uuid] = uuid = lineage[uuid]
    return found


def _preference(snapshot: Snapshot) -> tuple[bool, int]:
    """Sort originals before copies."""
    return snapshot.own_uuid != snapshot.uuid, snapshot.subvolume_id


def _path(entry: Snapshot | Partial) -> bytes:
    return entry.path


def _snapshot(each: Subvolume, path: bytes, quota: Mapping[int, tuple[int, int]]) -> Snapshot:
    size, exclusive = quota.get(each.id, (None, None))
    received = None if each.altered else each.received_uuid  # it is not that any more
    return Snapshot(
        Uuid(received or each.uuid),
        Uuid(each.uuid),
        Uuid(each.parent_uuid) if each.parent_uuid else None,
        Uuid(received) if received else None,
        (received and each.stransid) or each.ctransid,
        each.created,
        path,
        each.id,
        None if size is None else Size(size, Exactness.MEASURED),
        exclusive,
    )

"""
What was measured before: sizes by the snapshots they are of, since those do not change.

A stream's length depends on its version; on the snapshots, which a subvolume's own UUID and the
transaction that last changed its content stand for; on the name, which the stream begins with; on
which of them can be opened to look up what the stream leaves out; and on who made it: the kernel
and this program. All of that is in the key. It also depends, for extents with more than 1,024
references, on whatever else refers to them (SEND_MAX_EXTENT_REFS in fs/btrfs/send.c): a size may be
off where such references have come or gone since.
"""

from __future__ import annotations

import os
import struct
import time
from typing import TYPE_CHECKING, NamedTuple

from buttersink.catalogue import Measurement
from buttersink.stores.btrfs.sizefile import Length, SizeFile

if TYPE_CHECKING:
    from buttersink.catalogue import Diff, Snapshot
    from buttersink.stores.base import Cache
    from buttersink.stores.btrfs.index import Index

_PREDICTION = 4  # raise it with every change to what `stream.size` or `pair` make of a stream
_PAUSE = 1.0  # seconds between two writes: so much measuring is lost at most when a run is killed
_HEAD = struct.Struct("<H?B")  # bytes of the name, whether the parent is looked into, version
_VERSION = struct.Struct("<16sQ")


class _Version(NamedTuple):
    """A snapshot by its own UUID, and the local transaction that last changed its content."""

    own_uuid: bytes
    ctransid: int


_NOTHING = _Version(bytes(16), 0)  # a full send has it for a parent


class RememberedSizes:
    """
    The sizes known of the snapshots of an index; `close` it, so that all of them are written.

    Args:
        cache: Where they are kept between runs, None for nowhere.
        filesystem: UUID of the file system.
        index: What is there. What is known of others is dropped when something is written.

    """

    def __init__(self, cache: Cache | None, filesystem: bytes, index: Index) -> None:
        maker = f"{os.uname().release} {_PREDICTION}"
        self._file = SizeFile(cache, filesystem, maker) if cache else None
        self._index = index
        self._known = self._file.load() if self._file else {}
        self._pruned = False
        self._new: dict[bytes, Length] = {}
        self._written = time.monotonic()

    def get(self, diff: Diff, version: int, limit: int | None = None) -> Measurement | None:
        """
        Return what is known of a diff as a stream of a version.

        Of one with clone sources, which are few, that is nothing.

        That it has more bytes than a limit, if there is one, is enough.
        """
        length = None if diff.clones else self._known.get(self._key(diff, version))
        if length is None or not (length.finished or (limit is not None and length.bytes > limit)):
            return None
        return Measurement(
            diff,
            length.bytes,
            length.commands,
            remembered=True,
            finished=length.finished,
            extents=length.extents,
            own_clones=length.own_clones,
        )

    def add(self, measurement: Measurement, version: int) -> None:
        """Remember what was measured, of a stream of a version, without clone sources."""
        if measurement.diff.clones:
            return
        key = self._key(measurement.diff, version)
        length = Length(
            measurement.bytes,
            measurement.commands,
            measurement.finished,
            measurement.extents,
            measurement.own_clones,
        )
        self._known[key] = self._new[key] = length
        if time.monotonic() - self._written >= _PAUSE:
            self.close()

    def close(self) -> None:
        """Write what is new. More may be added afterwards."""
        if self._file and self._new:
            self._file.save(self._new, self._gone())
        self._new = {}
        self._written = time.monotonic()

    def _key(self, diff: Diff, version: int) -> bytes:
        to = self._index[diff.to]
        parent = self._index[diff.parent] if diff.parent else None
        inside = parent is not None and self._index.is_inside(parent)
        versions = (self._version(to), self._version(parent) if parent else _NOTHING)
        head = _HEAD.pack(len(os.path.basename(to.path)), inside, version)
        return head + b"".join(_VERSION.pack(*each) for each in versions)

    def _version(self, snapshot: Snapshot) -> _Version:
        return _Version(snapshot.own_uuid, self._index.ctransid(snapshot))

    def _gone(self) -> list[bytes]:
        """Return, the first time, what is known of snapshots that are not there any more."""
        if self._pruned:
            return []
        self._pruned = True
        there = self._index.catalogue
        present = {self._version(each) for each in (*there.snapshots, *there.outside)} | {_NOTHING}
        return [key for key in self._known if not present.issuperset(_versions(key))]


def _versions(key: bytes) -> set[tuple[bytes, int]]:
    """Return every snapshot of which a key speaks; none for what is no key of ours."""
    try:
        return set(_VERSION.iter_unpack(key[_HEAD.size :]))
    except struct.error:
        return set()

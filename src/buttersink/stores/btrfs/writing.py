"""
How snapshots come into a btrfs directory: received from a stream, or copied in place.

Either way they arrive under a partial name and are committed there; see `arrival`. What only passes
is never committed: it lies under its partial name at the top of the location, with its invented
received UUID, until it is released.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from buttersink.catalogue import Uuid
from buttersink.errors import NoSpaceError, ReceiveError, printable
from buttersink.kernel.ioctl import filesystem_id
from buttersink.kernel.mounts import PrivateMount, device_of, mount_of
from buttersink.kernel.subvolumes import join
from buttersink.stores.btrfs.arrival import Place
from buttersink.stores.btrfs.directory import open_subvolume, translating
from buttersink.stores.btrfs.index import partial_name
from buttersink.stores.btrfs.receiving import ReceiveProcess
from buttersink.stream import Identity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from buttersink.catalogue import Snapshot
    from buttersink.planner.plan import Step
    from buttersink.stores.base import Sink
    from buttersink.stores.btrfs.index import Index


class Writer:
    """
    The writing half of a btrfs store.

    Args:
        fd: The location's directory, writable; stays the caller's.
        index: What is on the file system; told of what arrives.

    """

    def __init__(self, fd: int, index: Index) -> None:
        self._fd = fd
        self._index = index
        mount = mount_of(fd)
        with translating(ReceiveError, "cannot mount the file system privately", mount.point):
            self._mount = PrivateMount(device_of(mount, filesystem_id(fd)))

    def close(self) -> None:
        """Let go of the private mount."""
        self._mount.close()

    @contextmanager
    def receive(self, step: Step, snapshot: Snapshot) -> Iterator[Sink]:
        """Feed `btrfs receive` beside the final place; commit on a clean exit, else clear away."""
        with self._arriving(step, snapshot) as (place, received):
            identity = self._identity(step, snapshot, place, received)
            directory = join(self._index.directory, os.path.dirname(place.path))
            inside = join(self._mount.path, directory)
            process = ReceiveProcess(self._mount, inside, identity, self._fd)
            try:
                yield process
                process.finish()
            finally:
                process.abort()
            place.drop_stand_ins()

    def copy(self, step: Step, snapshot: Snapshot) -> None:
        """Snapshot what lies elsewhere on the file system, keeping its effective UUID."""
        with self._arriving(step, snapshot) as (place, received), self._opened(snapshot) as fd:
            place.snapshot(fd, place.partial, received, snapshot.generation)

    def release(self, snapshot: Snapshot) -> None:
        """Delete what passed; no error if it is not there."""
        with self._passing_place(snapshot) as place:
            place.clear()
        self._index.release(snapshot.uuid)

    def _passing_place(self, snapshot: Snapshot) -> Place:
        """Return the place of a snapshot that only passes: its final name is its partial one."""
        return Place(self._fd, partial_name(snapshot.uuid), snapshot.uuid)

    @contextmanager
    def _arriving(self, step: Step, snapshot: Snapshot) -> Iterator[tuple[Place, Uuid]]:
        """Yield a free place and the received UUID to arrive with; then commit or clear."""
        received = Uuid(os.urandom(16))
        with self._place(step, snapshot) as place:
            place.clear()
            try:
                yield place, received
                if step.passing:
                    info = place.arrived(received)
                else:
                    info = place.commit(snapshot, received, step.replaces)
            except NoSpaceError as error:
                place.clear()
                raise self._full(step, error) from error
            except BaseException:
                place.clear()
                raise
        if step.replaces is not None:
            self._index.forget(step.replaces)
        invented = received if step.passing else None
        self._index.add(snapshot, Uuid(info.uuid), info.id, place.path, invented)

    @contextmanager
    def _place(self, step: Step, snapshot: Snapshot) -> Iterator[Place]:
        """Yield where a step's snapshot arrives; `ConflictError` if its name is taken."""
        if step.passing:
            with self._passing_place(snapshot) as place:
                yield place
            return
        with Place(self._fd, step.path, snapshot.uuid) as place:
            place.require_free(step.replaces)
            yield place

    def _identity(self, step: Step, snapshot: Snapshot, place: Place, received: Uuid) -> Identity:
        """
        Return what the stream shall say so that the receiver finds what it is made from, exactly.

        `btrfs receive` looks a parent up by received UUID, then by own UUID, and a clone source (in
        btrfs-progs 6.2) by received UUID only, and takes the oldest of several. Where that would
        find another one, a stand-in with an invented received UUID is snapshotted from ours. One
        that passes has such a UUID already.
        """
        clones: dict[bytes, bytes] = {snapshot.uuid: received}
        name = None
        if step.parent is not None:
            parent = self._index[step.parent.uuid]
            name = parent.own_uuid if parent.own_uuid not in self._index.received else None
            clones[parent.uuid] = found = self._found_by(parent, place, stand_in=name is None)
            name = name or found
        for source in (self._index[clone.uuid] for clone in step.clones):
            clones[source.uuid] = self._found_by(source, place)
        return Identity(
            uuid=received,
            generation=snapshot.generation,
            name=place.partial,
            parent=name,
            clones=clones,
        )

    def _found_by(self, source: Snapshot, place: Place, *, stand_in: bool = False) -> Uuid:
        """Return the received UUID of a snapshot or, if need be, of a stand-in made for it."""
        if source.received_uuid is not None and self._index.is_found(source) and not stand_in:
            return source.received_uuid
        invented = Uuid(os.urandom(16))
        with self._opened(source) as fd:
            place.stand_in(fd, invented, source.generation)
        return invented

    @contextmanager
    def _opened(self, source: Snapshot) -> Iterator[int]:
        """Yield a descriptor of a snapshot to copy, wherever it is on the file system."""
        path = self._index.top_path(source)
        with translating(ReceiveError, "cannot copy the snapshot", path):
            fd = open_subvolume(self._mount.fd, path, source.subvolume_id)
            try:
                yield fd
            finally:
                os.close(fd)

    def _full(self, step: Step, error: NoSpaceError) -> NoSpaceError:
        """Return an error that names the file system and the space needed."""
        state = os.statvfs(self._fd)
        free = state.f_bavail * state.f_frsize
        needs = f"it takes up to {step.size.bytes:,} bytes; " if step.size else ""
        point = printable(mount_of(self._fd).point)
        return NoSpaceError(
            "the destination is full",
            where=step.path,
            why=f"{needs}{free:,} are free on the file system mounted at {point} ({error.why})",
            hint="Free space there and run the same command again.",
        )

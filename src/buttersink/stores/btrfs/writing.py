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

from buttersink.catalogue import Diff, Exactness, Uuid
from buttersink.errors import (
    ConflictError,
    NoSpaceError,
    ReceiveError,
    ResumeError,
    StreamError,
    printable,
)
from buttersink.kernel.ioctl import filesystem_id
from buttersink.kernel.mounts import PrivateMount, device_of, mount_of
from buttersink.kernel.subvolumes import join
from buttersink.stores.btrfs.arrival import Place
from buttersink.stores.btrfs.directory import (
    open_directory,
    open_subvolume,
    subvolume_at,
    translating,
)
from buttersink.stores.btrfs.index import partial_name
from buttersink.stores.btrfs.receiving import ReceiveProcess
from buttersink.stores.btrfs.segmented import SegmentedReceive
from buttersink.stream import Identity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from buttersink.catalogue import Snapshot
    from buttersink.planner.plan import Step
    from buttersink.stores.base import Sink
    from buttersink.stores.btrfs.index import Index
    from buttersink.stores.btrfs.journal import Journal
    from buttersink.stream import Checkpoint


class Writer:
    """
    The writing half of a btrfs store.

    Args:
        fd: The location's directory, writable; stays the caller's.
        index: What is on the file system; told of what arrives.
        receives: The highest version of a send stream that btrfs-progs take.

    """

    def __init__(self, fd: int, index: Index, receives: int) -> None:
        self._fd = fd
        self._index = index
        self._receives = receives
        mount = mount_of(fd)
        with translating(ReceiveError, "cannot mount the file system privately", mount.point):
            self._mount = PrivateMount(device_of(mount, filesystem_id(fd)))

    def close(self) -> None:
        """Let go of the private mount."""
        self._mount.close()

    def resumable(self, step: Step) -> Checkpoint | None:
        """Return what an earlier run has left of a diff; `ResumeError` if that is of no use."""
        with self._place(step) as place:
            journal = self._find(place, step.sent)
        return journal.checkpoint if journal else None

    def _find(self, place: Place, diff: Diff) -> Journal | None:
        """Return what is held of a diff, if a receiver finds just that by its received UUID."""
        journal = place.find(diff)
        if journal and len(self._index.received.get(journal.received_uuid, ())) > 1:
            raise ResumeError("cannot be gone on with", why="somebody has copied its checkpoint")
        return journal

    @contextmanager
    def receive(self, step: Step, checkpoint: Checkpoint | None = None) -> Iterator[Sink]:
        """
        Feed `btrfs receive` beside the final place, in segments if it is much.

        On a clean exit commit. Else clear away everything but the last checkpoint, and that, too,
        if the receiver goes no further from there; `ResumeError` if it was an earlier run's.
        """
        diff = step.sent
        with self._arriving(step, checkpoint) as place:

            def start(identity: Identity) -> ReceiveProcess:
                with self._directory(place) as directory:
                    return ReceiveProcess(
                        self._mount, directory, identity, self._fd, self._receives
                    )

            def prove() -> None:
                parents = (step.parent,) if step.parent and place.kept is None else ()
                self._require_unchanged(step, (*parents, *step.clones))

            size = step.size if step.size and step.size.exact else None
            sink = SegmentedReceive(
                place,
                diff,
                self._identity(step, place),
                start,
                prove,
                size=size.bytes if size else None,
                checksum=size is not None and size.exactness is Exactness.STORED,
            )
            try:
                yield sink
                sink.finish()
            finally:
                sink.abort()
            prove()
            place.drop_stand_ins()

    @contextmanager
    def _directory(self, place: Place) -> Iterator[int]:
        """Yield a descriptor, in the private mount, of the directory in which something arrives."""
        above = os.path.dirname(place.path)
        with translating(ReceiveError, "cannot open the directory", above):
            fd = open_directory(self._mount.fd, join(self._index.directory, above))
        try:
            place.require_directory(fd)
            yield fd
        finally:
            os.close(fd)

    def _require_unchanged(self, step: Step, origins: Sequence[Snapshot]) -> None:
        """
        Raise `ConflictError` if what a snapshot was made from is not as it was when it was listed.

        Asked afterwards, this also tells what the receiver has found. UUIDs would not: they stay
        where somebody makes a snapshot writable by the kernel's call.
        """
        for origin in (self._index[each.uuid] for each in origins):
            with self._opened(origin, "cannot look at what it is made from") as fd:
                found = subvolume_at(fd)
            if not self._index.is_unchanged(origin, found):
                raise ConflictError(
                    "cannot make",
                    where=step.path,
                    why=f"{printable(origin.path)}, which it is made from, has just been changed",
                    hint="Delete that at the destination, and run again.",
                )

    def copy(self, step: Step) -> None:
        """Snapshot what lies elsewhere on the file system, keeping its effective UUID."""
        snapshot = step.made
        with self._arriving(step) as place, self._opened(snapshot) as fd:
            place.snapshot(fd, place.partial, place.received, snapshot.generation)
            self._require_unchanged(step, (snapshot,))

    def release(self, snapshot: Snapshot) -> None:
        """Delete what passed, but not what is not whole; no error if it is not there."""
        with self._passing_place(snapshot) as place:
            if not place.has_journal():
                place.clear()
        self._index.release(snapshot.uuid)

    def _passing_place(self, snapshot: Snapshot) -> Place:
        """Return the place of a snapshot that only passes: its final name is a partial one."""
        return Place(self._fd, partial_name(snapshot.uuid), snapshot.uuid)

    @contextmanager
    def _arriving(self, step: Step, checkpoint: Checkpoint | None = None) -> Iterator[Place]:
        """Yield a place free for what arrives, beside the checkpoint if it is given; commit."""
        with self._place(step) as place:
            if checkpoint is None:
                place.clear()
            else:
                journal = self._find(place, step.sent)
                if journal is None or journal.checkpoint != checkpoint:
                    raise ResumeError("cannot be gone on with", why="its journal has changed")
                place.keep(journal)
                place.clear_unfinished()
            try:
                yield place
                if step.passing:
                    info = place.arrived()
                    place.settle()
                else:
                    info = place.commit(step.made, step.replaces)
            except BaseException as error:
                refused = self._is_refused(error, place)
                self._clear_after(place, refused=refused)
                if isinstance(error, NoSpaceError):
                    raise self._full(step, error) from error
                if refused and checkpoint is not None:
                    why = f"what comes after what is held is refused ({error})"
                    raise ResumeError("cannot be gone on with", why=why) from error
                raise
        if step.replaces is not None:
            self._index.forget(step.replaces)
        if step.passing:
            self._index.add(step.made, info, place.partial, place.received)
        else:
            self._index.add(step.made, info, place.path)

    def _is_refused(self, error: BaseException, place: Place) -> bool:
        """Return whether the receiver has got nowhere, from the start or from a checkpoint."""
        refused = isinstance(error, (ReceiveError, StreamError))
        return refused and not place.advanced and not isinstance(error, NoSpaceError)

    def _clear_after(self, place: Place, *, refused: bool) -> None:
        """Clear away what did not arrive, and a checkpoint that leads no further."""
        if refused:
            place.clear()
        else:
            place.leave()

    @contextmanager
    def _place(self, step: Step) -> Iterator[Place]:
        """Yield where a step's snapshot arrives; `ConflictError` if its name is taken."""
        if step.passing:
            with self._passing_place(step.made) as place:
                yield place
            return
        with Place(self._fd, step.path, step.made.uuid) as place:
            place.require_free(step.replaces)
            yield place

    def _identity(self, step: Step, place: Place) -> Identity:
        """
        Return what the stream shall say so that the receiver finds what it is made from, exactly.

        `btrfs receive` looks a parent up by received UUID, then by own UUID, and a clone source (in
        btrfs-progs 6.2) by received UUID only, and takes the oldest of several. Where that would
        find another one, a stand-in with an invented received UUID is snapshotted from ours. One
        that passes has such a UUID already.
        """
        clones: dict[bytes, bytes] = {}
        name = None
        if step.parent is not None:
            parent = self._index[step.parent.uuid]
            name = parent.own_uuid if parent.own_uuid not in self._index.received else None
            clones[parent.uuid] = found = self._found_by(parent, place, stand_in=name is None)
            name = name or found
        for source in (self._index[clone.uuid] for clone in step.clones):
            clones[source.uuid] = self._found_by(source, place)
        return Identity(generation=step.made.generation, parent=name, clones=clones)

    def _found_by(self, source: Snapshot, place: Place, *, stand_in: bool = False) -> Uuid:
        """Return the received UUID of a snapshot or, if need be, of a stand-in made for it."""
        if source.received_uuid is not None and self._index.is_found(source) and not stand_in:
            return source.received_uuid
        invented = Uuid(os.urandom(16))
        with self._opened(source) as fd:
            place.stand_in(fd, invented, source.generation)
        return invented

    @contextmanager
    def _opened(self, source: Snapshot, what: str = "cannot copy the snapshot") -> Iterator[int]:
        """Yield a descriptor of a snapshot to copy, wherever it is on the file system."""
        path = self._index.top_path(source)
        with translating(ReceiveError, what, path):
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

"""
The btrfs store.

Strategy: one tree search gives every subvolume of the file system; those below the directory are
the store's, the others are known as *outside*. Everything is done by descriptor and subvolume
number. What arrives is received beside its final place under a partial name and an invented
received UUID, synced, given its identity, and only then renamed: a name that lists as a snapshot is
complete and on disk. What only some runs need is imported by those: a run with nothing to do is
short.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from itertools import groupby
from types import MappingProxyType
from typing import TYPE_CHECKING

from buttersink.catalogue import Measurement
from buttersink.errors import (
    DeleteError,
    LocationError,
    ReceiveError,
    ResumeError,
    SendError,
    StreamError,
    printable,
)
from buttersink.kernel import ioctl, subvolumes
from buttersink.kernel.extents import DataAges, data_ages
from buttersink.kernel.features import send_stream_version
from buttersink.stores.base import STREAM_VERSION, Mode, Role, Sink, Store, Traits
from buttersink.stores.btrfs.directory import (
    lock,
    open_directory,
    open_location,
    open_subvolume,
    subvolume_at,
    translating,
)
from buttersink.stores.btrfs.index import Index, journal_name
from buttersink.stores.btrfs.pair import Pair
from buttersink.stores.btrfs.sending import PIPE_BYTES, sending

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator, Mapping, Sequence

    from buttersink.catalogue import Catalogue, Diff, Partial, Uuid
    from buttersink.location import Location
    from buttersink.planner.plan import Step
    from buttersink.stores.base import Cache
    from buttersink.stores.btrfs.remembered import RememberedSizes
    from buttersink.stores.btrfs.writing import Writer
    from buttersink.stream import Checkpoint, Rewriter, StreamSize


_LOOK = "cannot look at the snapshot"  # which may be deleted as soon as the kernel has sent it
# Waking up for each command of a metadata-only send costs as much as the kernel's work for it.
_FULL, _NAP = 64 * 1024, 0.0005  # bytes, seconds
_LITTLE = 16 * 1024  # bytes of such a stream that the kernel may make in vain


class BtrfsStore(Store):
    """
    Snapshots below one directory of a mounted btrfs file system, or a single one of them.

    Confined, for whoever is trusted with that directory alone, it neither lists nor uses what lies
    elsewhere on the file system, and a single snapshot is no link to another place.
    """

    def __init__(
        self,
        location: Location,
        mode: Mode,
        role: Role,
        cache: Cache | None = None,
        *,
        confined: bool = False,
    ) -> None:
        super().__init__(str(location), mode)
        self.traits = Traits(
            measures=True,
            clones=True,
            sends=min(send_stream_version(), STREAM_VERSION),
            receives=_receivable() if role is Role.DESTINATION else 1,
        )
        self._single: bytes | None = None
        self._confined = confined
        if role is not Role.DESTINATION and not location.all_below:
            location = self._resolve_single(location, required=role is Role.SOURCE)
        self._fd, self._missing = open_location(location, mode, role)
        self._index = Index([], {}, b"", None)
        self._cache = cache
        self._remembered_or_none: RememberedSizes | None = None
        self._ages: dict[tuple[Uuid, bool], DataAges] = {}
        self._writer_or_none: Writer | None = None
        if mode is not Mode.READ:
            try:
                lock(self._fd, self.location)
            except BaseException:
                self.close()
                raise

    def _resolve_single(self, location: Location, *, required: bool) -> Location:
        """Return the location above a single snapshot, having noted its name."""
        path = os.path.realpath(location.directory)
        if self._confined:
            above, name = location.split()
            path = os.path.join(os.path.realpath(above), name)
        if _is_snapshot(path, follow=not self._confined):
            above, self._single = os.path.split(path)
            return type(location)(above, all_below=True)
        if required:
            raise LocationError(
                "not a snapshot",
                where=location.directory,
                why="it is no read-only subvolume",
                hint="For every snapshot below it, write it with a slash at its end.",
            )
        return location

    def close(self) -> None:
        """Let go of the directory, its lock and the private mount."""
        self._close_what_knows_the_index()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _close_what_knows_the_index(self) -> None:
        if self._remembered_or_none is not None:
            self._remembered_or_none.close()
            self._remembered_or_none = None
        if self._writer_or_none is not None:
            self._writer_or_none.close()
            self._writer_or_none = None

    def catalogue(self) -> Catalogue:
        """Read every subvolume of the file system, and the sizes that its quota groups know."""
        if self.mode is not Mode.READ:
            # What was received just now and is not on the disk yet would seem to change later.
            self.flush()
        with translating(LocationError, "cannot list the snapshots", self.location):
            found = subvolumes.list_subvolumes(self._fd)
            quota = subvolumes.quota_sizes(self._fd)
            here = subvolumes.directory_from_top(self._fd, os.fstat(self._fd).st_ino, found)
        directory = subvolumes.join(here, self._missing)
        self._close_what_knows_the_index()
        self._index = Index(found, quota, directory, self._single, confined=self._confined)
        listed = self._index.catalogue
        return replace(listed, partials=tuple(map(self._with_size, listed.partials)))

    def _with_size(self, partial: Partial) -> Partial:
        """Return a partial with the bytes it holds of its stream, if a journal tells."""
        from buttersink.stores.btrfs.journal import read_journal

        with suppress(OSError, ResumeError), self._directory_of(partial) as fd:
            journal = read_journal(fd, journal_name(partial.uuid))
            if journal and journal.name == os.path.basename(partial.path):
                return replace(partial, size=journal.checkpoint.bytes)
        return partial

    def measure(
        self, diffs: Sequence[Diff], limits: Mapping[Diff, int] = MappingProxyType({})
    ) -> Iterator[Measurement]:
        """Yield exact lengths: first those remembered, then those of metadata-only sends."""
        if not diffs:
            return
        remembered, version = self._remembered(), self.stream_version
        unknown = []
        for diff in diffs:
            if known := remembered.get(diff, version, limits.get(diff)):
                yield known
            else:
                unknown.append(diff)
        for found in self._measure_all(unknown, limits) if unknown else ():
            if not found.problem:
                remembered.add(found, version)
            yield found

    def _remembered(self) -> RememberedSizes:
        from buttersink.stores.btrfs.remembered import RememberedSizes

        if self._remembered_or_none is None:
            filesystem, cache = ioctl.filesystem_id(self._fd), self._cache
            if cache and subvolumes.is_clearing(self._fd):
                cache.tell(
                    "deleted snapshots are still being cleared away: sizes are not remembered"
                )
                cache = None  # blocks shared with those are sent as data, for as long as they are
            self._remembered_or_none = RememberedSizes(cache, filesystem, self._index)
        return self._remembered_or_none

    def _measure_all(
        self, diffs: Sequence[Diff], limits: Mapping[Diff, int]
    ) -> Iterator[Measurement]:
        """Measure one diff per processor at a time."""
        from concurrent.futures import ThreadPoolExecutor, as_completed

        left = threading.Event()
        with ThreadPoolExecutor(os.cpu_count() or 1) as threads:
            running = [
                threads.submit(self._measured, diff, limits.get(diff), left) for diff in diffs
            ]
            try:
                for measurement in as_completed(running):
                    yield measurement.result()
            finally:
                left.set()
                threads.shutdown(wait=False, cancel_futures=True)

    def _measured(self, diff: Diff, limit: int | None, left: threading.Event) -> Measurement:
        """Measure one diff, or say why that cannot be."""
        try:
            return self._measure(diff, limit, left)
        except (SendError, StreamError) as error:
            return Measurement(diff, 0, 0, problem=str(error))

    def _measure(self, diff: Diff, limit: int | None, left: threading.Event) -> Measurement:
        """Measure one diff, unless whoever asked has left, or it has more bytes than the limit."""
        from buttersink.stores.btrfs.compressed import CompressedExtents
        from buttersink.stream import StreamSize

        self._called(diff)  # what cannot be sent has no size
        version, ahead = self.stream_version, PIPE_BYTES if limit is None else _LITTLE
        path = self._index[diff.to].path
        with self._opened(diff) as (fds, ids), translating(SendError, _LOOK, path):
            length = StreamSize(limit, CompressedExtents(self._fd, ids[0], fds[-1]))
            streaming = self._kernel_stream(diff, fds, ids, version, data=False, ahead=ahead)
            with closing(streaming) as chunks:
                for chunk in chunks:
                    length.feed(chunk)
                    if length.over:
                        return _measurement(diff, length.so_far, length, finished=False)
                    if left.is_set():
                        raise SendError("not measured", where=self.location, why="interrupted")
                    if len(chunk) < _FULL:
                        time.sleep(_NAP)
            size = length.result()
            if diff.parent:
                pair = Pair(*ids, fds[-1])
                size += sum(each.length for each in length.doubts if pair.has_grown(each))
                size -= sum(each.length for each in length.surplus if pair.has_room(each))
                size += sum(
                    each.length
                    for each in length.owner_changes
                    if pair.lost_mode(each.origin, each.owner, each.group)
                )
        return _measurement(diff, size, length)

    def estimate(self, diffs: Sequence[Diff]) -> Iterator[tuple[Diff, int]]:
        """
        Yield the file data newer than all it is made from, unless that is newer than it.

        Diffs of one snapshot that follow each other take one look at it, and none if there was one
        as far back.
        """
        for uuid, group in groupby(diffs, key=lambda diff: diff.to):
            ours = self._index.ctransid(self._index[uuid])
            since = {diff: self._age_of_origins(diff) for diff in group}
            since = {diff: transid for diff, transid in since.items() if transid <= ours}
            if since:
                ages = self._look(uuid, min(since.values()))
                yield from ((diff, ages.newer_than(transid)) for diff, transid in since.items())

    def _look(self, uuid: Uuid, transid: int) -> DataAges:
        """Return how old the data of a snapshot are, as far back as a transaction."""
        as_stored = self.stream_version > 1
        known = self._ages.get((uuid, as_stored))
        if known is None or known.since > transid:
            snapshot = self._index[uuid]
            with translating(SendError, "cannot estimate", snapshot.path):
                known = data_ages(self._fd, snapshot.subvolume_id, transid, as_stored=as_stored)
            self._ages[uuid, as_stored] = known
        return known

    def _age_of_origins(self, diff: Diff) -> int:
        """Return the transaction that last changed what a diff is made from; 0 for nothing."""
        origins = (*diff.clones, *((diff.parent,) if diff.parent else ()))
        return max((self._index.ctransid(self._index[uuid]) for uuid in origins), default=0)

    @contextmanager
    def send(
        self, diff: Diff, checkpoint: Checkpoint | None = None
    ) -> Iterator[Iterator[memoryview]]:
        """Open the kernel's stream, its first command naming effective UUIDs and generations."""
        from buttersink.stream import Identity, Rewriter, another_stream, rest_of

        version = checkpoint.version if checkpoint else self.stream_version
        if version > self.traits.sends:
            raise another_stream()

        snapshot = self._index[diff.to]
        parent = self._index[diff.parent] if diff.parent else None
        identity = Identity(
            uuid=snapshot.uuid,
            generation=snapshot.generation,
            parent=parent.uuid if parent else None,
            parent_generation=parent.generation if parent else None,
            clones=self._called(diff),
        )
        with self._opened(diff) as (fds, ids):
            restore_mode = Pair(*ids, fds[-1]).lost_mode if parent else None
            with closing(self._kernel_stream(diff, fds, ids, version)) as chunks:
                stream = _rewritten(chunks, Rewriter(identity, restore_mode), snapshot.path)
                yield rest_of(stream, checkpoint) if checkpoint else stream

    def _called(self, diff: Diff) -> dict[bytes, bytes]:
        """
        Return for what the kernel's stream calls by another name than we do what it is.

        `SendError` where it calls two of them the same.
        """
        uuids = (diff.to, *((diff.parent,) if diff.parent else ()), *diff.clones)
        snapshots = [self._index[uuid] for uuid in uuids]
        called = {self._index.called(each): each.uuid for each in snapshots}
        if len(called) < len(set(uuids)):
            why = "one was changed after it was received, and the kernel calls both the same"
            raise SendError("cannot send the two", where=snapshots[0].path, why=why)
        return {name: uuid for name, uuid in called.items() if name != uuid}

    @contextmanager
    def _opened(self, diff: Diff) -> Iterator[tuple[list[int], tuple[int, int]]]:
        """Yield descriptors of snapshot and, if it is inside, parent; and their numbers (or 0)."""
        snapshot = self._index[diff.to]
        parent = self._index[diff.parent] if diff.parent else None
        with ExitStack() as stack:
            fds: list[int] = []
            for each in (snapshot, parent):
                if each is not None and self._index.is_inside(each):
                    with translating(SendError, "cannot open the snapshot", each.path):
                        fds.append(open_subvolume(self._fd, each.path, each.subvolume_id))
                    stack.callback(os.close, fds[-1])
            yield fds, (snapshot.subvolume_id, parent.subvolume_id if parent else 0)

    def _kernel_stream(
        self,
        diff: Diff,
        fds: list[int],
        ids: tuple[int, int],
        version: int,
        *,
        data: bool = True,
        ahead: int = PIPE_BYTES,
    ) -> Generator[memoryview]:
        """Yield the kernel's stream; its refusal becomes an error that names the pair."""
        clones = [self._index[uuid].subvolume_id for uuid in diff.clones]
        flags = 0 if data else ioctl.SEND_NO_FILE_DATA
        if data and version > 1:
            flags = ioctl.SEND_COMPRESSED
        try:
            with sending(
                fds[0], parent=ids[1], clones=clones, flags=flags, version=version, ahead=ahead
            ) as chunks:
                yield from chunks
        except OSError as error:
            why = error.strerror or str(error)
            if diff.parent:
                why += f" (from {printable(self._index[diff.parent].path)})"
            hint = "See the kernel's log (dmesg)."
            path = self._index[diff.to].path
            raise SendError("btrfs send failed", where=path, why=why, hint=hint) from error

    def resumable(self, step: Step) -> Checkpoint | None:
        """Return what an earlier run has left; see `Writer.resumable`."""
        return self._writer().resumable(step)

    @contextmanager
    def receive(self, step: Step, checkpoint: Checkpoint | None = None) -> Iterator[Sink]:
        """Take in a diff; see `Writer.receive`."""
        with self._writer().receive(step, checkpoint) as sink:
            yield sink

    def copy(self, step: Step) -> None:
        """Snapshot what lies elsewhere on the file system; see `Writer.copy`."""
        self._writer().copy(step)

    def release(self, step: Step) -> None:
        """Delete what passed; see `Writer.release`."""
        self._writer().release(step.made)

    def _writer(self) -> Writer:
        from buttersink.stores.btrfs.writing import Writer

        self._require_writable(Mode.APPEND)
        if self._writer_or_none is None:
            self._writer_or_none = Writer(self._fd, self._index, self.traits.receives)
        return self._writer_or_none

    def _require_writable(self, mode: Mode) -> None:
        self.require(mode)
        if os.statvfs(self._fd).f_flag & os.ST_RDONLY:
            why, hint = "it is mounted read-only", "Mount it writable and run again."
            raise ReceiveError("cannot write", where=self.location, why=why, hint=hint)

    def delete(self, step: Step) -> None:
        """Delete a snapshot inside the location, if it is still read-only and the one listed."""
        snapshot = step.made
        self._delete(snapshot.path, snapshot.subvolume_id, only_read_only=True)

    def discard(self, partial: Partial) -> None:
        """Delete a partial inside the location, and first the journal that may speak of it."""
        from buttersink.stores.btrfs.journal import remove_journal

        self._require_writable(Mode.WRITE)
        with (
            translating(DeleteError, "cannot delete", partial.path),
            self._directory_of(partial) as fd,
        ):
            remove_journal(fd, journal_name(partial.uuid))
        self._delete(partial.path, partial.subvolume_id, only_read_only=False)

    @contextmanager
    def _directory_of(self, partial: Partial) -> Iterator[int]:
        fd = open_directory(self._fd, os.path.dirname(partial.path))
        try:
            yield fd
        finally:
            os.close(fd)

    def _delete(self, path: bytes, subvolume_id: int, *, only_read_only: bool) -> None:
        self._require_writable(Mode.WRITE)
        with translating(DeleteError, "cannot delete", path):
            fd = open_subvolume(self._fd, path, subvolume_id)
            try:
                writable = not subvolume_at(fd).read_only
            finally:
                os.close(fd)
            if only_read_only and writable:
                raise DeleteError("cannot delete", where=path, why="it has become writable")
            ioctl.delete_subvolume(self._fd, subvolume_id)

    def flush(self) -> None:
        """Sync the file system."""
        from buttersink.kernel import libc

        with translating(ReceiveError, "cannot sync the file system", self.location):
            libc.sync_filesystem(self._fd)


def _receivable() -> int:
    from buttersink.stores.btrfs.progs import progs_version, receivable_version

    return receivable_version(progs_version())


def _is_snapshot(path: bytes, *, follow: bool) -> bool:
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    with translating(LocationError, "cannot open the location", path):
        fd = os.open(path, flags)
    try:
        return subvolume_at(fd).read_only
    except OSError:  # a directory, or no btrfs at all
        return False
    finally:
        os.close(fd)


def _measurement(diff: Diff, size: int, found: StreamSize, *, finished: bool = True) -> Measurement:
    return Measurement(
        diff,
        size,
        found.commands,
        tuple(uuid for uuid in diff.clones if uuid in found.clones),
        finished=finished,
        extents=found.extents,
        own_clones=found.clones[diff.to],
    )


def _rewritten(
    chunks: Iterator[memoryview], rewriter: Rewriter, path: bytes
) -> Iterator[memoryview]:
    with translating(SendError, _LOOK, path):
        for chunk in chunks:
            for part in rewriter.feed(chunk):
                yield memoryview(part)
        rewriter.finish()

"""
The place where one snapshot is to appear: its directory, its final name, its partial names.

Until `commit` what arrives lies beside its final place under a partial name, with an invented
received UUID: no crash, at whatever moment, leaves something that looks like the snapshot. (It has
to be the same directory: the kernel does not move a read-only subvolume to another one.)

There are three such names, which take turns: while one segment of a long stream arrives under one,
what the segments before it have made lies under another as a checkpoint, with a journal. Under the
third lies the checkpoint before that one, until it is deleted.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING

from buttersink.catalogue import Uuid
from buttersink.errors import ConflictError, ReceiveError, ResumeError
from buttersink.kernel import ioctl, libc
from buttersink.stores.btrfs.directory import open_directory, subvolume_at, translating
from buttersink.stores.btrfs.index import base_name, journal_name, partial_name
from buttersink.stores.btrfs.journal import Journal, read_journal, remove_journal, write_journal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from buttersink.catalogue import Diff, Snapshot
    from buttersink.kernel.ioctl import SubvolumeInfo
    from buttersink.stream import Checkpoint

_IN_THE_WAY = "Move it away, or leave this snapshot out with --exclude."


class Place(AbstractContextManager["Place"]):
    """
    A directory of the destination, opened and if need be made, and the names used in it.

    Attributes:
        path: The final path, relative to the location.
        partial: Name under which the snapshot arrives, or now the next segment of it.
        received: The invented received UUID that it arrives with.
        kept: The checkpoint that stays if what is arriving does not arrive.
        advanced: Whether that was made by this object.

    """

    def __init__(self, root_fd: int, path: bytes, uuid: Uuid) -> None:
        above, _slash, self._name = path.rpartition(b"/")
        self.path = path
        self._uuid = uuid
        self._names = tuple(partial_name(uuid, number) for number in range(3))
        self.partial, self.received = self._names[0], Uuid(os.urandom(16))
        self.kept: Journal | None = None
        self.advanced = False
        with translating(ReceiveError, "cannot make the directory", above):
            try:
                self._fd = open_directory(root_fd, above, make=True)
            except OSError as error:
                if error.errno not in (errno.ELOOP, errno.EXDEV, errno.ENOTDIR, errno.EROFS):
                    raise
                why = f"a link, mount, file or read-only snapshot is in the way ({error.strerror})"
                raise ConflictError(
                    "no directory", where=above, why=why, hint=_IN_THE_WAY
                ) from error

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    def require_directory(self, fd: int) -> None:
        """Raise `ConflictError` unless a descriptor is of this directory, by whatever mount."""
        if not os.path.sameopenfile(self._fd, fd):
            why = "another directory has just taken the place of the one it was to be in"
            raise ConflictError("cannot make", where=self.path, why=why, hint=_IN_THE_WAY)

    def require_free(self, replaces: Snapshot | None) -> None:
        """Raise `ConflictError` if the final name is taken by anything but what is replaced."""
        if replaces is not None:
            self._require(self._name, replaces)
            return
        try:
            os.lstat(self._name, dir_fd=self._fd)
        except FileNotFoundError:
            return
        why = "something else has this name at the destination"
        raise ConflictError("cannot make", where=self.path, why=why, hint=_IN_THE_WAY)

    def _require(self, name: bytes, snapshot: Snapshot) -> None:
        with translating(ConflictError, "cannot replace", self.path), self._opened(name) as fd:
            info = subvolume_at(fd)
        if not info.read_only or info.uuid != snapshot.own_uuid:
            raise ConflictError("cannot replace", where=self.path, why="it has changed meanwhile")

    @contextmanager
    def _opened(self, name: bytes) -> Iterator[int]:
        fd = open_directory(self._fd, name)
        try:
            yield fd
        finally:
            os.close(fd)

    def clear(self) -> None:
        """Delete what this try, or an earlier one, left under the partial names."""
        self.kept = None
        self._forget_journal()
        self.clear_unfinished()

    def clear_unfinished(self) -> None:
        """Delete the same but for the checkpoint that is kept."""
        self._delete_all_but(self.kept.name if self.kept else None)
        self.drop_stand_ins()

    def _delete_all_but(self, *names: bytes | None) -> None:
        """Delete what lies under the other partial names."""
        for name in self._names:
            if name not in names:
                self._delete(name)

    def leave(self) -> None:
        """Delete all that is unfinished; what the journal on the disk names is not."""
        try:
            self.kept = read_journal(self._fd, journal_name(self._uuid))
        except ResumeError:
            self.kept = None
        if self.kept is None:
            self.clear()
        else:
            self.clear_unfinished()

    def _forget_journal(self) -> None:
        with translating(ConflictError, "cannot remove the journal", journal_name(self._uuid)):
            remove_journal(self._fd, journal_name(self._uuid))

    def has_journal(self) -> bool:
        """Return whether a checkpoint may be there, of whatever use."""
        try:
            os.lstat(journal_name(self._uuid), dir_fd=self._fd)
        except FileNotFoundError:
            return False
        return True

    def find(self, diff: Diff) -> Journal | None:
        """Return what is held of a diff; `ResumeError` if it cannot be gone on with."""
        journal = read_journal(self._fd, journal_name(self._uuid))
        if journal is None:
            return None
        if journal.diff != diff:
            raise _gone("another difference makes this snapshot now")
        if journal.name not in self._names:
            raise _gone("its journal names something else")
        try:
            with self._opened(journal.name) as fd:
                found = subvolume_at(fd)
        except OSError as error:
            raise _gone(f"its checkpoint cannot be opened ({error.strerror})") from error
        if not journal.fits(found):
            raise _gone("its checkpoint has been changed")
        return journal

    def keep(self, journal: Journal) -> None:
        """Let what comes arrive beside a checkpoint that was found, and not touch that."""
        self.kept = journal
        if self.partial == journal.name:
            self._turn()

    def _turn(self) -> None:
        following = (self._names.index(self.partial) + 1) % len(self._names)
        self.partial, self.received = self._names[following], Uuid(os.urandom(16))

    def make_checkpoint(self, diff: Diff, checkpoint: Checkpoint) -> None:
        """
        Turn what has arrived into the checkpoint that is kept; what comes arrives beside it.

        The one that was kept until now is deleted by `catch_up`, or here if the next one is made.
        """
        self.arrived()
        self.sync()
        with (
            translating(ReceiveError, "cannot keep what has arrived", self.path),
            self._opened(self.partial) as fd,
        ):
            info = subvolume_at(fd)  # the transaction that changed it last is known only now
            own, received = Uuid(info.uuid), Uuid(info.received_uuid)
            journal = Journal(diff, checkpoint, self.partial, own, received, info.ctransid)
            self.advanced = True
            write_journal(self._fd, journal_name(self._uuid), journal)
        self.kept = journal
        self._turn()
        self._delete(self.partial)

    def catch_up(self) -> None:
        """Delete the checkpoint before the one that is kept, and have all on disk, meanwhile."""
        self._delete_all_but(self.partial, self.kept.name if self.kept else None)
        self.sync()

    def sync(self) -> None:
        """Have all on disk; `ReceiveError` for what could not be written since this was opened."""
        with translating(ReceiveError, "cannot write what has arrived", self.path):
            libc.sync_filesystem(self._fd)

    def settle(self) -> None:
        """Let go of the checkpoint: everything has arrived, and stays."""
        self._forget_journal()
        self.kept = None
        self._delete_all_but(self.partial)

    def drop_stand_ins(self) -> None:
        """Delete the stand-ins, the last one first: so none is left behind a gap, ever."""
        for number in reversed(range(self._stand_ins())):
            self._delete(base_name(self._uuid, number))

    def _stand_ins(self) -> int:
        """Return how many there are, from whatever run."""
        number = 0
        with suppress(FileNotFoundError):
            while os.lstat(base_name(self._uuid, number), dir_fd=self._fd):
                number += 1
        return number

    def _delete(self, name: bytes) -> None:
        with translating(ConflictError, "cannot delete a partial", name):
            try:
                with self._opened(name) as fd:
                    number = subvolume_at(fd).id
            except FileNotFoundError:
                return
            ioctl.delete_subvolume(self._fd, number)

    def snapshot(self, source_fd: int, name: bytes, uuid: Uuid, generation: int) -> None:
        """Make a read-only copy of a subvolume, under a partial name, with this received UUID."""
        ioctl.create_snapshot(source_fd, self._fd, name)
        with self._opened(name) as fd:
            ioctl.set_received(fd, uuid, generation)
            ioctl.set_read_only(fd, read_only=True)

    def stand_in(self, source_fd: int, uuid: Uuid, generation: int) -> None:
        """Make such a copy that goes before the snapshot gets its name."""
        self.snapshot(source_fd, base_name(self._uuid, self._stand_ins()), uuid, generation)

    def arrived(self) -> SubvolumeInfo:
        """Return what lies under the partial name; `ReceiveError` unless it was received whole."""
        with (
            translating(ReceiveError, "cannot complete the snapshot", self.path),
            self._opened(self.partial) as fd,
        ):
            info = subvolume_at(fd)
        if (info.read_only, info.received_uuid) != (True, self.received):
            why = "what was received is not what was sent"
            raise ReceiveError("cannot complete the snapshot", where=self.path, why=why)
        return info

    def commit(self, snapshot: Snapshot, replaces: Snapshot | None) -> SubvolumeInfo:
        """
        Make what lies under the partial name durable, give it its identity and its final name.

        Args:
            snapshot: Whose effective UUID and generation it gets.
            replaces: What lies under the final name now, and goes.

        """
        self.arrived()
        self.sync()
        with (
            translating(ReceiveError, "cannot complete the snapshot", self.path),
            self._opened(self.partial) as fd,
        ):
            ioctl.set_read_only(fd, read_only=False)
            # A time tells that all was on disk by now: see `altered` in `kernel.subvolumes`.
            now = max(1, int(time.time()))
            ioctl.set_received(fd, snapshot.uuid, snapshot.generation, now)
            ioctl.set_read_only(fd, read_only=True)
            info = subvolume_at(fd)
        self._forget_journal()  # before: it would stay beside a snapshot that nobody sends again
        self.kept = None
        if replaces is None:
            with translating(ConflictError, "cannot name the snapshot", self.path):
                libc.rename_new(self._fd, self.partial, self._name)
        else:
            self._replace(replaces)
        self._delete_all_but(self.partial)
        return info

    def _replace(self, old: Snapshot) -> None:
        """Let new and old change names in one step, then delete the old one, now a partial."""
        self._require(self._name, old)
        with translating(ConflictError, "cannot replace", self.path):
            libc.exchange(self._fd, self.partial, self._name)
        self._require(self.partial, old)
        self._delete(self.partial)


def _gone(why: str) -> ResumeError:
    return ResumeError("cannot be gone on with", why=why)

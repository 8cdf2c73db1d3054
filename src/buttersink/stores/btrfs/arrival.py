"""
The place where one snapshot is to appear: its directory, its final name, its partial names.

Until `commit` what arrives lies beside its final place under a partial name, with an invented
received UUID: no crash, at whatever moment, leaves something that looks like the snapshot. (It has
to be the same directory: the kernel does not move a read-only subvolume to another one.)
"""

from __future__ import annotations

import errno
import os
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING

from buttersink.errors import ConflictError, ReceiveError
from buttersink.kernel import ioctl, libc
from buttersink.stores.btrfs.directory import open_directory, subvolume_at, translating
from buttersink.stores.btrfs.index import base_name, partial_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from buttersink.catalogue import Snapshot, Uuid
    from buttersink.kernel.ioctl import SubvolumeInfo

_IN_THE_WAY = "Move it away, or leave this snapshot out with --exclude."


class Place(AbstractContextManager["Place"]):
    """
    A directory of the destination, opened and if need be made, and the names used in it.

    Attributes:
        path: The final path, relative to the location.
        partial: Name under which the snapshot arrives.

    """

    def __init__(self, root_fd: int, path: bytes, uuid: Uuid) -> None:
        above, _slash, self._name = path.rpartition(b"/")
        self.path = path
        self.partial = partial_name(uuid)
        self._uuid = uuid
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
        self._delete(self.partial)
        self.drop_stand_ins()

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

    def arrived(self, received: Uuid) -> SubvolumeInfo:
        """Return what lies under the partial name; `ReceiveError` unless it was received whole."""
        with (
            translating(ReceiveError, "cannot complete the snapshot", self.path),
            self._opened(self.partial) as fd,
        ):
            info = subvolume_at(fd)
        if (info.read_only, info.received_uuid) != (True, received):
            why = "what was received is not what was sent"
            raise ReceiveError("cannot complete the snapshot", where=self.path, why=why)
        return info

    def commit(
        self, snapshot: Snapshot, received: Uuid, replaces: Snapshot | None
    ) -> SubvolumeInfo:
        """
        Make what lies under the partial name durable, give it its identity and its final name.

        Args:
            snapshot: Whose effective UUID and generation it gets.
            received: The received UUID it must have now.
            replaces: What lies under the final name now, and goes.

        """
        info = self.arrived(received)
        with (
            translating(ReceiveError, "cannot complete the snapshot", self.path),
            self._opened(self.partial) as fd,
        ):
            libc.sync_filesystem(fd)
            ioctl.set_read_only(fd, read_only=False)
            ioctl.set_received(fd, snapshot.uuid, snapshot.generation)
            ioctl.set_read_only(fd, read_only=True)
        if replaces is None:
            with translating(ConflictError, "cannot name the snapshot", self.path):
                libc.rename_new(self._fd, self.partial, self._name)
        else:
            self._replace(replaces)
        return info

    def _replace(self, old: Snapshot) -> None:
        """Let new and old change names in one step, then delete the old one, now a partial."""
        self._require(self._name, old)
        with translating(ConflictError, "cannot replace", self.path):
            libc.exchange(self._fd, self.partial, self._name)
        self._require(self.partial, old)
        self._delete(self.partial)

"""How the extents of a snapshot are stored, for a stream that sends compressed ones as they are."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from buttersink.kernel.extents import Extent, extents_from
from buttersink.stream import StoredExtent

if TYPE_CHECKING:
    from collections.abc import Iterator

_NONE = Extent(2**64, 2**64, 0, inline=False)


class CompressedExtents:
    """
    Looks up extents in the order in which a stream names them, file by file.

    Args:
        fd: Descriptor on the file system.
        snapshot_id: Subvolume number of the snapshot.
        parent: Descriptor of the parent's root; of the snapshot's, if that cannot be opened.

    """

    def __init__(self, fd: int, snapshot_id: int, parent: int) -> None:
        self._fd, self._snapshot_id, self._parent = fd, snapshot_id, parent
        self._file: int | bytes = 0
        self._inode = 0
        self._extents: Iterator[Extent] = iter(())
        self._extent = _NONE

    def __call__(self, file: int | bytes, offset: int) -> StoredExtent | None:
        """Return how what is at an offset of a file is stored; None if it is not compressed."""
        if file != self._file:
            self._file, self._inode = file, self._inode_of(file)
            self._start(offset)
        elif offset < self._extent.start:
            self._start(offset)
        while self._extent.end <= offset:
            self._extent = next(self._extents, _NONE)
        found = self._extent
        if found.stored and found.start <= offset:
            return StoredExtent(found.stored, found.inline)
        return None

    def _start(self, offset: int) -> None:
        self._extents = extents_from(self._fd, self._snapshot_id, self._inode, offset)
        self._extent = next(self._extents, _NONE)

    def _inode_of(self, file: int | bytes) -> int:
        """Return the number of an inode, 0 if there is none."""
        if isinstance(file, int):
            return file
        try:
            return os.stat(file, dir_fd=self._parent, follow_symlinks=False).st_ino
        except OSError:
            return 0

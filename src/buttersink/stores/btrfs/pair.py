"""
What a send stream leaves out, looked up in the two snapshots that it is between.

The stream names files by paths that may hold only while it is applied, so a path is looked up in
both snapshots, and an inode it leads to counts only if what the stream said of it fits.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from buttersink.kernel.extents import has_extents_from, inode_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from buttersink.kernel.extents import Inode
    from buttersink.stream import Doubt, OwnerChange

_LOST_BY_CHOWN = stat.S_ISUID | stat.S_ISGID  # chown(2)


class Pair:
    """
    A snapshot and the parent that it is sent from.

    Args:
        snapshot_id: Subvolume number of the snapshot.
        parent_id: Subvolume number of the parent.
        roots: Descriptors of those of the two that can be opened.

    """

    def __init__(self, snapshot_id: int, parent_id: int, roots: Sequence[int]) -> None:
        self._ids = snapshot_id, parent_id
        self._roots = roots

    def _items(self, path: bytes, mode: int = 0) -> Iterator[tuple[Inode, Inode]]:
        """
        Yield for each inode at a path what it is in the snapshot and what it was.

        With a `mode` only inodes that have one of its bits.
        """
        for root, number in self._inodes(path, mode):
            now, before = (inode_of(root, subvolume, number) for subvolume in self._ids)
            if now and before:
                yield now, before

    def _inodes(self, path: bytes, mode: int = 0) -> Iterator[tuple[int, int]]:
        """Yield the number of each inode at a path, after a descriptor of one of the roots."""
        seen = set()
        for root in self._roots:
            try:
                found = os.stat(path, dir_fd=root, follow_symlinks=False)
            except OSError:  # no such path in this one
                continue
            if found.st_ino in seen or (mode and not found.st_mode & mode):
                continue
            seen.add(found.st_ino)
            yield root, found.st_ino

    def has_grown(self, doubt: Doubt) -> bool:
        """Return whether a file ends where the doubt says, and did not reach so far before."""
        return any(now.size == doubt.end > old.size for now, old in self._items(doubt.path))

    def has_room(self, doubt: Doubt) -> bool:
        """Return whether a file that has grown like this has room reserved after its end, too."""
        return self.has_grown(doubt) and any(
            has_extents_from(root, self._ids[0], number, doubt.end)
            for root, number in self._inodes(doubt.path)
        )

    def lost_mode(self, change: OwnerChange) -> int | None:
        """Return the permissions that a change of owner takes away and nothing brings back."""
        modes = {
            now.mode
            for now, old in self._items(change.path, _LOST_BY_CHOWN)
            if stat.S_ISREG(now.mode) and now.mode == old.mode and now.mode & _LOST_BY_CHOWN
            if (now.owner, now.group) == (change.owner, change.group) != (old.owner, old.group)
        }
        return stat.S_IMODE(modes.pop()) if len(modes) == 1 else None

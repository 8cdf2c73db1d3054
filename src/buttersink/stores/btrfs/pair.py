"""
What a send stream leaves out, looked up in the two snapshots that it is between.

Files that the stream changes are known by their path in the parent, and then by inode number; one
counts only if what the stream said of it fits.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from buttersink.kernel.extents import has_extents_from, inode_of

if TYPE_CHECKING:
    from buttersink.kernel.extents import Inode
    from buttersink.stream import Doubt

_LOST_BY_CHOWN = stat.S_ISUID | stat.S_ISGID  # chown(2)


class Pair:
    """
    A snapshot and the parent that it is sent from.

    Args:
        snapshot_id: Subvolume number of the snapshot.
        parent_id: Subvolume number of the parent.
        root: Descriptor of the parent's root; of the snapshot's, if that cannot be opened.

    """

    def __init__(self, snapshot_id: int, parent_id: int, root: int) -> None:
        self._ids = snapshot_id, parent_id
        self._root = root

    def _number(self, origin: bytes, mode: int = 0) -> int | None:
        """Return the number of the inode at a path in the parent, if it has a bit of `mode`."""
        try:
            found = os.stat(origin, dir_fd=self._root, follow_symlinks=False)
        except OSError:  # no such path, if it is the snapshot's root
            return None
        return found.st_ino if not mode or found.st_mode & mode else None

    def _now_and_before(self, origin: bytes, mode: int = 0) -> tuple[Inode, Inode] | None:
        """Return what such an inode is in the snapshot, and what it was; None if one is not."""
        number = self._number(origin, mode)
        if number is None:
            return None
        now, before = (inode_of(self._root, subvolume, number) for subvolume in self._ids)
        return (now, before) if now and before else None

    def has_grown(self, doubt: Doubt) -> bool:
        """Return whether a file ends where the doubt says, and did not reach so far before."""
        found = self._now_and_before(doubt.origin)
        return found is not None and found[0].size == doubt.end > found[1].size

    def has_room(self, doubt: Doubt) -> bool:
        """Return whether a file that has grown like this has room reserved after its end, too."""
        number = self._number(doubt.origin)
        return (
            number is not None
            and self.has_grown(doubt)
            and has_extents_from(self._root, self._ids[0], number, doubt.end)
        )

    def lost_mode(self, origin: bytes, owner: int, group: int) -> int | None:
        """Return the permissions that a change of owner takes away and nothing brings back."""
        found = self._now_and_before(origin, _LOST_BY_CHOWN)
        if found is None:
            return None
        now, old = found
        lost = stat.S_ISREG(now.mode) and now.mode == old.mode and now.mode & _LOST_BY_CHOWN
        changed = (now.owner, now.group) == (owner, group) != (old.owner, old.group)
        return stat.S_IMODE(now.mode) if lost and changed else None

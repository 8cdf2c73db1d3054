"""What the items of a subvolume's tree say of its files: their sizes, how much data is new."""

from __future__ import annotations

import struct
from typing import NamedTuple

from buttersink.kernel import ioctl

# struct btrfs_file_extent_item: generation@0, ram_bytes@8, type@20, disk_bytenr@21, num_bytes@45
_FILE_EXTENT = struct.Struct("<QQ4xB")
_REGULAR = struct.Struct("<21xQ16xQ")
_INLINE, _REG = 0, 1  # BTRFS_FILE_EXTENT_*; the third kind, preallocated, holds no data

# struct btrfs_inode_item: size@16, uid@44, gid@48, mode@52
_INODE_ITEM = struct.Struct("<16xQ20x3I")


class Inode(NamedTuple):
    """Size in bytes, owner, group and mode (type and permissions) of an inode."""

    size: int
    owner: int
    group: int
    mode: int


def inode_of(fd: int, subvolume_id: int, number: int) -> Inode | None:
    """Return what a subvolume's tree says of an inode, None if it has no such one."""
    key = (number, ioctl.INODE_ITEM, 0)
    for item in ioctl.search(fd, subvolume_id, key, key):
        return Inode(*_INODE_ITEM.unpack_from(item.payload))
    return None


def has_extents_from(fd: int, subvolume_id: int, number: int, offset: int) -> bool:
    """Return whether an inode has extents, of data or reserved, that start at `offset` or later."""
    first, last = (number, ioctl.EXTENT_DATA, offset), (number, ioctl.EXTENT_DATA, 2**64 - 1)
    return any(True for _item in ioctl.search(fd, subvolume_id, first, last))


def data_newer_than(fd: int, subvolume_id: int, transid: int) -> int:
    """
    Return bytes of file data written after transaction `transid`; 0 counts everything.

    Shared and cloned extents count each time they are used. Deletions and metadata do not show.
    """
    total = 0
    first, last = (ioctl.FIRST_SUBVOLUME, 0, 0), (ioctl.LAST_SUBVOLUME, 0xFF, 2**64 - 1)
    for item in ioctl.search(fd, subvolume_id, first, last, min_transid=transid + 1):
        if item.type != ioctl.EXTENT_DATA:
            continue
        generation, ram_bytes, kind = _FILE_EXTENT.unpack_from(item.payload)
        if generation <= transid:
            continue
        if kind == _INLINE:
            total += ram_bytes
        elif kind == _REG:
            disk_bytenr, num_bytes = _REGULAR.unpack_from(item.payload)
            total += num_bytes if disk_bytenr else 0
    return total

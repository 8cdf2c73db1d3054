"""
What a diff has at least: the data and inodes of a snapshot that the other one does not have.

A send from a parent clones from the parent and from what it makes itself, and from nothing else. So
each block on disk that only the new snapshot has is sent, once, as far as files reach into it; and
each inode is made. All pairs together take some seconds, where sending them takes an hour.
"""

from __future__ import annotations

import struct
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from buttersink.catalogue import Diff
from buttersink.kernel import ioctl

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from buttersink.catalogue import Uuid

_BLOCK = 4096
_INODE = 150  # bytes of the five commands that make any: create, rename, chown, chmod, utimes

# struct btrfs_inode_item: generation@0, size@16
_INODE_ITEM = struct.Struct("<Q8xQ")
# struct btrfs_file_extent_item: compression@16, type@20, disk_bytenr@21, offset@37, num_bytes@45
_FILE_EXTENT = struct.Struct("<16xB3xB")
_ON_DISK = struct.Struct("<21xQ8xQQ")
_REG = 1  # BTRFS_FILE_EXTENT_REG; a hole is on no disk

Thing = tuple[int, int]
"""A block's number and 0, or an inode's number and its generation."""


def at_least(fd: int, snapshots: Sequence[tuple[Uuid, int]]) -> dict[Diff, int]:
    """
    Return so many bytes for every full send, and every diff from one snapshot to another.

    Of snapshots with compressed data nothing is said: `ValueError`.

    Args:
        fd: Of a directory of the file system.
        snapshots: UUIDs and numbers of subvolumes.

    """
    owners: dict[Thing, int] = defaultdict(int)  # a bit for each snapshot
    lengths: dict[Thing, int] = {}
    for bit, (_uuid, number) in enumerate(snapshots):
        for thing, length in _things(fd, number):
            owners[thing] |= 1 << bit
            lengths[thing] = min(length, lengths.get(thing, length))
    together = Counter[int]()  # what the same snapshots have is one
    for thing, mask in owners.items():
        together[mask] += lengths[thing]
    least: dict[Diff, int] = defaultdict(int)
    uuids = [uuid for uuid, _number in snapshots]
    for mask, length in together.items():
        there = [uuid for bit, uuid in enumerate(uuids) if mask >> bit & 1]
        elsewhere = [uuid for bit, uuid in enumerate(uuids) if not mask >> bit & 1]
        for to in there:
            for parent in (None, *elsewhere):
                least[Diff(to, parent)] += length
    pairs = (Diff(to, parent) for to in uuids for parent in (None, *uuids) if parent != to)
    return {diff: least[diff] for diff in pairs}


def _things(fd: int, subvolume_id: int) -> Iterator[tuple[Thing, int]]:
    """Yield the blocks and inodes of a subvolume, and what sending each takes at least: bytes."""
    first, last = (ioctl.FIRST_SUBVOLUME, 0, 0), (ioctl.LAST_SUBVOLUME, 0xFF, 2**64 - 1)
    size = 0
    for item in ioctl.search(fd, subvolume_id, first, last):
        if item.type == ioctl.INODE_ITEM:  # which comes before the inode's extents
            generation, size = _INODE_ITEM.unpack_from(item.payload)
            if item.objectid != ioctl.FIRST_SUBVOLUME:  # the directory that a subvolume begins with
                yield (item.objectid, generation), _INODE
        elif item.type == ioctl.EXTENT_DATA:
            compression, kind = _FILE_EXTENT.unpack_from(item.payload)
            if compression:
                raise ValueError(item.objectid)
            if kind == _REG:
                disk, inside, length = _ON_DISK.unpack_from(item.payload)
                for start in range(0, min(length, size - item.offset) if disk else 0, _BLOCK):
                    block = (disk + inside + start) // _BLOCK
                    yield (block, 0), min(_BLOCK, size - item.offset - start)

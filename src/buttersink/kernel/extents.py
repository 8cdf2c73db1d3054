"""What the items of a subvolume's tree say of its files: their sizes, how much data is new."""

from __future__ import annotations

import struct
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from buttersink.kernel import ioctl

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

# struct btrfs_file_extent_item: generation@0, ram_bytes@8, compression@16, type@20, and then the
# data if inline, else disk_bytenr@21, disk_num_bytes@29, num_bytes@45
_FILE_EXTENT = struct.Struct("<QQB3xB")
_REGULAR = struct.Struct("<21xQQ8xQ")
_INLINE, _REG = 0, 1  # BTRFS_FILE_EXTENT_*; the third kind, preallocated, holds no data
_INLINE_DATA = 21  # where they begin
_MOST_COMPRESSED = 128 * 1024  # bytes of a file in one compressed extent: BTRFS_MAX_UNCOMPRESSED

# struct btrfs_inode_item: size@16, uid@44, gid@48, mode@52
_INODE_ITEM = struct.Struct("<16xQ20x3I")


class Inode(NamedTuple):
    """Size in bytes, owner, group and mode (type and permissions) of an inode."""

    size: int
    owner: int
    group: int
    mode: int


class Extent(NamedTuple):
    """
    A stretch of a file with data.

    Attributes:
        start: Bytes from the file's beginning.
        end: The same, of the first byte after it.
        stored: Bytes that it takes on disk if it is compressed, else 0.
        inline: Whether those are in the metadata.

    """

    start: int
    end: int
    stored: int
    inline: bool


def extents_from(fd: int, subvolume_id: int, number: int, offset: int) -> Iterator[Extent]:
    """Yield the extents of an inode in order; of those before `offset` it may miss some."""
    first = (number, ioctl.EXTENT_DATA, max(0, offset - _MOST_COMPRESSED))
    last = (number, ioctl.EXTENT_DATA, 2**64 - 1)
    for item in ioctl.search(fd, subvolume_id, first, last):
        _generation, ram_bytes, compression, kind = _FILE_EXTENT.unpack_from(item.payload)
        if kind == _INLINE:
            size, stored = ram_bytes, len(item.payload) - _INLINE_DATA
        else:
            _start, stored, size = _REGULAR.unpack_from(item.payload)
        compressed = stored if compression else 0
        yield Extent(item.offset, item.offset + size, compressed, kind == _INLINE)


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


class DataAges:
    """
    How much file data was written in which transactions.

    Args:
        since: Those after this are known.
        sizes: Bytes by transaction.

    """

    def __init__(self, since: int, sizes: Mapping[int, int]) -> None:
        self.since = since
        self._transids = sorted(sizes)
        self._until = [0, *accumulate(sizes[transid] for transid in self._transids)]

    def newer_than(self, transid: int) -> int:
        """Return bytes written after a transaction."""
        return self._until[-1] - self._until[bisect_right(self._transids, transid)]


def data_ages(fd: int, subvolume_id: int, since: int, *, as_stored: bool = False) -> DataAges:
    """
    Return how much file data was written in which transactions after `since`; 0 is any.

    Those that are compressed count as many as they are on disk if that is asked for. Shared and
    cloned extents count each time they are used. Deletions and metadata do not show.
    """
    sizes: dict[int, int] = {}
    only = ioctl.EXTENT_DATA
    first, last = (ioctl.FIRST_SUBVOLUME, 0, 0), (ioctl.LAST_SUBVOLUME, 0xFF, 2**64 - 1)
    for item in ioctl.search(fd, subvolume_id, first, last, only=only, min_transid=since + 1):
        generation, ram_bytes, compression, kind = _FILE_EXTENT.unpack_from(item.payload)
        if generation <= since:
            continue
        size, stored = ram_bytes, len(item.payload) - _INLINE_DATA
        if kind != _INLINE:
            disk_bytenr, stored, size = _REGULAR.unpack_from(item.payload)
            if kind != _REG or not disk_bytenr:
                continue
        size = min(size, stored) if compression and as_stored else size
        sizes[generation] = sizes.get(generation, 0) + size
    return DataAges(since, sizes)

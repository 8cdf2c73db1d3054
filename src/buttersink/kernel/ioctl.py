"""
The btrfs ioctls ButterSink uses, each as one typed function over a file descriptor.

Numbers and layouts are those of the kernel's include/uapi/linux/btrfs.h and btrfs_tree.h
(little-endian items, native structs; the same on every 64-bit architecture Linux has). Paths never
appear here, so no name, mount option or default subvolume can get in the way. Everything raises
`OSError` with the kernel's errno; callers say what it means. Only this module calls `ioctl`.
"""

from __future__ import annotations

import fcntl
import struct
from array import array
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_MAGIC = 0x94  # BTRFS_IOCTL_MAGIC
_WRITE, _READ = 1, 2  # asm-generic/ioctl.h


def _number(direction: int, number: int, size: int) -> int:
    return direction << 30 | size << 16 | _MAGIC << 8 | number


_INO_LOOKUP = _number(_READ | _WRITE, 18, 4096)
_TREE_SEARCH_V2 = _number(_READ | _WRITE, 17, 112)
_SNAP_CREATE_V2 = _number(_WRITE, 23, 4096)
_SUBVOL_SETFLAGS = _number(_WRITE, 26, 8)
_FS_INFO = _number(_READ, 31, 1024)
_SET_RECEIVED_SUBVOL = _number(_READ | _WRITE, 37, 200)
_SEND = _number(_WRITE, 38, 72)
_GET_SUBVOL_INFO = _number(_READ, 60, 504)
_SNAP_DESTROY_V2 = _number(_WRITE, 63, 4096)

ROOT_TREE = 1  # BTRFS_ROOT_TREE_OBJECTID
FS_TREE = 5  # BTRFS_FS_TREE_OBJECTID: the top level subvolume
QUOTA_TREE = 8  # BTRFS_QUOTA_TREE_OBJECTID
FIRST_SUBVOLUME = 256  # BTRFS_FIRST_FREE_OBJECTID; also the inode number of a subvolume's root
LAST_SUBVOLUME = 2**64 - 256  # BTRFS_LAST_FREE_OBJECTID

INODE_ITEM = 1  # item types, btrfs_tree.h
EXTENT_DATA = 108
ROOT_ITEM = 132
ROOT_BACKREF = 144
ROOT_REF = 156
QGROUP_STATUS = 240
QGROUP_INFO = 242

SEND_NO_FILE_DATA = 0x1  # BTRFS_SEND_FLAG_NO_FILE_DATA
SEND_COMPRESSED = 0x10  # BTRFS_SEND_FLAG_COMPRESSED, of version 2
_SEND_VERSION = 0x8  # BTRFS_SEND_FLAG_VERSION

_SUBVOL_RDONLY = 0x2  # BTRFS_SUBVOL_RDONLY, as ioctls have it
_SUBVOL_SPEC_BY_ID = 0x10  # BTRFS_SUBVOL_SPEC_BY_ID
_ROOT_RDONLY = 0x1  # BTRFS_ROOT_SUBVOL_RDONLY, as items and GET_SUBVOL_INFO have it
_NAME_MAX = 255  # BTRFS_NAME_LEN

_MAX = 2**64 - 1
_SEARCH_BUFFER = 256 * 1024  # an item is smaller than a tree node, and that is 64 KiB at most
_SMALL_BUFFER = 4096  # for one item of a kind that is known to be small
_SEARCH_KEY = struct.Struct("=7Q4I4QQ")  # struct btrfs_ioctl_search_key, then buf_size
_SEARCH_HEADER = struct.Struct("=QQQII")  # struct btrfs_ioctl_search_header
_SEND_ARGS = struct.Struct("=qQQQQI28x")  # struct btrfs_ioctl_send_args
_RECEIVED_ARGS = struct.Struct("=16sQQQI4xQI4xQ128x")  # struct btrfs_ioctl_received_subvol_args
_VOL_ARGS = struct.Struct("=qQQ32x")  # head of struct btrfs_ioctl_vol_args_v2; then 4040 of name
_SUBVOL_INFO = struct.Struct("=Q256s4Q16s16s16s4Q")  # head of btrfs_ioctl_get_subvol_info_args

Key = tuple[int, int, int]
"""Object id, item type, offset: the compound key by which a tree is sorted."""


class Item(NamedTuple):
    """One item of a tree, its payload valid until the search goes on."""

    objectid: int
    type: int
    offset: int
    transid: int
    payload: memoryview


class SubvolumeInfo(NamedTuple):
    """What GET_SUBVOL_INFO tells of the subvolume a descriptor lies in; UUIDs zero when unset."""

    id: int
    read_only: bool
    uuid: bytes
    parent_uuid: bytes
    received_uuid: bytes
    ctransid: int
    stransid: int


def search(
    fd: int, tree: int, first: Key, last: Key, *, only: int = 0, min_transid: int = 0
) -> Iterator[Item]:
    """
    Yield the items of a tree from key `first` to key `last`, both included, in key order.

    Only items in nodes written in transaction `min_transid` or later are sure to be found, and, if
    it is given, `only` those of one type.
    """
    room = _SMALL_BUFFER if first == last else _SEARCH_BUFFER
    buffer = bytearray(_SEARCH_KEY.size + room)
    view = memoryview(buffer)
    header, header_size = _SEARCH_HEADER.unpack_from, _SEARCH_HEADER.size
    low = first
    while low <= last:
        _SEARCH_KEY.pack_into(
            buffer, 0, tree, low[0], last[0], low[2], last[2], min_transid, _MAX,
            low[1], last[1], 0xFFFFFFFF, 0, 0, 0, 0, 0, room,
        )  # fmt: skip
        fcntl.ioctl(fd, _TREE_SEARCH_V2, buffer)
        found: int = struct.unpack_from("=I", buffer, 64)[0]  # nr_items
        if not found:
            return
        position = _SEARCH_KEY.size
        for _ in range(found):
            transid, objectid, offset, kind, length = header(buffer, position)
            position += header_size
            if not only or kind == only:
                yield Item(objectid, kind, offset, transid, view[position : position + length])
            position += length
            low = objectid, kind, offset
        low = _successor(low)


def _successor(key: Key) -> Key:
    objectid, kind, offset = key
    if offset < _MAX:
        return objectid, kind, offset + 1
    if kind < 0xFF:  # an item type has 8 bits
        return objectid, kind + 1, 0
    return objectid + 1, 0, 0


def directory_path(fd: int, tree: int, inode: int) -> tuple[int, bytes]:
    """
    Return the subvolume and, inside it, the path of a directory, with a slash after each name.

    Tree 0 is the subvolume that `fd` lies in. The root of a subvolume has the empty path.
    """
    buffer = bytearray(4096)
    struct.pack_into("=QQ", buffer, 0, tree, inode)
    fcntl.ioctl(fd, _INO_LOOKUP, buffer)
    end = buffer.index(0, 16)
    return struct.unpack_from("=Q", buffer)[0], bytes(buffer[16:end])


def filesystem_id(fd: int) -> bytes:
    """Return the UUID of the btrfs file system `fd` lies in; ENOTTY where it is not btrfs."""
    buffer = bytearray(1024)
    fcntl.ioctl(fd, _FS_INFO, buffer)
    return bytes(buffer[16:32])


def subvolume_info(fd: int) -> SubvolumeInfo:
    """Return what the kernel knows of the subvolume `fd` lies in."""
    buffer = bytearray(504)
    fcntl.ioctl(fd, _GET_SUBVOL_INFO, buffer)
    fields = _SUBVOL_INFO.unpack_from(buffer)
    number, _name, _parent, _dirid, _generation, flags, uuid, parent_uuid, received_uuid = fields[
        :9
    ]
    return SubvolumeInfo(
        number, bool(flags & _ROOT_RDONLY), uuid, parent_uuid, received_uuid, fields[9], fields[11]
    )


def set_read_only(fd: int, *, read_only: bool) -> None:
    """Make the subvolume read-only or writable; EPERM while it is being sent."""
    fcntl.ioctl(fd, _SUBVOL_SETFLAGS, struct.pack("=Q", _SUBVOL_RDONLY if read_only else 0))


def set_received(fd: int, uuid: bytes, stransid: int, sent: int = 0) -> None:
    """
    Set received UUID and sent transaction of a writable subvolume; EROFS for a read-only one.

    `sent` is a time, in seconds since the epoch, that is kept beside them and means nothing to the
    kernel.
    """
    fcntl.ioctl(fd, _SET_RECEIVED_SUBVOL, _RECEIVED_ARGS.pack(uuid, stransid, 0, sent, 0, 0, 0, 0))


def create_snapshot(source_fd: int, directory_fd: int, name: bytes) -> None:
    """Make a writable snapshot under a new name in a directory of the same file system."""
    if not name or len(name) > _NAME_MAX or b"/" in name or b"\0" in name:
        raise ValueError(name)
    head = _VOL_ARGS.pack(source_fd, 0, 0)
    fcntl.ioctl(directory_fd, _SNAP_CREATE_V2, bytearray((head + name).ljust(4096, b"\0")))


def delete_subvolume(fd: int, subvolume_id: int) -> None:
    """Delete a subvolume by its number (kernel 5.7); `fd` may be anywhere on its file system."""
    head = _VOL_ARGS.pack(0, 0, _SUBVOL_SPEC_BY_ID) + struct.pack("=Q", subvolume_id)
    fcntl.ioctl(fd, _SNAP_DESTROY_V2, bytearray(head.ljust(4096, b"\0")))


def send(
    fd: int,
    out_fd: int,
    *,
    parent: int = 0,
    clone_sources: Sequence[int] = (),
    flags: int = 0,
    version: int = 1,
) -> None:
    """
    Write the send stream of the read-only subvolume at `fd` into a pipe.

    Blocks until the whole stream is taken; releases the interpreter's lock. `parent` and
    `clone_sources` are subvolume numbers. EPIPE when the reader closes.
    """
    sources = array("Q", clone_sources)
    address, count = sources.buffer_info()
    if version == 1:
        version = 0  # for kernels to which the field and its flag mean nothing yet
    else:
        flags |= _SEND_VERSION
    fcntl.ioctl(fd, _SEND, _SEND_ARGS.pack(out_fd, count, address, parent, flags, version))

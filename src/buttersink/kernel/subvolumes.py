"""
Everything a btrfs file system says of its subvolumes, by searching its trees. Changes nothing.

One pass over the root tree gives every subvolume with its place, however and wherever the file
system is mounted; paths are from the top level (subvolume 5), as bytes.
"""

from __future__ import annotations

import errno
import struct
from typing import Any, NamedTuple

from buttersink.kernel import ioctl

# struct btrfs_root_item: generation@160, flags@208, level@238, uuid@247, parent_uuid@263,
# received_uuid@279, ctransid@295, otransid@303, stransid@311, rtransid@319, ctime@327, otime@339,
# stime@351, rtime@363
_ROOT_ITEM = struct.Struct("<160xQ40xQ22xB8x16s16s16s4QQ4xQIQ4xQ4x")
_ROOT_REF = struct.Struct("<QQH")  # struct btrfs_root_ref: dirid, sequence, name_len; then the name
_QGROUP_INFO = struct.Struct("<8xQ8xQ")  # struct btrfs_qgroup_info_item: rfer@8, excl@24
_QGROUP_STATUS_FLAGS = struct.Struct("<16xQ")  # struct btrfs_qgroup_status_item: flags@16
_QGROUP_ON = 0x1  # BTRFS_QGROUP_STATUS_FLAG_ON; RESCAN 2, INCONSISTENT 4, SIMPLE_MODE 8
_QGROUP_STATES = 0xF

_ORPHANS, _ORPHAN_ITEM = 2**64 - 5, 48  # BTRFS_ORPHAN_OBJECTID, BTRFS_ORPHAN_ITEM_KEY

_LATE = 3600
"""
Seconds after which nothing is written any more of what `btrfs receive` has received.

It does not wait for the disk before it sets the received UUID, so the transaction that changed the
content last is a later one. ButterSink does, and says so by setting the time of sending, which is
nothing to `btrfs receive`: after that any change is one that somebody has made.
"""

NO_UUID = bytes(16)
_NO_PLACE = (0, 0, b"")


class Subvolume(NamedTuple):
    """
    One subvolume; a tuple, since a file system may have many thousands.

    Attributes:
        id: Its number.
        parent_id: Number of the subvolume it lies in ("top level" in `btrfs subvolume list`).
        path: From the top level of the file system, without leading slash.
        generation: Transaction that last changed its tree, metadata of btrfs itself included.
        read_only: Whether its flag says so.
        level: Height of its tree.
        uuid: Its own UUID.
        parent_uuid: Own UUID of the subvolume it is a snapshot of, or None.
        received_uuid: UUID of the subvolume it was received from, or None.
        ctransid: Transaction that last changed its content.
        stransid: The sender's ctransid, of a received one.
        created: Nanoseconds since the epoch.
        altered: Whether its content was changed after it was received, as far as can be told.

    """

    id: int
    parent_id: int
    path: bytes
    generation: int
    read_only: bool
    level: int
    uuid: bytes
    parent_uuid: bytes | None
    received_uuid: bytes | None
    ctransid: int
    stransid: int
    created: int
    altered: bool = False


def list_subvolumes(fd: int) -> list[Subvolume]:
    """
    Return every subvolume of the file system that `fd` lies in, by number.

    The first is the top level, with an empty path. Those already deleted and not yet cleaned up are
    left out. EPERM without CAP_SYS_ADMIN.
    """
    unpack, unpack_ref = _ROOT_ITEM.unpack_from, _ROOT_REF.unpack_from
    items: dict[int, tuple[Any, ...]] = {}
    places: dict[int, tuple[int, int, bytes]] = {}
    first = (ioctl.FS_TREE, ioctl.ROOT_ITEM, 0)
    last = (ioctl.LAST_SUBVOLUME, ioctl.ROOT_REF, 2**64 - 1)
    for objectid, kind, offset, _transid, payload in ioctl.search(fd, ioctl.ROOT_TREE, first, last):
        if kind == ioctl.ROOT_BACKREF:
            dirid, _sequence, length = unpack_ref(payload)
            places[objectid] = (offset, dirid, bytes(payload[18 : 18 + length]))
        elif kind == ioctl.ROOT_ITEM:
            if len(payload) < _ROOT_ITEM.size:  # not changed since before Linux 3.6: no UUIDs yet
                payload = memoryview(bytes(payload).ljust(_ROOT_ITEM.size, b"\0"))  # noqa: PLW2901
            items[objectid] = unpack(payload)
    paths = _resolve_paths(fd, places)
    return [
        Subvolume(
            number, places.get(number, _NO_PLACE)[0], path, generation, bool(flags & 1), level,
            uuid, None if parent == NO_UUID else parent,
            None if received == NO_UUID else received, ctransid, stransid,
            seconds * 1_000_000_000 + nanoseconds,
            received != NO_UUID and ctransid > rtransid and (sent > 0 or changed > arrived + _LATE),
        )
        for number, path in paths.items()
        if number in items
        for (
            generation, flags, level, uuid, parent, received,
            ctransid, _otransid, stransid, rtransid, changed, seconds, nanoseconds, sent, arrived,
        ) in (items[number],)
    ]  # fmt: skip


def is_clearing(fd: int) -> bool:
    """Return whether deleted subvolumes of the file system of `fd` are still being cleared away."""
    first = (_ORPHANS, _ORPHAN_ITEM, 0)
    last = (_ORPHANS, _ORPHAN_ITEM, 2**64 - 1)
    return any(True for _item in ioctl.search(fd, ioctl.ROOT_TREE, first, last))


def _resolve_paths(fd: int, places: dict[int, tuple[int, int, bytes]]) -> dict[int, bytes]:
    """Return the path of each subvolume whose every ancestor still exists."""
    directories: dict[tuple[int, int], bytes | None] = {}
    paths: dict[int, bytes | None] = {ioctl.FS_TREE: b""}

    def directory(parent: int, dirid: int) -> bytes | None:
        if dirid == ioctl.FIRST_SUBVOLUME:
            return b""
        key = (parent, dirid)
        if key not in directories:
            directories[key] = _directory_inside(fd, parent, dirid)
        return directories[key]

    for number in places:
        pending = [number]  # from the subvolume up to the first ancestor whose path is known
        while pending[-1] not in paths:
            place = places.get(pending[-1])
            if place is None or place[0] in pending:
                paths[pending[-1]] = None
            else:
                pending.append(place[0])
        for child in reversed(pending[:-1]):
            if child in paths:
                continue
            parent, dirid, name = places[child]
            above, inside = paths[parent], directory(parent, dirid)
            known = above is not None and inside is not None
            paths[child] = join(above or b"", (inside or b"") + name) if known else None
    return {number: path for number, path in sorted(paths.items()) if path is not None}


def _directory_inside(fd: int, tree: int, inode: int) -> bytes | None:
    try:
        return ioctl.directory_path(fd, tree, inode)[1]
    except OSError as error:
        if error.errno == errno.ENOENT:  # removed since the search
            return None
        raise


def join(above: bytes, below: bytes) -> bytes:
    """Return a path below another, either of which may be empty."""
    return above + b"/" + below if above and below else above or below


def directory_from_top(fd: int, inode: int, subvolumes: list[Subvolume]) -> bytes:
    """Return the path, from the top level, of the directory `fd` with inode number `inode`."""
    tree, inside = ioctl.directory_path(fd, 0, inode)
    above = next((each.path for each in subvolumes if each.id == tree), b"")
    return join(above, inside.rstrip(b"/"))


def quota_sizes(fd: int) -> dict[int, tuple[int, int]]:
    """
    Return referenced and exclusive bytes by subvolume number, from quota groups.

    Empty where quotas are off, are being counted again, are known to be wrong, or are of the simple
    kind, which does not count what was there before. Quotas are never turned on.
    """
    sizes: dict[int, tuple[int, int]] = {}
    first = (0, ioctl.QGROUP_STATUS, 0)
    last = (0, ioctl.QGROUP_INFO, 2**48 - 1)  # level 0: the number is the subvolume's
    try:
        for item in ioctl.search(fd, ioctl.QUOTA_TREE, first, last):
            if item.type == ioctl.QGROUP_STATUS:
                (flags,) = _QGROUP_STATUS_FLAGS.unpack_from(item.payload)
                if flags & _QGROUP_STATES != _QGROUP_ON:
                    return {}
            elif item.type == ioctl.QGROUP_INFO:
                referenced, exclusive = _QGROUP_INFO.unpack_from(item.payload)
                sizes[item.offset] = (referenced, exclusive)
    except OSError as error:
        if error.errno == errno.ENOENT:  # no quota tree
            return {}
        raise
    return sizes

"""
The `btrfslist` command: every subvolume of a btrfs file system, and where each can be reached now.

Strategy: one search of the root tree finds the subvolumes, one of the quota tree their sizes; the
table of mounts says which of them a path leads to. Of these only mount points are opened, never a
subvolume, so that thousands of them are not read from the disk. Nothing is mounted or changed, and
quotas are never turned on.

With --json the one document has the keys buttersink, directory, filesystem and subvolumes, and each
of these id, path, level, generation, size, exclusive, read_only, own_uuid, parent_uuid,
received_uuid and mounts; docs/JSON.md says what they mean.
"""

from __future__ import annotations

import errno
import os
import sys
from dataclasses import dataclass
from itertools import accumulate
from operator import attrgetter
from typing import TYPE_CHECKING

from buttersink.catalogue import Uuid, uuid_text
from buttersink.drawing import draw_table
from buttersink.errors import LocationError, printable
from buttersink.kernel import ioctl
from buttersink.kernel.mounts import list_mounts, mount_id
from buttersink.kernel.subvolumes import Subvolume, join, list_subvolumes, quota_sizes
from buttersink.stores.btrfs.directory import translating
from buttersink.utilities.command import make_parser, run
from buttersink.version import program_version
from buttersink.wording import Column, size_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from buttersink.kernel.mounts import Mount

_PROGRAM = "btrfslist"
_DESCRIPTION = "List every subvolume of the btrfs file system that DIR lies in. Needs root."
_HELP = """\
One line for each subvolume, also a writable one, sorted by path (- where
something is not known or does not apply):

  ID             number of the subvolume; 5 is the top level
  Path           from the top level, which itself is /
  Level          height of its tree
  Generation     transaction that last changed its tree
  Total          bytes it refers to; known where quota groups are on
  Exclusive      bytes that only it refers to; known where quota groups are on
  Access         ro read-only, rw writable
  Own UUID       its own, whatever it was received from
  Parent UUID    own UUID of the subvolume it is a snapshot of
  Received UUID  UUID of the subvolume it was received from
  Mounted at     the paths that lead to it now, one for each mount through
                 which it can be reached, the shortest first

What cannot be printed in a name is escaped. For programs there is --json: one
document with the keys buttersink (version), directory (DIR), filesystem (its
UUID) and subvolumes, a list in the same order. The keys of a subvolume are
those columns: id, path (without leading slash; "" is the top level), level,
generation, size, exclusive (bytes or null), read_only, own_uuid, parent_uuid,
received_uuid (or null), mounts (a list). A byte 0xXX of a path that is not
UTF-8 is \\udcXX there.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """List the file system of the command line's DIR; return the exit status."""
    return run(_PROGRAM, lambda: _list(argv))


def _list(argv: Sequence[str] | None) -> int:
    parser = make_parser(_PROGRAM, _DESCRIPTION, _HELP)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("directory", metavar="DIR", help="any directory of the file system")
    arguments = parser.parse_args(argv)
    listing = read_listing(os.fsencode(arguments.directory))
    sys.stdout.write(_json(listing) if arguments.json else _table(listing))
    return 0


# What there is


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One subvolume, and what its tree does not tell.

    Attributes:
        subvolume: Its own fields; a UUID may be all zeros if an old program made it.
        size: Bytes it refers to, if quota groups tell.
        exclusive: Bytes that only it refers to, if quota groups tell.
        mounts: Absolute paths that lead to it, one for each mount it is reached through.

    """

    subvolume: Subvolume
    size: int | None
    exclusive: int | None
    mounts: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """
    A whole file system.

    Attributes:
        directory: The one it was found by.
        filesystem: Its UUID.
        entries: Its subvolumes and its top level, by path.

    """

    directory: bytes
    filesystem: Uuid
    entries: tuple[Entry, ...]


def read_listing(directory: bytes) -> Listing:
    """
    Read the file system that a directory lies in.

    Raises:
        LocationError: The directory cannot be opened, or is not on btrfs.
        PrivilegeError: The kernel tells this only to root.

    """
    with translating(LocationError, "cannot open directory", directory):
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        filesystem = _filesystem_of(fd, directory)
        with translating(LocationError, "cannot list subvolumes", directory):
            found = sorted(list_subvolumes(fd), key=attrgetter("path"))
            sizes = quota_sizes(fd)
    finally:
        os.close(fd)
    paths = _mount_paths(filesystem, found)
    entries = []
    for each in found:
        size, exclusive = sizes.get(each.id, (None, None))
        entries.append(Entry(each, size, exclusive, tuple(paths[each.id])))
    return Listing(directory, Uuid(filesystem), tuple(entries))


def _filesystem_of(fd: int, directory: bytes) -> bytes:
    with translating(LocationError, "cannot list subvolumes", directory):
        try:
            return ioctl.filesystem_id(fd)
        except OSError as error:
            if error.errno != errno.ENOTTY:
                raise
            why = "it is not on a btrfs file system"
            raise LocationError("cannot list subvolumes", where=directory, why=why) from error


# Where it is mounted


def _mount_paths(filesystem: bytes, subvolumes: Sequence[Subvolume]) -> dict[int, list[bytes]]:
    """Return the paths that lead to each subvolume now, by its number, the shortest first."""
    paths: dict[int, list[bytes]] = {each.id: [] for each in subvolumes}
    mounts = list_mounts()
    points = {mount.point for mount in mounts}
    for mount in mounts:
        if mount.kind == b"btrfs" and _shows(mount, filesystem):
            for number, path in _paths_through(mount, points, subvolumes):
                paths[number].append(path)
    return {
        number: sorted(each, key=lambda path: (len(path), path)) for number, each in paths.items()
    }


def _shows(mount: Mount, filesystem: bytes) -> bool:
    """Tell whether a mount is of this file system, and is what its mount point leads to."""
    try:
        fd = os.open(mount.point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # of a file, or hidden below another mount
        return False
    try:
        return mount_id(fd) == mount.id and ioctl.filesystem_id(fd) == filesystem
    except OSError:  # hidden below something that is not btrfs
        return False
    finally:
        os.close(fd)


def _paths_through(
    mount: Mount, points: Iterable[bytes], subvolumes: Iterable[Subvolume]
) -> Iterator[tuple[int, bytes]]:
    """Yield number and path of each subvolume that this mount leads to."""
    root, above = mount.root[1:], mount.point.rstrip(b"/") + b"/"
    candidates = {point[len(above) :] for point in points if point.startswith(above)}
    covers: dict[bytes, bool] = {}

    def is_covered(path: bytes) -> bool:
        if path not in covers:
            covers[path] = _leads_elsewhere(above + path, mount)
        return covers[path]

    for each in subvolumes:
        inside = _below(root, each.path)
        if inside is None:
            continue
        if not any(is_covered(way) for way in _ways(inside) if way in candidates):
            yield each.id, above + inside if inside else mount.point


def _below(directory: bytes, path: bytes) -> bytes | None:
    """Return what of a path is below a directory; None if it is not there."""
    if path == directory or not directory:
        return path[len(directory) :]
    return path[len(directory) + 1 :] if path.startswith(directory + b"/") else None


def _ways(path: bytes) -> Iterator[bytes]:
    """Yield every directory on the way to a path, and the path."""
    return accumulate(path.split(b"/"), join)


def _leads_elsewhere(path: bytes, mount: Mount) -> bool:
    """Tell whether a path below a mount's point has something mounted over it."""
    try:  # O_PATH wakes no automounter
        fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return True
    try:
        return mount_id(fd) != mount.id
    finally:
        os.close(fd)


# How it is shown


_COLUMNS: list[Column[Entry]] = [
    Column("ID", lambda e: str(e.subvolume.id), right=True),
    Column("Path", lambda e: printable(e.subvolume.path) or "/"),
    Column("Level", lambda e: str(e.subvolume.level), right=True),
    Column("Generation", lambda e: str(e.subvolume.generation), right=True),
    Column("Total", lambda e: "-" if e.size is None else size_text(e.size), right=True),
    Column(
        "Exclusive", lambda e: "-" if e.exclusive is None else size_text(e.exclusive), right=True
    ),
    Column("Access", lambda e: "ro" if e.subvolume.read_only else "rw"),
    Column("Own UUID", lambda e: _uuid(e.subvolume.uuid) or "-"),
    Column("Parent UUID", lambda e: _uuid(e.subvolume.parent_uuid) or "-"),
    Column("Received UUID", lambda e: _uuid(e.subvolume.received_uuid) or "-"),
    Column("Mounted at", lambda e: ", ".join(map(printable, e.mounts)) or "-"),
]


def _table(listing: Listing) -> str:
    return draw_table(sys.stdout, _COLUMNS, listing.entries)


def _json(listing: Listing) -> str:
    import json

    document = {
        "buttersink": program_version(),
        "directory": _text(listing.directory),
        "filesystem": uuid_text(listing.filesystem),
        "subvolumes": [_document(entry) for entry in listing.entries],
    }
    return json.dumps(document, indent=2) + "\n"


def _document(entry: Entry) -> dict[str, object]:
    subvolume = entry.subvolume
    return {
        "id": subvolume.id,
        "path": _text(subvolume.path),
        "level": subvolume.level,
        "generation": subvolume.generation,
        "size": entry.size,
        "exclusive": entry.exclusive,
        "read_only": subvolume.read_only,
        "own_uuid": _uuid(subvolume.uuid),
        "parent_uuid": _uuid(subvolume.parent_uuid),
        "received_uuid": _uuid(subvolume.received_uuid),
        "mounts": [_text(path) for path in entry.mounts],
    }


def _uuid(uuid: bytes | None) -> str | None:
    """Return a UUID as text; that of all zeros stands for none."""
    return uuid_text(Uuid(uuid)) if uuid and any(uuid) else None


def _text(path: bytes) -> str:
    return path.decode("utf-8", "surrogateescape")


if __name__ == "__main__":
    sys.exit(main())

"""
A directory tree as `checksumdir` sees it: which entries belong to it, their order, the way to each.

Strategy: one walk in the order of the paths' bytes. Every path is reached anew from the top, in
steps shorter than PATH_MAX: depth costs no descriptors. It never writes, follows a link inside the
tree, or leaves the subvolume. What a tree leaves out is what a sent snapshot and its received copy
do not share; see `Tree`.
"""

from __future__ import annotations

import ctypes
import os
import re
import stat
import threading
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from buttersink.errors import Error, LocationError

if TYPE_CHECKING:
    from collections.abc import Iterator

_STEP = 2048  # bytes of path in one system call: half of PATH_MAX, and more than any one name


@dataclass(frozen=True, slots=True)
class Tree:
    """
    A directory, opened.

    It ends where another subvolume begins. In a btrfs snapshot an empty directory stands for a
    nested subvolume, made up by the kernel with the time of the look and, like the subvolume, on
    another device; a send stream does not carry it and a received copy has nothing there. So a
    directory on another device is left out, and all three compare equal.

    It goes on under a mount point: a snapshot is sent as it lies on the file system, not as it
    is mounted over. Where the kernel does not let us look there, mount points are left out.

    Attributes:
        name: As the user calls it.
        top: Descriptor that every path is relative to.
        device: Device number of the subvolume or file system.
        mounts: Paths that are hidden below something mounted.
        abandoned: Set when nobody waits for the lines any more.

    """

    name: bytes
    top: int
    device: int
    mounts: frozenset[bytes]
    abandoned: threading.Event = field(default_factory=threading.Event)

    def holds(self, path: bytes, status: os.stat_result) -> bool:
        """Tell whether an entry belongs to the tree."""
        if stat.S_ISDIR(status.st_mode) and status.st_dev != self.device:
            return False
        return path not in self.mounts

    def shown(self, path: bytes) -> bytes:
        """Return an entry's path as the user would type it."""
        return os.path.join(self.name, path[2:]) if path != b"." else self.name


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One path of the tree.

    Attributes:
        path: From the top: `.`, or beginning with `./`.
        status: What lstat says.
        first: For a further name of a file that has several, the name that came first.

    """

    path: bytes
    status: os.stat_result
    first: bytes | None


@contextmanager
def opened(directory: bytes) -> Iterator[Tree]:
    """Open the tree below a directory; `LocationError` if that cannot be."""
    with ExitStack() as descriptors:
        try:
            top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            descriptors.callback(os.close, top)
            mounts = _mount_points(top)
            if mounts and (uncovered := _uncovered(top)) is not None:
                descriptors.callback(os.close, uncovered)
                top, mounts = uncovered, frozenset()
            tree = Tree(directory, top, os.fstat(top).st_dev, mounts)
        except OSError as error:
            raise refusal("cannot open directory", directory, error) from error
        yield tree


def _uncovered(directory: int) -> int | None:
    """Return a descriptor of the directory in which nothing is mounted; None if not allowed."""
    # open_tree(2) clones the one mount without those inside it. It is called by its number, which
    # all architectures share, because glibc has no name for it before 2.36.
    open_tree, clone, at_empty_path = 428, 0x1, 0x1000
    descriptor = ctypes.CDLL(None).syscall(
        ctypes.c_long(open_tree),
        ctypes.c_int(directory),
        ctypes.c_char_p(b""),
        ctypes.c_uint(clone | at_empty_path | os.O_CLOEXEC),
    )
    return None if descriptor < 0 else int(descriptor)


def _mount_points(directory: int) -> frozenset[bytes]:
    here = os.readlink(b"/proc/self/fd/%d" % directory).rstrip(b"/") + b"/"
    with open("/proc/self/mountinfo", "rb") as table:
        points = [_unescaped(line.split(b" ")[4]) for line in table]
    return frozenset(b"./" + point[len(here) :] for point in points if point.startswith(here))


def _unescaped(field: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), field)


def walk(tree: Tree) -> Iterator[Entry | Error]:
    """Yield the entries in the order of the paths' bytes, or why one cannot be looked at."""
    first: dict[tuple[int, int], bytes] = {}
    for path in _paths(tree):
        if isinstance(path, Error):
            yield path
            continue
        try:
            status = _status(tree, path)
        except OSError as error:
            yield refusal("cannot read", tree.shown(path), error)
            continue
        if tree.holds(path, status):
            yield Entry(path, status, _first_name(first, path, status))


def _first_name(
    first: dict[tuple[int, int], bytes], path: bytes, status: os.stat_result
) -> bytes | None:
    """Remember a path of a file with several names; return the one remembered before."""
    if status.st_nlink == 1 or stat.S_ISDIR(status.st_mode):
        return None
    known = first.setdefault((status.st_dev, status.st_ino), path)
    return known if known != path else None


def _paths(tree: Tree) -> Iterator[bytes | Error]:
    """
    Yield every path, also of what the tree does not hold, in the order of their bytes.

    A directory is pending twice, as `a` and as `a/` for what is inside: `a b` and `a.b` sort
    between the two.
    """
    pending = [b"./", b"."]
    while pending:
        path = pending.pop()
        if not path.endswith(b"/"):
            yield path
            continue
        try:
            pending += sorted(_inside(tree, path), reverse=True)
        except OSError as error:
            yield refusal("cannot list directory", tree.shown(path[:-1]), error)


def _inside(tree: Tree, path: bytes) -> list[bytes]:
    """Return what `_paths` has to visit in the directory `path`, which ends in a slash."""
    with open_entry(tree, path[:-1], os.O_DIRECTORY) as descriptor:
        if not tree.holds(path[:-1], os.fstat(descriptor)):
            return []
        with os.scandir(descriptor) as listing:
            names = [
                (os.fsencode(item.name), item.is_dir(follow_symlinks=False)) for item in listing
            ]
    inside = [path + name for name, _ in names]
    return inside + [path + name + b"/" for name, is_directory in names if is_directory]


def refusal(what: str, where: bytes, error: OSError) -> Error:
    """Return what to tell of a system call that failed."""
    return LocationError(what, where=where, why=error.strerror or "")


# Reaching an entry


def _status(tree: Tree, path: bytes) -> os.stat_result:
    with near(tree, path) as (at, rest):
        return os.stat(rest, dir_fd=at, follow_symlinks=False)


@contextmanager
def open_entry(tree: Tree, path: bytes, flags: int = 0) -> Iterator[int]:
    """Open a file or directory of the tree to read it, and leave its access time alone."""
    with near(tree, path) as (at, rest):
        descriptor = _open_to_read(rest, flags | os.O_RDONLY | os.O_NOFOLLOW, at)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open_to_read(path: bytes, flags: int, at: int) -> int:
    try:
        return os.open(path, flags | os.O_NOATIME, dir_fd=at)
    except PermissionError:  # only the owner and root may leave the access time alone
        return os.open(path, flags, dir_fd=at)


@contextmanager
def near(tree: Tree, path: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield a descriptor and a path from it that one system call can take, together `path`."""
    at = tree.top
    try:
        while len(path) > _STEP:
            cut = path.rindex(b"/", 0, _STEP)
            following = os.open(path[:cut], os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            if at != tree.top:
                os.close(at)
            at, path = following, path[cut + 1 :]
        yield at, path
    finally:
        if at != tree.top:
            os.close(at)

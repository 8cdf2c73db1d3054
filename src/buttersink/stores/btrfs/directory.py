"""
Opening a location's directory, and what lies in it, without being led outside.

Below the location everything is opened by descriptor, one mount, no symbolic links; and a subvolume
is acted on only after its number says that it is the one that was meant.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from buttersink.errors import Error, LocationError, LockedError, NoSpaceError, PrivilegeError
from buttersink.kernel import ioctl
from buttersink.stores.base import Mode, Role

if TYPE_CHECKING:
    from collections.abc import Iterator

    from buttersink.kernel.ioctl import SubvolumeInfo
    from buttersink.location import Location

_LOCK_TRIES, _LOCK_PAUSE = 20, 0.05  # seconds between them
_ROOT_HINT = "Run it as root, for example with sudo."


@contextmanager
def translating(kind: type[Error], what: str, where: bytes | str | None) -> Iterator[None]:
    """Turn an `OSError` into an error of this kind; lack of space or rights have their own."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpaceError(what, where=where, why=reason) from error
        if error.errno in (errno.EPERM, errno.EACCES) and os.geteuid():
            raise PrivilegeError(what, where=where, why=reason, hint=_ROOT_HINT) from error
        raise kind(what, where=where, why=reason) from error


def open_location(location: Location, mode: Mode, role: Role) -> tuple[int, bytes]:
    """
    Return a descriptor of the location's directory, and what of its path is not there yet.

    Only a destination may be missing. If it may be written to it is made, once its nearest ancestor
    is known to be btrfs; else that ancestor is opened and the second value is not empty.
    """
    path, missing = location.directory, b""
    if role is Role.DESTINATION:
        path, missing = _nearest(path)
    fd = _open_btrfs(path)
    if not missing or mode is Mode.READ:
        return fd, missing
    try:
        with translating(LocationError, "cannot make the directory", location.directory):
            os.makedirs(location.directory, exist_ok=True)
    finally:
        os.close(fd)
    return _open_btrfs(location.directory), b""


def _nearest(path: bytes) -> tuple[bytes, bytes]:
    """Return the nearest existing ancestor of a path, and the rest of it."""
    rest: list[bytes] = []
    while not os.path.lexists(path):
        above, name = os.path.split(path)
        rest.append(name)
        path = above or b"."
    return path, b"/".join(reversed(rest))


def _open_btrfs(path: bytes) -> int:
    with translating(LocationError, "cannot open the location", path):
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        ioctl.filesystem_id(fd)
    except OSError as error:
        os.close(fd)
        if error.errno != errno.ENOTTY:
            raise
        why, hint = "it is not on a btrfs file system", "Is the file system mounted?"
        raise LocationError("cannot use the location", where=path, why=why, hint=hint) from error
    return fd


def lock(fd: int, location: str) -> None:
    """
    Keep every other run from writing to this directory, until `fd` is closed everywhere.

    Waits a little for what a killed run has left to end.
    """
    for _ in range(_LOCK_TRIES):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_PAUSE)
        else:
            return
    from buttersink.kernel.locks import flock_holder

    process = flock_holder(fd)
    shown = f": process {process}" if process else ""
    hint = f"Wait until it has ended; ps {process} shows it." if process else "Wait until it ends."
    why = f"another run of buttersink is writing to it{shown}"
    raise LockedError("locked", where=location, why=why, hint=hint)


def open_directory(root_fd: int, path: bytes, *, make: bool = False) -> int:
    """
    Open a directory below another, by its path; with `make` its missing parts are made.

    Raises `OSError`: ELOOP, EXDEV or ENOTDIR where a link, a mount or a file is in the way.
    """
    from buttersink.kernel import libc

    if not make:
        return libc.open_beneath(root_fd, path)
    fd = os.dup(root_fd)
    try:
        for name in path.split(b"/") if path else ():
            if name in (b"", b".", b".."):
                raise OSError(errno.EINVAL, "not a plain path")
            try:
                below = libc.open_beneath(fd, name)
            except FileNotFoundError:
                os.mkdir(name, dir_fd=fd)
                below = libc.open_beneath(fd, name)
            os.close(fd)
            fd = below
    except BaseException:
        os.close(fd)
        raise
    return fd


def subvolume_at(fd: int) -> SubvolumeInfo:
    """Return what the kernel says of the subvolume whose root `fd` is; ENOTDIR if it is no root."""
    if os.fstat(fd).st_ino != ioctl.FIRST_SUBVOLUME:
        raise OSError(errno.ENOTDIR, "not a subvolume")
    return ioctl.subvolume_info(fd)


def open_subvolume(root_fd: int, path: bytes, subvolume_id: int) -> int:
    """Open the subvolume at a path if it still has this number; ENOENT or ESTALE if not."""
    fd = open_directory(root_fd, path)
    try:
        if subvolume_at(fd).id != subvolume_id:
            raise OSError(errno.ESTALE, "another subvolume is there now, or a mount hides it")
    except BaseException:
        os.close(fd)
        raise
    return fd

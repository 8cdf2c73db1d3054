"""
The system calls that Python's `os` does not offer, by ctypes. Sources: the Linux man pages.

Each raises `OSError` with the kernel's errno.
"""

from __future__ import annotations

import ctypes
import os
import struct

_LIBC = ctypes.CDLL(None, use_errno=True)

_SYS_OPENAT2 = 437  # the same on every architecture: asm-generic/unistd.h
_RESOLVE_NO_XDEV = 0x01  # linux/openat2.h
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_OPEN_HOW = struct.Struct("=QQQ")  # struct open_how: flags, mode, resolve

_RENAME_NOREPLACE = 1  # linux/fs.h
_RENAME_EXCHANGE = 2

_CLONE_NEWNS = 0x00020000  # linux/sched.h
_MS_REC, _MS_SLAVE = 0x4000, 0x80000  # linux/mount.h
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_NOSYMFOLLOW = 2, 4, 8, 256


def _check(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def open_beneath(directory_fd: int, path: bytes) -> int:
    """
    Open a directory below another one (kernel 5.6); the empty path is the directory itself.

    Symbolic links, `..`, absolute paths and other mounts on the way are refused: ELOOP or EXDEV.
    """
    how = _OPEN_HOW.pack(
        os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC,
        0,
        _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_XDEV,
    )
    buffer = ctypes.create_string_buffer(how, len(how))
    name = ctypes.c_char_p(path or b".")
    arguments = (ctypes.c_long(directory_fd), name, buffer, ctypes.c_size_t(len(how)))
    return _check(_LIBC.syscall(ctypes.c_long(_SYS_OPENAT2), *arguments))


def rename_new(directory_fd: int, old: bytes, new: bytes) -> None:
    """Rename within a directory; EEXIST if the new name is taken."""
    _check(_LIBC.renameat2(directory_fd, old, directory_fd, new, _RENAME_NOREPLACE))


def exchange(directory_fd: int, one: bytes, other: bytes) -> None:
    """Let two names of a directory change places in one step."""
    _check(_LIBC.renameat2(directory_fd, one, directory_fd, other, _RENAME_EXCHANGE))


def sync_filesystem(fd: int) -> None:
    """Return once all of the file system is on disk; raises what could not be written (syncfs)."""
    _check(_LIBC.syncfs(fd))


def enter_private_mounts() -> None:
    """Give the calling thread mounts of its own: it sees the others' changes, they not its."""
    _check(_LIBC.unshare(_CLONE_NEWNS))
    _check(_LIBC.mount(None, b"/", None, _MS_REC | _MS_SLAVE, None))


def mount_btrfs(device: bytes, directory: bytes, options: bytes) -> None:
    """
    Mount a btrfs device; what lies on it is data and nothing else.

    Nothing there is run, no device opened, and since kernel 5.10 no symbolic link followed.
    """
    flags = _MS_NOSUID | _MS_NODEV | _MS_NOEXEC | _MS_NOSYMFOLLOW
    _check(_LIBC.mount(device, directory, b"btrfs", flags, options))

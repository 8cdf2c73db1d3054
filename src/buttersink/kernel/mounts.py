"""
Which mount a directory lies in, and a private mount of a whole btrfs file system.

`btrfs receive` finds parents and clone sources by path below one mount, and cannot where a
subvolume or a directory is mounted instead of the top level. So it gets the top level: mounted in a
mount namespace that only one thread of ours and the processes started from it are in. Nobody else
sees it, and it goes with them however they end.
"""

from __future__ import annotations

import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from buttersink.kernel import libc

if TYPE_CHECKING:
    from collections.abc import Sequence

_MOUNT_POINT = b"/run/buttersink"  # the empty directory stays; hier(7): /run is for such things
_OCTAL = re.compile(rb"\\([0-7]{3})")  # proc(5): how mountinfo writes blanks and backslashes


class Mount(NamedTuple):
    """
    One line of /proc/self/mountinfo, proc_pid_mountinfo(5).

    Attributes:
        id: Number of the mount.
        root: Path inside the file system, from its top level, of what is mounted.
        point: Where it is mounted.
        kind: Type of the file system.
        device: What is mounted.

    """

    id: int
    root: bytes
    point: bytes
    kind: bytes
    device: bytes


def list_mounts() -> list[Mount]:
    """Return every mount this process sees, in mount order."""
    with open("/proc/self/mountinfo", "rb") as lines:
        return [_parse(line) for line in lines]


def _parse(line: bytes) -> Mount:
    before, after = line.split(b" - ", 1)
    fields, (kind, device, *_options) = before.split(b" "), after.split(b" ")
    return Mount(int(fields[0]), *map(_unescape, (fields[3], fields[4], kind, device)))


def _unescape(field: bytes) -> bytes:
    return _OCTAL.sub(lambda match: bytes((int(match[1], 8),)), field)


def mount_id(fd: int) -> int:
    """Return the number of the mount through which a file was opened, from proc_pid_fdinfo(5)."""
    with open(f"/proc/self/fdinfo/{fd}", "rb") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(b"mnt_id:"))


def mount_of(fd: int) -> Mount:
    """Return the mount through which a file was opened; `LookupError` if it is gone by now."""
    number = mount_id(fd)
    for mount in list_mounts():
        if mount.id == number:
            return mount
    raise LookupError(number)


def device_of(mount: Mount, filesystem: bytes) -> bytes:
    """
    Return a block device by which a mounted btrfs, with this UUID, can be mounted again.

    The name in the mount table may be one that only the initial RAM disk had, such as /dev/root;
    then it is the first device that the kernel counts to the file system.
    """
    if os.path.exists(mount.device):
        return mount.device
    members = os.listdir(f"/sys/fs/btrfs/{UUID(bytes=filesystem)}/devices")
    return b"/dev/" + os.fsencode(min(members))


class PrivateMount:
    """
    The top level of a btrfs file system, mounted for this object and the processes it starts.

    Attributes:
        fd: The top level directory, good in every thread.

    """

    def __init__(self, device: bytes) -> None:
        self._thread = ThreadPoolExecutor(1, "private-mount")
        try:
            self.fd = self._thread.submit(_mount_here, device).result()
        except BaseException:
            self._thread.shutdown()
            raise

    def start(
        self,
        command: Sequence[bytes | str],
        *,
        working_in: int,
        stdin: int,
        stderr: int,
        keep_open: Sequence[int] = (),
    ) -> subprocess.Popen[bytes]:
        """
        Start a process that sees the mount; it has these descriptors, and no standard output.

        Its working directory is `working_in`, a descriptor opened below `fd`: just that directory,
        whatever its path leads to by now.
        """
        return self._thread.submit(
            lambda: subprocess.Popen(
                command,
                cwd=f"/proc/self/fd/{working_in}",
                stdin=stdin,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                pass_fds=keep_open,
            )
        ).result()

    def close(self) -> None:
        """Let it go: the mount ends with the thread, the descriptor and the processes."""
        os.close(self.fd)
        self._thread.shutdown()


def _mount_here(device: bytes) -> int:
    """Mount the top level for the calling thread alone; return a descriptor of it."""
    os.makedirs(_MOUNT_POINT, mode=0o700, exist_ok=True)
    libc.enter_private_mounts()
    libc.mount_btrfs(device, _MOUNT_POINT, b"subvolid=5")
    return os.open(_MOUNT_POINT, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

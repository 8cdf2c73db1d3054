"""Who holds a lock: proc_locks(5) has the process, and its open files show that it is the file."""

from __future__ import annotations

import os
from contextlib import suppress


def flock_holder(fd: int) -> int | None:
    """Return the process that holds flock(2) on what a descriptor is of, None if none is seen."""
    wanted = os.fstat(fd)
    with open("/proc/locks", "rb") as lines:
        found = [line.split() for line in lines]
    for fields in found:  # number, FLOCK, ADVISORY, WRITE, process, device:inode, from, to
        if fields[1] != b"FLOCK" or fields[5].rpartition(b":")[2] != b"%d" % wanted.st_ino:
            continue
        process = int(fields[4])
        # The device there is that of the whole file system, and inodes are those of a subvolume.
        if process > 0 and any(os.path.samestat(wanted, each) for each in _open_files(process)):
            return process
    return None


def _open_files(process: int) -> list[os.stat_result]:
    directory, found = f"/proc/{process}/fd", []
    with suppress(OSError):  # it has ended, or is another user's
        for name in os.listdir(directory):
            with suppress(OSError):
                found.append(os.stat(f"{directory}/{name}"))
    return found

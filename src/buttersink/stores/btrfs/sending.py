"""
The kernel's send as an iterator of chunks: the ioctl writes into a pipe from a thread of its own.

The call releases the interpreter's lock, so this is as quick as `btrfs send`, needs no process, and
takes parents by number, which works where their paths cannot be reached from one mount.
"""

from __future__ import annotations

import fcntl
import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from buttersink.kernel import ioctl

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PIPE_BYTES = 1024 * 1024  # what an unprivileged process may ask for: pipe(7), pipe-max-size


@contextmanager
def sending(
    fd: int,
    *,
    parent: int,
    clones: Sequence[int] = (),
    flags: int = 0,
    version: int = 1,
    ahead: int = PIPE_BYTES,
) -> Iterator[Iterator[memoryview]]:
    """
    Send the read-only subvolume at `fd`, as a difference to subvolume `parent` if that is not 0.

    `clones` are the numbers of further subvolumes that data may be taken from. Yields an iterator
    over the stream; each view is valid until the next is asked for, and the end of the stream
    without `OSError` means that the kernel ended it. Leaving early stops the kernel, which is by
    then up to `ahead` bytes further.
    """
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    failures: list[OSError] = []

    def run() -> None:
        try:
            sources = (parent, *clones) if parent else clones
            ioctl.send(
                fd, write_end, parent=parent, clone_sources=sources, flags=flags, version=version
            )
        except OSError as error:
            failures.append(error)
        finally:
            os.close(write_end)

    fcntl.fcntl(read_end, fcntl.F_SETPIPE_SZ, ahead)
    thread = threading.Thread(target=run, name="btrfs-send")
    thread.start()
    try:
        yield _chunks(read_end, thread, failures)
    finally:
        os.close(read_end)  # the kernel, if still writing, gets EPIPE
        thread.join()


def _chunks(
    read_end: int, thread: threading.Thread, failures: list[OSError]
) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(PIPE_BYTES))
    while count := os.readv(read_end, [buffer]):
        yield buffer[:count]
    thread.join()
    if failures:
        raise failures[0]

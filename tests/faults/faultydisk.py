"""
A disk that fails when it is told to: an image shown as a file of another one, which loop mounts.

It stands in for device-mapper's error and flakey targets, which not every kernel has, and also has
a write cache that forgets: what was not flushed when the power fails is lost, or any part of it.
The file is served to the kernel's FUSE by a process of its own, as simply as one file needs.
Source: linux/include/uapi/linux/fuse.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import signal
import socket
import stat
import struct
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, NoReturn

from tests.support.loopfs import unmount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MIB = 1 << 20
NAME = b"disk"
_IN, _OUT = struct.Struct("<IIQQIIIHH"), struct.Struct("<IiQ")
_ATTRIBUTES = struct.Struct("<6Q10I")
_INIT, _FILE_IO = struct.Struct("<4I2H2I2H2I24x"), struct.Struct("<QQII16x")
_ROOT, _DISK = 1, 2  # nodes
_DIRECT_IO = 1  # FOPEN_DIRECT_IO: no cache between the file system and us
_BIG_REQUESTS = 1 << 22 | 1 << 5  # FUSE_MAX_PAGES, FUSE_BIG_WRITES
_FOREVER = 1 << 30  # seconds that the kernel may believe us


class FaultyDisk:
    """
    An image that can be mounted through a disk with faults, and what is wrong with that.

    Args:
        directory: An empty one, where the file appears.

    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._control: socket.socket | None = None

    @contextmanager
    def showing(self, image: Path) -> Iterator[Path]:
        """Show an image as a file, which is without faults at first."""
        fd = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
        try:
            _mount_fuse(fd, self._directory)
            ours, theirs = socket.socketpair()
            pid = os.fork()
            if not pid:
                ours.close()
                _serve(fd, theirs, image)
        finally:
            os.close(fd)
        theirs.close()
        self._control = ours
        try:
            yield self._directory / os.fsdecode(NAME)
        finally:
            self._control = None
            ours.close()
            try:
                unmount(self._directory)
            finally:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    def order(self, text: str) -> None:
        """
        Have the disk fail from now on, or no more; return when it does.

        `fail` and what fails, any of `read`, `write`, `flush`, or nothing; `cut` and a seed: the
        power fails, what was not flushed is lost in part, and nothing works any more.
        """
        assert self._control is not None
        self._control.sendall(text.encode())
        assert self._control.recv(1) == b"."


def _mount_fuse(fd: int, directory: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other,max_read={MIB}"
    where = os.fsencode(directory)
    if libc.mount(b"faulty", where, b"fuse.faulty", ctypes.c_ulong(0), options.encode()):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), directory)


def _serve(fd: int, control: socket.socket, image: Path) -> NoReturn:
    """Be the process that serves the file, until the file system is unmounted."""
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _Server(fd, os.open(image, os.O_RDWR | os.O_CLOEXEC)).run(control)
    finally:
        os._exit(0)


@dataclass(slots=True)
class _Server:
    """
    Answers the kernel's requests.

    Attributes:
        fails: What fails now.
        unflushed: Offset, bytes before and bytes after each write since the last flush.

    """

    fuse: int
    image: int
    fails: set[str] = field(default_factory=set)
    unflushed: list[tuple[int, bytes, bytes]] = field(default_factory=list)

    def run(self, control: socket.socket) -> None:
        """Answer until there is nobody to answer."""
        sources: list[int | socket.socket] = [self.fuse, control]
        while True:
            ready, _, _ = select.select(sources, [], [])
            if control in ready:
                if order := control.recv(200).decode().split():
                    self._obey(order)
                    control.sendall(b".")
                else:
                    sources.remove(control)  # nobody orders any more, but it may still be mounted
            if self.fuse in ready and not self._serve_one():
                return

    def _serve_one(self) -> bool:
        """Answer the next request; false when the file system is unmounted."""
        try:
            request = os.read(self.fuse, MIB + 64 * 1024)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return False
            if error.errno != errno.ENOENT:  # else a request was interrupted before it was read
                raise
        else:
            self._answer(request)
        return True

    def _obey(self, order: list[str]) -> None:
        if order[0] == "cut":
            self._lose(Random(order[1]))
            order = ["fail", "read", "write", "flush"]
        self.fails = set(order[1:])

    def _lose(self, random: Random) -> None:
        """Take back what was not flushed, and let some of it have been written all the same."""
        for offset, before, _after in reversed(self.unflushed):
            os.pwrite(self.image, before, offset)
        likely = random.choice((0.0, 0.1, 0.5, 0.9))
        for offset, _before, after in self.unflushed:
            if random.random() < likely:
                os.pwrite(self.image, after, offset)
        self.unflushed.clear()

    def _answer(self, request: bytes) -> None:
        _length, code, unique, node, *_who = _IN.unpack_from(request)
        answer = self._answers().get(code)
        if code in (2, 42, 36):  # FORGET, BATCH_FORGET, INTERRUPT: no answer is wanted
            return
        error, body = errno.ENOSYS, b""
        if answer is not None:
            try:
                error, body = 0, answer(node, request[_IN.size :])
            except OSError as failure:
                error, body = failure.errno or errno.EIO, b""
        with suppress(FileNotFoundError):  # it was interrupted meanwhile
            os.writev(self.fuse, [_OUT.pack(_OUT.size + len(body), -error, unique), body])

    def _answers(self) -> dict[int, Callable[[int, bytes], bytes]]:
        return {
            1: self._lookup,
            3: self._attributes_of,
            4: self._attributes_of,  # SETATTR: times, which nobody looks at
            14: self._open,
            15: self._read,
            16: self._write,
            17: lambda _node, _body: bytes(80),  # STATFS
            18: lambda _node, _body: b"",  # RELEASE
            20: self._flush,
            25: lambda _node, _body: b"",  # FLUSH: of a descriptor, not of the disk
            26: self._begin,
        }

    def _begin(self, _node: int, body: bytes) -> bytes:
        major, _minor, ahead, _flags = struct.unpack_from("<4I", body)
        return _INIT.pack(major, 31, ahead, _BIG_REQUESTS, 64, 48, MIB, 1, MIB // 4096, 0, 0, 0)

    def _attributes(self, node: int) -> bytes:
        size, mode = 0, stat.S_IFDIR | 0o755
        if node == _DISK:
            size, mode = os.fstat(self.image).st_size, stat.S_IFREG | 0o600
        times = (0,) * 6
        return _ATTRIBUTES.pack(node, size, size // 512, *times, mode, 1, 0, 0, 0, 4096, 0)

    def _lookup(self, _node: int, body: bytes) -> bytes:
        if body.rstrip(b"\0") != NAME:
            raise OSError(errno.ENOENT, "there is only one file")
        head = struct.pack("<4Q2I", _DISK, 0, _FOREVER, _FOREVER, 0, 0)
        return head + self._attributes(_DISK)

    def _attributes_of(self, node: int, _body: bytes) -> bytes:
        return struct.pack("<QII", _FOREVER, 0, 0) + self._attributes(node)

    def _open(self, _node: int, _body: bytes) -> bytes:
        return struct.pack("<QII", 0, _DIRECT_IO, 0)

    def _fail(self, what: str) -> None:
        if what in self.fails:
            raise OSError(errno.EIO, f"told to fail: {what}")

    def _read(self, _node: int, body: bytes) -> bytes:
        self._fail("read")
        _handle, offset, size, _flags = _FILE_IO.unpack_from(body)
        return os.pread(self.image, size, offset)

    def _write(self, _node: int, body: bytes) -> bytes:
        self._fail("write")
        _handle, offset, size, _flags = _FILE_IO.unpack_from(body)
        after = body[_FILE_IO.size : _FILE_IO.size + size]
        self.unflushed.append((offset, os.pread(self.image, size, offset), after))
        os.pwrite(self.image, after, offset)
        return struct.pack("<II", size, 0)

    def _flush(self, _node: int, _body: bytes) -> bytes:
        self._fail("flush")
        self.unflushed.clear()
        return b""

"""
The exact length of a send stream, from the metadata-only stream of the same pair.

A send with BTRFS_SEND_FLAG_NO_FILE_DATA differs from the real one in few things. Each run of WRITE
commands is one UPDATE_EXTENT(path, offset, size); the kernel cuts data into WRITE commands of
48 KiB in version 1 and 128 KiB in version 2 (max_send_read_size), so that is made up for to the
byte. In version 2 an extent that is compressed is sent as it is on disk, in one ENCODED_WRITE,
unless that is longer than what is needed of it (send_extent_data); how it is on disk is not in the
stream, and asked of those who can look.

And in version 1, after a file that has grown, a TRUNCATE is missing if its last bytes were written
before a hole in front of them, or one is too many if it ends in a hole and has room reserved after
that (send_hole in fs/btrfs/send.c notes where it stopped only if it sends data). Whether a file is
like that is not in the stream either: it is among the *doubts* or *surplus*. So are, in both,
changes of owner, after which a CHMOD may be put in (see `rewrite`).

Sizes are remembered between runs: a change to what comes out here needs another `_PREDICTION` in
`stores.btrfs.remembered`.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

from buttersink.errors import StreamError
from buttersink.stream import commands
from buttersink.stream.names import FOLLOWED, Names

_HEAD = commands.COMMAND_HEADER.size
_ATTRIBUTE = 4  # header of an attribute
_NUMBER = _ATTRIBUTE + 8  # a whole attribute that is a number
_KIND = _ATTRIBUTE + 4  # the same of 32 bits

# Bytes of file data in one WRITE, and of it without those and its path: header, path, offset, data,
# of which version 2 does not say how long they are.
_WRITES = {
    1: (48 * 1024, _HEAD + _ATTRIBUTE + _NUMBER + _ATTRIBUTE),
    2: (128 * 1024, _HEAD + _ATTRIBUTE + _NUMBER + 2),
}

# Of an ENCODED_WRITE: path, offset, three lengths, compression, data; encryption if not inline.
_ENCODED = _HEAD + _ATTRIBUTE + 4 * _NUMBER + _KIND + 2


class StoredExtent(NamedTuple):
    """A compressed extent: its size on disk in bytes, and whether they are in the metadata."""

    size: int
    inline: bool

    def command_length(self, path: bytes) -> int:
        """Return the bytes of the ENCODED_WRITE that sends it."""
        return _ENCODED + len(path) + (0 if self.inline else _KIND) + self.size


FindExtent = Callable[[int | bytes, int], StoredExtent | None]
"""
Tells how an extent is stored, None if it is not compressed: by its file, and where it begins there.

The file is an inode number of the snapshot, or a path in the parent.
"""


class Doubt(NamedTuple):
    """
    A TRUNCATE of `length` bytes that the real stream may have and the metadata-only one not.

    It is so if the snapshot's file ends at `end` and was smaller in the parent, where its path is
    `origin`. In a surplus it is the other way round, and that if room is reserved after the end,
    too.
    """

    path: bytes
    end: int
    origin: bytes

    @property
    def length(self) -> int:
        """Bytes of that command."""
        return commands.number_command_length(self.path)


class OwnerChange(NamedTuple):
    """A CHOWN of what is at `origin` in the parent: a CHMOD of `length` bytes may be put in."""

    path: bytes
    owner: int
    group: int
    origin: bytes

    @property
    def length(self) -> int:
        """Bytes of that command."""
        return commands.number_command_length(self.path)


class StreamSize:
    """
    Adds up the length of the real stream while a metadata-only one is fed.

    Args:
        limit: Bytes, of the real stream, after which nothing more is of interest.
        find_extent: For a stream of version 2, which without it is refused.

    Attributes:
        commands: How many commands have come,
        extents: and of those for a stretch of a file's data.
        doubts: Files that may make the real stream longer; complete after `result`.
        surplus: Commands that the real stream may lack.
        owner_changes: Every CHOWN in the stream of what is in the parent.
        clones: How many extents are cloned from each subvolume, its own among them, by UUID.

    """

    def __init__(self, limit: int | None = None, find_extent: FindExtent | None = None) -> None:
        self._limit = sys.maxsize if limit is None else limit  # with what is in the surplus
        self.doubts: list[Doubt] = []
        self.surplus: list[Doubt] = []
        self.owner_changes: list[OwnerChange] = []
        self.clones: Counter[bytes] = Counter()
        self.commands = self.extents = 0
        self._bytes = 0
        self._held = b""
        self._version = 0
        self._ended = False
        self._find_extent = find_extent
        self._names = Names()
        self._look_into: dict[int, Callable[[bytes], int]] = {
            commands.UPDATE_EXTENT: self._update_extent,
            commands.CLONE: self._clone,
            commands.TRUNCATE: self._truncate,
            commands.CHOWN: self._change_owner,
            commands.WRITE: self._write,
            commands.END: self._end,
            **{command: self._followed(command) for command in FOLLOWED},
        }
        self._path = b""  # of the file that the last extents were of
        self._file: int | bytes | None = None  # what it is, as `Names.find` says
        self._write_data, self._write_frame = _WRITES[1]
        self._top = self._last = 0  # how far they reach, and where the last one ends

    @property
    def so_far(self) -> int:
        """Bytes that the real stream has at least."""
        return self._bytes - sum(each.length for each in self.surplus)

    @property
    def over(self) -> bool:
        """Whether the stream has more bytes than the limit, so that the rest is left out."""
        return self._bytes > self._limit and not self._ended

    def feed(self, chunk: bytes | memoryview) -> None:
        """Take the next bytes; `StreamError` if they are no metadata-only stream."""
        data = self._held + bytes(chunk)
        position = 0
        if not self._version:
            if len(data) < commands.STREAM_HEADER.size:
                self._held = data
                return
            position = self._bytes = self._start(data)
        self._held = data[self._count(data, position) :]

    def _start(self, data: bytes) -> int:
        """Take the stream's header; return where it ends."""
        self._version = commands.check_stream_header(data)
        self._write_data, self._write_frame = _WRITES[self._version]
        if self._version > 1:
            if self._find_extent is None:
                raise StreamError("not a metadata-only send stream", why="it is not of version 1")
            del self._look_into[commands.TRUNCATE]  # it is in both
        return commands.STREAM_HEADER.size

    def _followed(self, command: int) -> Callable[[bytes], int]:
        def follow(body: bytes) -> int:
            self._names.follow(command, body)
            return 0

        return follow

    def _count(self, data: bytes, position: int) -> int:
        """Add up the whole commands from `position`; return where the first cut one is."""
        unpack, last = commands.COMMAND_HEADER.unpack_from, len(data)
        look_into, total, count = self._look_into, 0, 0
        most = self._limit - self._bytes
        while position + _HEAD <= last and total <= most and not self._ended:
            length, command, _crc = unpack(data, position)
            after = position + _HEAD + length
            if after > last:
                break
            total += _HEAD + length
            count += 1
            if command in look_into:
                total += look_into[command](data[position + _HEAD : after])
                most = self._limit - self._bytes
            position = after
        self._bytes += total
        self.commands += count
        if self._ended and position < last:
            raise StreamError("damaged send stream", why="bytes after its end")
        return position

    def _update_extent(self, body: bytes) -> int:
        """Take PATH, FILE_OFFSET, SIZE; return by how much the commands with data are longer."""
        path = body[_ATTRIBUTE : -2 * _NUMBER]
        offset = int.from_bytes(body[-_NUMBER - 8 : -_NUMBER], "little")
        size = int.from_bytes(body[-8:], "little")
        self.extents += 1
        self._extent(path, offset + size)
        stored = self._stored(offset)
        if stored is not None and stored.size <= size:
            return stored.command_length(path) - _HEAD - len(body)
        writes = -(-size // self._write_data)
        return size + writes * (self._write_frame + len(path)) - _HEAD - len(body)

    def _stored(self, offset: int) -> StoredExtent | None:
        if self._find_extent is None or self._file is None or self._version == 1:
            return None
        return self._find_extent(self._file, offset)

    def _clone(self, body: bytes) -> int:
        """Take FILE_OFFSET, CLONE_LEN, PATH and CLONE_UUID: where an extent ends, whose it is."""
        offset = int.from_bytes(body[_ATTRIBUTE:_NUMBER], "little")
        size = int.from_bytes(body[_NUMBER + _ATTRIBUTE : 2 * _NUMBER], "little")
        start = 2 * _NUMBER + _ATTRIBUTE
        length = int.from_bytes(body[start - 2 : start], "little")
        uuid = start + length + _ATTRIBUTE
        self.extents += 1
        self._extent(body[start : start + length], offset + size)
        self.clones[body[uuid : uuid + 16]] += 1
        return 0

    def _truncate(self, body: bytes) -> int:
        """Take PATH, SIZE: the file that the last extents were of needs no other."""
        path, size = body[_ATTRIBUTE:-_NUMBER], int.from_bytes(body[-8:], "little")
        if path == self._path:
            if size == self._last and isinstance(self._file, bytes):
                self.surplus.append(Doubt(path, size, self._file))
                self._limit += self.surplus[-1].length
            self._last = self._top
        return 0

    def _change_owner(self, body: bytes) -> int:
        """Take PATH, UID, GID."""
        owner = int.from_bytes(body[-_NUMBER - 8 : -_NUMBER], "little")
        group = int.from_bytes(body[-8:], "little")
        path = body[_ATTRIBUTE : -2 * _NUMBER]
        file = self._names.find(path)
        if isinstance(file, bytes):
            self.owner_changes.append(OwnerChange(path, owner, group, file))
        return 0

    def _write(self, _body: bytes) -> int:
        raise StreamError("not a metadata-only send stream", why="it holds data")

    def _end(self, _body: bytes) -> int:
        self._ended = True
        return 0

    def _extent(self, path: bytes, end: int) -> None:
        if path != self._path:
            self._leave_file()
            self._path, self._file, self._top = path, self._names.find(path), 0
        self._last = end
        self._top = max(self._top, end)

    def _leave_file(self) -> None:
        if self._last < self._top and isinstance(self._file, bytes):
            self.doubts.append(Doubt(self._path, self._top, self._file))

    def result(self) -> int:
        """
        Return the length of the real stream in bytes, doubts left out.

        `StreamError` if the end of the stream is missing.
        """
        if not self._ended or self._held:
            raise StreamError("cut send stream", why="no end command")
        self._extent(b"", 0)
        return self._bytes

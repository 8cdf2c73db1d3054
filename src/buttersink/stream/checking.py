"""
Check a send stream as it passes: every command's CRC32C, that it is whole, and what it makes.

Strategy: whole commands inside a chunk are checked in one tight loop. Of one that the end of a
chunk cuts, the CRC is carried on, so that nothing is held but a cut header and the few commands
that are looked into. What comes out, errors included, does not depend on where the chunks are cut.

Measured by `bench.checking`, in chunks of 1 MiB that are in memory: 13 GB/s of writes of 48 KiB,
107 MB/s of commands of 50 bytes, which is a stream of metadata alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NoReturn

import google_crc32c

from buttersink.catalogue import Uuid
from buttersink.errors import StreamError
from buttersink.stream import commands

_HEAD = commands.COMMAND_HEADER.size
_SEED = 0xFFFFFFFF  # undoes that the library inverts before and after; see `commands.command_crc`
_BEGINS = (commands.SUBVOL, commands.SNAPSHOT)
_NEEDED = {  # attributes that a command has to have, and their bytes
    commands.SUBVOL: {commands.UUID: 16, commands.CTRANSID: 8},
    commands.SNAPSHOT: {commands.UUID: 16, commands.CTRANSID: 8, commands.CLONE_UUID: 16},
    commands.CLONE: {commands.CLONE_UUID: 16},
}
_OPENED = frozenset((*_NEEDED, commands.END))


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """
    What a whole and sound stream says of itself.

    Attributes:
        version: Of the format.
        uuid: The snapshot it makes.
        generation: The transaction id beside that.
        parent: The snapshot it starts from; None for a full send.
        clone_sources: The snapshots that data are cloned from, `uuid` and `parent` maybe among
            them.
        commands: How many there are, the end included.
        bytes: Length of the stream.

    """

    version: int
    uuid: Uuid
    generation: int
    parent: Uuid | None
    clone_sources: frozenset[Uuid]
    commands: int
    bytes: int


class StreamCheck:
    """
    Takes a stream of version 1 or 2 in chunks of any size; `StreamError` names the byte.

    After an error it is of no more use.
    """

    def __init__(self) -> None:
        self._fed = 0
        self._held = b""  # of a header that the end of a chunk has cut
        self._left = 0  # bytes of the current command's body that are still to come
        self._body = bytearray()  # what there is of it, if it is looked into
        self._crc = self._stored = 0  # so far, and as its header says
        self._command = 0
        self._at = 0  # the byte at which it begins
        self._next = 0  # the byte at which the next one does
        self._version = 0
        self._longest = 0
        self._commands = 0
        self._first: dict[int, bytes] = {}
        self._clone_sources: set[Uuid] = set()
        self._ended = False

    def feed(self, chunk: bytes | memoryview) -> None:
        """Take the next bytes, which are not kept; `StreamError` if they cannot be right."""
        data = memoryview(chunk)
        self._fed += len(data)
        position = 0
        while position < len(data):
            if self._version and not self._held and not self._left:
                position = self._check_whole(data, position)
            if self._left:
                part = bytes(data[position : position + self._left])
                self._go_on(part)
            else:
                size = _HEAD if self._version else commands.STREAM_HEADER.size
                part = bytes(data[position : position + size - len(self._held)])
                self._take_header(self._held + part, size)
            position += len(part)

    def finish(self) -> StreamFacts:
        """Return what the stream was; `StreamError` with the count if it was cut."""
        if not self._ended:
            inside = f", in the command that begins at byte {self._at:,}" if self._left else ""
            raise StreamError(
                "cut send stream", why=f"it stops at byte {self._fed:,} without its end{inside}"
            )
        parent = self._first.get(commands.CLONE_UUID)
        return StreamFacts(
            version=self._version,
            uuid=Uuid(self._first[commands.UUID]),
            generation=int.from_bytes(self._first[commands.CTRANSID], "little"),
            parent=None if parent is None else Uuid(parent),
            clone_sources=frozenset(self._clone_sources),
            commands=self._commands,
            bytes=self._fed,
        )

    def _check_whole(self, data: memoryview, position: int) -> int:
        """Check commands from `position` on; return where the first is that `data` cuts."""
        unpack, pack = commands.COMMAND_HEADER.unpack_from, commands.COMMAND_HEADER.pack
        extend, longest, last = google_crc32c.extend, self._longest, len(data)
        count, start = 0, self._next - position
        while position + _HEAD <= last and not self._ended:
            length, command, stored = unpack(data, position)
            after = position + _HEAD + length
            if length > longest or command in _OPENED or not command:
                self._bound(command, length, start + position)
            if after > last:
                break
            body = bytes(data[position + _HEAD : after])
            crc = extend(extend(_SEED, pack(length, command, 0)), body) ^ _SEED
            if crc != stored:
                _wrong_checksum(command, start + position)
            if command in _OPENED or not self._first:
                self._look_into(command, body, start + position)
            count += 1
            position = after
        self._next = start + position
        self._commands += count
        return position

    def _take_header(self, held: bytes, size: int) -> None:
        """Take a header once it is whole: that of the stream, or a command's."""
        if self._ended and held:
            _damaged("bytes after its end", self._next)
        self._held = held
        if len(held) < size:
            return
        self._held = b""
        if not self._version:
            self._version = _version_of(held)
            self._longest = commands.LONGEST_COMMANDS[self._version]
            self._next = size
            return
        length, command, self._stored = commands.COMMAND_HEADER.unpack(held)
        self._bound(command, length, self._next)
        self._at, self._command, self._left = self._next, command, length
        self._next += _HEAD + length
        header = commands.COMMAND_HEADER.pack(length, command, 0)
        self._crc = google_crc32c.extend(_SEED, header)
        self._body.clear()
        if not length:
            self._complete()

    def _go_on(self, part: bytes) -> None:
        """Take more of a body."""
        self._crc = google_crc32c.extend(self._crc, part)
        if self._command in _OPENED:
            self._body += part
        self._left -= len(part)
        if not self._left:
            self._complete()

    def _complete(self) -> None:
        if self._crc ^ _SEED != self._stored:
            _wrong_checksum(self._command, self._at)
        if self._command in _OPENED or not self._first:
            self._look_into(self._command, bytes(self._body), self._at)
        self._commands += 1

    def _bound(self, command: int, length: int, at: int) -> None:
        """Refuse a length that no sender gives, and number 0, with which zeros were a command."""
        if not command:
            _damaged("command 0, which does not exist", at)
        longest = commands.MAX_OPENED_COMMAND if command in _OPENED else self._longest
        if length > longest:
            _damaged(f"command {command} claims {length:,} bytes", at)

    def _look_into(self, command: int, body: bytes, at: int) -> None:
        """Learn what a sound command tells of the stream; `body` is empty if nothing is asked."""
        if bool(self._first) == (command in _BEGINS):
            why = "another subvolume" if self._first else "it does not begin with a subvolume"
            _damaged(why, at)
        if command == commands.END:
            self._ended = True
            return
        try:
            found = dict(commands.split_attributes(command, body))
        except StreamError as error:
            _damaged(error.why, at)
        for kind, size in _NEEDED[command].items():
            if len(found.get(kind, b"")) != size:
                _damaged(f"command {command} without attribute {kind} of {size} bytes", at)
        if command == commands.CLONE:
            self._clone_sources.add(Uuid(found[commands.CLONE_UUID]))
        else:
            self._first = {kind: found[kind] for kind in _NEEDED[command]}


def _version_of(header: bytes) -> int:
    try:
        return commands.check_stream_header(header)
    except StreamError as error:
        raise StreamError(error.what, why=f"{error.why} at byte 0", hint=error.hint) from error


def _wrong_checksum(command: int, at: int) -> NoReturn:
    _damaged(f"wrong checksum in command {command}", at)


def _damaged(why: str, at: int) -> NoReturn:
    raise StreamError("damaged send stream", why=f"{why}, at byte {at:,}")

"""
The frames that two ButterSinks talk in: bytes to frames and back. No I/O here.

Each direction begins with a magic line, so that whatever a shell prints before it is told from the
program. After that come frames: a header of kind, length and CRC32C, and a payload, which is JSON
or, in DATA, bytes of a send stream. docs/PROTOCOL.md says what follows what.

Strategy of the decoder: it says how many bytes it has room for, which is never more than the frame
that it is in and the next one's header; whoever does the I/O reads just there. So nothing is copied
and nothing piles up, whatever the other side sends, and a length is checked before it is used.
"""

from __future__ import annotations

import json
import struct
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import google_crc32c

from buttersink.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAGIC = b"buttersink-protocol\n"
MAX_PAYLOAD = 1024 * 1024
HEADER = struct.Struct("<BII")  # kind, length of the payload, CRC32C of kind and payload
_SLICE = 128 * 1024  # bytes whose checksum is made at a time, so that their copy stays in the cache


class Kind(IntEnum):
    """What a frame is."""

    HELLO = 1
    REQUEST = 2
    ITEM = 3
    DATA = 4
    END = 5
    ERROR = 6
    NOTE = 7
    ALIVE = 8
    CANCEL = 9


_KINDS = frozenset(Kind)


class Frame(NamedTuple):
    """One frame; the payload of a decoder's is valid until there is room for the next one."""

    kind: Kind
    payload: memoryview


class Versions(NamedTuple):
    """The versions of the protocol that a side speaks, first and last."""

    least: int
    most: int


SPOKEN = Versions(1, 1)


class ForeignBytesError(ProtocolError):
    """
    What came does not begin with the magic line.

    Attributes:
        seen: The first bytes that came.

    """

    def __init__(self, seen: bytes) -> None:
        super().__init__("something else than buttersink answers")
        self.seen = seen


def header(kind: Kind, payload: memoryview) -> bytes:
    """Return what goes before a payload; `ProtocolError` if that is too long for a frame."""
    if len(payload) > MAX_PAYLOAD:
        raise ProtocolError("too much for one message", why=f"it has {len(payload):,} bytes")
    return HEADER.pack(kind, len(payload), _checksum(kind, payload))


def encode(kind: Kind, payload: bytes = b"") -> bytes:
    """Return a whole frame."""
    return header(kind, memoryview(payload)) + payload


def json_bytes(document: Mapping[str, object]) -> bytes:
    """Return a document as it travels."""
    return json.dumps(document, separators=(",", ":")).encode("ascii")


def parse_json(payload: memoryview) -> dict[str, Any]:
    """Return the document of a frame; `ProtocolError` if it is no JSON object."""
    try:
        document = json.loads(bytes(payload))
    except (ValueError, RecursionError) as error:
        raise ProtocolError("damaged message", why="it is no JSON") from error
    if not isinstance(document, dict):
        raise ProtocolError("damaged message", why="it is no JSON object")
    return document


def _checksum(kind: int, payload: memoryview) -> int:
    checksum = google_crc32c.extend(0, bytes((kind,)))
    for start in range(0, len(payload), _SLICE):
        checksum = google_crc32c.extend(checksum, bytes(payload[start : start + _SLICE]))
    return int(checksum)


class Decoder:
    """
    Bytes to frames: fill `room`, say with `received` how far, and take each `frame` there is.

    Whatever the bytes are, only `ProtocolError` comes out, and no more is held than one frame and
    the header of the next.
    """

    def __init__(self) -> None:
        self._view = memoryview(bytearray(len(MAGIC) + 2 * HEADER.size + MAX_PAYLOAD))
        self._begin = self._end = 0  # what of the buffer is held
        self._started = False

    @property
    def held(self) -> int:
        """How many bytes of a frame, or of the magic line, are held that is not whole yet."""
        return self._end - self._begin

    def room(self) -> memoryview:
        """Return where the next bytes go; the payloads given so far are no longer valid."""
        if self._begin:
            held = bytes(self._view[self._begin : self._end])  # a header at most
            self._view[: len(held)] = held
            self._begin, self._end = 0, len(held)
        return self._view[self._end : self._wanted()]

    def _wanted(self) -> int:
        if not self._started:
            return len(MAGIC) + HEADER.size
        if self._end < HEADER.size:
            return HEADER.size
        return HEADER.size + self._head()[1] + HEADER.size

    def received(self, count: int) -> None:
        """Take note that so many bytes are in what `room` returned."""
        self._end += count
        if not self._started:
            seen = bytes(self._view[: self._end])
            if not MAGIC.startswith(seen[: len(MAGIC)]):
                raise ForeignBytesError(seen)
            if len(seen) < len(MAGIC):
                return
            self._started, self._begin = True, len(MAGIC)
        if self.held >= HEADER.size:
            self._head()

    def _head(self) -> tuple[int, int, int]:
        kind, length, checksum = HEADER.unpack_from(self._view, self._begin)
        if kind not in _KINDS:
            raise ProtocolError("damaged message", why=f"there is no kind {kind}")
        if length > MAX_PAYLOAD:
            raise ProtocolError("damaged message", why=f"it claims to have {length:,} bytes")
        return kind, length, checksum

    def frame(self) -> Frame | None:
        """Return the next frame that is whole, None if there is none yet."""
        if not self._started or self.held < HEADER.size:
            return None
        kind, length, checksum = self._head()
        begin = self._begin + HEADER.size
        if begin + length > self._end:
            return None
        payload = self._view[begin : begin + length]
        if _checksum(kind, payload) != checksum:
            raise ProtocolError("damaged message", why="its checksum is wrong")
        self._begin = begin + length
        return Frame(Kind(kind), payload)

    def feed(self, chunk: bytes) -> Iterator[Frame]:
        """Take any bytes and yield the frames that they complete, each valid until the next."""
        rest = memoryview(chunk)
        while rest:
            room = self.room()
            count = min(len(room), len(rest))
            room[:count] = rest[:count]
            rest = rest[count:]
            self.received(count)
            while frame := self.frame():
                yield frame


def agree(mine: Versions, theirs: Versions, there: str) -> int:
    """
    Return the version to speak; `ProtocolError` that says which side to upgrade if there is none.

    `there` is how a person calls the other side.
    """
    version = min(mine.most, theirs.most)
    if version >= max(mine.least, theirs.least):
        return version
    older = "there" if theirs.most < mine.least else "here"
    raise ProtocolError(
        "the versions of buttersink are too far apart",
        where=there,
        why=f"it speaks protocol {_span(theirs)}, this side {_span(mine)}",
        hint=f"Upgrade buttersink {older}.",
    )


def _span(versions: Versions) -> str:
    least, most = versions
    return str(least) if least == most else f"{least} to {most}"

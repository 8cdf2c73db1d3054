"""
Cut a send stream into segments as it passes, and know it again when it comes a second time.

`btrfs receive` takes nothing but whole streams. So a long one is handed to it in segments, each a
whole stream: all but the first begin with `opening`, all but the last end with `ENDING`, and each
makes a snapshot of what the one before it made. Strategy: walk from command header to command
header by their lengths, and hand everything on as slices of what came in. Held until the next chunk
are a header that the end of a chunk has cut, or a command that sets an attribute.

A segment ends after a command that leaves nothing open. That is UTIMES, which the kernel sends last
of all for a file or directory, so that owner, permissions and attributes are not torn apart; and
that are data, so that one big file is no obstacle, unless a file capability was set before them:
`btrfs receive` keeps that in mind, to set it again after a CHOWN that follows the data.

A stream is known by the SHA-256 of its header and those of all its commands, each of which has the
CRC32C of its command. A digest of all its bytes would say little more and take a second for each
GB; their CRC32C, which takes 50 ms, is for sources that keep that and do not make the stream anew.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import google_crc32c

from buttersink.errors import ResumeError
from buttersink.stream import commands

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_HEAD = commands.COMMAND_HEADER.size
_CLOSING = frozenset((commands.UTIMES, commands.WRITE, commands.CLONE, commands.ENCODED_WRITE))
_SMALL_PART = 16  # of the least: not worth another segment, which takes 0.1 s
_CAPABILITY = b"security.capability"

ENDING = commands.build_command(commands.END, [])
"""What the end of a segment needs, unless it is the end of the stream."""


class Stretch(NamedTuple):
    """How many bytes of a stream passed in one run, and the SHA-256 of the headers in them."""

    length: int
    sha256: bytes


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """
    The beginning of a stream that a receiver holds.

    Attributes:
        version: Of the stream.
        stretches: That it came in; a digest cannot be gone on with in another run.
        crc32c: Of all its bytes; None if nobody asked for it.

    """

    version: int
    stretches: tuple[Stretch, ...]
    crc32c: int | None

    @property
    def bytes(self) -> int:
        """How many bytes of the stream that are."""
        return sum(stretch.length for stretch in self.stretches)


class Segments:
    """
    Follow a stream of version 1 or 2, and say where to cut it.

    Args:
        least: As the attribute.
        checkpoint: What is held already: the stream is followed from there on, and the CRC32C of
            its bytes kept if that has one.
        size: Bytes of the whole stream, if known: none ends where only a small part of the least is
            left, which is not worth another one.
        checksum: Whether to keep it if there is no checkpoint.

    Attributes:
        least: Bytes that every segment has at least, but for the last one; None does not cut. May
            be changed at any time, and goes for the segment that is under way, too.

    """

    def __init__(
        self,
        least: int | None = None,
        checkpoint: Checkpoint | None = None,
        *,
        size: int | None = None,
        checksum: bool = False,
    ) -> None:
        self.least = least
        self._before = checkpoint.stretches if checkpoint else ()
        self._version = checkpoint.version if checkpoint else 0
        self._crc32c = checkpoint.crc32c if checkpoint else 0 if checksum else None
        self._sha256 = hashlib.sha256()
        held = checkpoint.bytes if checkpoint else 0
        self._to_come = None if size is None else size - held
        self._bytes = 0  # handed on so far
        self._cut_at = 0  # of those, where the segment before this one ended
        self._held = b""
        self._skip = 0  # bytes of the current command that only have to pass
        self._keep_together = False  # a capability was set, and the file is not done
        self._may_cut = False

    def feed(self, chunk: memoryview) -> Iterator[memoryview | None]:
        """
        Take the next bytes; yield what to hand on, in order, and None where a segment ends.

        The views may point into `chunk`. At a None, `checkpoint` is of all that came before it.
        `StreamError` if this is no send stream.
        """
        data = memoryview(self._held + chunk) if self._held else chunk
        self._held = b""
        passed, position, last = 0, self._skip, len(data)
        if not self._version:
            position = self._start(data)
        unpack, update = commands.COMMAND_HEADER.unpack_from, self._sha256.update
        may_cut, started = self._may_cut, bool(self._version)
        while started and position + _HEAD <= last:
            length, command, _crc = unpack(data, position)
            if may_cut and self._is_full(position - passed) and command != commands.END:
                yield from self._hand_on(data[passed:position])
                passed, self._cut_at = position, self._bytes
                yield None
            after = position + _HEAD + length
            if command == commands.SET_XATTR and length <= commands.MAX_OPENED_COMMAND:
                if after > last:
                    break
                if _CAPABILITY in bytes(data[position:after]):
                    self._keep_together = True
            elif command == commands.UTIMES:
                self._keep_together = False
            may_cut = command in _CLOSING and not self._keep_together
            update(data[position : position + _HEAD])
            position = after
        self._may_cut = may_cut
        yield from self._hand_on(data[passed : min(position, last)])
        self._held = bytes(data[position:])
        self._skip = max(0, position - last)

    def _start(self, data: memoryview) -> int:
        """Take the stream's header once it is there; return where it ends, or 0."""
        end = commands.STREAM_HEADER.size
        if len(data) < end:
            return 0
        self._version = commands.check_stream_header(bytes(data[:end]))
        self._sha256.update(data[:end])
        return end

    def _is_full(self, more: int) -> bool:
        here = self._bytes + more
        if self.least is None or here - self._cut_at < self.least:
            return False
        left = None if self._to_come is None else self._to_come - here
        return left is None or not 0 <= left < self.least // _SMALL_PART

    def _hand_on(self, data: memoryview) -> Iterator[memoryview]:
        if data:
            self._bytes += len(data)
            if self._crc32c is not None:
                self._crc32c = google_crc32c.extend(self._crc32c, bytes(data))
            yield data

    def checkpoint(self) -> Checkpoint:
        """Return what was handed on so far, which has to end with a command to be of use."""
        stretch = Stretch(self._bytes, self._sha256.digest())
        return Checkpoint(self._version, (*self._before, stretch), self._crc32c)


def opening(version: int) -> bytes:
    """Return how a segment begins that is not the first; an `Identity` gives it all its values."""
    blank = bytes(16)
    attributes = [
        (commands.PATH, b""),
        (commands.UUID, blank),
        (commands.CTRANSID, commands.number(0)),
        (commands.CLONE_UUID, blank),
        (commands.CLONE_CTRANSID, commands.number(0)),
    ]
    header = commands.STREAM_HEADER.pack(commands.MAGIC, version)
    return header + commands.build_command(commands.SNAPSHOT, attributes)


def rest_of(chunks: Iterable[memoryview], checkpoint: Checkpoint) -> Iterator[memoryview]:
    """
    Yield what a whole stream has after a checkpoint.

    `ResumeError` before the first byte if what it has up to there is not what the checkpoint holds.
    """
    waiting = list(reversed(checkpoint.stretches))
    left = waiting[-1].length
    following = Segments(checksum=checkpoint.crc32c is not None)
    for chunk in chunks:
        rest = chunk
        while waiting and rest:
            for _piece in following.feed(rest[:left]):
                pass
            rest, left = rest[left:], left - len(rest[:left])
            if not left:
                waiting.pop()
                left = waiting[-1].length if waiting else 0
                _compare(following.checkpoint(), checkpoint)
                following = Segments(checkpoint=following.checkpoint())
        if rest:
            yield rest
    if waiting:
        raise another_stream()


def _compare(found: Checkpoint, expected: Checkpoint) -> None:
    whole = len(found.stretches) == len(expected.stretches)
    if found.stretches != expected.stretches[: len(found.stretches)] or (
        whole and found != expected
    ):
        raise another_stream()


def another_stream() -> ResumeError:
    """Return the error that a source does not send what an earlier run began with."""
    return ResumeError(
        "cannot be gone on with", why="the source now sends another stream for the same difference"
    )

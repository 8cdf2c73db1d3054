"""
Refuse a send stream that would have `btrfs receive` reach outside of the snapshot it makes.

The receiver runs as root and believes its stream, which may come from a host or bucket that cannot
be trusted: it follows `..` in paths, clones from any snapshot of the file system, begins another
subvolume in the middle. The kernel's send does nothing of the kind: such a stream is no accident.
Symbolic links and devices are no way out either, as the receiver's mount follows and opens none.

Strategy: walk from header to header. Of a command with file data the attributes before these are
looked at; any other is searched for `..`, and only where that is found taken apart. Nothing is
handed on, so what is refused may not be written afterwards.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from buttersink.errors import StreamError, printable
from buttersink.stream import commands

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

_HEAD = commands.COMMAND_HEADER.size
_DATA = frozenset((commands.WRITE, commands.ENCODED_WRITE))
_BEFORE_DATA = 4096 + 128  # bytes: a path (limits.h, PATH_MAX) and some numbers
_BEGINS = frozenset((commands.SUBVOL, commands.SNAPSHOT))
_OPENED = _BEGINS | {commands.CLONE}
_PATHS = frozenset((commands.PATH, commands.PATH_TO, commands.CLONE_PATH))


class Guard:
    """
    Follow one stream of version 1 or 2.

    Args:
        parent: UUID that it may begin with making a snapshot of; None if it has to be a full one.
        sources: UUIDs of the snapshots it may clone from.
        receives: The highest version that the receiver takes well.

    """

    def __init__(
        self, parent: bytes | None, sources: AbstractSet[bytes], receives: int = 2
    ) -> None:
        self._parent, self._sources, self._receives = parent, sources, receives
        self._version = 0
        self._begun = False
        self._held = b""
        self._skip = 0  # bytes of the current command that only have to pass

    def check(self, chunk: bytes | memoryview) -> None:
        """Look at the next bytes; `StreamError` if the stream is not to be received."""
        data = memoryview(self._held + chunk) if self._held else memoryview(chunk)
        self._held = b""
        position, last = self._skip, len(data)
        if not self._version:
            if last < commands.STREAM_HEADER.size:
                self._held = bytes(data)
                return
            self._version = commands.check_stream_header(bytes(data[: commands.STREAM_HEADER.size]))
            if self._version > self._receives:
                _too_new(self._version)
            position = commands.STREAM_HEADER.size
        unpack, longest = commands.COMMAND_HEADER.unpack_from, commands.LONGEST_COMMANDS
        while position + _HEAD <= last:
            length, command, _crc = unpack(data, position)
            if length > longest[self._version]:
                _refuse(f"command {command} claims {length:,} bytes")
            body, after = position + _HEAD, position + _HEAD + length
            known = min(after, body + _BEFORE_DATA) if command in _DATA else after
            if known > last:
                break
            if command in _DATA:
                self._check_data(command, data[body:known], length)
            elif command in _OPENED or b".." in bytes(data[body:known]):
                self._check(command, bytes(data[body:known]))
            position = after
        self._held = bytes(data[position:])
        self._skip = max(0, position - last)

    def _check_data(self, command: int, head: memoryview, length: int) -> None:
        """Check a command of which `head` is what comes before the data, and maybe some of them."""
        unpack, last = commands.ATTRIBUTE_HEADER.unpack_from, len(head)
        position, path = 0, None
        while position + 2 <= last:
            start = position + commands.ATTRIBUTE_HEADER.size
            kind, size = unpack(head if start <= last else bytes(head) + b"\0\0", position)
            if kind == commands.DATA:
                # In version 2 they go to the end, without a length.
                if path is not None and (self._version > 1 or start + size == length):
                    _check_path(path)
                    return
                break
            if kind == commands.PATH:
                path = bytes(head[start : start + size])
            position = start + size
        _refuse(f"command {command} is not as the kernel writes it")

    def _check(self, command: int, body: bytes) -> None:
        attributes = commands.split_attributes(command, body)
        if command in _BEGINS:
            self._check_begin(command, attributes)
        for kind, data in attributes:
            target = kind == commands.PATH_LINK and command == commands.LINK
            if kind in _PATHS or target:  # what a symbolic link says is not one
                _check_path(data)
            source = kind == commands.CLONE_UUID and command == commands.CLONE
            if source and data not in self._sources:
                _refuse("it clones from a snapshot that is not among its sources")

    def _check_begin(self, command: int, attributes: list[tuple[int, bytes]]) -> None:
        if self._begun:
            _refuse("it begins another subvolume")
        self._begun = True
        parents = [data for kind, data in attributes if kind == commands.CLONE_UUID]
        if (command == commands.SNAPSHOT) != (self._parent is not None) or any(
            parent != self._parent for parent in parents
        ):
            _refuse("it does not start from what was agreed on")


def _check_path(path: bytes) -> None:
    if (b".." in path and b".." in path.split(b"/")) or b"\0" in path:
        _refuse(f"it names the path {printable(path)}")


def _too_new(version: int) -> NoReturn:
    raise StreamError(
        "the send stream cannot be received",
        why=f"it is of version {version}, which btrfs-progs take well from 6.0.2 on",
        hint="Upgrade btrfs-progs where it is received.",
    )


def _refuse(why: str) -> NoReturn:
    raise StreamError(
        "the send stream is refused",
        why=why,
        hint="The kernel sends nothing like it: find out what has changed it.",
    )

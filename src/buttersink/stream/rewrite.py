"""
Give a send stream another identity while it passes, and check that it is whole.

Strategy: walk from command header to command header by their lengths and hand every chunk on
untouched, as slices of what came in. Only the first command (SUBVOL or SNAPSHOT: name, UUIDs) and
those CLONE commands whose source is to be named differently are taken apart and built anew; and
after a CHOWN a CHMOD can be put in. A command or header cut by the end of a chunk is held until the
next one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from buttersink.errors import StreamError
from buttersink.stream import commands
from buttersink.stream.names import FOLLOWED, Names

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from buttersink.catalogue import Uuid

    RestoreMode = Callable[[bytes, int, int], int | None]

_HEAD = commands.COMMAND_HEADER.size


@dataclass(frozen=True, slots=True)
class Identity:
    """
    What the first command of a stream shall say; None leaves what it says.

    Attributes:
        uuid: UUID under which the result is to be known (its received UUID).
        generation: The transaction id beside it.
        name: Name of the subvolume that the receiver makes.
        parent: UUID by which the receiver shall find the parent.
        parent_generation: The transaction id beside that; receivers ignore it.
        clones: What to call each clone source; those not in here keep their name.

    """

    uuid: Uuid | None = None
    generation: int | None = None
    name: bytes | None = None
    parent: Uuid | None = None
    parent_generation: int | None = None
    clones: Mapping[bytes, bytes] = field(default_factory=lambda: MappingProxyType({}))

    def first_command(self) -> dict[int, bytes]:
        """Return the attributes of SUBVOL or SNAPSHOT that change, by attribute number."""
        fields = {
            commands.UUID: self.uuid,
            commands.CTRANSID: _optional(self.generation),
            commands.PATH: self.name,
            commands.CLONE_UUID: self.parent,
            commands.CLONE_CTRANSID: _optional(self.parent_generation),
        }
        return {kind: value for kind, value in fields.items() if value is not None}


def _optional(value: int | None) -> bytes | None:
    return None if value is None else commands.number(value)


class Rewriter:
    """
    Pass a stream of version 1 or 2 through, chunk by chunk.

    Args:
        identity: What the first command and clone sources shall say.
        restore_mode: Is told of every CHOWN of what is in the parent: path there, owner and group.
            Returns the permissions to set after it, or None. Changing the owner takes setuid and
            setgid from a file, and the kernel's send does not set them again where the permissions
            have not changed.

    Attributes:
        consumed: Bytes of the stream taken in so far; to be set if they are not from its start.

    """

    def __init__(self, identity: Identity, restore_mode: RestoreMode | None = None) -> None:
        self._identity = identity
        self._restore_mode = restore_mode
        self._opened: dict[int, Callable[[bytes], bytes]] = {}
        if identity.clones:
            self._opened[commands.CLONE] = self._rename_clone_source
        self._names, self._followed = Names(), frozenset[int]()
        if restore_mode:
            self._opened[commands.CHOWN] = self._keep_mode
            self._followed = FOLLOWED
        self._held = b""
        self._skip = 0  # bytes of the current command that only have to pass
        self._started = False
        self._ended = False
        self.consumed = 0

    def feed(self, chunk: memoryview) -> list[bytes | memoryview]:
        """
        Take the next bytes; return what to hand on, in order.

        The views returned point into `chunk`. `StreamError` if this is no well-formed stream.
        """
        self.consumed += len(chunk)
        data = memoryview(self._held + chunk) if self._held else chunk
        self._held = b""
        out: list[bytes | memoryview] = []
        position = passed = 0
        if self._started:
            position = self._skip
        else:
            position = passed = self._start(data, out)
        if self._started:
            position = self._walk(data, position, passed, out)
        if position < len(data):
            self._held = bytes(data[position:])
        self._skip = max(0, position - len(data))
        return out

    def _start(self, data: memoryview, out: list[bytes | memoryview]) -> int:
        """Take stream header and first command once both are there; return where they end, or 0."""
        begin = commands.STREAM_HEADER.size
        if len(data) < begin + _HEAD:
            return 0
        commands.check_stream_header(bytes(data[:begin]))
        length, command, _crc = commands.COMMAND_HEADER.unpack_from(data, begin)
        if command not in (commands.SUBVOL, commands.SNAPSHOT):
            raise StreamError("damaged send stream", why="it does not begin with a subvolume")
        end = begin + _HEAD + _limited(command, length)
        if len(data) < end:
            return 0
        new = self._identity.first_command()
        attributes = commands.parse_attributes(bytes(data[begin:end]))
        out.append(data[:begin])
        out.append(commands.build_command(command, [(k, new.get(k, v)) for k, v in attributes]))
        self._started = True
        if command in self._followed:
            self._names.follow(command, bytes(data[begin + _HEAD : end]))
        return end

    def _walk(
        self, data: memoryview, position: int, passed: int, out: list[bytes | memoryview]
    ) -> int:
        """
        Go over the commands that begin in `data`, from `position`; `passed` is what is in `out`.

        Returns where the next command begins: past the end if the last one goes on in the next
        chunk, at its header if that or the command itself has to be held until then.
        """
        unpack, last = commands.COMMAND_HEADER.unpack_from, len(data)
        while position + _HEAD <= last and not self._ended:
            length, command, _crc = unpack(data, position)
            after = position + _HEAD + length
            if command in self._opened:
                _limited(command, length)
                if after > last:
                    break
                out.append(data[passed:position])
                out.append(self._opened[command](bytes(data[position:after])))
                passed = after
            elif command in self._followed:
                _limited(command, length)
                if after > last:
                    break
                self._names.follow(command, bytes(data[position + _HEAD : after]))
            self._ended = command == commands.END
            position = after
        if self._ended and position < last:
            raise StreamError("damaged send stream", why="bytes after its end")
        if passed < min(position, last):
            out.append(data[passed : min(position, last)])
        return position

    def _rename_clone_source(self, raw: bytes) -> bytes:
        attributes, clones = commands.parse_attributes(raw), self._identity.clones
        return commands.build_command(
            commands.CLONE,
            [
                (kind, clones.get(data, data) if kind == commands.CLONE_UUID else data)
                for kind, data in attributes
            ],
        )

    def _keep_mode(self, raw: bytes) -> bytes:
        known = dict(commands.parse_attributes(raw))
        path = known.get(commands.PATH, b"")
        owner, group = (
            int.from_bytes(known.get(kind, b""), "little") for kind in (commands.UID, commands.GID)
        )
        file = self._names.find(path)
        if self._restore_mode is None or not isinstance(file, bytes):
            return raw
        mode = self._restore_mode(file, owner, group)
        if mode is None:
            return raw
        attributes = [(commands.PATH, path), (commands.MODE, commands.number(mode))]
        return raw + commands.build_command(commands.CHMOD, attributes)

    def finish(self) -> None:
        """Check that the stream came to its end; `StreamError` with the count if it did not."""
        if not self._ended or self._held or self._skip:
            raise StreamError(
                "cut send stream", why=f"it stops after {self.consumed:,} bytes without its end"
            )


def _limited(command: int, length: int) -> int:
    if length > commands.MAX_OPENED_COMMAND:
        raise StreamError("damaged send stream", why=f"command {command} claims {length:,} bytes")
    return length

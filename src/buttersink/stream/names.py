"""
What the paths in a send stream lead to, while it is applied.

The kernel names a file as it is named at that moment: directories move on the way, and what is new
has a name for the time being first. So the path of a file that is changed need be one in neither
snapshot. Strategy: a stream makes one file at a time, so of those it makes only the last one's
names are known; of the others, which come from the parent, what is moved is noted, and applied only
when somebody asks, which is seldom.
"""

from __future__ import annotations

from buttersink.stream import commands

_ATTRIBUTE = commands.ATTRIBUTE_HEADER.size

FOLLOWED = frozenset(
    (commands.SNAPSHOT, commands.MKFILE, commands.MKDIR, commands.RENAME, commands.LINK)
)
"""Numbers of the commands that change what paths lead to, as far as that matters here."""


class Names:
    """Follows one stream; is told of its commands in `FOLLOWED`."""

    def __init__(self) -> None:
        self._incremental = False
        self._inode = 0  # of the file made last
        self._paths: set[bytes] = set()  # that it has
        self._waiting: list[tuple[int, bytes]] = []
        self._root = _Entry(b"")

    def follow(self, command: int, body: bytes) -> None:
        """Take a command, header aside."""
        if command == commands.SNAPSHOT:
            self._incremental = True
            return
        path = _first(body)
        if command == commands.MKFILE:
            self._paths, self._inode = {path}, int.from_bytes(body[-8:], "little")
        elif command == commands.RENAME and path in self._paths:
            self._paths = self._paths - {path} | {_second(body)}
        elif command == commands.LINK and _second(body) in self._paths:
            self._paths.add(path)
        elif self._incremental:
            self._waiting.append((command, body))

    def find(self, path: bytes) -> int | bytes | None:
        """
        Return what is at a path now.

        That is the inode number of a file that the stream has made last, or its path in the parent;
        None for a file that was made before that, or of which nothing is known.
        """
        if path in self._paths:
            return self._inode
        for command, body in self._waiting:
            self._apply(command, body)
        self._waiting.clear()
        return self._root.find(path.split(b"/")).origin

    def _apply(self, command: int, body: bytes) -> None:
        path = _first(body)
        above, _slash, name = path.rpartition(b"/")
        directory = self._directory(above)
        if command == commands.MKDIR:
            directory.children[name] = _Entry(None)
            return
        if command == commands.LINK:
            directory.children[name] = self._root.find(_second(body).split(b"/"))
            return
        moved = directory.find([name])
        directory.children.pop(name, None)
        above, _slash, name = _second(body).rpartition(b"/")
        self._directory(above).children[name] = moved

    def _directory(self, path: bytes) -> _Entry:
        """Return the entry of a directory, noted in the ones above it."""
        found = self._root
        for name in path.split(b"/") if path else ():
            found = found.children.setdefault(name, found.find([name]))
        return found


class _Entry:
    """A file or directory: its path in the parent, None if it is new, and what was moved in it."""

    __slots__ = ("children", "origin")

    def __init__(self, origin: bytes | None) -> None:
        self.origin = origin
        self.children: dict[bytes, _Entry] = {}

    def find(self, names: list[bytes]) -> _Entry:
        """Return what is below, which is not noted if it never moved."""
        found = self
        for name in names:
            inner = found.children.get(name)
            if inner is None:
                inside = found.origin
                at = None if inside is None else inside + b"/" + name if inside else name
                inner = _Entry(at)
            found = inner
        return found


def _first(body: bytes) -> bytes:
    """Return the value of the first attribute, a path."""
    length = int.from_bytes(body[2:_ATTRIBUTE], "little")
    return body[_ATTRIBUTE : _ATTRIBUTE + length]


def _second(body: bytes) -> bytes:
    """Return the value of the second attribute, the last one, a path."""
    length = int.from_bytes(body[2:_ATTRIBUTE], "little")
    return body[2 * _ATTRIBUTE + length :]

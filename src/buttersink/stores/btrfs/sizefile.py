"""
The file in which the measured sizes of one file system are kept, an SQLite database.

Strategy: it is opened for the moment of each reading or writing, so nobody waits for it, and SQLite
sees to locks and crashes. It is a cache: whatever is wrong with it is told to `Cache.tell` and
never raised, a damaged file is removed, any other is left alone, and the run goes on without it. It
is used only where nobody but the user or root can have put it, since what it says is believed.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from buttersink.errors import printable

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Iterator, Mapping

    from buttersink.stores.base import Cache

_FORMAT = 4  # of the table; a higher one is a newer program's
_PATIENCE = 0.5  # seconds to wait for another run that is writing; that takes milliseconds
_DAMAGED = (1, 11, 26)  # SQLITE_ERROR: no such table, SQLITE_CORRUPT, SQLITE_NOTADB
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH

_TABLE = """
CREATE TABLE sizes (
    key BLOB PRIMARY KEY, maker TEXT NOT NULL,
    bytes INTEGER NOT NULL, commands INTEGER NOT NULL, finished INTEGER NOT NULL,
    extents INTEGER NOT NULL, own_clones INTEGER NOT NULL
) WITHOUT ROWID"""
_SELECT = """
SELECT key, bytes, commands, finished, extents, own_clones FROM sizes
WHERE maker = ? AND finished IN (0, 1) AND (typeof(key), typeof(bytes)) = ('blob', 'integer')
AND (typeof(commands), typeof(extents), typeof(own_clones)) = ('integer', 'integer', 'integer')
"""


class Length(NamedTuple):
    """What was measured of a diff; see `Measurement`."""

    bytes: int
    commands: int
    finished: bool = True
    extents: int = 0
    own_clones: int = 0


class SizeFile:
    """
    The sizes of one file system that one maker has measured.

    Args:
        cache: Where it is, and whether it may be written.
        filesystem: UUID of the file system.
        maker: What sizes depend on apart from the snapshots. Those of other makers are not seen,
            and dropped with the first that is written.

    """

    def __init__(self, cache: Cache, filesystem: bytes, maker: str) -> None:
        self._cache = cache
        self._name = b"sizes-%s.sqlite" % filesystem.hex().encode("ascii")
        self._maker = maker
        self._usable = True

    def load(self) -> dict[bytes, Length]:
        """Return what is known, by key; nothing where the file is missing or of no use."""
        mode = "rw" if self._cache.writable else "ro"
        with (
            self._harmless(),
            suppress(FileNotFoundError),
            _opened(self._path(make=False), mode) as database,
        ):
            if _format(database) == _FORMAT:
                rows = database.execute(_SELECT, (self._maker,))
                return {
                    key: Length(size, commands, bool(finished), *extents)
                    for key, size, commands, finished, *extents in rows
                }
        return {}

    def save(self, new: Mapping[bytes, Length], gone: Iterable[bytes]) -> None:
        """Add sizes and drop others, all at once or not at all."""
        if not self._usable or not self._cache.writable:
            return
        with self._harmless(), _opened(self._path(make=True), "rwc") as database:
            database.execute("BEGIN IMMEDIATE")
            if _format(database) < _FORMAT:
                database.execute("DROP TABLE IF EXISTS sizes")
                database.execute(_TABLE)
                database.execute(f"PRAGMA user_version = {_FORMAT}")
            database.execute("DELETE FROM sizes WHERE maker != ?", (self._maker,))
            database.executemany("DELETE FROM sizes WHERE key = ?", ((key,) for key in gone))
            database.executemany(
                "INSERT OR REPLACE INTO sizes VALUES (?, ?, ?, ?, ?, ?, ?)",
                ((key, self._maker, *length) for key, length in new.items()),
            )
            database.execute("COMMIT")

    def _path(self, *, make: bool) -> bytes:
        path = os.path.join(_private(self._cache.directory, make=make), self._name)
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            if make:
                return path
            raise
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "not a file of this user", path)
        return path

    @contextmanager
    def _harmless(self) -> Iterator[None]:
        """Let go of the file for the rest of the run if it cannot be used; remove a damaged one."""
        import sqlite3

        try:
            yield
        except (OSError, sqlite3.Error, UnicodeError) as error:  # the last for a damaged message
            path = printable(os.path.join(self._cache.directory, self._name))
            self._cache.tell(f"cannot use {path}: {_reason(error)}")
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            damaged = code in _DAMAGED or isinstance(error, UnicodeError)
            self._usable = damaged and self._remove()

    def _remove(self) -> bool:
        """Remove the file and, as SQLite wants it, its journal; return whether it is gone."""
        if not self._cache.writable:
            return False
        path = os.path.join(self._cache.directory, self._name)
        try:
            for each in (path + b"-journal", path):
                with suppress(FileNotFoundError):
                    os.unlink(each)
        except OSError:
            return False
        return True


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{printable(error.filename)}: {error.strerror}"
    return str(error)


@contextmanager
def _opened(path: bytes, mode: str) -> Iterator[sqlite3.Connection]:
    """Open a database in SQLite's mode `ro`, `rw` or `rwc`; what is not committed is undone."""
    import sqlite3

    quoted = "".join(f"%{byte:02x}" for byte in path)
    with closing(
        sqlite3.connect(
            f"file:{quoted}?mode={mode}", uri=True, timeout=_PATIENCE, isolation_level=None
        )
    ) as database:
        yield database


def _format(database: sqlite3.Connection) -> int:
    """Return the format of the table, 0 if there is none yet; `sqlite3.Error` if it is not ours."""
    import sqlite3

    (found,) = database.execute("PRAGMA user_version").fetchone()
    if not 0 <= found <= _FORMAT:
        raise sqlite3.NotSupportedError(f"format {found} is of another version")
    return int(found)


def _private(directory: bytes, *, make: bool) -> bytes:
    """
    Return the path, without links, of a directory that nobody else can change or replace.

    With `make` it is made where it is missing. `OSError` if it is another's, or in another's hands.
    """
    above, name = os.path.split(directory)
    above = os.path.realpath(above)
    path = os.path.join(above, name)
    _check_above(above)
    if make:
        os.makedirs(above, 0o700, exist_ok=True)  # as the XDG base directory specification says
        with suppress(FileExistsError):
            os.mkdir(path, 0o700)
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    if status.st_uid != os.geteuid() or status.st_mode & _OTHERS_WRITE:
        raise PermissionError(errno.EPERM, "others may write into it", path)
    return path


def _check_above(path: bytes) -> None:
    """Raise `PermissionError` if others can replace what is below a path without links."""
    while True:
        with suppress(FileNotFoundError):
            status = os.lstat(path)
            replaceable = status.st_mode & _OTHERS_WRITE and not status.st_mode & stat.S_ISVTX
            if status.st_uid not in (0, os.geteuid()) or replaceable:
                raise PermissionError(errno.EPERM, "others may write into it", path)
        if path == os.path.dirname(path):
            return
        path = os.path.dirname(path)

"""
The `checksumdir` command: one line for each entry of a directory tree, and a digest of the lines.

Strategy: one thread walks the tree in the order of the paths' bytes, a pool digests the entries,
and the lines come out in the walk's order, so that a bounded number of them is held. A line tells
what the tree holds and nothing else: no inode number, locale, time zone or trait of the file
system. It never writes.

What is left out is what a sent snapshot and its received copy do not share; see `tree` and
`_attributes`.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

from buttersink.errors import Error, LocationError
from buttersink.utilities.command import complain, make_parser, run
from buttersink.utilities.tree import near, open_entry, opened, refusal, walk

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from concurrent.futures import Future

    from buttersink.utilities.tree import Entry, Tree

_PROGRAM = "checksumdir"

_AHEAD = 64  # batches in work before the oldest one's lines: enough to keep every reader busy
_BATCH = 64  # entries at most handed to a reader at once: one by one takes twice as long
_CHUNK = 1 << 20  # bytes per read, and bytes that make a batch of fewer entries

_DESCRIPTION = "Print what each directory holds, one line per entry, and a digest of it all."
_HELP = """\
Each line, its fields separated by one space (- where one does not apply):

  type   f file, d directory, l symbolic link, p fifo, s socket, c b devices,
         h another name of a file already listed
  mode   octal
  uid:gid
  size   bytes of a file
  mtime  seconds since 1970, to the nanosecond; not of DIR itself
  data   SHA-256 of a file's bytes, or a device's major:minor
  xattr  SHA-256 of the extended attributes, except btrfs.*
  path   from DIR, sorted by bytes; what cannot be printed, and \\, as \\xNN;
         then " -> " and a symbolic link's target, or the name already listed

The last line is the SHA-256 of all lines before it. It is missing, and the
exit status 1, if anything could not be read. Nested subvolumes and what is
mounted inside DIR do not count. Run as root to see all attributes, and below
mounts.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Print every DIR of the command line; return the exit status."""
    return run(_PROGRAM, lambda: _print_trees(argv))


def entries(directory: bytes) -> Generator[bytes | Error]:
    """
    Yield the line of each entry in the order of the paths, or why there is none.

    Raises:
        LocationError: The directory itself cannot be opened.

    """
    with opened(directory) as tree, ThreadPoolExecutor() as pool:
        ahead: deque[Future[list[bytes | Error]]] = deque()
        try:
            for batch in _batches(walk(tree)):
                ahead.append(pool.submit(_lines, tree, batch))
                if len(ahead) > _AHEAD:
                    yield from ahead.popleft().result()
            while ahead:
                yield from ahead.popleft().result()
        finally:
            tree.abandoned.set()
            pool.shutdown(cancel_futures=True)


def escaped(path: bytes) -> str:
    r"""Return a path as text on one line; the bytes again when each `\xNN` is replaced."""
    text = path.decode("utf-8", "surrogateescape")
    return _UNPRINTABLE.sub(lambda found: _hex(found[0]), text)


# A fixed set, because what `str.isprintable` says depends on Python's version: controls, backslash,
# line separators and the marks that reorder a line, bytes that are not UTF-8, and what would look
# like the arrow before a target.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\\\\\u2028-\u202e\u2066-\u2069\udc80-\udcff]| (?=->)")


def _hex(text: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in text.encode("utf-8", "surrogateescape"))


# The command line and its output


def _print_trees(argv: Sequence[str] | None) -> int:
    parser = make_parser(_PROGRAM, _DESCRIPTION, _HELP)
    parser.add_argument("directories", nargs="+", metavar="DIR", help="the top of a tree")
    directories: list[str] = parser.parse_args(argv).directories
    return max([_print_tree(os.fsencode(directory)) for directory in directories])


def _print_tree(directory: bytes) -> int:
    overall = hashlib.sha256()
    status = 0
    try:
        with closing(entries(directory)) as lines:
            for line in lines:
                if isinstance(line, Error):
                    status = complain(_PROGRAM, line)
                else:
                    overall.update(line)
                    sys.stdout.buffer.write(line)
    except LocationError as error:
        return complain(_PROGRAM, error)
    if status == 0:
        sys.stdout.buffer.write(f"{overall.hexdigest()}  .\n".encode())
    return status


# A line


def _batches(found: Iterable[Entry | Error]) -> Iterator[list[Entry | Error]]:
    batch: list[Entry | Error] = []
    size = 0
    for entry in found:
        batch.append(entry)
        size += 0 if isinstance(entry, Error) else entry.status.st_size
        if len(batch) == _BATCH or size >= _CHUNK:
            yield batch
            batch, size = [], 0
    yield batch


def _lines(tree: Tree, batch: list[Entry | Error]) -> list[bytes | Error]:
    return [entry if isinstance(entry, Error) else _line(tree, entry) for entry in batch]


def _line(tree: Tree, entry: Entry) -> bytes | Error:
    try:
        fields = [*_metadata(tree, entry), _named(tree, entry)]
    except OSError as error:
        return refusal("cannot read", tree.shown(entry.path), error)
    except Error as error:
        return error
    return f"{' '.join(fields)}\n".encode()


def _metadata(tree: Tree, entry: Entry) -> tuple[str, ...]:
    if entry.first is not None:
        return ("h", "-", "-", "-", "-", "-", "-")
    status = entry.status
    is_file = stat.S_ISREG(status.st_mode)
    return (
        "f" if is_file else stat.filemode(status.st_mode)[0],
        f"{stat.S_IMODE(status.st_mode):04o}",
        f"{status.st_uid}:{status.st_gid}",
        # How large a directory is says only how its file system stores names.
        str(status.st_size) if is_file else "-",
        "-" if entry.path == b"." else "{}.{:09}".format(*divmod(status.st_mtime_ns, 10**9)),
        _data(tree, entry),
        _attributes(tree, entry.path),
    )


def _named(tree: Tree, entry: Entry) -> str:
    if entry.first is not None:
        return f"{escaped(entry.path)} -> {escaped(entry.first)}"
    if stat.S_ISLNK(entry.status.st_mode):
        with near(tree, entry.path) as (at, rest):
            return f"{escaped(entry.path)} -> {escaped(os.readlink(rest, dir_fd=at))}"
    return escaped(entry.path)


def _data(tree: Tree, entry: Entry) -> str:
    mode = entry.status.st_mode
    if stat.S_ISREG(mode):
        return _content(tree, entry)
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        return f"{os.major(entry.status.st_rdev)}:{os.minor(entry.status.st_rdev)}"
    return "-"


def _content(tree: Tree, entry: Entry) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(min(_CHUNK, max(4096, entry.status.st_size + 1))))
    with open_entry(tree, entry.path) as descriptor:
        while not tree.abandoned.is_set() and (count := os.readv(descriptor, [buffer])):
            digest.update(buffer[:count])
        if _version(os.fstat(descriptor)) != _version(entry.status):
            raise LocationError(
                "cannot digest",
                where=tree.shown(entry.path),
                why="it changed while it was read",
                hint="Digest a read-only snapshot instead",
            )
    return digest.hexdigest()


def _version(status: os.stat_result) -> tuple[int, ...]:
    """Return what changes whenever a file is written or replaced by another."""
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _attributes(tree: Tree, path: bytes) -> str:
    """
    Return the digest of the names and values of the extended attributes.

    btrfs.* are properties of how data is stored, not data. A received copy may have more of them:
    `btrfs receive` first sets that of the top, and all that it creates then inherits it.
    """
    digest = hashlib.sha256()
    with near(tree, path) as (at, rest):
        # These calls take no directory descriptor.
        where = b"/proc/self/fd/%d/%s" % (at, rest)
        names = [name for name in _attribute_names(where) if not name.startswith(b"btrfs.")]
        for name in names:
            value = os.getxattr(where, name, follow_symlinks=False)
            digest.update(b"%d:%s%d:%s" % (len(name), name, len(value), value))
    return digest.hexdigest() if names else "-"


def _attribute_names(where: bytes) -> list[bytes]:
    try:
        return sorted(os.fsencode(name) for name in os.listxattr(where, follow_symlinks=False))
    except OSError as error:
        if error.errno == errno.ENOTSUP:  # not in this file system
            return []
        raise


if __name__ == "__main__":
    sys.exit(main())

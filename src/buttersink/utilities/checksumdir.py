"""
The `checksumdir` command: one line for each entry of a directory tree, and a digest of the lines.

Strategy: one thread walks the tree in the order of the paths' bytes, a pool digests the entries,
and the lines come out in the walk's order, so that a bounded number of them is held. Every path is
reached anew from the top, in steps shorter than PATH_MAX: depth costs no descriptors. A line tells
what the tree holds and nothing else: no inode number, locale, time zone or trait of the file
system. It never writes, follows a link inside the tree, or leaves the subvolume.

What is left out is what a sent snapshot and its received copy do not share; see `_Tree` and
`_attributes`.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import hashlib
import os
import re
import stat
import sys
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from buttersink.errors import Error, LocationError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from concurrent.futures import Future

_AHEAD = 64  # batches in work before the oldest one's lines: enough to keep every reader busy
_BATCH = 64  # entries at most handed to a reader at once: one by one takes twice as long
_CHUNK = 1 << 20  # bytes per read, and bytes that make a batch of fewer entries
_STEP = 2048  # bytes of path in one system call: half of PATH_MAX, and more than any one name
_INTERRUPTED = 130
_PIPE_CLOSED = 141

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
    """Print every DIR of the command line; return the exit status, `SystemExit` for bad usage."""
    directories = [os.fsencode(name) for name in _parser().parse_args(argv).directories]
    try:
        status = max([_print_tree(directory) for directory in directories])
        sys.stdout.buffer.flush()
    except KeyboardInterrupt:
        _drop_output()
        return _INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return _PIPE_CLOSED
    except OSError as error:  # of stdout: those of a tree are caught where they arise
        _drop_output()
        return _complain(Error("cannot write the result", why=error.strerror or ""))
    return status


def entries(directory: bytes) -> Generator[bytes | Error]:
    """
    Yield the line of each entry in the order of the paths, or why there is none.

    Raises:
        LocationError: The directory itself cannot be opened.

    """
    with _opened(directory) as tree, ThreadPoolExecutor() as pool:
        ahead: deque[Future[list[bytes | Error]]] = deque()
        try:
            for batch in _batches(_walk(tree)):
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="checksumdir",
        description="Print what each directory holds, one line per entry, and a digest of it all.",
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("-V", "--version", action=_Version, nargs=0, help="print the version")
    parser.add_argument("directories", nargs="+", metavar="DIR", help="the top of a tree")
    return parser


class _Version(argparse.Action):
    """Looks the version up when asked: importing what finds it takes as long as all the rest."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        from importlib.metadata import version

        sys.stdout.write(f"{parser.prog} {version('buttersink')}\n")
        parser.exit()


def _print_tree(directory: bytes) -> int:
    overall = hashlib.sha256()
    status = 0
    try:
        with closing(entries(directory)) as lines:
            for line in lines:
                if isinstance(line, Error):
                    status = _complain(line)
                else:
                    overall.update(line)
                    sys.stdout.buffer.write(line)
    except LocationError as error:
        return _complain(error)
    if status == 0:
        sys.stdout.buffer.write(f"{overall.hexdigest()}  .\n".encode())
    return status


def _complain(error: Error) -> int:
    sys.stderr.write(f"checksumdir: error: {error}\n")
    return error.exit_code


def _drop_output() -> None:
    """Let what is still buffered go nowhere, lest the interpreter complain of it when it ends."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


# The walk


@dataclass(frozen=True, slots=True)
class _Tree:
    """
    A directory, opened.

    It ends where another subvolume begins. In a btrfs snapshot an empty directory stands for a
    nested subvolume, made up by the kernel with the time of the look and, like the subvolume, on
    another device; a send stream does not carry it and a received copy has nothing there. So a
    directory on another device is left out, and all three compare equal.

    It goes on under a mount point: a snapshot is sent as it lies on the file system, not as it
    is mounted over. Where the kernel does not let us look there, mount points are left out.

    Attributes:
        name: As the user calls it.
        top: Descriptor that every path is relative to.
        device: Device number of the subvolume or file system.
        mounts: Paths that are hidden below something mounted.
        abandoned: Set when nobody waits for the lines any more.

    """

    name: bytes
    top: int
    device: int
    mounts: frozenset[bytes]
    abandoned: threading.Event = field(default_factory=threading.Event)

    def holds(self, path: bytes, status: os.stat_result) -> bool:
        """Tell whether an entry belongs to the tree."""
        if stat.S_ISDIR(status.st_mode) and status.st_dev != self.device:
            return False
        return path not in self.mounts

    def shown(self, path: bytes) -> bytes:
        """Return an entry's path as the user would type it."""
        return os.path.join(self.name, path[2:]) if path != b"." else self.name


@dataclass(frozen=True, slots=True)
class _Entry:
    """
    One path of the tree.

    Attributes:
        path: From the top: `.`, or beginning with `./`.
        status: What lstat says.
        first: For a further name of a file that has several, the name that came first.

    """

    path: bytes
    status: os.stat_result
    first: bytes | None


@contextmanager
def _opened(directory: bytes) -> Iterator[_Tree]:
    with ExitStack() as descriptors:
        try:
            top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            descriptors.callback(os.close, top)
            mounts = _mount_points(top)
            if mounts and (uncovered := _uncovered(top)) is not None:
                descriptors.callback(os.close, uncovered)
                top, mounts = uncovered, frozenset()
            tree = _Tree(directory, top, os.fstat(top).st_dev, mounts)
        except OSError as error:
            raise _refusal("cannot open directory", directory, error) from error
        yield tree


def _uncovered(directory: int) -> int | None:
    """Return a descriptor of the directory in which nothing is mounted; None if not allowed."""
    # open_tree(2) clones the one mount without those inside it. It is called by its number, which
    # all architectures share, because glibc has no name for it before 2.36.
    open_tree, clone, at_empty_path = 428, 0x1, 0x1000
    descriptor = ctypes.CDLL(None).syscall(
        ctypes.c_long(open_tree),
        ctypes.c_int(directory),
        ctypes.c_char_p(b""),
        ctypes.c_uint(clone | at_empty_path | os.O_CLOEXEC),
    )
    return None if descriptor < 0 else int(descriptor)


def _mount_points(directory: int) -> frozenset[bytes]:
    here = os.readlink(b"/proc/self/fd/%d" % directory).rstrip(b"/") + b"/"
    with open("/proc/self/mountinfo", "rb") as table:
        points = [_unescaped(line.split(b" ")[4]) for line in table]
    return frozenset(b"./" + point[len(here) :] for point in points if point.startswith(here))


def _unescaped(field: bytes) -> bytes:
    return re.sub(rb"\\([0-7]{3})", lambda found: bytes([int(found[1], 8)]), field)


def _walk(tree: _Tree) -> Iterator[_Entry | Error]:
    """Yield the entries in the order of the paths' bytes, or why one cannot be looked at."""
    first: dict[tuple[int, int], bytes] = {}
    for path in _paths(tree):
        if isinstance(path, Error):
            yield path
            continue
        try:
            status = _status(tree, path)
        except OSError as error:
            yield _refusal("cannot read", tree.shown(path), error)
            continue
        if tree.holds(path, status):
            yield _Entry(path, status, _first_name(first, path, status))


def _first_name(
    first: dict[tuple[int, int], bytes], path: bytes, status: os.stat_result
) -> bytes | None:
    """Remember a path of a file with several names; return the one remembered before."""
    if status.st_nlink == 1 or stat.S_ISDIR(status.st_mode):
        return None
    known = first.setdefault((status.st_dev, status.st_ino), path)
    return known if known != path else None


def _paths(tree: _Tree) -> Iterator[bytes | Error]:
    """
    Yield every path, also of what the tree does not hold, in the order of their bytes.

    A directory is pending twice, as `a` and as `a/` for what is inside: `a b` and `a.b` sort
    between the two.
    """
    pending = [b"./", b"."]
    while pending:
        path = pending.pop()
        if not path.endswith(b"/"):
            yield path
            continue
        try:
            pending += sorted(_inside(tree, path), reverse=True)
        except OSError as error:
            yield _refusal("cannot list directory", tree.shown(path[:-1]), error)


def _inside(tree: _Tree, path: bytes) -> list[bytes]:
    """Return what `_paths` has to visit in the directory `path`, which ends in a slash."""
    with _file(tree, path[:-1], os.O_DIRECTORY) as descriptor:
        if not tree.holds(path[:-1], os.fstat(descriptor)):
            return []
        with os.scandir(descriptor) as listing:
            names = [
                (os.fsencode(item.name), item.is_dir(follow_symlinks=False)) for item in listing
            ]
    inside = [path + name for name, _ in names]
    return inside + [path + name + b"/" for name, is_directory in names if is_directory]


def _refusal(what: str, where: bytes, error: OSError) -> Error:
    return LocationError(what, where=where, why=error.strerror or "")


# A line


def _batches(found: Iterable[_Entry | Error]) -> Iterator[list[_Entry | Error]]:
    batch: list[_Entry | Error] = []
    size = 0
    for entry in found:
        batch.append(entry)
        size += 0 if isinstance(entry, Error) else entry.status.st_size
        if len(batch) == _BATCH or size >= _CHUNK:
            yield batch
            batch, size = [], 0
    yield batch


def _lines(tree: _Tree, batch: list[_Entry | Error]) -> list[bytes | Error]:
    return [entry if isinstance(entry, Error) else _line(tree, entry) for entry in batch]


def _line(tree: _Tree, entry: _Entry) -> bytes | Error:
    try:
        fields = [*_metadata(tree, entry), _named(tree, entry)]
    except OSError as error:
        return _refusal("cannot read", tree.shown(entry.path), error)
    except Error as error:
        return error
    return f"{' '.join(fields)}\n".encode()


def _metadata(tree: _Tree, entry: _Entry) -> tuple[str, ...]:
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


def _named(tree: _Tree, entry: _Entry) -> str:
    if entry.first is not None:
        return f"{escaped(entry.path)} -> {escaped(entry.first)}"
    if stat.S_ISLNK(entry.status.st_mode):
        with _near(tree, entry.path) as (at, rest):
            return f"{escaped(entry.path)} -> {escaped(os.readlink(rest, dir_fd=at))}"
    return escaped(entry.path)


def _data(tree: _Tree, entry: _Entry) -> str:
    mode = entry.status.st_mode
    if stat.S_ISREG(mode):
        return _content(tree, entry)
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        return f"{os.major(entry.status.st_rdev)}:{os.minor(entry.status.st_rdev)}"
    return "-"


def _content(tree: _Tree, entry: _Entry) -> str:
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(min(_CHUNK, max(4096, entry.status.st_size + 1))))
    with _file(tree, entry.path) as descriptor:
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


def _attributes(tree: _Tree, path: bytes) -> str:
    """
    Return the digest of the names and values of the extended attributes.

    btrfs.* are properties of how data is stored, not data. A received copy may have more of them:
    `btrfs receive` first sets that of the top, and all that it creates then inherits it.
    """
    digest = hashlib.sha256()
    with _near(tree, path) as (at, rest):
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


# Reaching an entry


def _status(tree: _Tree, path: bytes) -> os.stat_result:
    with _near(tree, path) as (at, rest):
        return os.stat(rest, dir_fd=at, follow_symlinks=False)


@contextmanager
def _file(tree: _Tree, path: bytes, flags: int = 0) -> Iterator[int]:
    with _near(tree, path) as (at, rest):
        descriptor = _open_to_read(rest, flags | os.O_RDONLY | os.O_NOFOLLOW, at)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open_to_read(path: bytes, flags: int, at: int) -> int:
    try:
        return os.open(path, flags | os.O_NOATIME, dir_fd=at)
    except PermissionError:  # only the owner and root may leave the access time alone
        return os.open(path, flags, dir_fd=at)


@contextmanager
def _near(tree: _Tree, path: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield a descriptor and a path from it that one system call can take, together `path`."""
    at = tree.top
    try:
        while len(path) > _STEP:
            cut = path.rindex(b"/", 0, _STEP)
            following = os.open(path[:cut], os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=at)
            if at != tree.top:
                os.close(at)
            at, path = following, path[cut + 1 :]
        yield at, path
    finally:
        if at != tree.top:
            os.close(at)


if __name__ == "__main__":
    sys.exit(main())

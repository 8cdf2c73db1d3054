"""
A history of snapshots such as users have, made on real btrfs from a seed.

A writable subvolume `live` is filled, snapshotted, edited, snapshotted again; in the middle it is
rolled back: replaced by a writable snapshot of an older read-only one, from where history goes on.
The edits cover every kind of command a send stream has. The same seed and sizes give the same names
and the same bytes; only inode numbers, UUIDs and times are new. Content does not compress.

Nothing is remembered between edits: what there is to edit is read from the tree, so that a rollback
needs no book-keeping.
"""

from __future__ import annotations

import fcntl
import os
import stat
import struct
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from tests.support.loopfs import MIB, create_subvolume, delete_subvolume, run, snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KIB = 1 << 10
PAGE = 4 * KIB
BIG_FROM = 256 * KIB  # smaller files are deleted and renamed, bigger ones are written into
FEWEST_SMALL = 12  # the edits pick several at once
FICLONE = 0x40049409  # linux/fs.h: _IOW(0x94, 9, int)
NET_BIND_SERVICE = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)  # linux/capability.h, v2

HOSTILE_NAMES = (
    b"with space",
    b" leading space",
    b"trailing space ",
    b"new\nline",
    b"tab\tand\rreturn",
    b"-rf",
    b"--delete",
    b"quote'\"`$(id)\\",
    b"not utf-8 \xff\xfe\xe9",
    "grün 🧈".encode(),
    b"\x1b[31mred",
    b"n" * 255,
)


@dataclass(frozen=True, slots=True)
class HistorySnapshot:
    """
    One read-only snapshot of a history.

    Attributes:
        path: Where it is.
        earlier: Place in the history of the one it was edited from; None for the first.
        branch: 0 before the rollback, 1 after it.

    """

    path: Path
    earlier: int | None
    branch: int


@dataclass(frozen=True, slots=True)
class History:
    """
    A finished history.

    Attributes:
        live: The writable subvolume, as the last snapshot has it.
        directory: The plain directory with all the snapshots, named by number.
        snapshots: In the order they were made.

    """

    live: Path
    directory: Path
    snapshots: tuple[HistorySnapshot, ...]


def make_history(
    root: Path,
    *,
    seed: int = 1,
    count: int = 6,
    base_bytes: int = 4 * MIB,
    change_bytes: int = MIB // 2,
) -> History:
    """
    Make `count` snapshots below `root`, a directory on btrfs.

    The first holds about `base_bytes`, a sixteenth of it in small files; each later one has about
    `change_bytes` of new data. With four or more, two thirds of the way the first third's last one
    is returned to.
    """
    random = Random(seed)
    live, directory = root / "live", root / "snapshots"
    directory.mkdir()
    create_subvolume(live)
    fill(Tree(live, random), base_bytes)
    made = [HistorySnapshot(snapshot(live, directory / _name(0)), None, 0)]
    rollback_at = 2 * count // 3 if count >= 4 else count
    for number in range(1, count):
        earlier = number - 1
        if number == rollback_at:
            earlier = (count - 1) // 3
            roll_back(live, made[earlier].path)
        edit(Tree(live, random), change_bytes, number)
        path = snapshot(live, directory / _name(number))
        made.append(HistorySnapshot(path, earlier, int(number >= rollback_at)))
    return History(live, directory, tuple(made))


def _name(number: int) -> str:
    return f"{number:04d}"


def roll_back(live: Path, to: Path) -> None:
    """Replace the writable subvolume by a writable snapshot of a read-only one."""
    delete_subvolume(live)
    snapshot(to, live, read_only=False)


@dataclass(frozen=True, slots=True)
class Tree:
    """A writable subvolume and the randomness that edits it."""

    top: Path
    random: Random

    def path(self, name: bytes) -> bytes:
        """Return the path of a name relative to the top."""
        return os.path.join(os.fsencode(self.top), name)

    def files(self) -> Iterator[tuple[bytes, int]]:
        """Yield path and size of every regular file, in an order that depends on names alone."""
        for directory, names, files in os.walk(os.fsencode(self.top)):
            names.sort()
            for path in (os.path.join(directory, name) for name in sorted(files)):
                status = os.lstat(path)
                if stat.S_ISREG(status.st_mode):
                    yield path, status.st_size

    def big(self) -> list[bytes]:
        """Return the files that are written into."""
        return [path for path, size in self.files() if size >= BIG_FROM]

    def small(self) -> list[bytes]:
        """Return the files that come and go; those with hostile names have an edit of their own."""
        hostile = self.path(b"hostile/")
        return [p for p, size in self.files() if size < BIG_FROM and not p.startswith(hostile)]

    def write(self, path: bytes, size: int, *, mode: str = "xb") -> None:
        """Make a file of `size` random bytes, or with mode `ab` add them to one."""
        blocks = (min(MIB, size - start) for start in range(0, size, MIB))
        with open(path, mode) as file:
            file.writelines(map(self.random.randbytes, blocks))


def fill(tree: Tree, size: int) -> None:
    """Give a new subvolume about `size` bytes, a sixteenth of it in small files."""
    small = size // 16
    _make_big_files(tree, size - small)
    made = 0
    while small > 0 or made < FEWEST_SMALL:
        small -= _make_small_file(tree, b"base", made)
        made += 1
    _make_hostile_files(tree)
    _make_special_files(tree, 0)


def _make_big_files(tree: Tree, total: int) -> None:
    """Spread `total` bytes over files of up to 24 MiB, none of them quite like another."""
    os.mkdir(tree.path(b"big"))
    count = max(3, total // (16 * MIB))
    for number in range(count):
        size = int(total / count * tree.random.uniform(0.5, 1.5))
        tree.write(tree.path(b"big/%03d" % number), max(size, 2 * BIG_FROM))


def _make_small_file(tree: Tree, group: bytes, number: int) -> int:
    """Make one of up to 32 KiB, many of them below one page, and return its size."""
    directory = tree.path(b"small/%s/%02d" % (group, number // 100))
    os.makedirs(directory, exist_ok=True)
    size = int(32 * KIB * tree.random.random() ** 2) + 1
    tree.write(os.path.join(directory, b"%04d" % number), size)
    return size


def _make_hostile_files(tree: Tree) -> None:
    os.mkdir(tree.path(b"hostile"))
    for name in HOSTILE_NAMES:
        tree.write(tree.path(b"hostile/" + name), 100)
        os.mkdir(tree.path(b"hostile/" + name[:250] + b".dir"))
        tree.write(tree.path(b"hostile/" + name[:250] + b".dir/" + name), 100)


def _make_special_files(tree: Tree, number: int) -> None:
    """Make one of each kind of thing that is not a plain file."""
    directory = tree.path(b"special/%d" % number)
    os.makedirs(directory)
    for name, mode, device in (
        (b"fifo", stat.S_IFIFO | 0o600, 0),
        (b"socket", stat.S_IFSOCK | 0o600, 0),
        (b"character", stat.S_IFCHR | 0o660, os.makedev(1, 3)),
        (b"block", stat.S_IFBLK | 0o660, os.makedev(7, 200 + number % 50)),
    ):
        os.mknod(os.path.join(directory, name), mode, device)
    os.symlink(b"../../nowhere/\xff", os.path.join(directory, b"dangling"))
    os.symlink(b"fifo", os.path.join(directory, b"link"))
    os.mkdir(os.path.join(directory, b"empty"), 0o1777)


def edit(tree: Tree, size: int, number: int) -> None:
    """Do a bit of everything; half of `size` rewrites, a quarter appends, the rest is new files."""
    _rewrite_blocks(tree, size // 2)
    _append(tree, size // 4)
    _make_new_files(tree, size // 4, number)
    _rename(tree, number)
    _delete(tree)
    _truncate(tree)
    _change_holes(tree)
    _change_metadata(tree, number)
    _link(tree, number)
    _clone(tree, number)
    _edit_hostile_files(tree, number)
    _make_special_files(tree, number)
    _remove_special_files(tree, number - 2)


def _rewrite_blocks(tree: Tree, size: int) -> None:
    big = tree.big()
    while size > 0:
        path = tree.random.choice(big)
        block = tree.random.randbytes(min(PAGE << tree.random.randrange(6), size))
        with open(path, "r+b", buffering=0) as file:
            pages = os.fstat(file.fileno()).st_size // PAGE
            os.pwrite(file.fileno(), block, tree.random.randrange(pages) * PAGE)
        size -= len(block)


def _append(tree: Tree, size: int) -> None:
    for path in tree.random.choices(tree.big(), k=3):
        tree.write(path, size // 3, mode="ab")


def _make_new_files(tree: Tree, size: int, number: int) -> None:
    made = 0
    while size > 0:
        size -= _make_small_file(tree, b"round-%04d" % number, made)
        made += 1


def _rename(tree: Tree, number: int) -> None:
    """Rename a file, move one to another directory, replace one, and rename a directory."""
    first, second, replaced, new = tree.random.sample(tree.small(), 4)
    os.rename(first, os.path.join(os.path.dirname(first), b"renamed-%d" % number))
    os.rename(second, tree.path(b"moved-%d" % number))
    os.replace(new, replaced)
    directories = sorted(os.listdir(tree.path(b"small")))
    group = tree.random.choice(directories)
    os.rename(tree.path(b"small/" + group), tree.path(b"small/%s-%d" % (group[:10], number)))


def _delete(tree: Tree) -> None:
    small = tree.small()
    for path in tree.random.sample(
        small, min(max(0, len(small) - FEWEST_SMALL), 1 + len(small) // 20)
    ):
        os.unlink(path)


def _truncate(tree: Tree) -> None:
    """Cut a big file in the middle of a page, and let another end in a hole."""
    shorter, longer = tree.random.choices(tree.big(), k=2)
    os.truncate(shorter, os.path.getsize(shorter) - tree.random.randrange(1, 16 * KIB))
    os.truncate(longer, os.path.getsize(longer) + tree.random.randrange(1, 16 * KIB))


def _change_holes(tree: Tree) -> None:
    """Punch a hole into a big file, and reserve room behind the end of another."""
    path, reserved = tree.random.choices(tree.big(), k=2)
    offset = tree.random.randrange(os.path.getsize(path) // PAGE) * PAGE
    run("fallocate", "--punch-hole", "--offset", str(offset), "--length", str(16 * KIB), path)
    end = os.path.getsize(reserved)
    run("fallocate", "--keep-size", "--offset", str(end), "--length", str(64 * KIB), reserved)


def _change_metadata(tree: Tree, number: int) -> None:
    """Give, change and take away attributes, modes, owners and times."""
    first, second, third = tree.random.sample(tree.small(), 3)
    os.setxattr(first, b"user.round", b"%d\x00\xff" % number)
    os.setxattr(first, b"trusted.empty", b"")
    for path in (second, tree.random.choice(tree.big())):
        for name in os.listxattr(path):
            os.removexattr(path, name)
        os.setxattr(path, b"user.big", tree.random.randbytes(2000))
    os.chown(third, 1000 + number, 100)
    os.chmod(third, 0o4710)
    os.setxattr(third, b"security.capability", NET_BIND_SERVICE)  # chown takes it away again
    os.utime(first, ns=(1_000_000_007 * number, 1_234_567_891 * number))


def _link(tree: Tree, number: int) -> None:
    first, second = tree.random.sample(tree.small(), 2)
    os.link(first, tree.path(b"hardlink-%d" % number))
    os.symlink(os.path.basename(second), tree.path(b"symlink-%d" % number))


def _clone(tree: Tree, number: int) -> None:
    """Make a reflink copy of a big file and write one page into it."""
    source = tree.random.choice(tree.big())
    with open(source, "rb") as old, open(tree.path(b"clone-%d" % number), "xb") as new:
        fcntl.ioctl(new.fileno(), FICLONE, old.fileno())
        os.pwrite(new.fileno(), tree.random.randbytes(PAGE), PAGE)
    with suppress(FileNotFoundError):  # the rollback may have undone it
        os.unlink(tree.path(b"clone-%d" % (number - 2)))


def _edit_hostile_files(tree: Tree, number: int) -> None:
    """Take one hostile name off its file and put it on another, and write into a third."""
    old, written = tree.random.sample(HOSTILE_NAMES, 2)
    path = tree.path(b"hostile/" + old)
    os.rename(path, tree.path(b"hostile/kept-%d" % number))
    tree.write(path, 50)
    tree.write(tree.path(b"hostile/" + written), 50, mode="ab")


def _remove_special_files(tree: Tree, number: int) -> None:
    directory = tree.path(b"special/%d" % number)
    if number < 0 or not os.path.isdir(directory):
        return
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        (os.rmdir if name == b"empty" else os.unlink)(path)
    os.rmdir(directory)

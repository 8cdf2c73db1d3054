"""
Thinned histories with rollbacks on real btrfs, such as a machine has that has run for a long time.

A writable subvolume is changed and snapshotted round after round. Old snapshots are deleted on the
way: the recent ones stay, then every 7th, then every 30th. Now and then the subvolume is rolled
back: replaced by a writable snapshot of an older one that is still there, mostly a near one; that
may be thinned out later. Most rounds change little and some a lot. Blocks of a database may be
rewritten over and over, logs grow and are rotated, files are deleted and come back by reflink from
older snapshots. The same seed gives the same content.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import count as count_from
from random import Random
from typing import TYPE_CHECKING

from tests.support.history import KIB, PAGE, Tree, edit, fill, roll_back
from tests.support.loopfs import MIB, btrfs, create_subvolume, delete_subvolume, run, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_WEEK, _MONTH = 7, 30
_MOST = 20  # times its least that a round may change
_DATABASE, _LOG = b"database", b"log"
_DATABASE_BYTES, _LOG_BYTES = 4 * MIB, 4 * MIB
_SMALL_BYTES = 10 * KIB  # a small file's mean
_SMALL_TREE = 6 * MIB
_DIRECTORY = 50  # small files in each
_FILES, _LEAST_FILE, _MOST_FILE = 600, 30 * KIB, 4 * MIB  # most of a file server's, and their bytes


@dataclass(frozen=True, slots=True)
class Kind:
    """
    What a subvolume holds and what happens to it.

    Attributes:
        base_bytes: What it begins with.
        change_bytes: The least that a round changes. Half of the rounds change more than twice as
            much, one in twenty the most.
        fill: Gives a new subvolume about so many bytes.
        change: Changes about so many bytes, in the round of that number.
        database: Whether there is one. Each of its pages is soon an extent of its own, shared by
            many snapshots, and looking for all of them takes the kernel's send most of its time.

    """

    base_bytes: int
    change_bytes: int
    fill: Callable[[Tree, int], None]
    change: Callable[[Tree, int, int], None]
    database: bool = True


def make(root: Path, kind: Kind, count: int, seed: int) -> Path:
    """
    Make a history below `root`, on btrfs, of which `count` snapshots are left; return where.

    Two in a hundred of these begin a new branch, two at least.
    """
    chance = Random(seed)
    live, directory = root / "live", root / "snapshots"
    directory.mkdir()
    tree = Tree(create_subvolume(live), chance)
    kind.fill(tree, kind.base_bytes)
    left = survivors(count)
    branching = set(chance.sample(left[2:], max(2, count // 50)))
    kept: dict[int, Path] = {}
    for number in range(left[-1] + 1):
        if number in branching:
            roll_back(live, _earlier(kept, chance))
        if number:
            _go_on(tree, kind, number, list(kept.values()))
        kept[number] = snapshot(live, directory / f"{number:04d}")
        for old in [old for old in kept if not _survives(old, number - old, count)]:
            delete_subvolume(kept.pop(old))
    _settle(root)
    return directory


def survivors(count: int) -> list[int]:
    """Return the rounds whose snapshots are there when for the first time `count` are."""
    for rounds in count_from(count):
        left = [n for n in range(rounds) if _survives(n, rounds - 1 - n, count)]
        if len(left) == count:
            return left
    raise AssertionError


def _survives(number: int, age: int, count: int) -> bool:
    """Return whether thinning leaves a snapshot of `age` rounds where `count` shall be left."""
    recent = count * 5 // 8
    weekly = recent + _WEEK * count // 4
    return age < recent or number % _MONTH == 0 or (age < weekly and number % _WEEK == 0)


def _earlier(kept: dict[int, Path], chance: Random) -> Path:
    """Return what to go back to: two back mostly, sometimes to the oldest."""
    back = 1 + int(chance.paretovariate(0.7))
    return list(kept.values())[-min(back, len(kept))]


def _go_on(tree: Tree, kind: Kind, number: int, older: list[Path]) -> None:
    size = int(kind.change_bytes * min(_MOST, tree.random.paretovariate(1)))
    kind.change(tree, size, number)
    if kind.database:
        _write_database(tree, kind.change_bytes // 2)
    _append_to_log(tree, size // 8)
    if number % 5 == 0:
        _bring_back(tree, tree.random.choice(older))


def _settle(root: Path) -> None:
    """
    Return when the deleted snapshots are gone, on disk, too.

    Until then the kernel's send finds few of the blocks that it could clone: where they were shared
    with a snapshot that is being deleted it sends them as data (seen with Linux 6.18).
    """
    btrfs("filesystem", "sync", root)
    btrfs("subvolume", "sync", root)
    btrfs("filesystem", "sync", root)


def _write_database(tree: Tree, size: int) -> None:
    """Rewrite some of the same few pages."""
    path = tree.path(_DATABASE)
    if not os.path.exists(path):
        tree.write(path, _DATABASE_BYTES)
    with open(path, "r+b", buffering=0) as file:
        for _ in range(size // PAGE):
            page = int(_DATABASE_BYTES // PAGE * tree.random.random() ** 4)
            os.pwrite(file.fileno(), tree.random.randbytes(PAGE), page * PAGE)


def _append_to_log(tree: Tree, size: int) -> None:
    path = tree.path(_LOG)
    if os.path.exists(path) and os.path.getsize(path) > _LOG_BYTES:
        os.replace(path, path + b".old")
    tree.write(path, size, mode="ab")


def _bring_back(tree: Tree, older: Path) -> None:
    """
    Let files be as they were in an older snapshot, sharing its blocks.

    One that is not there any more takes the place of the one most like it in size, so that the
    whole does not grow.
    """
    then = Tree(older, tree.random)
    files = then.small() + then.big()
    for path in tree.random.sample(files, min(len(files), 3)):
        place = tree.path(os.path.relpath(path, os.fsencode(older)))
        if not os.path.lexists(place):
            _make_room(tree, os.path.getsize(path))
            os.makedirs(os.path.dirname(place), exist_ok=True)
        run("cp", "--reflink=always", "--preserve=all", "--remove-destination", path, place)


def _make_room(tree: Tree, size: int) -> None:
    now = tree.small() + tree.big()
    os.unlink(min(now, key=lambda path: abs(os.path.getsize(path) - size)))


def _fill_big(tree: Tree, size: int) -> None:
    number = 0
    while size > 0:
        size -= _make_big(tree, b"base-%d" % number)
        number += 1


def _make_big(tree: Tree, name: bytes) -> int:
    size = tree.random.randrange(MIB, 6 * MIB)
    tree.write(tree.path(name), size)
    return size


def _change_big(tree: Tree, size: int, number: int) -> None:
    """Write long runs into big files; a lot is a new file for an old one."""
    big = [path for path in tree.big() if tree.random.random() < 0.5] or tree.big()
    if size > 2 * MIB:
        os.unlink(tree.random.choice(big))
        _make_big(tree, b"round-%d" % number)
        return
    while size > 0:
        block = min(size, tree.random.randrange(16 * KIB, 512 * KIB))
        path = tree.random.choice(big)
        with open(path, "r+b", buffering=0) as file:
            offset = tree.random.randrange(os.path.getsize(path) // PAGE) * PAGE
            os.pwrite(file.fileno(), tree.random.randbytes(block), offset)
        size -= block


def _fill_small(tree: Tree, size: int) -> None:
    for number in range(size // _SMALL_BYTES):
        _make_small(tree, number)


def _make_small(tree: Tree, number: int) -> int:
    path = tree.path(b"%03d/%05d" % divmod(number, _DIRECTORY))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    size = int(tree.random.expovariate(1 / _SMALL_BYTES)) + 1
    tree.write(path, size, mode="wb")
    return size


def _change_small(tree: Tree, size: int, _number: int) -> None:
    """Rewrite small files, the same ones mostly, take some away and make new ones."""
    names = 2 * _SMALL_TREE // _SMALL_BYTES
    while size > 0:
        number = int(names * tree.random.random() ** 3)
        path = tree.path(b"%03d/%05d" % divmod(number, _DIRECTORY))
        if os.path.exists(path) and tree.random.random() < 0.4:
            os.unlink(path)
            size -= KIB
        else:
            size -= _make_small(tree, number)


def _fill_files(tree: Tree, size: int) -> None:
    number = 0
    while size > 0:
        size -= _make_file(tree, number, b"0")
        number += 1


def _change_files(tree: Tree, size: int, number: int) -> None:
    """Replace or delete a few files, mostly one or two, and let new ones come."""
    files = tree.small() + tree.big()
    few = 1 + int(tree.random.paretovariate(1))
    for path in tree.random.sample(files, min(len(files), few)):
        if tree.random.random() < 0.5:
            os.unlink(path)
        else:
            tree.write(path, os.path.getsize(path), mode="wb")
    while size > 0:
        size -= _make_file(tree, number, b"%d" % size)
        files = tree.small() + tree.big()
        if len(files) > _FILES:
            os.unlink(tree.random.choice(files))


def _make_file(tree: Tree, number: int, name: bytes) -> int:
    """Make one of a size as documents and pictures have; return that."""
    path = tree.path(b"%03d/%05d-%s" % (number // _DIRECTORY, number, name))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    size = int(min(_MOST_FILE, _LEAST_FILE * tree.random.paretovariate(0.9)))
    tree.write(path, size)
    return size


KINDS = {
    "files": Kind(32 * MIB, 100 * KIB, _fill_files, _change_files, database=False),
    "mixed": Kind(32 * MIB, 100 * KIB, fill, edit),
    "big": Kind(64 * MIB, 200 * KIB, _fill_big, _change_big),
    "small": Kind(_SMALL_TREE, 50 * KIB, _fill_small, _change_small),
}
"""Documents and pictures; a bit of everything; data in long runs; mostly metadata."""

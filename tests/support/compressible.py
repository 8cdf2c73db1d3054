"""
A history whose data compress, on real btrfs, with every way in which extents come to be in files.

Files are written, written into, cut, lengthened, punched, reserved and cloned; they and directories
move; data are words, noise or a bit of both, in files so small that they lie in the metadata and in
ones of several extents. The same seed gives the same history.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tests.support.loopfs import MIB, btrfs, create_subvolume, run, snapshot

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

PAGE = 4096
_DIRECTORIES = ("a", "a/b", "a/b/c", "x", "x/y")
_FILES = 40
_EDITS = 40  # between two snapshots
_SIZES = (300, 1500, 9000, 200_000, 700_000)
_WORDS = [b"%d alpha beta gamma " % number for number in range(50)]


def make_compressible(top: Path, random: Random, *, count: int, method: str = "zstd") -> Path:
    """Make `count` snapshots below `top`, compressed by a method; return their directory."""
    live = create_subvolume(top / "live")
    btrfs("property", "set", live, "compression", method)
    for name in _DIRECTORIES:
        (live / name).mkdir()
    for number in range(_FILES):
        path = random.choice(_directories(live)) / f"f{number:02}"
        path.write_bytes(data(random, random.choice(_SIZES)))
    (top / "snaps").mkdir()
    for number in range(count):
        for _ in range(_EDITS):
            random.choice(_WAYS)(random, live)
        snapshot(live, top / "snaps" / str(number))
    return top / "snaps"


def words(random: Random, size: int) -> bytes:
    """Return so many bytes of text, which compresses well."""
    return b"".join(random.choice(_WORDS) for _ in range(size // 15 + 1))[:size]


def data(random: Random, size: int) -> bytes:
    """Return so many bytes that compress well, somewhat, or not at all."""
    way = random.randrange(3)
    if way == 0:
        return words(random, size)
    return (
        random.randbytes(size) if way == 1 else (random.randbytes(size // 4) + bytes(size))[:size]
    )


def make_big(path: Path, random: Random, mebibytes: int = 8) -> None:
    """Write a file of text."""
    text = words(random, MIB)
    with path.open("xb") as file:
        for number in range(mebibytes):
            file.write(b"%d" % number + text)


def _directories(live: Path) -> list[Path]:
    return [live, *sorted(path for path in live.rglob("*") if path.is_dir())]


def _file(random: Random, live: Path) -> Path:
    return random.choice(sorted(path for path in live.rglob("*") if path.is_file()))


def _new(random: Random, live: Path) -> Path:
    return random.choice(_directories(live)) / f"n{random.randrange(10**9)}"


def _reserve(path: Path, how: str, offset: int, length: int) -> None:
    run("fallocate", how, "--offset", str(offset), "--length", str(length), path)


def _cut(random: Random, live: Path) -> None:
    path = _file(random, live)
    os.truncate(path, random.randrange(path.stat().st_size + 1))


def _lengthen(random: Random, live: Path) -> None:
    path = _file(random, live)
    os.truncate(path, path.stat().st_size + random.randrange(1, 40 * PAGE))


def _punch(random: Random, live: Path) -> None:
    start, length = random.randrange(60) * PAGE, random.randrange(1, 40) * PAGE
    _reserve(_file(random, live), "--punch-hole", start, length)


def _reserve_room(random: Random, live: Path) -> None:
    path = _file(random, live)
    _reserve(path, "--keep-size", path.stat().st_size // PAGE * PAGE, 10 * PAGE)


def _write_into(random: Random, live: Path) -> None:
    with _file(random, live).open("r+b") as file:
        file.seek(random.randrange(60 * PAGE))
        file.write(data(random, random.randrange(100 * PAGE)))


def _write_anew(random: Random, live: Path) -> None:
    _file(random, live).write_bytes(data(random, random.randrange(1, 3000)))


def _clone(random: Random, live: Path) -> None:
    source, target = _file(random, live), _file(random, live)
    if source != target and not source.samefile(target):
        run("cp", "--reflink=always", source, target)


def _make_file(random: Random, live: Path) -> None:
    _new(random, live).write_bytes(data(random, random.choice(_SIZES)))


def _make_directory(random: Random, live: Path) -> None:
    _new(random, live).mkdir()


def _move_file(random: Random, live: Path) -> None:
    _file(random, live).rename(_new(random, live))


def _move_directory(random: Random, live: Path) -> None:
    moved, to = random.choice(_directories(live)[1:]), _new(random, live)
    if moved not in to.parents:
        moved.rename(to)


def _link(random: Random, live: Path) -> None:
    _new(random, live).hardlink_to(_file(random, live))


def _delete(random: Random, live: Path) -> None:
    _file(random, live).unlink()


_WAYS = (
    _cut, _lengthen, _punch, _reserve_room, _write_into, _write_into, _write_into, _write_anew,
    _clone, _make_file, _make_file, _make_directory, _move_file, _move_directory, _link, _delete,
)  # fmt: skip

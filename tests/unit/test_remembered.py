"""Sizes that are remembered between runs: what they hold for, and all that may be in their way."""

from __future__ import annotations

import os
import shutil
import sqlite3
from dataclasses import replace
from random import Random
from time import monotonic
from typing import TYPE_CHECKING

import pytest

from buttersink.catalogue import Diff, Measurement, Uuid
from buttersink.kernel.subvolumes import Subvolume
from buttersink.stores.base import Cache
from buttersink.stores.btrfs import remembered, sizefile
from buttersink.stores.btrfs.index import Index
from buttersink.stores.btrfs.remembered import RememberedSizes
from buttersink.stores.btrfs.sizefile import Length, SizeFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FILESYSTEM = bytes(range(16))
OTHER_FILESYSTEM = bytes(16)
NOBODY = 65534

needs_root = pytest.mark.root


def uuid(number: int) -> Uuid:
    return Uuid(number.to_bytes(16, "big"))


def subvolume(number: int, *, name: bytes = b"name", changed: int = 7) -> Subvolume:
    """Return a read-only one in the directory `snaps`, or for numbers from 100 outside of it."""
    path = (b"snaps/%d/" if number < 100 else b"elsewhere/%d/") % number + name
    return Subvolume(number, 5, path, 9, True, 0, uuid(number), None, None, changed, 0, 0)  # noqa: FBT003


def index(*found: Subvolume) -> Index:
    return Index(list(found), {}, b"snaps", None)


ONE, TWO, OUTSIDE = subvolume(1), subvolume(2), subvolume(100)
FULL = Measurement(Diff(uuid(1), None), 1000, 10, extents=3, own_clones=2)
STEP = Measurement(Diff(uuid(2), uuid(1)), 100, 5)
FROM_OUTSIDE = Measurement(Diff(uuid(2), uuid(100)), 101, 6)


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def cache(tmp_path: Path, told: list[str]) -> Cache:
    return Cache(os.fsencode(tmp_path / "home" / "cache"), writable=True, tell=told.append)


def directory(cache: Cache) -> str:
    return os.fsdecode(cache.directory)


def path_of(cache: Cache, filesystem: bytes = FILESYSTEM) -> str:
    return os.path.join(directory(cache), f"sizes-{filesystem.hex()}.sqlite")


def remember(
    cache: Cache, *measurements: Measurement, there: Index, filesystem: bytes = FILESYSTEM
) -> None:
    sizes = RememberedSizes(cache, filesystem, there)
    for each in measurements:
        sizes.add(each, 1)
    sizes.close()


def recall(
    cache: Cache | None,
    *measurements: Measurement,
    there: Index,
    filesystem: bytes = FILESYSTEM,
) -> list[bool]:
    """Return for each measurement whether it is known; what is known has to be right."""
    sizes = RememberedSizes(cache, filesystem, there)
    known = [sizes.get(each.diff, 1) for each in measurements]
    pairs = zip(known, measurements, strict=True)
    assert all(k in (None, m._replace(remembered=True)) for k, m in pairs)
    return [each is not None for each in known]


def rows(cache: Cache) -> int:
    database = sqlite3.connect(path_of(cache))
    (count,) = database.execute("SELECT count(*) FROM sizes").fetchone()
    database.close()
    return int(count)


class TestWhatIsRemembered:
    def test_is_known_to_the_next_run(self, cache: Cache, told: list[str]) -> None:
        there = index(ONE, TWO, OUTSIDE)
        remember(cache, FULL, STEP, FROM_OUTSIDE, there=there)
        assert recall(cache, FULL, STEP, FROM_OUTSIDE, there=there) == [True] * 3
        assert told == []

    def test_is_enough_where_it_is_more_than_a_limit(self, cache: Cache) -> None:
        at_least = STEP._replace(finished=False)
        remember(cache, at_least, there=index(ONE, TWO))
        sizes = RememberedSizes(cache, FILESYSTEM, index(ONE, TWO))
        assert sizes.get(STEP.diff, 1, STEP.bytes - 1) == at_least._replace(remembered=True)
        assert sizes.get(STEP.diff, 1, STEP.bytes) is None
        assert sizes.get(STEP.diff, 1) is None

    def test_is_known_in_the_same_run_even_without_a_cache(self) -> None:
        sizes = RememberedSizes(None, FILESYSTEM, index(ONE, TWO))
        assert sizes.get(STEP.diff, 1) is None
        sizes.add(STEP, 1)
        sizes.close()
        assert sizes.get(STEP.diff, 1) == STEP._replace(remembered=True)

    def test_is_neither_of_nor_for_diffs_with_clone_sources(self, cache: Cache) -> None:
        there = index(ONE, TWO, OUTSIDE)
        cloning = STEP._replace(diff=STEP.diff._replace(clones=(uuid(100),)), bytes=7)
        remember(cache, cloning, there=there)
        assert recall(cache, STEP, cloning, there=there) == [False, False]
        remember(cache, STEP, cloning, there=there)
        assert recall(cache, STEP, cloning, there=there) == [True, False]

    def test_says_nothing_of_other_diffs(self, cache: Cache) -> None:
        there = index(ONE, TWO)
        remember(cache, FULL, there=there)
        back = STEP._replace(diff=Diff(uuid(1), uuid(2)))
        assert recall(cache, STEP, back, there=there) == [False, False]

    @pytest.mark.parametrize(
        "changed",
        [
            index(subvolume(1, changed=8), TWO, OUTSIDE),
            index(ONE, subvolume(2, changed=8), OUTSIDE),
        ],
        ids=["parent", "snapshot"],
    )
    def test_does_not_hold_for_a_changed_snapshot(self, cache: Cache, changed: Index) -> None:
        remember(cache, STEP, there=index(ONE, TWO))
        assert recall(cache, STEP, there=changed) == [False]

    def test_holds_for_a_new_name_of_the_same_length_only(self, cache: Cache) -> None:
        """The stream begins with the name."""
        remember(cache, STEP, there=index(ONE, TWO))
        same, longer = subvolume(2, name=b"eman"), subvolume(2, name=b"names")
        assert recall(cache, STEP, there=index(ONE, same)) == [True]
        assert recall(cache, STEP, there=index(ONE, longer)) == [False]
        assert recall(cache, STEP, there=index(subvolume(1, name=b"names"), TWO)) == [True]

    def test_holds_for_a_parent_outside_only_while_it_is_outside(self, cache: Cache) -> None:
        """What the stream leaves out is looked up in those that can be opened."""
        remember(cache, FROM_OUTSIDE, there=index(TWO, OUTSIDE))
        inside = OUTSIDE._replace(path=b"snaps/100/name")
        assert recall(cache, FROM_OUTSIDE, there=index(TWO, inside)) == [False]

    def test_holds_for_its_file_system_only(self, cache: Cache) -> None:
        there = index(ONE, TWO)
        remember(cache, STEP, there=there)
        assert recall(cache, STEP, there=there, filesystem=OTHER_FILESYSTEM) == [False]

    def test_holds_for_its_kernel_and_program_only(
        self, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        there = index(ONE, TWO)
        remember(cache, STEP, there=there)
        monkeypatch.setattr(remembered, "_PREDICTION", -1)
        assert recall(cache, STEP, there=there) == [False]
        remember(cache, FULL, there=there)
        assert rows(cache) == 1

    def test_goes_with_the_snapshots(self, cache: Cache) -> None:
        remember(cache, FULL, STEP, FROM_OUTSIDE, there=index(ONE, TWO, OUTSIDE))
        there = index(TWO, OUTSIDE)
        assert recall(cache, FROM_OUTSIDE, there=there) == [True]
        assert rows(cache) == 3, "reading changes nothing"
        remember(cache, STEP._replace(diff=Diff(uuid(2), None)), there=there)
        assert rows(cache) == 2

    def test_is_written_while_measuring_goes_on(
        self, cache: Cache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(remembered, "_PAUSE", 0.0)
        RememberedSizes(cache, FILESYSTEM, index(ONE)).add(FULL, 1)
        assert recall(cache, FULL, there=index(ONE)) == [True]

    def test_of_two_runs_at_a_time_is_all_there(self, cache: Cache) -> None:
        there = index(ONE, TWO)
        one, other = (RememberedSizes(cache, FILESYSTEM, there) for _ in range(2))
        one.add(FULL, 1)
        other.add(STEP, 1)
        one.close()
        other.close()
        assert recall(cache, FULL, STEP, there=there) == [True, True]

    def test_lies_where_nobody_else_can_look(self, cache: Cache) -> None:
        remember(cache, FULL, there=index(ONE))
        assert os.stat(directory(cache)).st_mode & 0o7777 == 0o700
        assert os.listdir(directory(cache)) == [os.path.basename(path_of(cache))]


class TestReadOnly:
    def test_makes_nothing(self, cache: Cache, tmp_path: Path, told: list[str]) -> None:
        remember(replace(cache, writable=False), FULL, there=index(ONE))
        assert os.listdir(tmp_path) == told == []

    def test_reads(self, cache: Cache) -> None:
        remember(cache, FULL, there=index(ONE))
        before = os.stat(path_of(cache))
        assert recall(replace(cache, writable=False), FULL, there=index(ONE)) == [True]
        remember(replace(cache, writable=False), FULL, there=index(ONE))
        assert os.stat(path_of(cache)).st_mtime_ns == before.st_mtime_ns

    def test_leaves_a_damaged_file_alone(self, cache: Cache, told: list[str]) -> None:
        os.makedirs(cache.directory)
        write(path_of(cache), b"damaged" * 1000)
        assert recall(replace(cache, writable=False), FULL, there=index(ONE)) == [False]
        assert os.path.exists(path_of(cache))
        assert len(told) == 1


def write(path: str, data: bytes) -> None:
    with open(path, "wb") as file:
        file.write(data)


def chown(path: str) -> None:
    os.chown(path, NOBODY, NOBODY, follow_symlinks=False)


def link_file(cache: Cache) -> None:
    os.rename(path_of(cache), directory(cache) + ".elsewhere")
    os.symlink(directory(cache) + ".elsewhere", path_of(cache))


def link_directory(cache: Cache) -> None:
    os.rename(directory(cache), directory(cache) + ".elsewhere")
    os.symlink(directory(cache) + ".elsewhere", directory(cache))


def put(make: Callable[[str], object]) -> Callable[[Cache], None]:
    def replace_by(cache: Cache) -> None:
        os.unlink(path_of(cache))
        make(path_of(cache))

    return replace_by


def set_format(cache: Cache) -> None:
    database = sqlite3.connect(path_of(cache))
    database.execute("PRAGMA user_version = 99")
    database.close()


def file_for_directory(cache: Cache) -> None:
    shutil.rmtree(cache.directory)
    write(directory(cache), b"")


def above(cache: Cache) -> str:
    return os.path.dirname(directory(cache))


IN_THE_WAY = {
    "a link for the file": link_file,
    "a link to nowhere": put(lambda path: os.symlink("nowhere", path)),
    "a directory for the file": put(os.mkdir),
    "a pipe for the file": put(os.mkfifo),
    "a link for the directory": link_directory,
    "a file for the directory": file_for_directory,
    "a newer version": set_format,
    "a directory others may write into": lambda cache: os.chmod(directory(cache), 0o720),
    "one above it that others may write into": lambda cache: os.chmod(above(cache), 0o757),
}
OF_SOMEBODY_ELSE = {
    "the file": lambda cache: chown(path_of(cache)),
    "the directory": lambda cache: chown(directory(cache)),
    "the one above it": lambda cache: chown(above(cache)),
}


def snapshot_of(top: Path) -> list[tuple[str, int, int, int]]:
    """Return what lies below a directory, by everything that a write would change."""
    found = [(os.fspath(each), os.lstat(each)) for each in sorted(top.rglob("*"))]
    return [(path, s.st_ino, s.st_mode, s.st_mtime_ns) for path, s in found]


def assert_goes_on_without(cache: Cache, told: list[str], tmp_path: Path) -> None:
    before = snapshot_of(tmp_path)
    sizes = RememberedSizes(cache, FILESYSTEM, index(ONE, TWO))
    assert sizes.get(FULL.diff, 1) is None
    sizes.add(STEP, 1)
    sizes.close()
    assert snapshot_of(tmp_path) == before
    (line,) = told
    assert line.startswith(f"cannot use {path_of(cache)}: ")
    assert line.isprintable()


@pytest.mark.parametrize("spoil", IN_THE_WAY.values(), ids=IN_THE_WAY.keys())
def test_what_is_in_the_way_stays_and_the_run_goes_on(
    cache: Cache, told: list[str], tmp_path: Path, spoil: Callable[[Cache], None]
) -> None:
    remember(cache, FULL, there=index(ONE))
    spoil(cache)
    assert_goes_on_without(cache, told, tmp_path)


@needs_root
@pytest.mark.parametrize("spoil", OF_SOMEBODY_ELSE.values(), ids=OF_SOMEBODY_ELSE.keys())
def test_what_is_somebody_elses_is_not_believed(
    cache: Cache, told: list[str], tmp_path: Path, spoil: Callable[[Cache], None]
) -> None:
    remember(cache, FULL, there=index(ONE))
    spoil(cache)
    assert_goes_on_without(cache, told, tmp_path)


def test_nothing_is_made_below_what_others_may_write_into(cache: Cache, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    remember(cache, FULL, there=index(ONE))
    assert os.listdir(tmp_path) == []


def test_below_a_sticky_directory_is_fine(cache: Cache, tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    remember(cache, FULL, there=index(ONE))
    assert recall(cache, FULL, there=index(ONE)) == [True]


def test_a_link_above_the_directory_is_followed(cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "home").symlink_to("elsewhere")
    remember(cache, FULL, there=index(ONE))
    assert recall(cache, FULL, there=index(ONE)) == [True]


def test_names_of_any_bytes_are_fine(tmp_path: Path, told: list[str]) -> None:
    cache = Cache(os.fsencode(tmp_path) + b"/a?b#c%41\xff\n/c", writable=True, tell=told.append)
    remember(cache, FULL, there=index(ONE))
    assert recall(cache, FULL, there=index(ONE)) == [True]
    assert told == []


def test_a_lock_is_not_waited_for_long(cache: Cache, told: list[str]) -> None:
    remember(cache, FULL, there=index(ONE))
    other = sqlite3.connect(path_of(cache), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    began = monotonic()
    remember(cache, STEP, there=index(ONE, TWO))
    assert monotonic() - began < 2
    other.execute("COMMIT")
    other.close()
    assert recall(cache, FULL, STEP, there=index(ONE, TWO)) == [True, False]
    assert len(told) == 1


def test_what_another_run_is_reading_can_be_read(cache: Cache) -> None:
    remember(cache, FULL, there=index(ONE))
    other = sqlite3.connect(path_of(cache), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    assert recall(cache, FULL, there=index(ONE)) == [True]
    other.close()


def test_a_file_of_an_older_version_is_begun_anew(cache: Cache, told: list[str]) -> None:
    os.makedirs(cache.directory, 0o700)
    database = sqlite3.connect(path_of(cache))
    database.execute("CREATE TABLE sizes (key BLOB PRIMARY KEY, bytes INTEGER)")
    database.execute("PRAGMA user_version = 3")
    database.close()
    assert recall(cache, FULL, there=index(ONE)) == [False]
    remember(cache, FULL, there=index(ONE))
    assert recall(cache, FULL, there=index(ONE)) == [True]
    assert told == []


class TestDamage:
    @pytest.mark.parametrize("data", [b"damaged" * 1000, b"x" * 512], ids=len)
    def test_is_removed_and_the_file_begun_anew(
        self, cache: Cache, told: list[str], data: bytes
    ) -> None:
        os.makedirs(cache.directory, 0o700)
        write(path_of(cache), data)
        remember(cache, FULL, there=index(ONE))
        assert len(told) == 1
        assert recall(cache, FULL, there=index(ONE)) == [True]

    @pytest.mark.parametrize("data", [b"", b"x"], ids=len)  # less than a header: SQLite's choice
    def test_of_an_empty_file_is_none(self, cache: Cache, told: list[str], data: bytes) -> None:
        os.makedirs(cache.directory, 0o700)
        write(path_of(cache), data)
        remember(cache, FULL, there=index(ONE))
        assert recall(cache, FULL, there=index(ONE)) == [True]
        assert told == []

    def test_anywhere_ends_no_run_and_is_soon_gone(self, cache: Cache, told: list[str]) -> None:
        random = Random(1)
        there = index(*map(subvolume, range(1, 99)))
        every = [Measurement(Diff(uuid(n), uuid(m)), 9, 1) for n in range(1, 99) for m in (1, 2)]
        remember(cache, *every, there=there)
        with open(path_of(cache), "rb") as file:
            good = file.read()
        for _ in range(200):
            bad = bytearray(good)
            for _ in range(random.choice((1, 10, 1000))):
                bad[random.randrange(len(bad))] = random.randrange(256)
            end = random.choice((len(bad), random.randrange(len(bad))))
            write(path_of(cache), bytes(bad[:end]))
            told.clear()
            for _ in range(2):
                sizes = RememberedSizes(cache, FILESYSTEM, there)
                known = [sizes.get(each.diff, 1) for each in every]
                assert all(k is None or isinstance(k.bytes + k.commands, int) for k in known)
                remember(cache, FULL, there=there)
            if not any("another version" in line for line in told):
                assert recall(cache, FULL, there=there) == [True]

    def test_by_a_run_that_was_killed_is_undone(self, cache: Cache, tmp_path: Path) -> None:
        half_written(cache, tmp_path)
        assert recall(cache, FULL, there=index(ONE)) == [True]
        assert rows(cache) == 1

    def test_by_a_run_that_was_killed_stays_where_nothing_may_be_written(
        self, cache: Cache, tmp_path: Path, told: list[str]
    ) -> None:
        half_written(cache, tmp_path)
        before = snapshot_of(tmp_path)
        assert recall(replace(cache, writable=False), FULL, there=index(ONE)) == [False]
        assert snapshot_of(tmp_path) == before
        assert len(told) == 1


def half_written(cache: Cache, tmp_path: Path) -> None:
    """Leave what a writer leaves that is killed in the middle of a large transaction."""
    remember(cache, FULL, there=index(ONE))
    writer = sqlite3.connect(path_of(cache), isolation_level=None)
    writer.execute("PRAGMA cache_size = 1")
    writer.execute("BEGIN")
    many = ((number.to_bytes(500, "big"), "maker", 1, 1, 1, 1, 1) for number in range(1000))
    writer.executemany("INSERT INTO sizes VALUES (?, ?, ?, ?, ?, ?, ?)", many)
    shutil.copytree(directory(cache), tmp_path / "copy")
    writer.close()
    shutil.rmtree(cache.directory)
    os.rename(tmp_path / "copy", cache.directory)
    assert os.path.getsize(path_of(cache) + "-journal")


def test_what_is_no_size_is_not_believed(cache: Cache) -> None:
    remember(cache, FULL, there=index(ONE))
    database = sqlite3.connect(path_of(cache))
    with database:
        database.execute("UPDATE sizes SET bytes = 'many'")
        database.execute("INSERT INTO sizes SELECT x'00', maker, 1, 1, 1, 1, 1 FROM sizes")
    database.close()
    assert recall(cache, FULL, there=index(ONE)) == [False]
    remember(cache, FULL, there=index(ONE))
    assert recall(cache, FULL, there=index(ONE)) == [True]


def test_a_file_in_use_fails_for_the_rest_of_the_run(
    cache: Cache, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    monkeypatch.setattr(sizefile, "_PATIENCE", 0.01)
    sizes = SizeFile(cache, FILESYSTEM, "maker")
    sizes.save({b"one": Length(1, 1)}, ())
    other = sqlite3.connect(path_of(cache), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    sizes.save({b"two": Length(2, 2)}, ())
    other.close()
    sizes.save({b"three": Length(3, 3)}, ())
    assert SizeFile(cache, FILESYSTEM, "maker").load() == {b"one": Length(1, 1)}
    assert len(told) == 1

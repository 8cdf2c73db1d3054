"""Sizes measured on real btrfs are remembered by the next run, and only while they hold."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from buttersink import Mode, Role, open_store, parse_location
from buttersink.catalogue import Diff
from buttersink.kernel import ioctl, subvolumes
from buttersink.stores import Cache
from tests.support.command import Completed, buttersink
from tests.support.history import History, make_history
from tests.support.loopfs import (
    MIB,
    btrfs,
    create_subvolume,
    delete_subvolume,
    run,
    snapshot,
    tmpfs,
)

if TYPE_CHECKING:
    from pathlib import Path

    from buttersink.stores import Store
    from tests.conftest import MakeFilesystem

pytestmark = pytest.mark.root


@dataclass(frozen=True, slots=True)
class Home:
    """A cache directory of its own for the runs of a test."""

    path: Path

    @property
    def environment(self) -> dict[str, str]:
        return {"XDG_CACHE_HOME": os.fspath(self.path)}

    @property
    def files(self) -> list[Path]:
        return sorted(self.path.rglob("*.sqlite"))

    def listing(self, location: Path) -> Any:  # noqa: ANN401  JSON
        done = buttersink("--json", f"{location}/", environment=self.environment)
        assert done.err == ""
        return done.document

    def plan(self, *arguments: str | Path) -> tuple[Any, str]:
        """Return the plan of a dry run, and what it says of measuring."""
        done = buttersink("-n", "-v", "--json", *arguments, environment=self.environment)
        return done.document["plan"], _measured(done)

    def sync(self, *arguments: str | Path) -> str:
        """Return what a run says of measuring."""
        done = buttersink("-v", *arguments, environment=self.environment)
        return _measured(done)

    def store(self, location: Path) -> Store:
        cache = Cache(os.fsencode(self.path / "buttersink"), writable=True)
        place = parse_location(f"{location}/".encode())
        store = open_store(place, Mode.READ, Role.SOURCE, cache)
        store.stream_version = store.traits.sends
        return store

    def known(self, location: Path) -> dict[bytes, bool]:
        """Return for the full send of each snapshot, by path, whether it is remembered."""
        with self.store(location) as store:
            paths = {each.uuid: each.path for each in store.catalogue().snapshots}
            found = store.measure([Diff(uuid, None) for uuid in paths])
            return {paths[each.diff.to]: each.remembered for each in found}


def _measured(done: Completed) -> str:
    (line,) = re.findall("^buttersink: (measured .*)", done.err, re.MULTILINE)
    return str(line)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def history(source: Path) -> History:
    history = make_history(source, seed=3, count=6, base_bytes=MIB, change_bytes=MIB // 8)
    settle(source)  # it has deleted what it rolled back
    return history


@pytest.fixture
def data(source: Path) -> Path:
    """Two snapshots of one subvolume with a file."""
    live = create_subvolume(source / "live")
    (live / "file").write_bytes(os.urandom(MIB))
    (source / "snaps").mkdir()
    for name in ("one", "two"):
        snapshot(live, source / "snaps" / name)
    return source / "snaps"


def sizes(document: Any) -> dict[str, int]:  # noqa: ANN401  JSON
    return {each["path"]: each["size"] for each in document["snapshots"]}


def sent_bytes(path: Path) -> int:
    version_2 = ("--proto", "2", "--compressed-data")
    return len(subprocess.check_output(["btrfs", "send", "--quiet", *version_2, path]))


def test_the_second_listing_measures_nothing_and_says_the_same(
    history: History, home: Home
) -> None:
    first = sizes(home.listing(history.directory))
    assert set(home.known(history.directory).values()) == {True}
    assert sizes(home.listing(history.directory)) == first


def test_a_plan_and_the_run_after_it_are_the_same_whether_measured_or_remembered(
    history: History, home: Home, destination: Path, make_filesystem: MakeFilesystem
) -> None:
    locations = f"{history.directory}/", destination
    measured, said = home.plan(*locations)
    count, candidates = re.findall(r"\d+", said)
    assert said == f"measured {count} of {candidates} candidate diffs"
    assert home.sync(*locations) == said
    other = make_filesystem("other").mountpoint
    remembered, said = home.plan(locations[0], other)
    assert said == f"measured 0 of {candidates} candidate diffs, {count} remembered"
    assert remembered == measured


def test_a_dry_run_reads_and_writes_nothing(data: Path, home: Home, destination: Path) -> None:
    home.plan(f"{data}/", destination)
    buttersink("-n", f"{data}/", environment=home.environment)
    assert not home.path.exists()
    home.listing(data)
    (file,) = home.files
    before = file.stat()
    _plan, said = home.plan(f"{data}/", destination)
    assert said.endswith(" remembered")
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert home.files == [file]


def test_nothing_is_written_where_nothing_is_measured(data: Path, home: Home) -> None:
    buttersink("-e", f"{data}/", environment=home.environment)
    buttersink(f"{data.parent}/live/", environment=home.environment)
    assert not home.path.exists()


def test_a_run_that_measures_nothing_does_not_load_the_database(data: Path, home: Home) -> None:
    environment = home.environment | {"PYTHONPROFILEIMPORTTIME": "1"}
    assert "sqlite3" not in buttersink("-e", f"{data}/", environment=environment).err
    assert "sqlite3" in buttersink(f"{data}/", environment=environment).err


def test_a_changed_snapshot_is_measured_anew(data: Path, home: Home) -> None:
    first = sizes(home.listing(data))
    changed = data / "one"
    fd = os.open(changed, os.O_RDONLY)
    try:
        ioctl.set_read_only(fd, read_only=False)
        (changed / "more").write_bytes(os.urandom(MIB))
        ioctl.set_read_only(fd, read_only=True)
    finally:
        os.close(fd)
    assert home.known(data) == {b"one": False, b"two": True}
    second = sizes(home.listing(data))
    assert second["one"] == sent_bytes(changed) > first["one"] + MIB
    assert second["two"] == first["two"]


def test_a_renamed_snapshot_is_measured_anew(data: Path, home: Home) -> None:
    """The stream begins with the name."""
    home.listing(data)
    (data / "one").rename(data / "another name")
    assert home.known(data) == {b"another name": False, b"two": True}
    assert sizes(home.listing(data))["another name"] == sent_bytes(data / "another name")


def test_file_systems_with_the_same_names_are_kept_apart(
    data: Path, home: Home, destination: Path
) -> None:
    snapshot(create_subvolume(destination / "live"), destination / "one")
    home.listing(data)
    assert home.known(destination) == {b"one": False}
    assert sizes(home.listing(destination))["one"] == sent_bytes(destination / "one")
    assert len(home.files) == 2


def settle(path: Path) -> None:
    """Return when what was deleted is gone."""
    btrfs("filesystem", "sync", path)
    btrfs("subvolume", "sync", path)


def test_nothing_is_remembered_while_what_was_deleted_is_cleared_away(
    data: Path, home: Home
) -> None:
    """Until then a send may have data where it could have references."""
    fd = os.open(data, os.O_RDONLY)
    try:
        assert not subvolumes.is_clearing(fd)
        delete_subvolume(snapshot(data.parent / "live", data / "three"))
        assert subvolumes.is_clearing(fd)
        home.listing(data)
        assert home.files == []
        settle(data)
        assert not subvolumes.is_clearing(fd)
    finally:
        os.close(fd)
    home.listing(data)
    assert set(home.known(data).values()) == {True}


def test_what_is_known_of_deleted_snapshots_goes(data: Path, home: Home) -> None:
    home.listing(data)
    delete_subvolume(data / "one")
    settle(data)
    snapshot(data.parent / "live", data / "three")
    home.listing(data)
    (file,) = home.files
    with closing(sqlite3.connect(file)) as database:
        assert database.execute("SELECT count(*) FROM sizes").fetchone() == (2,)


def test_runs_at_the_same_time_do_not_disturb_each_other(history: History, home: Home) -> None:
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(home.listing, [history.directory] * 4))
    assert all(sizes(each) == sizes(found[0]) for each in found)
    assert set(home.known(history.directory).values()) == {True}


def test_what_was_measured_before_an_interruption_is_kept(history: History, home: Home) -> None:
    with home.store(history.directory) as store:
        uuids = [each.uuid for each in store.catalogue().snapshots]
        next(store.measure([Diff(uuid, None) for uuid in uuids]))
    assert list(home.known(history.directory).values()).count(True) >= 1


@pytest.mark.parametrize("options", ["ro", "size=4k"], ids=["read-only", "full"])
def test_a_cache_that_cannot_be_written_changes_nothing(
    data: Path, home: Home, tmp_path: Path, options: str
) -> None:
    expected = sizes(home.listing(data))
    home = Home(tmp_path / "tmpfs")
    home.path.mkdir()
    with tmpfs(home.path):
        run("mount", "-o", f"remount,{options}", home.path)
        assert sizes(home.listing(data)) == expected
        said = buttersink("-vv", f"{data}/", environment=home.environment).err
        assert re.fullmatch(r"buttersink: debug: cannot use \S+: .*\n", said)


@pytest.mark.parametrize("damage", [b"damaged" * 1000, b""], ids=["damaged", "empty"])
def test_a_damaged_cache_is_begun_anew(data: Path, home: Home, damage: bytes) -> None:
    expected = sizes(home.listing(data))
    (file,) = home.files
    file.write_bytes(damage)
    assert sizes(home.listing(data)) == expected
    assert home.known(data) == {b"one": True, b"two": True}


@pytest.mark.parametrize(
    ("environment", "where"),
    [
        ({"XDG_CACHE_HOME": "{home}/xdg", "HOME": "{home}"}, "xdg/buttersink"),
        ({"XDG_CACHE_HOME": "relative", "HOME": "{home}"}, ".cache/buttersink"),
        ({"XDG_CACHE_HOME": "", "HOME": "{home}"}, ".cache/buttersink"),
        ({"XDG_CACHE_HOME": "", "HOME": ""}, None),
        ({"XDG_CACHE_HOME": "relative", "HOME": "relative"}, None),
    ],
)
def test_the_place_is_that_of_the_xdg_specification(
    data: Path, home: Home, environment: dict[str, str], where: str | None
) -> None:
    home.path.mkdir()
    buttersink(
        f"{data}/",
        environment={name: text.format(home=home.path) for name, text in environment.items()},
    )
    places = [file.parent for file in home.files]
    assert places == ([home.path / where] if where else [])

"""What happens to a destination: partials, conflicts, deletions, a full disk, a lock."""

from __future__ import annotations

import fcntl
import os
import subprocess
import uuid
from typing import TYPE_CHECKING

import pytest

from tests.support.command import assert_same, buttersink, listing, paths
from tests.support.loopfs import MIB, btrfs, create_subvolume, show_subvolume, snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeFilesystem

pytestmark = pytest.mark.root


@pytest.fixture
def snaps(source: Path) -> Path:
    """Three snapshots in a directory of the source."""
    live = create_subvolume(source / "live")
    directory = source / "snaps"
    directory.mkdir()
    for number in (1, 2, 3):
        (live / f"file{number}").write_bytes(os.urandom(MIB))
        snapshot(live, directory / f"s{number}")
    return directory


def partial_name(snapshot: Path) -> str:
    return f".buttersink-{uuid.UUID(bytes=show_subvolume(snapshot).uuid)}.part"


def make_partial(place: Path, snapshot_path: Path, *, finished: bool) -> Path:
    """Leave what a run killed before (or after) the end of its stream leaves."""
    place.mkdir(exist_ok=True)
    if not finished:
        partial = create_subvolume(place / partial_name(snapshot_path))
        (partial / "half").write_bytes(b"half a file")
        return partial
    subprocess.run(
        f"btrfs send -q '{snapshot_path}' | btrfs receive -q '{place}'", shell=True, check=True
    )
    return (place / snapshot_path.name).rename(place / partial_name(snapshot_path))


@pytest.mark.parametrize("finished", [False, True])
def test_a_partial_is_listed_apart_and_is_no_snapshot(
    snaps: Path, destination: Path, *, finished: bool
) -> None:
    partial = make_partial(destination / "in", snaps / "s1", finished=finished)
    document = listing(destination / "in")
    assert document["snapshots"] == []
    assert [each["path"] for each in document["partials"]] == [partial.name]
    assert "artial" in buttersink(f"{destination}/in/").out


@pytest.mark.parametrize("finished", [False, True])
def test_a_partial_does_not_stop_its_snapshot_from_arriving(
    snaps: Path, destination: Path, *, finished: bool
) -> None:
    make_partial(destination / "in", snaps / "s1", finished=finished)
    buttersink(f"{snaps}/", destination / "in")
    assert sorted(os.listdir(destination / "in")) == ["s1", "s2", "s3"]
    for name in ("s1", "s2", "s3"):
        assert_same(snaps / name, destination / "in" / name)


def test_a_finished_partial_elsewhere_is_neither_copied_nor_a_parent(
    snaps: Path, destination: Path
) -> None:
    make_partial(destination / "other", snaps / "s1", finished=True)
    document = buttersink("--json", f"{snaps}/", destination / "in").document
    assert {step["action"] for step in document["plan"]["steps"]} == {"send"}
    assert sum(step["from"] is None for step in document["plan"]["steps"]) == 1
    for name in ("s1", "s2", "s3"):
        assert_same(snaps / name, destination / "in" / name)


@pytest.mark.parametrize("finished", [False, True])
def test_partials_go_with_delete(snaps: Path, destination: Path, *, finished: bool) -> None:
    stale = make_partial(destination / "in", snaps / "s1", finished=finished)
    btrfs("subvolume", "delete", snaps / "s1")
    buttersink("-n", "--delete", f"{destination}/in/")
    assert stale.exists()
    out = buttersink("--delete", f"{destination}/in/")
    assert not stale.exists()
    assert stale.name in out.err + out.out
    stale = make_partial(destination / "in", snaps / "s2", finished=finished)
    buttersink("--delete", f"{snaps}/", destination / "in")
    assert not stale.exists()
    assert paths(destination / "in") == ["s2", "s3"]


def test_delete_removes_what_the_source_does_not_have_and_nothing_else(
    snaps: Path, destination: Path
) -> None:
    place = destination / "in"
    buttersink(f"{snaps}/", place)
    snapshot(place / "s1", place / "writable", read_only=False)
    (place / "file").touch()
    (place / "directory").mkdir()
    snapshot(place / "s1", destination / "twin outside")
    snapshot(place / "writable", destination / "own outside")
    snapshot(place / "writable", place / "own inside")
    for name in ("s1", "s2"):
        btrfs("subvolume", "delete", snaps / name)
    planned = buttersink("-n", "--json", "-d", f"{snaps}/", place).document["plan"]["steps"]
    doomed = sorted(step["path"] for step in planned if step["action"] == "delete")
    assert doomed == ["own inside", "s1", "s2"]
    assert "s1" in os.listdir(place)
    done = buttersink("-d", f"{snaps}/", place)
    for name in doomed:
        assert name in done.out
        assert name in done.err
    assert sorted(os.listdir(place)) == ["directory", "file", "s3", "writable"]
    assert sorted(os.listdir(destination)) == ["in", "own outside", "twin outside"]
    assert "Nothing to do" in buttersink("-d", f"{snaps}/", place).out


def test_delete_in_sync_changes_nothing(snaps: Path, destination: Path) -> None:
    buttersink(f"{snaps}/", destination)
    snapshot(destination / "s1", destination / "twin")
    buttersink("-d", f"{snaps}/", destination)
    assert sorted(os.listdir(destination)) == ["s1", "s2", "s3", "twin"]


def test_delete_with_an_empty_source_is_refused(
    snaps: Path, source: Path, destination: Path
) -> None:
    buttersink(f"{snaps}/", destination)
    (source / "empty").mkdir()
    done = buttersink("-d", f"{source}/empty/", destination, status=1)
    assert "refusing to delete everything" in done.err
    assert paths(destination) == ["s1", "s2", "s3"]


def test_excluded_snapshots_are_neither_sent_nor_deleted(snaps: Path, destination: Path) -> None:
    buttersink(f"{snaps}/", destination)
    btrfs("subvolume", "delete", snaps / "s1")
    btrfs("subvolume", "delete", destination / "s2")
    buttersink("-d", "--exclude", "^s[12]$", f"{snaps}/", destination)
    assert paths(destination) == ["s1", "s3"]
    assert [
        s["path"]
        for s in buttersink("--json", "-e", "--exclude", "s1", f"{destination}/").document[
            "snapshots"
        ]
    ] == ["s3"]


def test_a_taken_path_is_an_error_and_the_rest_is_done(snaps: Path, destination: Path) -> None:
    (destination / "s2").mkdir()
    (destination / "s2" / "file").touch()
    done = buttersink("--json", f"{snaps}/", destination, status=1)
    status = {step["path"]: step["status"] for step in done.document["result"]["steps"]}
    assert status["s2"] == "failed"
    assert "s2: something else has this name" in done.err
    assert (destination / "s2" / "file").exists()
    assert set(os.listdir(destination)) - {"s1", "s3"} == {"s2"}
    (destination / "s2" / "file").unlink()
    (destination / "s2").rmdir()
    buttersink(f"{snaps}/", destination)
    assert paths(destination) == ["s1", "s2", "s3"]


def test_another_snapshot_at_the_path_stays_unless_delete_replaces_it(
    snaps: Path, destination: Path
) -> None:
    live = create_subvolume(destination / "live")
    snapshot(live, destination / "s2")
    before = show_subvolume(destination / "s2").uuid
    done = buttersink(f"{snaps}/", destination, status=1)
    assert "has this path at the destination" in done.err
    assert show_subvolume(destination / "s2").uuid == before
    buttersink("-d", f"{snaps}/", destination)
    assert_same(snaps / "s2", destination / "s2")
    assert sorted(os.listdir(destination)) == ["live", "s1", "s2", "s3"]


def test_a_replaced_parent_with_a_copy_is_found_in_the_copy(
    source: Path, destination: Path
) -> None:
    live = create_subvolume(source / "live")
    (live / "data").write_bytes(os.urandom(MIB))
    (source / "out").mkdir()
    (source / "in").mkdir()
    snapshot(live, source / "out" / "p")
    buttersink(source / "out" / "p", destination)
    snapshot(destination / "p", destination / "z")
    (live / "more").write_bytes(os.urandom(1000))
    snapshot(live, source / "in" / "p")
    (live / "again").write_bytes(os.urandom(1000))
    snapshot(live, source / "in" / "q")
    buttersink("-d", f"{source}/in/", destination)
    assert paths(destination) == ["p", "q"]
    assert_same(source / "in" / "p", destination / "p")
    assert_same(source / "in" / "q", destination / "q")


def test_nothing_is_deleted_after_a_failure(snaps: Path, destination: Path) -> None:
    buttersink(f"{snaps}/", destination)
    btrfs("subvolume", "delete", snaps / "s1")
    btrfs("subvolume", "delete", destination / "s2")
    (destination / "s2").mkdir()
    done = buttersink("-d", f"{snaps}/", destination, status=1)
    assert "Nothing is deleted" in done.err
    assert paths(destination) == ["s1", "s3"]


def test_a_link_on_the_way_is_not_followed(source: Path, destination: Path) -> None:
    live = create_subvolume(source / "live")
    (source / "snaps" / "dir").mkdir(parents=True)
    snapshot(live, source / "snaps" / "dir" / "s1")
    (destination / "elsewhere").mkdir()
    (destination / "in").mkdir()
    (destination / "in" / "dir").symlink_to(destination / "elsewhere")
    done = buttersink(f"{source}/snaps/", destination / "in", status=1)
    assert "in the way" in done.err
    assert os.listdir(destination / "elsewhere") == []


def test_a_full_destination_is_named_and_left_clean(
    source: Path, make_filesystem: MakeFilesystem
) -> None:
    small = make_filesystem("small", size_bytes=128 * MIB).mountpoint
    live = create_subvolume(source / "live")
    (live / "big").write_bytes(os.urandom(200 * MIB))
    (source / "snaps").mkdir()
    snapshot(live, source / "snaps" / "big")
    done = buttersink("--json", f"{source}/snaps/", small, status=1)
    (error,) = [line for line in done.err.splitlines() if "error:" in line]
    assert str(small) in error
    assert f"{done.document['plan']['steps'][0]['size']:,} bytes" in error
    assert "No space left on device" in error
    assert os.listdir(small) == []
    buttersink(f"{source}/snaps/", small, status=1)
    assert paths(small) == []


def test_a_second_run_is_locked_out(snaps: Path, destination: Path) -> None:
    fd = os.open(destination, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        done = buttersink(f"{snaps}/", destination, status=3)
        assert f"another run of buttersink is writing to it: process {os.getpid()}" in done.err
        buttersink("-n", f"{snaps}/", destination)
        buttersink(f"{destination}/")
    finally:
        os.close(fd)


def test_a_read_only_mount_is_not_written_to(snaps: Path, destination: Path) -> None:
    subprocess.run(["mount", "-o", "remount,bind,ro", destination], check=True)
    try:
        done = buttersink(f"{snaps}/", destination, status=1)
        assert "read-only" in done.err
        buttersink("-n", f"{snaps}/", destination)
    finally:
        subprocess.run(["mount", "-o", "remount,bind,rw", destination], check=True)
    assert os.listdir(destination) == []


def test_what_the_processes_say_reaches_the_message(
    snaps: Path, destination: Path, tmp_path: Path
) -> None:
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "btrfs").write_text("#!/bin/sh\nhead -c 100000 >/dev/null\necho no luck >&2\nexit 7\n")
    (fake / "btrfs").chmod(0o755)
    path = {"PATH": f"{fake}:{os.environ['PATH']}"}
    done = buttersink(f"{snaps}/", destination, status=1, environment=path)
    assert "btrfs receive failed" in done.err
    assert "exit status 7: no luck" in done.err
    assert os.listdir(destination) == []


def test_btrfs_progs_missing_is_said(snaps: Path, destination: Path, tmp_path: Path) -> None:
    done = buttersink(f"{snaps}/", destination, status=1, environment={"PATH": str(tmp_path)})
    assert "Install btrfs-progs" in done.err
    assert os.listdir(destination) == []


def test_a_failed_send_is_named(snaps: Path, destination: Path, source: Path) -> None:
    data = snaps / "s1" / "file1"
    size = os.stat(data).st_size
    assert size
    extent = subprocess.check_output(["filefrag", "-v", data], text=True).splitlines()[3]
    physical = int(extent.split()[3].rstrip(".").rstrip(":").split("..")[0]) * 4096
    mapping = subprocess.run(
        ["btrfs-map-logical", "-l", str(physical), source.parent / "source.img"],
        capture_output=True,
        check=False,
        text=True,
    )
    assert mapping.returncode == 0
    btrfs("filesystem", "sync", source)
    with (source.parent / "source.img").open("r+b") as image:
        for line in mapping.stdout.splitlines():
            image.seek(int(line.split("physical ")[1].split()[0]))
            image.write(os.urandom(4096))
    subprocess.run(["sync"], check=True)
    with open("/proc/sys/vm/drop_caches", "w") as caches:
        caches.write("3")
    done = buttersink("--json", f"{snaps}/", destination, status=1)
    assert "btrfs send failed" in done.err
    assert "Input/output error" in done.err
    assert paths(destination) == []

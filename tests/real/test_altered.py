"""A received snapshot that was changed afterwards is not what its received UUID says."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from buttersink import Mode, Role, open_store, parse_location
from buttersink.catalogue import Diff, uuid_text
from buttersink.kernel import ioctl, subvolumes
from tests.support.command import assert_same, buttersink, listing, paths
from tests.support.fakessh import fake_ssh
from tests.support.history import History, make_history
from tests.support.loopfs import MIB, send_and_receive, show_subvolume, sync_filesystem

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root


@pytest.fixture
def history(source: Path) -> History:
    return make_history(source, seed=12, count=3, base_bytes=2 * MIB, change_bytes=MIB)


def alter(path: Path) -> None:
    """Change a snapshot by the kernel's call, which leaves its UUIDs."""
    fd = os.open(path, os.O_RDONLY)
    try:
        ioctl.set_read_only(fd, read_only=False)
        (path / "more").write_bytes(b"more")
        ioctl.set_read_only(fd, read_only=True)
    finally:
        os.close(fd)
    sync_filesystem(path)


def altered(directory: Path) -> list[bytes]:
    fd = os.open(directory, os.O_RDONLY)
    try:
        return [each.path for each in subvolumes.list_subvolumes(fd) if each.altered]
    finally:
        os.close(fd)


def test_nothing_that_came_is_taken_for_it(history: History, destination: Path) -> None:
    buttersink(f"{history.directory}/", destination)
    (destination / "theirs").mkdir()
    send_and_receive(history.snapshots[0].path, destination / "theirs")
    sync_filesystem(destination)
    assert altered(destination) == []
    done = buttersink("--json", f"{history.directory}/", destination)
    assert {step["action"] for step in done.document["plan"]["steps"]} == {"keep"}


def test_no_parent_and_not_the_snapshot(history: History, destination: Path) -> None:
    buttersink("--exclude", "^0002$", f"{history.directory}/", destination)
    alter(destination / "0001")
    done = buttersink("-e", f"{history.directory}/", destination, status=1)
    assert "note: 0001 was changed after it was received" in done.err
    assert "0001: snapshot " in done.err
    assert "has this path at the destination; --delete replaces it" in done.err
    assert_same(history.snapshots[2].path, destination / "0002")
    assert (destination / "0001" / "more").exists()
    buttersink("-e", "--delete", f"{history.directory}/", destination)
    for made in history.snapshots:
        assert_same(made.path, destination / made.path.name)
        here, there = show_subvolume(made.path), show_subvolume(destination / made.path.name)
        assert here.effective_uuid == there.effective_uuid


def test_as_a_source_it_is_what_it_is_now(
    history: History, destination: Path, source: Path
) -> None:
    buttersink(f"{history.directory}/", destination)
    alter(destination / "0001")
    (source / "back").mkdir()
    done = buttersink(f"{destination}/", source / "back")
    assert "note: 0001 was changed after it was received" in done.err
    assert paths(source / "back") == ["0000", "0001", "0002"]
    for path in paths(destination):
        assert_same(destination / path, source / "back" / path)
    altered_uuid = show_subvolume(destination / "0001").uuid
    assert show_subvolume(source / "back" / "0001").received_uuid == altered_uuid


def test_it_is_not_sent_from_what_the_kernel_calls_the_same(
    history: History, destination: Path
) -> None:
    """Nobody could tell then which of the two the stream clones from."""
    buttersink(f"{history.directory}/", destination)
    alter(destination / "0001")
    (destination / "again").mkdir()
    buttersink(f"{history.directory}/", destination / "again")
    with open_store(parse_location(f"{destination}/".encode()), Mode.READ, Role.SOURCE) as store:
        uuids = {each.path: each.uuid for each in store.catalogue().snapshots}
        changed, other = uuids[b"0001"], uuids[b"again/0001"]
        both = [Diff(changed, other), Diff(other, changed)]
        assert all("calls both the same" in each.problem for each in store.measure(both))
        (alone,) = store.measure([Diff(changed, uuids[b"0000"])])
        assert not alone.problem


@pytest.mark.parametrize("far", [False, True])
def test_a_listing_tells(history: History, destination: Path, tmp_path: Path, *, far: bool) -> None:
    buttersink(f"{history.directory}/", destination)
    alter(destination / "0001")
    place = f"ssh://host{destination}/" if far else f"{destination}/"
    done = buttersink("-e", place, environment=fake_ssh(tmp_path / "bin"))
    assert "note: 0001 was changed after it was received" in done.err
    uuids = {each["path"]: each["uuid"] for each in listing(destination)["snapshots"]}
    assert uuids["0001"] == uuid_text(show_subvolume(destination / "0001").uuid)

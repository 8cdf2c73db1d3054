"""Effective UUIDs survive every hop, and the right parent is found whatever else is there."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.support.command import assert_copied, assert_same, buttersink, listing
from tests.support.history import make_history
from tests.support.loopfs import MIB, create_subvolume, run, show_subvolume, snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeFilesystem

pytestmark = pytest.mark.root


def sends(document: dict[str, dict[str, list[dict[str, str]]]]) -> dict[str, str]:
    """Return what is sent: path to path it is made from."""
    return {s["path"]: s["from_path"] for s in document["plan"]["steps"] if s["action"] == "send"}


def uuids(location: Path) -> dict[str, str]:
    return {each["path"]: each["uuid"] for each in listing(location)["snapshots"]}


def edit(live: Path, number: int) -> None:
    """Change a subvolume so that its next difference has data, a clone of older data, a rename."""
    (live / f"new{number}").write_bytes(os.urandom(300_000))
    run("cp", "--reflink=always", live / "data", live / f"clone{number}")
    with (live / "data").open("r+b") as data:
        data.seek(65536 * number)
        data.write(os.urandom(65536))
    os.rename(live / "name", live / "other")
    os.rename(live / "other", live / "name")


def make_live(place: Path) -> Path:
    live = create_subvolume(place / "live")
    (live / "data").write_bytes(os.urandom(4 * MIB))
    (live / "name").write_bytes(b"x" * 100)
    return live


def test_a_history_goes_round_three_places_and_on_incrementally_everywhere(
    make_filesystem: MakeFilesystem,
) -> None:
    a, b, c = (make_filesystem(name).mountpoint for name in "abc")
    live = make_live(a)
    (a / "snaps").mkdir()
    for number in (1, 2):
        edit(live, number)
        snapshot(live, a / "snaps" / f"s{number}")
    for source, destination in ((a / "snaps", b), (b, c)):
        buttersink(f"{source}/", destination)
        assert uuids(destination) == uuids(a / "snaps")

    continued = snapshot(c / "s2", c / "continued", read_only=False)
    edit(continued, 3)
    snapshot(continued, c / "s3")
    back = buttersink("--json", f"{c}/", a / "snaps").document
    assert sends(back) == {"s3": "s2"}
    assert_same(c / "s3", a / "snaps" / "s3")

    edit(live, 4)
    snapshot(live, a / "snaps" / "s4")
    for source, destination in ((a / "snaps", b), (a / "snaps", c), (b, c), (c, a / "snaps")):
        document = buttersink("--json", f"{source}/", destination).document
        assert None not in sends(document).values()
        assert {s["status"] for s in document["result"]["steps"]} <= {"done"}
    for place in (b, c):
        assert uuids(place) == uuids(a / "snaps")
        for name in ("s1", "s2", "s3", "s4"):
            assert_same(a / "snaps" / name, place / name)


def test_back_to_the_original_with_clones_of_the_parent(source: Path, destination: Path) -> None:
    live = make_live(source)
    snapshot(live, source / "s1")
    buttersink(f"{source}/", destination)
    there = snapshot(destination / "s1", destination / "live", read_only=False)
    edit(there, 1)
    os.rename(there / "data", there / "moved")
    run("cp", "--reflink=always", there / "moved", there / "twice")
    snapshot(there, destination / "s2")
    document = buttersink("--json", f"{destination}/", source).document
    assert sends(document) == {"s2": "s1"}
    assert_same(destination / "s2", source / "s2")
    assert show_subvolume(source / "s2").parent_uuid == show_subvolume(source / "s1").uuid
    assert sorted(os.listdir(source)) == ["live", "s1", "s2"]


def test_a_second_subvolume_with_the_parents_uuid_does_not_confuse(
    source: Path, destination: Path
) -> None:
    live = make_live(source)
    (source / "snaps").mkdir()
    snapshot(live, source / "snaps" / "s1")
    (destination / "in").mkdir()
    buttersink(f"{source}/snaps/", destination / "first")
    snapshot(destination / "first" / "s1", destination / "in" / "s1")
    edit(live, 1)
    run("cp", "--reflink=always", live / "data", live / "again")
    snapshot(live, source / "snaps" / "s2")
    buttersink(f"{source}/snaps/", destination / "in")
    assert_same(source / "snaps" / "s2", destination / "in" / "s2")
    parent = show_subvolume(destination / "in" / "s2").parent_uuid
    assert parent == show_subvolume(destination / "in" / "s1").uuid


def test_a_snapshot_elsewhere_on_the_destination_is_copied_not_sent(
    source: Path, destination: Path
) -> None:
    live = make_live(source)
    (source / "snaps").mkdir()
    snapshot(live, source / "snaps" / "s1")
    buttersink(f"{source}/snaps/", destination / "elsewhere")
    document = buttersink("--json", f"{source}/snaps/", destination / "here").document
    assert [step["action"] for step in document["plan"]["steps"]] == ["copy"]
    assert document["result"]["sent_bytes"] == 0
    assert uuids(destination / "here") == uuids(source / "snaps")
    assert_same(source / "snaps" / "s1", destination / "here" / "s1")
    assert show_subvolume(destination / "here" / "s1").read_only


def test_an_original_elsewhere_on_the_same_file_system_is_copied_with_its_uuid(
    source: Path,
) -> None:
    live = make_live(source)
    (source / "snaps").mkdir()
    snapshot(live, source / "snaps" / "s1")
    done = buttersink(f"{source}/snaps/", source / "backup")
    assert "no backup" in done.err
    assert uuids(source / "backup") == uuids(source / "snaps")
    assert_same(source / "snaps" / "s1", source / "backup" / "s1")


def test_what_is_outside_at_both_ends_serves_as_parent(source: Path, destination: Path) -> None:
    live = make_live(source)
    for name in ("old", "new"):
        (source / name).mkdir()
    snapshot(live, source / "old" / "s1")
    buttersink(f"{source}/old/", destination / "old")
    edit(live, 1)
    snapshot(live, source / "new" / "s2")
    document = buttersink("--json", f"{source}/new/", destination / "new").document
    assert sends(document) == {"s2": "old/s1"}
    assert_same(source / "new" / "s2", destination / "new" / "s2")


def test_setuid_survives_a_change_of_owner(source: Path, destination: Path) -> None:
    live = make_live(source)
    for name in ("program", "gone", "plain"):
        (live / name).write_bytes(b"#!/bin/sh\n")
        os.chmod(live / name, 0o644 if name == "plain" else 0o6755)
    snapshot(live, source / "s1")
    os.rename(live / "gone", live / "renamed")
    for name in ("program", "renamed", "plain"):
        os.chown(live / name, 1000, 100)
        os.chmod(live / name, 0o644 if name == "plain" else 0o6755)
    snapshot(live, source / "s2")
    document = buttersink("--json", f"{source}/", destination).document
    assert document["result"]["sent_bytes"] == document["plan"]["send_bytes"]
    assert_same(source / "s2", destination / "s2")


def test_a_whole_history_comes_back_to_an_empty_place(
    source: Path, destination: Path, make_filesystem: MakeFilesystem
) -> None:
    history = make_history(source, seed=5, count=7, base_bytes=6 * MIB, change_bytes=MIB)
    third = make_filesystem("third").mountpoint
    buttersink(f"{history.directory}/", destination)
    buttersink(f"{destination}/", third)
    for made in history.snapshots:
        assert_same(made.path, third / made.path.name)
    assert uuids(third) == uuids(history.directory)


def test_setuid_survives_a_change_of_owner_while_directories_move(
    source: Path, destination: Path
) -> None:
    """The kernel names the file in the middle by a path that neither snapshot has."""
    live = create_subvolume(source / "live")
    above, below = live / "above", live / "above" / "below"
    above.mkdir()
    (live / "program").touch()  # numbered before the directory that it goes into
    below.mkdir()
    (live / "program").rename(below / "program")
    (below / "program").chmod(0o4755)
    (source / "snaps").mkdir()
    snapshot(live, source / "snaps" / "one")
    below.rename(above / "deep")
    above.rename(live / "high")
    os.chown(live / "high" / "deep" / "program", 1, 1)
    (live / "high" / "deep" / "program").chmod(0o4755)
    snapshot(live, source / "snaps" / "two")
    document = buttersink("--json", f"{source}/snaps/", destination).document
    assert document["result"]["sent_bytes"] == document["plan"]["send_bytes"]
    assert_copied(source / "snaps", destination)

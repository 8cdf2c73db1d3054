"""Destinations in every layout of mounts, other tools' layouts of snapshots, names of all kinds."""

from __future__ import annotations

import os
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from buttersink.kernel.ioctl import filesystem_id
from buttersink.kernel.mounts import device_of, mount_of
from tests.support.command import assert_same, buttersink, paths
from tests.support.history import HOSTILE_NAMES, make_history
from tests.support.loopfs import (
    MIB,
    bound,
    create_subvolume,
    default_subvolume,
    mounted,
    snapshot,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.history import History

pytestmark = pytest.mark.root


@pytest.fixture
def history(source: Path) -> History:
    return make_history(source, seed=3, count=4, base_bytes=2 * MIB, change_bytes=MIB // 4)


def subvolume_mount(stack: ExitStack, top: Path, at: Path) -> Path:
    create_subvolume(top / "@")
    return stack.enter_context(mounted(top.parent / "destination.img", at, options=["subvol=@"]))


def bind_of_a_directory(stack: ExitStack, top: Path, at: Path) -> Path:
    (top / "dir").mkdir()
    return stack.enter_context(bound(top / "dir", at))


def bind_in_a_subvolume_mount(stack: ExitStack, top: Path, at: Path) -> Path:
    root = subvolume_mount(stack, top, at)
    (root / "dir" / "deep").mkdir(parents=True)
    return stack.enter_context(bound(root / "dir" / "deep", at.with_name("bind")))


def mounted_twice(stack: ExitStack, top: Path, at: Path) -> Path:
    return stack.enter_context(mounted(top.parent / "destination.img", at))


def other_default_subvolume(stack: ExitStack, top: Path, at: Path) -> Path:
    stack.enter_context(default_subvolume(create_subvolume(top / "default")))
    return stack.enter_context(mounted(top.parent / "destination.img", at))


def name_with_blanks(stack: ExitStack, top: Path, at: Path) -> Path:
    odd = at.with_name("a b\n\\c")
    return stack.enter_context(mounted(top.parent / "destination.img", odd))


@pytest.mark.parametrize(
    "layout",
    [
        subvolume_mount,
        bind_of_a_directory,
        bind_in_a_subvolume_mount,
        mounted_twice,
        other_default_subvolume,
        name_with_blanks,
    ],
)
def test_increments_arrive_in_every_layout(
    layout: Callable[[ExitStack, Path, Path], Path],
    history: History,
    destination: Path,
    tmp_path: Path,
) -> None:
    with ExitStack() as stack:
        place = layout(stack, destination, tmp_path / "layout")
        buttersink(f"{history.directory}/", place / "in")
        for made in history.snapshots:
            assert_same(made.path, place / "in" / made.path.name)


def test_a_device_by_a_name_that_is_gone_is_found_by_the_file_system(destination: Path) -> None:
    fd = os.open(destination, os.O_RDONLY)
    try:
        mount, filesystem = mount_of(fd), filesystem_id(fd)
    finally:
        os.close(fd)
    assert device_of(mount, filesystem) == mount.device
    assert device_of(mount._replace(device=b"/dev/root-of-old"), filesystem) == mount.device


def test_a_parent_in_another_subvolume_than_the_mounted_one_is_reached(
    history: History, destination: Path, tmp_path: Path
) -> None:
    first, *_rest, last = history.snapshots
    buttersink(first.path, destination / "outside")
    create_subvolume(destination / "@")
    with mounted(
        destination.parent / "destination.img", tmp_path / "at", options=["subvol=@"]
    ) as at:
        document = buttersink("--json", last.path, at).document
        assert document["plan"]["steps"][0]["from_path"] is not None
        assert_same(last.path, at / last.path.name)


def test_a_source_in_a_subvolume_mount_sends_from_a_parent_outside_of_it(
    source: Path, destination: Path, tmp_path: Path
) -> None:
    live = create_subvolume(source / "live")
    (live / "data").write_bytes(os.urandom(MIB))
    snapshot(live, source / "s1")
    buttersink(f"{source}/", destination)
    snaps = create_subvolume(source / "@snaps")
    (live / "more").write_bytes(os.urandom(1000))
    snapshot(live, snaps / "s2")
    with mounted(source.parent / "source.img", tmp_path / "at", options=["subvol=@snaps"]) as at:
        document = buttersink("--json", f"{at}/", destination).document
        assert document["plan"]["send_bytes"] < MIB // 2
    assert_same(snaps / "s2", destination / "s2")


def test_other_tools_snapshots_are_taken_as_they_lie(source: Path, destination: Path) -> None:
    home, root = create_subvolume(source / "home"), create_subvolume(source / "root")
    snaps = source / "snaps"
    for number, live in enumerate((home, root, home, root), start=1):
        (live / f"file{number}").write_bytes(os.urandom(10_000))
        (snaps / str(number)).mkdir(parents=True)
        snapshot(live, snaps / str(number) / "snapshot")
        (snaps / str(number) / "info.xml").touch()
        snapshot(live, snaps / f"{live.name}.2026112{number}T0000")
    buttersink(f"{snaps}/", destination)
    assert paths(destination) == paths(snaps)
    assert not (destination / "1" / "info.xml").exists()
    for path in paths(snaps):
        assert_same(snaps / path, destination / path)


def test_a_snapshot_inside_a_snapshot_is_told_apart_before_anything_is_sent(
    source: Path, destination: Path
) -> None:
    outer = create_subvolume(source / "outer")
    snapshot(outer, outer / "inner")
    subprocess.run(["btrfs", "property", "set", "-ts", outer, "ro", "true"], check=True)
    done = buttersink(f"{source}/", destination, status=1)
    assert "inside the read-only snapshot outer" in done.err
    assert paths(destination) == ["outer"]


def test_hostile_names_arrive(source: Path, destination: Path) -> None:
    live = create_subvolume(source / "live")
    (live / "data").write_bytes(os.urandom(10_000))
    (source / "snaps").mkdir()
    for name in HOSTILE_NAMES:
        (source / "snaps" / os.fsdecode(name[:200])).mkdir()
        snapshot(live, source / "snaps" / os.fsdecode(name[:200]) / os.fsdecode(name))
    buttersink(f"{source}/snaps/", destination)
    assert paths(destination) == paths(source / "snaps")
    for name in HOSTILE_NAMES:
        path = os.path.join(os.fsdecode(name[:200]), os.fsdecode(name))
        assert_same(source / "snaps" / path, destination / path)


def test_a_relative_location_with_a_leading_dash_works(source: Path, destination: Path) -> None:
    live = create_subvolume(source / "live")
    (source / "-d").mkdir()
    snapshot(live, source / "-d" / "-n")
    done = subprocess.run(["btrfs", "--version"], cwd=source, capture_output=True, check=True)
    assert done.returncode == 0
    buttersink("--", f"{source}/-d/", destination)
    assert paths(destination) == ["-n"]
